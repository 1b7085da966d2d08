"""The frame of the commands `make run`, `make demo` and `make journey`."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.lifeline import FATAL, end_with_parent
from local_aws.progress import Failed
from ops.__main__ import Parser, port


def run_command(do: Callable[[], bool]) -> None:
    """Runs a command, and exits with 0 if `do` returns True, else with 1.

    Any signal that ends the command takes everything down in order, and so does the end of `make`.
    """
    for number in FATAL:
        # A background job of a script ignores Ctrl-C otherwise. `nohup` wants SIGHUP ignored.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    end_with_parent(int(os.environ.get("PARENT", os.getppid())))
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 it stays open to the end
    # Names come from outside, and a terminal may not have their characters.
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(0 if do() else 1)
    except Failed as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"The local AWS does not work: {error}")
    except OSError as error:
        # Python would try once more at its exit to write what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1 if isinstance(error, BrokenPipeError) else f"It had to end: {error}")


def _end(*_):
    """Ends the command. A second signal would only disturb the clean-up, which takes some seconds at most."""
    for number in FATAL:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser of the arguments that all have."""
    parser = Parser(description=description)
    parser.add_argument("--stay", action="store_true", help="stay up until Ctrl-C")
    parser.add_argument("--verbose", action="store_true", help="show all that is sent, answered and published")
    parser.add_argument(
        "--port", type=lambda text: int(port(text)), help="the port of the webhook; without it, a free one"
    )
    return parser
