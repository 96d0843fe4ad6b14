"""docs/web-page.png: the page at work, as a browser shows it. Needs Chromium, its driver and the extras serve and dev.

    python scripts/web_page.py

Starts `reallm serve`, opens the page in headless Chromium with examples/demo.opus as its microphone, listens until the
fifth sentence begins, and takes the picture. Run it on a machine that has nothing else to do: the picture shows the
delay of every word.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import soundfile

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "web-page.png"
WIDTH, HEIGHT, SCALE = 1060, 760, 1.5
WORDS = 58

sys.path.insert(0, str(ROOT / "tests" / "web"))
from browser import DEMO, chromium  # noqa: E402


def main() -> None:
    command = [sys.executable, "-m", "speech_reallm", "serve", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert server.stderr is not None
    try:
        log = ""
        while not (port := re.search(r'"?port"?\W+(\d+)', log)):
            line = server.stderr.readline()
            if not line:
                raise SystemExit(f"the server ended:\n{log}")
            log += line
        # its log must not fill the pipe
        threading.Thread(target=server.stderr.read, daemon=True).start()
        with tempfile.TemporaryDirectory() as folder:
            take(f"http://localhost:{port[1]}/", Path(folder))
    finally:
        server.terminate()
        server.wait(60)
    print(f"{OUT.relative_to(ROOT)}: {OUT.stat().st_size / 1024:.0f} KB")


def take(url: str, folder: Path) -> None:
    microphone = folder / "microphone.wav"
    audio, rate = soundfile.read(DEMO, dtype="int16")
    soundfile.write(microphone, audio, rate, subtype="PCM_16")
    with chromium(folder / "browser", microphone) as page:
        page.open(url)
        metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": SCALE, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        page.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        # by script: a pointer on the page might come to lie on a word, which would show its time
        press = "document.getElementById('listen').click()"
        page.js(press)
        page.until(lambda: len(page.words) > WORDS)
        page.driver.save_screenshot(str(OUT))
        page.js(press)
        page.until(page.idle)


if __name__ == "__main__":
    main()
