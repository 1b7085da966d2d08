"""The command line of `ops.pyz`, which `python3 -m ops` runs as well.

Python reads this whole file before it can say that it is too old. So this file keeps to syntax that every Python 3
and Python 2.7 read. It imports no command before it is clear which one runs: `--help` works without boto3.
"""

import argparse
import importlib
import os
import sys

OLDEST = (3, 9)
STACK = "the name of a deployed stack; without it, the stack of `make run` in a clone"
RUN = "the port of the `make run` that is meant, if several are up"
PUBLISHED = "what was published since then: 90m, 2h, 3d, or a time such as 2026-11-25T18:00:00Z"
LOGGED = "the lines since then: 90m, 2h, 3d, or a time such as 2026-11-25T18:00:00Z; 10m if it is not given"
# Exit statuses
FAILED = 2  # a command that could not do its work, or that was called wrongly
INTERRUPTED = 130  # as a shell reports Ctrl-C
NOBODY_READS = 141  # as a shell reports a broken pipe


def main(arguments=None):
    """Runs one command, and exits with its status."""
    if sys.version_info < OLDEST:
        fail("This needs Python {}.{} or newer. AWS CloudShell has one.".format(*OLDEST))
    hook, sys.unraisablehook = sys.unraisablehook, end_if_interrupted
    try:
        given = parser().parse_args(arguments)
        refuse_contradiction(given)
        status = run(given)
        # Here, because Python's own flush at its end would print a traceback.
        if sys.stdout:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        status = INTERRUPTED
    except BrokenPipeError:
        # As after `| head`. What is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = NOBODY_READS
    finally:
        sys.unraisablehook = hook
    sys.exit(status)


def end_if_interrupted(error):
    """Ends the program after a Ctrl-C that came while Python disposed of an object. Python would ignore it."""
    if not issubclass(error.exc_type, KeyboardInterrupt):
        return sys.__unraisablehook__(error)
    sys.stderr.write("\nStopped.\n")
    return os._exit(INTERRUPTED)


def run(given):
    """Runs the command, and returns its status. Ends the program with the reason if the command cannot run."""
    from ops.display import printable
    from ops.errors import Refused

    try:
        return importlib.import_module("ops." + given.command).run(given)
    except BrokenPipeError:
        raise
    except Refused as error:
        reason = str(error)
    except ImportError as missing:
        if (missing.name or "").split(".")[0] not in ("boto3", "botocore"):
            raise
        reason = "This needs boto3. AWS CloudShell has it; elsewhere, run: python3 -m pip install boto3"
    except Exception as error:
        reason = said(error, local=not (given.stack or given.url))
    return fail(printable(reason))


def said(error, local):
    """Says what an error means that no command expected: mostly that AWS refused a call, or did not answer."""
    from ops.errors import what_to_do

    try:
        from botocore.exceptions import BotoCoreError, ClientError

        from ops.refusal import explained
    except ImportError:
        pass
    else:
        if isinstance(error, (BotoCoreError, ClientError)):
            return explained(error, local)
    return (type(error).__name__ + ": " + str(error) + ". " + what_to_do(error)).rstrip()


def fail(reason):
    """Ends the program, because the command cannot run."""
    sys.stderr.write(reason + "\n")
    sys.exit(FAILED)


def refuse_contradiction(given):
    """Ends the program if the command line names both a local run and something that is deployed, or an empty name."""
    for name, value in (("STACK", given.stack), ("--url", given.url)):
        if value == "":
            fail(name + " is empty: give it a value, or leave it out.")
        if value and given.run:
            fail("--run (make: RUN) names a local run, and " + name + " something deployed: give only one.")


def port(text):
    """Returns the port that an argument names."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError("PORT must be one from 1 to 65535, not " + ascii(text))
    return str(int(text))


def times(text):
    """Returns the number that an argument names."""
    if not text.isdecimal() or not 0 < int(text) <= 1000:
        raise argparse.ArgumentTypeError("N must be a number from 1 to 1000, not " + ascii(text))
    return int(text)


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message):
        fail(message + "; see --help")


def parser():
    """Returns the parser of the whole command line."""
    whole = Parser(
        prog="python3 ops.pyz",
        description="Commands for the operator of a stack. They use the account and the region that your shell is "
        "logged in to. For the exit statuses of a command, see its own help.",
        epilog="All commands end with 2 and one line about the reason if they cannot run, with 130 after Ctrl-C, and "
        "with 141 if nobody reads their output any more. A script calls this program, not `make`, which ends with 2 "
        "whatever the status was.",
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name, summary, statuses):
        command = commands.add_parser(name, help=summary, description=summary + ".", epilog="Exit status: " + statuses)
        command.add_argument("--run", metavar="PORT", type=port, help=RUN)
        command.set_defaults(stack=None, url=None)
        return command

    doctor = add(
        "doctor",
        "Says what is wrong with a stack, and how to fix it",
        "0 if all is well, 1 if something is wrong, 2 if nothing is known to be wrong but something could not be told.",
    )
    doctor.add_argument("--alert", action="store_true", help="send an opportunity too, whose alert reaches everybody")
    doctor.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    logs = add(
        "logs",
        "Prints the lines of a stack's functions as they come, until Ctrl-C",
        "0 if Ctrl-C ended it or --no-follow did, 2 if the log could not be read.",
    )
    logs.add_argument("--event", metavar="ID", help="only lines about the event with this id")
    logs.add_argument("--outcome", metavar="NAME", help="only lines with this outcome, such as alerted or unauthorized")
    logs.add_argument("--since", metavar="SPAN", default="10m", help=LOGGED)
    logs.add_argument("--function", choices=("webhook", "redrive"), help="only this function")
    logs.add_argument("--all", action="store_true", help="also Lambda's own lines about each invocation")
    logs.add_argument("--no-follow", action="store_true", help="print the lines that are there, and end")
    logs.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    pending = add(
        "pending",
        "Lists what a stack has not published yet: alerts first, then messages of the stream, each the oldest first",
        "0 if the list is complete, 2 if it could not be read.",
    )
    pending.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    resend = add(
        "resend",
        "Publishes stored alerts again, with the same ids and bytes, to everybody who is subscribed now",
        "0 if all were published, or nothing was since then; 1 if one was not, or if the event has none; "
        "2 if nothing was tried; 130 after Ctrl-C.",
    )
    resend.add_argument("--since", metavar="SPAN", help=PUBLISHED)
    resend.add_argument("--event", metavar="ID", help="what was published for the event with this id")
    resend.add_argument("--stream", action="store_true", help="messages of the lead status stream instead of alerts")
    resend.add_argument("--yes", action="store_true", help="do not ask")
    resend.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    send = add(
        "send",
        "Signs an event as SendPilot would, and posts it",
        "0 if it was accepted, 1 if it was not, 2 if it could not be sent or has no answer; of many, the highest. "
        "The secret comes from the environment variable WEBHOOK_SECRET, because other users can see arguments. Without "
        "that variable, a local run gets the secret of its stack.",
    )
    send.add_argument("--url", help="the WebhookUrl of a deployed stack; without it, that of `make run` in a clone")
    send.add_argument("--event-id", metavar="ID", help="the event's id, or `keep` for the file's own; else a new one")
    send.add_argument("--lead", metavar="ID", help="the lead's id (data.leadId), instead of the file's")
    send.add_argument(
        "--status", metavar="STATUS", help="the lead's new status (data.newStatus), instead of the file's"
    )
    send.add_argument(
        "--time",
        metavar="TIME",
        help="the event's time, such as 2026-11-25T18:00:00Z, or `keep` for the file's own; else the present time",
    )
    send.add_argument(
        "--times",
        metavar="N",
        type=times,
        help="send N events at once, up to 1000: each with an id of its own, or all the same one with --event-id",
    )
    send.add_argument("--verbose", action="store_true", help="print the bodies too")
    send.add_argument(
        "file",
        metavar="EVENT",
        nargs="?",
        default="opportunity",
        help="the name of a sample (without it: opportunity), or a file: a whole request as in events/, or a bare "
        "payload. The samples forged and unsigned are not signed by the receiver's secret; every other event is",
    )
    return whole


if __name__ == "__main__":
    main()
