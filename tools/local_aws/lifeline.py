"""Runs a command that never outlives its caller: no process and no temporary file stays behind.

A small process (this file, run as a program) starts the command and reads a pipe that only the caller holds. The pipe
closes when the caller closes it, and when the caller dies for any reason. Then that process ends the command.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

GRACE = 5  # seconds between the request to end and the kill


class Lifeline:
    """A running command, and `scratch`, a temporary directory that is removed when the command ends.

    The command runs in `directory`, or else in the temporary directory.
    """

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, directory: Path | None = None):
        self.log = log
        self.scratch = Path(tempfile.mkdtemp(prefix="local-aws-"))
        with log.open("wb") as output:
            # In a session of its own, so that Ctrl-C reaches only the caller, which ends things in their order.
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).resolve(), self.scratch, *command],
                cwd=directory or self.scratch,
                env={**environment, "TMPDIR": str(self.scratch)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()

    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Waits for the command, and returns its exit status."""
        return self._process.wait()


def _hold(scratch, *command):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The command would inherit SIG_IGN, but not a handler that does nothing.
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    # Nobody writes to the pipe, so it becomes readable only when it closes.
    while child.poll() is None and not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
    status = child.returncode
    # The whole group, because ministack does not end the functions that it has started.
    os.killpg(0, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(GRACE)
    shutil.rmtree(scratch, ignore_errors=True)
    if status is None:
        os.killpg(0, signal.SIGKILL)  # the rest of the group, with this process
    sys.exit(status)


if __name__ == "__main__":
    _hold(*sys.argv[1:])
