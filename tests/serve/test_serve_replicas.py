"""Replicas behind a real balancer, with the configurations of deploy/: one is drained, one is killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from fake_model import speech
from serving import PATIENCE, open_socket, pcm
from test_serve_faults import Process, process  # noqa: F401
from test_serve_plain import events_of
from websockets.exceptions import ConnectionClosed, WebSocketException

from speech_reallm import Recognizer

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PACKET = 3200


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@contextlib.contextmanager
def haproxy(folder: Path, ports: list[int]) -> Iterator[int]:
    listen = free_port()
    environment = os.environ | {
        "LISTEN": f"127.0.0.1:{listen}",
        "REPLICA_ONE": f"127.0.0.1:{ports[0]}",
        "REPLICA_TWO": f"127.0.0.1:{ports[1]}",
    }
    command = ["haproxy", "-db", "-f", str(DEPLOY / "proxies/haproxy.cfg")]
    with running(command, environment):
        yield listen


@contextlib.contextmanager
def nginx(folder: Path, ports: list[int]) -> Iterator[int]:
    listen = free_port()
    text = (DEPLOY / "proxies/nginx.conf").read_text(encoding="utf-8")
    for before, after in (
        ("127.0.0.1:8000", listen),
        ("127.0.0.1:8001", ports[0]),
        ("127.0.0.1:8002", ports[1]),
    ):
        assert before in text
        text = text.replace(before, f"127.0.0.1:{after}")
    paths = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"daemon off; pid {folder}/pid; error_log stderr; events {{}} http {{ access_log off; {paths}\n{text}\n}}"
    file = folder / "nginx.conf"
    file.write_text(whole, encoding="utf-8")
    with running(["nginx", "-c", str(file), "-p", str(folder)], dict(os.environ)):
        yield listen


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    started = subprocess.Popen(command, env=environment)
    try:
        yield
    finally:
        started.terminate()
        started.wait(PATIENCE)


BALANCERS = {"haproxy": haproxy, "nginx": nginx}


@dataclass
class Connection:
    """begin: sample of the recording that it began with. code: what it closed with, 1006 without a word."""

    begin: int
    finals: list[dict] = field(default_factory=list)
    code: int = 0


def talk(seed: int) -> bytes:
    """Twenty seconds of short utterances, with a second of silence behind each."""
    return b"".join(pcm(speech(1.5, seed=100 * seed + n)) + bytes(32000) for n in range(8))


class Speaker(threading.Thread):
    """Speaks in real time, and goes on after the last final where the connection is lost."""

    def __init__(self, url: str, audio: bytes) -> None:
        super().__init__(daemon=True)
        self.url, self.audio = url, audio
        self.connections: list[Connection] = []
        self.until = time.monotonic() + 3 * PATIENCE

    def run(self) -> None:
        begin = 0
        while time.monotonic() < self.until:
            connection = Connection(begin)
            self.connections.append(connection)
            try:
                self._talk(connection)
            except (OSError, WebSocketException):
                connection.code = connection.code or 1006
            if connection.code == 1000:
                return
            if connection.finals:
                begin += round(connection.finals[-1]["end"] * 16000)
            time.sleep(0.3)

    def _talk(self, connection: Connection) -> None:
        with open_socket(self.url) as client:
            sending = threading.Thread(target=self._send, args=(client, connection.begin * 2), daemon=True)
            sending.start()
            try:
                while True:
                    message = client.receive()
                    if message["type"] == "final":
                        connection.finals.append(message)
            except ConnectionClosed as closed:
                connection.code = closed.rcvd.code if closed.rcvd else 1006
            sending.join(PATIENCE)

    def _send(self, client, begin: int) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            for start in range(begin, len(self.audio), PACKET):
                client.send(self.audio[start : start + PACKET])
                time.sleep(PACKET / 32000)
            client.send({"type": "finish"})


def sessions(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status", timeout=PATIENCE) as answer:
        return json.loads(answer.read())["sessions"]


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("balancer", sorted(BALANCERS))
def test_one_replica_is_drained_and_one_is_killed(
    balancer: str,
    process: Callable[..., Process],  # noqa: F811
    recognizer: Recognizer,
    tmp_path: Path,
) -> None:
    if shutil.which(balancer) is None and not Path(f"/usr/sbin/{balancer}").exists():
        pytest.skip(f"{balancer} is not installed")
    replicas = [process("--per-minute", "0") for _ in range(2)]
    with BALANCERS[balancer](tmp_path, [replica.port for replica in replicas]) as port:
        eventually(lambda: answers(port))
        url = f"ws://127.0.0.1:{port}/v1/stream?endpoint_ms=300"
        speakers = [Speaker(url, talk(n)) for n in range(6)]
        for speaker in speakers:
            speaker.start()
        # both have some: new sessions go where there are fewest
        eventually(lambda: all(sessions(replica.port) for replica in replicas))
        eventually(lambda: all(speaker.connections[-1].finals for speaker in speakers))
        replicas[0].process.send_signal(signal.SIGTERM)
        assert replicas[0].process.wait(PATIENCE) == 0
        for speaker in speakers:
            speaker.join(4 * PATIENCE)
        again = process("--per-minute", "0", "--port", str(replicas[0].port))
        eventually(lambda: answers(again.port))
        # until the balancer has seen it, too
        time.sleep(5)
        others = [Speaker(url, talk(n)) for n in range(6, 12)]
        for speaker in others:
            speaker.start()
        eventually(lambda: all(sessions(port) for port in (again.port, replicas[1].port)))
        eventually(lambda: all(speaker.connections[-1].finals for speaker in others))
        replicas[1].process.kill()
        for speaker in others:
            speaker.join(4 * PATIENCE)
    drained = killed = 0
    for speaker in [*speakers, *others]:
        assert speaker.connections[-1].code == 1000
        for connection in speaker.connections:
            expected = events_of(recognizer, speaker.audio[2 * connection.begin :], endpoint_silence=0.3)
            finals = [event for event in expected if event["type"] == "final"]
            texts = [final["text"] for final in connection.finals]
            if connection.code == 1000:
                assert texts == [final["text"] for final in finals]
            elif connection.code == 1012:
                # what came before was answered; the last segment was cut by the end. One that came while its replica
                # was going down was refused, and nothing was answered
                drained += bool(texts)
                assert not texts or texts[:-1] == [final["text"] for final in finals][: len(texts) - 1]
            else:
                # what was final stays final
                killed += bool(texts)
                assert texts == [final["text"] for final in finals][: len(texts)]
    assert drained and killed


def test_the_balancers_take_their_configuration(tmp_path: Path) -> None:
    checked = 0
    if path := shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin"):
        environment = os.environ | {
            "LISTEN": ":1",
            "REPLICA_ONE": "127.0.0.1:2",
            "REPLICA_TWO": "127.0.0.1:3",
        }
        command = [path, "-c", "-f", str(DEPLOY / "proxies/haproxy.cfg")]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        checked += 1
    if not checked:
        pytest.skip("haproxy is not installed")


def test_files_of_deploy_say_what_the_server_has() -> None:
    from speech_reallm.cli import main as cli

    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    manifests = list(yaml.safe_load_all((DEPLOY / "kubernetes/reallm.yaml").read_text(encoding="utf-8")))
    kinds = {manifest["kind"]: manifest for manifest in manifests}
    assert set(kinds) == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for arguments in (compose["services"]["one"]["command"], container["args"]):
        parsed = cli._parser().parse_args(["serve", *arguments])
        assert parsed.drain < pod["terminationGracePeriodSeconds"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"


def test_the_dashboard_shows_metrics_that_exist(recognizer: Recognizer) -> None:
    from speech_reallm.serve.service import Service
    from speech_reallm.serve.settings import Settings

    dashboard = json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))
    text = Service(recognizer, Settings()).metrics.text().decode()
    known = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    known |= {f"{name}_{end}" for name in known for end in ("bucket", "sum", "count")}
    used = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            used |= set(re.findall(r"\b(?:reallm|process)_\w+", target["expr"]))
    assert used and used <= known | {"process_resident_memory_bytes"}
