"""Archives: shares of a manifest, resuming by what is there, kills, failures, object storage."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from fake_model import speech

from speech_reallm import UserError
from speech_reallm.archive import (
    REPORTS,
    Archive,
    Settings,
    output_name,
    parse_shard,
    read_recordings,
    transcribe_archive,
)
from speech_reallm.cli import main as cli
from speech_reallm.cli._archive import progress_text
from speech_reallm.recognizer import Recognizer

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(model_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`reallm transcribe --manifest` with the small model: exit code and errors."""

    def run(*args: object, out: object = tmp_path / "out", manifest: object = tmp_path / "all.jsonl"):
        command = ["transcribe", "--manifest", manifest, "--out", out, "--jobs", 1, *args]
        code = cli.main([*map(str, command), "--model", str(model_folder)])
        captured = capsys.readouterr()
        assert captured.out == ""
        return code, captured.err

    return run


def make(folder: Path, count: int, seconds: float = 0.5, **more: object) -> Path:
    """A manifest of so many recordings; `more` rows follow, `audio` by id."""
    rows = []
    for number in range(count):
        soundfile.write(folder / f"{number}.wav", speech(seconds, seed=number), 16000)
        rows.append({"audio": f"{number}.wav", "id": f"calls/{number}", "duration": seconds})
    rows += [{"audio": audio, "id": name} for name, audio in more.items()]
    path = folder / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def transcripts(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if not name.startswith(REPORTS)}


def finished(folder: Path) -> list[Path]:
    """Transcripts that have their names, while others may be about to get theirs."""
    return [path for path in folder.glob("calls/*.json") if not path.name.startswith(".")]


def test_an_archive(run: Run, tmp_path: Path, recognizer: Recognizer) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF nothing that could be decoded")
    make(tmp_path, 3, bad="bad.wav", gone="gone.wav", above=".")
    code, err = run("--format", "json,srt")
    out = tmp_path / "out"
    # failures stop nothing, and are told
    assert code == 2 and "6 recordings: 0 were there, 3 are done now, 3 failed" in err
    assert sorted(transcripts(out)) == [f"calls/{n}.{kind}" for n in range(3) for kind in ("json", "srt")]
    failures = [
        json.loads(line) for line in (out / REPORTS / "failures-0-of-1.jsonl").read_text().splitlines()
    ]
    assert [row["name"] for row in failures] == ["bad", "gone", "above"]
    assert failures[1] == {"audio": "gone.wav", "name": "gone", "error": "cannot read gone.wav: no such file"}
    # as `reallm transcribe` would have it
    for number in range(3):
        found = json.loads((out / f"calls/{number}.json").read_text())
        expected = recognizer.transcribe(tmp_path / f"{number}.wav")
        assert (found["file"], found["text"]) == (f"{number}.wav", expected.text)
        assert [w["end"] for w in found["words"]] == [w.end for w in expected.words]
    # what is there is left alone; what failed is tried again, and so is what was lost
    before = (out / "calls/0.json").stat().st_mtime_ns
    (out / "calls/1.srt").unlink()
    soundfile.write(tmp_path / "gone.wav", speech(0.5), 16000)
    code, err = run("--format", "json,srt")
    assert code == 2 and "6 recordings: 2 were there, 2 are done now, 2 failed" in err
    assert (out / "calls/0.json").stat().st_mtime_ns == before
    assert (out / "calls/1.srt").exists() and (out / "gone.json").exists()
    # another way of recognising would mix two kinds of transcripts
    code, err = run("--delay", 0)
    assert code == 2 and "another delay" in err and "--out" in err


def test_shares_are_the_whole_and_two_processes_give_the_same(run: Run, tmp_path: Path) -> None:
    make(tmp_path, 5)
    assert run(out=tmp_path / "one")[0] == 0
    for share in ("0/2", "1/2"):
        assert run("--shard", share, "--jobs", 2, out=tmp_path / "two")[0] == 0
    assert transcripts(tmp_path / "one") == transcripts(tmp_path / "two") != {}
    reports = [f"{REPORTS}/failures-{i}-of-2.jsonl" for i in range(2)]
    assert all(contents(tmp_path / "two")[name] == b"" for name in reports)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_and_started_again(model_folder: Path, tmp_path: Path) -> None:
    """kill -9 in the middle: nothing half-written has a name, and the second run ends where one alone would."""
    manifest = make(tmp_path, 6, seconds=20.0)

    def command(out: str) -> list[str]:
        arguments = ["--manifest", manifest, "--out", tmp_path / out, "--jobs", 1, "--model", model_folder]
        return [sys.executable, "-m", "speech_reallm", "transcribe", *map(str, arguments)]

    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command("killed"), stderr=subprocess.DEVNULL, env=env) as process:
        ends = time.monotonic() + 200
        while not finished(tmp_path / "killed") and time.monotonic() < ends:
            time.sleep(0.01)
        process.kill()
        assert process.wait(100) == -signal.SIGKILL
    whole = finished(tmp_path / "killed")
    assert 0 < len(whole) < 6 and all(json.loads(path.read_text())["duration"] == 20 for path in whole)
    # what writing leaves where it is killed
    (tmp_path / "killed/calls/.5.json.123-abc.part").write_text("{")
    for out in ("killed", "whole"):
        done = subprocess.run(command(out), env=env, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_process_that_is_lost_is_replaced(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speech_reallm import archive as module

    manifest = make(tmp_path, 3)
    settings = Settings(out=str(tmp_path / "out"), model=str(model_folder))
    archive = Archive(str(manifest), settings)
    killed: list[int] = []
    begin = module._Process.begin

    def mortal(process: module._Process, number: int, recording: module.ArchiveItem) -> None:
        # recording 0 always ends its process, 1 once
        if number == 0 or (number == 1 and 1 not in killed):
            killed.append(number)
            os.kill(process._process.pid, signal.SIGKILL)
            process._process.join(60)
        begin(process, number, recording)

    monkeypatch.setattr(module._Process, "begin", mortal)
    said: list[str] = []
    transcribe_archive(archive, 1, on_message=said.append)
    assert killed == [0, 0, 1]
    assert list(archive.tally.failures.values()) == [
        "0.wav: the process that recognised it was ended by signal 9, 2 times"
    ]
    assert "begun again" in said[0]
    assert sorted(transcripts(tmp_path / "out")) == ["calls/1.json", "calls/2.json"]


def test_an_interrupt_leaves_the_rest_for_the_next_run(run: Run, model_folder: Path, tmp_path: Path) -> None:
    manifest = make(tmp_path, 4)
    archive = Archive(str(manifest), Settings(out=str(tmp_path / "out"), model=str(model_folder)))
    transcribe_archive(archive, 1, on_progress=lambda tally, work, seconds: tally.done < 2)
    assert archive.tally.done == 2 and not Path(archive.failures_path).exists()
    assert "2 were there, 2 are done now" in run()[1]


def test_object_storage(run: Run, model_folder: Path, tmp_path: Path) -> None:
    """A manifest, recordings and transcripts in a storage; the bytes are those of files on this machine."""
    fsspec = pytest.importorskip("fsspec")
    from speech_reallm.archive import Transcriber

    make(tmp_path, 2)
    assert run()[0] == 0
    memory = fsspec.filesystem("memory")
    for number in range(2):
        memory.pipe_file(f"/bucket/{number}.wav", (tmp_path / f"{number}.wav").read_bytes())
    memory.pipe_file("/bucket/all.jsonl", (tmp_path / "all.jsonl").read_bytes())
    # the memory is of this process alone
    recordings = read_recordings("memory://bucket/all.jsonl")
    assert [r.source for r in recordings] == ["memory://bucket/0.wav", "memory://bucket/1.wav"]
    settings = Settings(out="memory://bucket/out", model=str(model_folder))
    transcriber = Transcriber(settings)
    assert [transcriber(recording)[1] for recording in recordings] == [None, None]
    for number in range(2):
        written = memory.cat_file(f"/bucket/out/calls/{number}.json")
        assert written == (tmp_path / f"out/calls/{number}.json").read_bytes()
    archive = Archive("memory://bucket/all.jsonl", settings)
    assert archive.waiting == [] and archive.tally.present == 2
    with pytest.raises(UserError, match="memory:// is of one process alone"):
        transcribe_archive(archive, 1)
    # URLs of the local file system, in other processes
    rows = [{"audio": f"file://{tmp_path}/{n}.wav", "id": f"calls/{n}"} for n in range(2)]
    (tmp_path / "urls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, err = run(manifest=f"file://{tmp_path}/urls.jsonl", out=f"file://{tmp_path}/urls")
    assert code == 0, err
    local = json.loads((tmp_path / "urls/calls/0.json").read_text())
    assert local["text"] == json.loads((tmp_path / "out/calls/0.json").read_text())["text"]


def test_a_storage_that_fails_is_no_end_of_the_sound(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be read may be readable next time: no transcript of the beginning stands for the whole."""
    from speech_reallm import archive as module

    class Failing(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            if self.tell() > 60000:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    manifest = make(tmp_path, 1, seconds=4.0)
    settings = Settings(out=str(tmp_path / "out"), model=str(model_folder))
    transcriber = module.Transcriber(settings)
    (item,) = read_recordings(str(manifest))
    with monkeypatch.context() as patch:
        patch.setattr(module, "open_binary", lambda source, name: Failing(source))
        assert "Input/output error" in transcriber(item)[1]
    assert not transcripts(tmp_path / "out")
    assert transcriber(item)[:2] == (4.0, None)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("a/b.wav", "a/b.wav"),
        ("../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd"),
        ("/", "%2F"),
        ("a//b\\c", "a/b/c"),
        (".hidden", "%2Ehidden"),
        ("_archive/settings", "%5Farchive/settings"),
        ("100%?", "100%25%3F"),
        ("größe 1", "größe 1"),
        ("end.", "end%2E"),
        (".", "%2E"),
        ("a\0b\n", "a%00b%0A"),
        ("x" * 300, "x" * 163 + "-"),
    ],
)
def test_names_stay_in_the_folder(label: str, name: str) -> None:
    found = output_name(label)
    assert found == name or (found.startswith(name) and len(found) == 180)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        (["[1]"], "line 1: expected a JSON object"),
        (['{"audio": 3}'], "`audio` must be"),
        (['{"audio": "a", "id": ["x"]}'], "`id` must be"),
        (['{"audio": "a", "duration": -1}'], "`duration` must be"),
        (['{"audio": "a", "id": 1}', "", '{"audio": "b"}', '{"audio": "c", "id": "1"}'], "lines 1 and 4"),
    ],
)
def test_manifests_that_cannot_be_used(rows: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(rows))
    with pytest.raises(UserError, match=message):
        # two rows of one name, in whatever share they are
        read_recordings(str(path), (2, 3))


def test_options_that_do_not_go_together(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    manifest = ["--manifest", str(make(tmp_path, 1))]
    out = ["--out", str(tmp_path / "out")]
    for arguments, message in (
        ([], "name the files"),
        (["a.wav", "--shard", "0/2"], "--shard is for archives"),
        (["a.wav", *manifest, *out], "not both"),
        (manifest, "--out DIR"),
        ([*manifest, *out, "--live"], "--live does not go"),
        ([*manifest, *out, "--threads", "2"], "--jobs says"),
        ([*manifest, *out, "--jobs", "0"], "--jobs must be"),
        ([*manifest, *out, "--shard", "2/2"], "count from 0"),
        ([*manifest, *out, "--shard", "2"], "write i/N"),
        ([*manifest, *out, "--model", str(tmp_path)], "no config.json"),
        (["--manifest", str(tmp_path / "none.jsonl"), *out], "No such file"),
        (["--manifest", "nonsense://all.jsonl", *out], "nonsense"),
    ):
        assert cli.main(["transcribe", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert parse_shard("7/8") == (7, 8)


def test_without_ray(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    code, err = run("--ray")
    assert code == 2 and "needs ray: " in err and "pip install" in err


def test_a_block_of_ray(
    run: Run, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker of Ray does with a block: the same bytes, and failures that end neither worker nor block."""
    from speech_reallm import archive as module
    from speech_reallm.ray_jobs import _Actor

    (tmp_path / "bad.wav").write_bytes(b"no sound")
    items = read_recordings(str(make(tmp_path, 3, bad="bad.wav")))
    assert run()[0] == 2
    begin = module._Process.begin

    def mortal(process: module._Process, number: int, recording: module.ArchiveItem) -> None:
        # recording 0 always ends its process
        if recording.audio == "0.wav":
            process._process.kill()
            process._process.join(60)
        begin(process, number, recording)

    monkeypatch.setattr(module._Process, "begin", mortal)
    actor = _Actor(Settings(out=str(tmp_path / "block"), model=str(model_folder)))
    columns = {name: [getattr(item, name) for item in items] for name in ("name", "audio", "source")}
    results = actor({"number": [7, 8, 9, 10], **columns})
    assert results["number"] == [7, 8, 9, 10] and results["seconds"] == [0.0, 0.5, 0.5, 0.0]
    lost, good, also_good, bad = results["error"]
    assert "0.wav: the process that recognised it" in lost and lost.endswith("2 times")
    assert good == also_good == "" and "bad.wav" in bad
    alone = transcripts(tmp_path / "out")
    assert transcripts(tmp_path / "block") == {n: d for n, d in alone.items() if n != "calls/0.json"}


def test_progress_says_how_long_it_takes() -> None:
    assert progress_text(25.0, 100.0, 600.0, 30.0) == "10:00 of audio at 20.0x, 1:30 left"
    assert progress_text(0.0, 100.0, 0.0, 30.0) == "0:00 of audio at 0.0x"


DEPLOY = Path(__file__).parents[1] / "deploy"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_slurm_array(model_folder: Path, tmp_path: Path) -> None:
    """The script as Slurm runs its tasks; what it runs is written down instead."""
    command = tmp_path / "reallm"
    command.write_text('#!/bin/sh\necho "$@"\n')
    command.chmod(0o755)

    def task(index: int, count: int, last: int, **more: str) -> tuple[int, str]:
        env = {**os.environ, "REALLM": str(command), "SLURM_CPUS_PER_TASK": "8", **more}
        for name, value in (("ID", index), ("COUNT", count), ("MAX", last)):
            env[f"SLURM_ARRAY_TASK_{name}"] = str(value)
        script = ["bash", str(DEPLOY / "slurm/transcribe.sbatch"), "all.jsonl", "out dir", "--format", "srt"]
        done = subprocess.run(script, env=env, capture_output=True, text=True, timeout=100)
        return done.returncode, done.stdout

    expected = "transcribe --manifest all.jsonl --out out dir --shard 3/{} --jobs 8 --format srt\n"
    assert task(3, 5, 4) == (0, expected.format(5))
    assert task(3, 2, 17, SHARDS="100") == (0, expected.format(100))
    # the number of shares of an array with holes is not that of its tasks
    assert task(3, 2, 17)[0] == 2


def test_the_kubernetes_job(run: Run, tmp_path: Path) -> None:
    """What a pod runs is a command line that works."""
    yaml = pytest.importorskip("yaml")
    spec = yaml.safe_load((DEPLOY / "kubernetes/archive.yaml").read_text())["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    shares = next(item["value"] for item in container["env"] if item["name"] == "SHARDS")
    assert spec["completionMode"] == "Indexed" and spec["completions"] == int(shares)
    make(tmp_path, 2)
    arguments = [
        text.replace("$(JOB_COMPLETION_INDEX)", "1").replace("$(SHARDS)", shares)
        for text in container["args"]
    ]
    (share,) = [text for text in arguments if text.startswith("--shard")]
    assert container["command"] == ["reallm", "transcribe"] and "$" not in "".join(arguments)
    assert {text.partition("=")[0] for text in arguments} == {"--manifest", "--out", "--shard", "--jobs"}
    assert run(share)[0] == 0
    assert list(transcripts(tmp_path / "out")) == ["calls/1.json"]
    # the exit code of recordings that failed is not tried again
    (rule,) = [rule for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert rule["action"] == "FailIndex" and rule["onExitCodes"]["values"] == [cli.EXIT_ERROR]
