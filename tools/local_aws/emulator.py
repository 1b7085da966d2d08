"""A local AWS that enforces IAM, on a free port of the loopback interface."""

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from local_aws.lifeline import Lifeline
from local_aws.progress import Failed
from ops.running import use_only_aws_at

STARTUP = 60  # seconds; it takes two
MINISTACK = Path(sys.executable).with_name("ministack")


class Emulator:
    """A context with a local AWS, the only AWS of this process and its children meanwhile."""

    def __init__(self, logs: Path):
        """`logs` is the folder for the logs of the local AWS, of builds and of deployments."""
        self.logs = logs
        port = _free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        # Functions inherit this environment, so it must not contain the user's variables.
        environment = {
            "PATH": os.environ["PATH"],
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "STATE_DIR": "state",
            # Without these, ministack serves MQTT and SFTP too, at fixed ports, on all interfaces.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            # ministack then records all calls, and `local_aws.calls` reads the newest.
            "CLOUDTRAIL_RECORDING": "1",
            "CLOUDTRAIL_MAX_EVENTS": "1000",
            # ministack then gives functions their roles, and enforces policies.
            "AUTH": "true",
            # Without this, functions would call the real AWS.
            "AWS_ENDPOINT_URL": self.endpoint,
        }
        self._lifeline = Lifeline([str(MINISTACK)], environment, logs / "ministack.log")
        self.scratch = self._lifeline.scratch

    def __enter__(self):
        try:
            self._await()
        except BaseException:
            self.__exit__()
            raise
        self._environment = dict(os.environ)
        use_only_aws_at(self.endpoint)
        os.environ.update(self._sam_environment())
        return self

    def __exit__(self, *_):
        if hasattr(self, "_environment"):
            os.environ.clear()
            os.environ.update(self._environment)
        self._lifeline.__exit__()

    def running(self) -> bool:
        return self._lifeline.running()

    def _await(self):
        deadline = time.monotonic() + STARTUP
        local = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                with local.open(f"{self.endpoint}/_ministack/health", timeout=STARTUP):
                    return
            except (urllib.error.URLError, ConnectionError):
                if not self.running() or time.monotonic() > deadline:
                    raise Failed("The local AWS did not start", self._lifeline.log) from None
                time.sleep(0.1)

    def _sam_environment(self):
        sam = self.scratch / "sam"
        sam.mkdir()
        # Without this, sam asks the package index for sam's newest version after every command.
        (sam / "metadata.json").write_text(json.dumps({"lastVersionCheck": time.time()}))
        return {"SAM_CLI_TELEMETRY": "0", "SAM_CLI_POLL_DELAY": "0.5", "__SAM_CLI_APP_DIR": str(sam)}


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
