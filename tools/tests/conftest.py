"""Shared fixtures: a webhook that records requests, a build, and a release of the build."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from pack import pack
from source import ROOT

FUNCTIONS = ("RedriveFunction", "WebhookFunction")
AT = 1_708_770_600  # 24 February 2024, 10:30 UTC


class Receiver(ThreadingHTTPServer):
    """A webhook that accepts every request, and records it."""

    daemon_threads = True
    request_queue_size = 128  # connections that wait

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.got = []
        self.answer = (200, {}, b'{"outcome":"alerted"}')
        self.url = f"http://127.0.0.1:{self.server_port}/webhooks/sendpilot"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append(SimpleNamespace(path=self.path, body=body, headers=headers))
        status, headers, content = self.server.answer
        self.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def build(tmp_path):
    """Makes the output of `sam build`, with a short text as each program."""

    def build(name: str = "build") -> Path:
        built = tmp_path / name
        for function in FUNCTIONS:
            (built / function).mkdir(parents=True)
            (built / function / "bootstrap").write_bytes(f"the program of {function}".encode())
        template = (ROOT / "template.yaml").read_text("utf-8").replace("CodeUri: .", "CodeUri: WebhookFunction")
        (built / "template.yaml").write_text(template, "utf-8")
        return built

    return build


@pytest.fixture
def release(tmp_path):
    """Packs a build into a release, and returns the zip."""

    def release(build: Path, architecture: str = "x86_64", into: str = "dist") -> Path:
        name = tmp_path / into / f"alerts-1.2.3-{architecture}"
        return pack(build, architecture, {"LICENSE-MIT": b"the licence"}, AT, name)

    return release
