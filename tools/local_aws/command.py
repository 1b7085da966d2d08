"""Runs the commands `make run`, `make demo`, `make missed` and `make journey`, and handles their end."""

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

OPTIONS = {
    "--stay": {"action": "store_true", "help": "keep running until Ctrl-C"},
    "--verbose": {"action": "store_true", "help": "show every request, answer and message in full"},
    "--port": {"type": lambda text: int(port(text)), "help": "the port of the webhook (default: a free port)"},
    "--template": {"type": Path, "help": "the template of an unpacked release (default: build this source)"},
}


def run_command(do: Callable[[], bool]) -> None:
    """Runs a command, and exits with 0 if `do` returns True, else with 1.

    Any signal that ends the command shuts everything down in order. The end of `make` does the
    same.
    """
    for number in FATAL:
        # Without this, a script's background job ignores Ctrl-C. `nohup` relies on ignoring SIGHUP.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    end_with_parent(int(os.environ.get("PARENT", os.getppid())))
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 it stays open until the program ends
    # Names come from outside, and the terminal may not support their characters.
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(0 if do() else 1)
    except Failed as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"The local AWS failed: {error}")
    except OSError as error:
        # At exit, Python would try again to write the rest of the buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1 if isinstance(error, BrokenPipeError) else f"The command had to stop: {error}")


def _end(*_):
    """Ends the command, and ignores further signals during the clean-up."""
    for number in FATAL:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def parser(description: str, *options: str) -> argparse.ArgumentParser:
    """Returns a parser of these options."""
    parser = Parser(description=description)
    for name in options:
        parser.add_argument(name, **OPTIONS[name])
    return parser
