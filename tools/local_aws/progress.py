"""Says what is being done while it is being done, and how long it takes."""

import threading
import time
from contextlib import contextmanager

SIGN_OF_LIFE = 10  # seconds
END_OF_LOG = 60  # lines


class Failed(Exception):
    """Something did not come about, for the reason that stands at the end of `log`, if there is one."""

    def __init__(self, what, log=None):
        if log:
            lines = log.read_text(errors="replace").splitlines()[-END_OF_LOG:]
            what = "\n".join([f"{what}. The end of {log}:", "", *lines])
        super().__init__(what)


@contextmanager
def step(text):
    """Prints one line: what, a sign of life every ten seconds, and in the end how long it took."""
    began = time.monotonic()
    over = threading.Event()

    def show_life():
        while not over.wait(SIGN_OF_LIFE):
            print(f" {time.monotonic() - began:.0f} s ...", end="", flush=True)

    print(f"{text} ...", end="", flush=True)
    life = threading.Thread(target=show_life, daemon=True)
    life.start()
    outcome = "given up"
    try:
        yield
        outcome = "done"
    finally:
        over.set()
        life.join()
        print(f" {outcome} after {time.monotonic() - began:.1f} s", flush=True)
