"""Prints each step while it runs, and the time that the step took."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIGN_OF_LIFE = 10  # seconds
END_OF_LOG = 60  # lines


class Failed(Exception):
    """A step failed. If there is a `log`, the message ends with its last lines."""

    def __init__(self, what: str, log: Path | None = None):
        if log:
            lines = log.read_text(errors="replace").splitlines()[-END_OF_LOG:]
            what = "\n".join([f"{what}. The end of {log}:", "", *lines])
        super().__init__(what)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Prints one line: the text, a sign of life every ten seconds, and the time it took."""
    began = time.monotonic()
    over = threading.Event()

    def show_life():
        while not over.wait(SIGN_OF_LIFE):
            print(f" {time.monotonic() - began:.0f} s ...", end="", flush=True)

    print(f"{text} ...", end="", flush=True)
    life = threading.Thread(target=show_life, daemon=True)
    life.start()
    outcome = "stopped"
    try:
        yield
        outcome = "done"
    finally:
        over.set()
        life.join()
        print(f" {outcome} after {time.monotonic() - began:.1f} s", flush=True)
