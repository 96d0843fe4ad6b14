"""A headless Chromium for tests, with a recording as its microphone, and what tests do with a page."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_server import PATIENCE

DEMO = Path(__file__).parents[2] / "examples/demo.opus"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--mute-audio",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--lang=en",
    "--window-size=1000,800",
)
# a name that leads here, but that a browser does not trust as it does localhost
INSECURE_HOST = "insecure.test"


class Page:
    """The page in a browser."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def open(self, url: str) -> None:
        """Open the page anew; returns when it knows what the server offers, or that it does not."""
        self.driver.get("about:blank")
        self.as_before()
        for file in self.downloads.iterdir():
            file.unlink()
        self.permit("granted")
        self.driver.get_log("browser")
        self.driver.get(url)
        self.until(lambda: self.text("model") or self.notice)

    def permit(self, setting: str) -> None:
        """Answer the question whether the page may use the microphone, before it is asked."""
        permission = {"permission": {"name": "microphone"}, "setting": setting}
        self.driver.execute_cdp_cmd("Browser.setPermission", permission)

    def js(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def until(self, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Wait for something to become true, so long at most; returns it."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain; notice: {self.notice!r}, status: {self.status!r}")
            time.sleep(0.02)
        return value

    def find(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def text(self, name: str) -> str:
        """What an element says, shown or not."""
        return self.js("return document.getElementById(arguments[0]).textContent.trim()", name)

    @property
    def notice(self) -> str:
        return self.js(
            "return document.getElementById('notice').hidden ? '' : "
            "document.getElementById('notice-text').textContent"
        )

    @property
    def status(self) -> str:
        return self.text("status")

    @property
    def words(self) -> list[str]:
        return self.js("return [...document.querySelectorAll('.word')].map((w) => w.textContent)")

    def idle(self) -> bool:
        return self.js("return !document.getElementById('dock').classList.contains('running')")

    def click(self, name: str) -> None:
        self.find(name).click()

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Another size of the window; `as_before` undoes it."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def as_before(self) -> None:
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def module(self, code: str, *arguments: object) -> Any:
        """Run the body of an async function in the page; `load(name)` imports one of its scripts."""
        wrapped = f"""
            const done = arguments[arguments.length - 1];
            const load = (name) => import(new URL(name, document.baseURI));
            (async (load, given) => {{ {code} }})(load, [...arguments].slice(0, -1))
              .then((value) => done([value]), (error) => done(String(error)));
        """
        answer = self.driver.execute_async_script(wrapped, *arguments)
        assert isinstance(answer, list), answer
        return answer[0]

    def choose(self, file: Path, *, aloud: bool = False) -> None:
        """Hand the page a file."""
        pace = "aloud" if aloud else "fast"
        self.js("document.querySelector(`input[name=pace][value=${arguments[0]}]`).click()", pace)
        self.find("file").send_keys(str(file))

    def download(self, suffix: str) -> Path:
        """Press a download button; returns the finished file."""
        before = set(self.downloads.iterdir())
        self.driver.find_element("css selector", f"[data-format={suffix}]").click()

        def finished() -> Path | None:
            new = set(self.downloads.iterdir()) - before
            return next((file for file in new if file.suffix == f".{suffix}"), None)

        return self.until(finished)

    def complaints(self) -> list[str]:
        """What the browser's console calls an error."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@contextmanager
def chromium(folder: Path, microphone: Path) -> Iterator[Page]:
    """A browser; the test is skipped where Chromium, its driver or selenium is missing.

    folder: for its profile and downloads. microphone: a WAV file, played once whenever the page listens.
    """
    webdriver = pytest.importorskip("selenium.webdriver")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver_program = shutil.which("chromedriver")
    if not program or not driver_program:
        pytest.skip("needs Chromium and chromedriver (on Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    downloads = folder / "downloads"
    downloads.mkdir(parents=True)
    for flag in (
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
    ):
        options.add_argument(flag)
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(downloads), "download.prompt_for_download": False}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # leaving a page with unsaved words asks the user; here nobody is there to answer
    options.set_capability("unhandledPromptBehavior", "accept")
    service = webdriver.ChromeService(driver_program, log_output=os.devnull)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(PATIENCE)
    driver.set_page_load_timeout(PATIENCE)
    try:
        yield Page(driver, downloads)
    finally:
        driver.quit()
