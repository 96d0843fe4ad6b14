"""Models from elsewhere: resumed, checked, never more than asked for; a server that breaks off in the middle."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from speech_reallm import Recognizer, UserError, pull
from speech_reallm.cli import main as cli


@dataclass
class Hub:
    """A server of the files below `root`; what it does wrong, and the requests it got: path and Range."""

    root: Path
    port: int = 0
    # a file ends after so many bytes, once for each entry
    breaks: dict[str, list[int]] = field(default_factory=dict)
    ranges: bool = True
    status: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def hub(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    root = tmp_path / "hub"
    folder = root / "owner" / "tiny" / "resolve" / "main"
    shutil.copytree(model_folder, folder)
    (folder / "README.md").write_text("# tiny\n\n## Licence\n\nLICENSE-weights.txt\n")
    (folder / "LICENSE-weights.txt").write_text("free")
    (folder / "pickle.bin").write_bytes(b"never fetched")
    hub = Hub(root)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            hub.requests.append((self.path, wanted))
            path = root / self.path.lstrip("/")
            if code := hub.status.get(path.name):
                self.send_error(code)
                return
            if not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and hub.ranges else 0
            if begin >= len(data) and begin:
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            cuts = hub.breaks.get(path.name)
            self.wfile.write(data[begin:][: cuts.pop(0)] if cuts else data[begin:])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("REALLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pull, "WAITS", (0.0, 0.0))
    yield hub
    server.shutdown()
    server.server_close()


def test_a_repository_by_name(hub: Hub, tmp_path: Path) -> None:
    folder = pull.pull("owner/tiny")
    assert folder == tmp_path / "cache" / "owner" / "tiny"
    assert (folder / "LICENSE-weights.txt").read_text() == "free" and not (folder / "pickle.bin").exists()
    assert not any("pickle" in path for path, _ in hub.requests)
    # offline from here on, in Python and on the command line
    count = len(hub.requests)
    assert Recognizer.load("owner/tiny").model.name == "fake"
    assert pull.pull("owner/tiny") == folder and len(hub.requests) == count
    assert pull.pull("owner/tiny", anew=True) == folder and len(hub.requests) > count
    assert [p.name for p in folder.parent.iterdir()] == ["tiny"]


def test_it_goes_on_where_the_connection_broke(hub: Hub, model_folder: Path, tmp_path: Path) -> None:
    size = (model_folder / "tokenizer.model").stat().st_size
    hub.breaks["tokenizer.model"] = [size // 3, size // 3]
    seen: list[tuple[int, int, str]] = []
    folder = pull.pull(f"{hub.url}/owner/tiny/resolve/main", tmp_path / "here", lambda *a: seen.append(a))
    assert folder == tmp_path / "here"
    ranges = [wanted for path, wanted in hub.requests if path.endswith("tokenizer.model")]
    assert ranges == [None, f"bytes={size // 3}-", f"bytes={2 * (size // 3)}-"]
    assert (size, size, "tokenizer.model") in seen


def test_a_server_without_ranges_begins_again(hub: Hub) -> None:
    hub.ranges = False
    hub.breaks["tokenizer.model"] = [1000]
    assert Recognizer.load(pull.pull("owner/tiny")).model.name == "fake"


def test_a_second_command_goes_on(hub: Hub) -> None:
    hub.breaks["tokenizer.model"] = [1000, 0, 0, 0]
    with pytest.raises(UserError, match="goes on from there"):
        pull.pull("owner/tiny")
    with pytest.raises(UserError, match="no model folder"):
        Recognizer.load("owner/tiny")
    hub.breaks.clear()
    hub.requests.clear()
    pull.pull("owner/tiny")
    assert ("/owner/tiny/resolve/main/tokenizer.model", "bytes=1000-") in hub.requests
    # what was complete was not fetched again
    assert not any(path.endswith("encoder.onnx") for path, _ in hub.requests)


def test_what_is_not_what_it_claims(hub: Hub, tmp_path: Path) -> None:
    folder = hub.root / "owner" / "tiny" / "resolve" / "main"
    whole = (folder / "decoder.onnx").read_bytes()
    (folder / "decoder.onnx").write_bytes(whole[:-1] + b"x")
    with pytest.raises(UserError, match="checksum"):
        pull.pull("owner/tiny")
    (folder / "decoder.onnx").unlink()
    with pytest.raises(UserError, match="not complete"):
        pull.pull("owner/tiny")
    config = json.loads((folder / "config.json").read_text())
    for changed in (
        {**config, "sha256": {**config["sha256"], "decoder.onnx": "../../x"}},
        {**config, "sha256": []},
        {**config, "format": 99},
    ):
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=r"config\.json"):
            pull.pull("owner/tiny")
    (folder / "config.json").write_bytes(b" " * (2 << 20))
    with pytest.raises(UserError, match="more than a model's file"):
        pull.pull("owner/tiny")
    with pytest.raises(UserError, match="no model there"):
        pull.pull("owner/nothing")
    hub.status["config.json"] = 403
    with pytest.raises(UserError, match="403"):
        pull.pull("owner/tiny")
    hub.status["config.json"] = 503
    with pytest.raises(UserError, match=r"503.*goes on"):
        pull.pull("owner/tiny")
    assert not (tmp_path / "cache" / "owner" / "tiny").exists()


@pytest.mark.parametrize(
    "what", ["nowhere", "file:///etc", "../x/y/z", "a/b/c", "owner/..", "ftp://host/x", ""]
)
def test_what_names_no_model(hub: Hub, what: str) -> None:
    with pytest.raises(UserError):
        pull.pull(what)
    assert not hub.requests


def test_a_folder_is_copied_and_checked(hub: Hub, model_folder: Path, tmp_path: Path) -> None:
    folder = pull.pull(str(model_folder), tmp_path / "copy")
    assert Recognizer.load(folder).model.name == "fake"
    damaged = tmp_path / "damaged"
    shutil.copytree(model_folder, damaged)
    (damaged / "encoder.onnx").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        pull.pull(str(damaged), tmp_path / "other")
    other = tmp_path / "letters"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="no model"):
        pull.pull("owner/tiny", other)
    assert (other / "letter.txt").read_text() == "dear"


def test_the_command(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "pull", "owner/tiny"]) == 0
    assert str(tmp_path / "cache" / "owner" / "tiny") in capsys.readouterr().out
    assert cli.main(["models", "owner/tiny"]) == 0
    assert "fake" in capsys.readouterr().out
    assert cli.main(["models", "pull", "owner/nothing"]) == 2
    assert cli.main(["models", "pull"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 2 and "no model there" in error
