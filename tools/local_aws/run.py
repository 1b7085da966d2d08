"""One local run: its address, its folder, and the file by which the tools find the run."""

import json
import shutil
from contextlib import ExitStack

from local_aws.front import Front
from local_aws.locks import exclusive
from ops.running import ADDRESSES, LOCK, RUNS, is_held


class Run:
    """A context with an address on the loopback interface, and the folder `.local-aws/run-PORT`.

    The folder has the run's logs. If the run fails, the folder stays until the next run removes it.
    """

    def __init__(self, port: int | None = None):
        self.front = Front(port)
        self.logs = RUNS / f"run-{self.front.port}"

    def __enter__(self):
        with ExitStack() as undo:
            undo.enter_context(self.front)
            with exclusive(RUNS / "runs.lock"):
                _remove_ended_runs()
                self.logs.mkdir(parents=True)
                # The process holds the lock until it ends, even if it is killed.
                undo.enter_context(exclusive(self.logs / LOCK))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, error, *_):
        (self.logs / ADDRESSES).unlink(missing_ok=True)
        if error in (None, KeyboardInterrupt, BrokenPipeError):
            shutil.rmtree(self.logs, ignore_errors=True)
        self._undo.close()

    def announce(self, endpoint: str) -> None:
        """Makes this run visible to the tools. `endpoint` is the URL of its local AWS."""
        addresses = {"webhook_url": self.front.url, "endpoint": endpoint}
        # A rename is atomic, so no tool reads half of the file.
        draft = self.logs / f"{ADDRESSES}.draft"
        draft.write_text(json.dumps(addresses), "utf-8")
        draft.rename(self.logs / ADDRESSES)


def _remove_ended_runs():
    for folder in RUNS.glob("run-*"):
        if folder.is_dir() and not is_held(folder / LOCK):
            # A tool may remove the same run's addresses at this moment.
            shutil.rmtree(folder, ignore_errors=True)
