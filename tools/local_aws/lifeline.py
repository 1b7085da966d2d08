"""Runs a command that never outlives its caller, however that ends: no process and no temporary file stays behind.

Between the two stands a small process of its own (this file, run as a program), at the end of a pipe that only the
caller holds. The pipe closes when the caller closes it, and when the caller dies, whatever of.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

GRACE = 5  # seconds to end in, once asked to


class Lifeline:
    """A command at work, and `scratch`, the temporary directory that goes when it goes.

    It works in that directory, unless it is given another.
    """

    def __init__(self, command, environment, log, directory=None):
        self.log = log
        self.scratch = Path(tempfile.mkdtemp(prefix="local-aws-"))
        with log.open("wb") as output:
            # A session of its own: Ctrl-C at the terminal must reach the caller alone, who ends things in their order.
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

    def running(self):
        return self._process.poll() is None

    def wait(self):
        """The command's exit status, once it has ended."""
        return self._process.wait()


def _hold(scratch, *command):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A handler that does nothing, where SIG_IGN would be inherited by the command.
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    # Nothing is ever written to the pipe: it becomes readable when it closes.
    while child.poll() is None and not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
    status = child.returncode
    # The whole group, because ministack does not end the functions that it started.
    os.killpg(0, signal.SIGTERM)
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
    shutil.rmtree(scratch, ignore_errors=True)
    if status is None:
        os.killpg(0, signal.SIGKILL)  # whatever is left of the group, this process included
    sys.exit(status)


if __name__ == "__main__":
    _hold(*sys.argv[1:])
