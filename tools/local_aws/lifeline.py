"""Runs a command that never outlives its caller, and removes its temporary files.

A small process (this file, run as a program) starts the command and reads a pipe that only the
caller holds. The pipe closes when the caller closes it or dies for any reason. The small process
then ends the command.

`end_with_parent` does the same for the caller itself, which ends when `make` ends.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

GRACE = 5  # seconds between SIGTERM and SIGKILL
WATCH = 0.2  # seconds between two checks of the parent
FATAL = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Lifeline:
    """A running command, and `scratch`, a temporary directory that ends with the command.

    The command runs in `directory`, or by default in the temporary directory.
    """

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, directory: Path | None = None):
        self.log = log
        self.scratch = Path(tempfile.mkdtemp(prefix="local-aws-"))
        with log.open("wb") as output:
            # In a new session, Ctrl-C reaches only the caller, which ends all commands in order.
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
        if self._process.wait() < 0:
            # A signal killed the small process. The command is still in that process's group.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        # The small process removed it, but another command may have written there since.
        shutil.rmtree(self.scratch, ignore_errors=True)

    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Waits for the command, and returns its exit status."""
        return self._process.wait()


def end_with_parent(parent: int) -> None:
    """Sends SIGTERM to this process when its parent ends, or when its parent `make` is ending."""

    def watch():
        while os.getppid() == parent and not _is_ending_make(parent):
            time.sleep(WATCH)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, daemon=True).start()


def _is_ending_make(process):
    """Returns whether a process is `make` and a fatal signal is ending it.

    `make` passes only SIGTERM on to its children. After another signal, `make` waits for its
    children in the signal's handler. There the signal is blocked, and no longer caught
    (`fatal_error_signal` in make's commands.c).
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return False
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if status.get("Name") not in ("make", "gmake"):
        return False
    handled = int(status.get("SigBlk", "0"), 16) & ~int(status.get("SigCgt", "0"), 16)
    return any(handled & 1 << number - 1 for number in (*FATAL, signal.SIGQUIT))


def _hold(scratch, *command):
    for number in FATAL:
        # The command would inherit SIG_IGN, but it does not inherit a handler.
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    # Nothing writes to the pipe, so it becomes readable only when it closes.
    while child.poll() is None and not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
    status = child.returncode
    # The whole group, because ministack does not end its functions.
    os.killpg(0, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(GRACE)
    shutil.rmtree(scratch, ignore_errors=True)
    if status is None:
        os.killpg(0, signal.SIGKILL)  # the rest of the group, including this process
    sys.exit(status)


if __name__ == "__main__":
    _hold(*sys.argv[1:])
