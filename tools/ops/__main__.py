"""The command line of `ops.pyz`, which `python3 -m ops` runs as well.

Python reads this whole file before it can say that it is too old. So this file keeps to syntax that every Python 3
and Python 2.7 read. It imports no command before it is clear which one runs: `--help` works without boto3.
"""

import argparse
import importlib
import sys

OLDEST = (3, 9)
STACK = "the name of a deployed stack; without it, the stack of `make run` in a clone"
SPAN = "what was published since then: 90m, 2h, 3d, or a time such as 2026-11-25T18:00:00Z"
FAILED = 2  # the exit status of a command that could not do its work, and of one that was called wrongly


def main(arguments=None):
    """Runs one command, and exits with its status."""
    if sys.version_info < OLDEST:
        fail("This needs Python {}.{} or newer. AWS CloudShell has one.".format(*OLDEST))
    given = parser().parse_args(arguments)
    try:
        command = importlib.import_module("ops." + given.command)
    except ImportError as missing:
        if (missing.name or "").split(".")[0] not in ("boto3", "botocore"):
            raise
        fail("This needs boto3. AWS CloudShell has it; elsewhere, run: python3 -m pip install boto3")
    sys.exit(command.run(given))


def fail(reason):
    """Ends the program, because the command cannot run."""
    sys.stderr.write(reason + "\n")
    sys.exit(FAILED)


def parser():
    """Returns the parser of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="python3 ops.pyz",
        description="Commands for the operator of a stack. They use the account and the region that your shell is "
        "logged in to. For the exit statuses of a command, see its own help.",
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name, summary, statuses):
        return commands.add_parser(name, help=summary, description=summary + ".", epilog="Exit status: " + statuses)

    doctor = add(
        "doctor",
        "Says what is wrong with a stack, and how to fix it",
        "0 if all is well, 1 if something is wrong, 2 if nothing is known to be wrong but something could not be told.",
    )
    doctor.add_argument("--alert", action="store_true", help="send an opportunity too, whose alert reaches everybody")
    doctor.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    pending = add(
        "pending",
        "Lists what a stack has not published yet: alerts first, then messages of the stream, each the oldest first",
        "0 if the list is complete, 2 if it could not be read.",
    )
    pending.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    resend = add(
        "resend",
        "Publishes stored alerts again, with the same ids and bytes, to everybody who is subscribed now",
        "0 if all were published, 1 if one was not, 2 if nothing was sent, 130 after Ctrl-C.",
    )
    resend.add_argument("--since", metavar="SPAN", help=SPAN)
    resend.add_argument("--event", metavar="ID", help="what was published for the event with this id")
    resend.add_argument("--stream", action="store_true", help="messages of the lead status stream instead of alerts")
    resend.add_argument("--yes", action="store_true", help="do not ask")
    resend.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    send = add(
        "send",
        "Signs a request from a file as SendPilot would, and posts it",
        "0 if it was accepted, 1 if it was not, 2 if it could not be sent. "
        "The secret comes from the environment variable WEBHOOK_SECRET, because other users can see arguments.",
    )
    send.add_argument("--url", help="the WebhookUrl of a deployed stack; without it, that of `make run` in a clone")
    send.add_argument("--event-id", metavar="ID", help="the event's id, or `keep` for the file's own; else a new one")
    send.add_argument("file", metavar="FILE", help="a request as in events/, or a bare payload")
    return whole


if __name__ == "__main__":
    main()
