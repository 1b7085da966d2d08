"""The command line of `ops.pyz` and of `python3 -m ops`.

An old Python must parse this whole file before the file can report that Python is too old. So this
file keeps to the syntax of Python 2.7 and every Python 3. It imports a command's module only to run
that command, so `--help` works without boto3.
"""

import argparse
import importlib
import os
import sys

OLDEST = (3, 9)
STACK = "the name of a deployed stack (default: the stack of `make run` in a clone)"
RUN = "the port of a `make run`, if several are running"
PUBLISHED = "resend what was published since this time: 90m, 2h, 3d, or a time such as 2026-11-25T18:00:00Z"
LOGGED = "print log lines since this time: 90m, 2h, 3d, or a time such as 2026-11-25T18:00:00Z (default: 10m)"
# Exit statuses
FAILED = 2  # the command could not run, or its arguments are wrong
INTERRUPTED = 130  # as a shell reports Ctrl-C
CLOSED_PIPE = 141  # as a shell reports a broken pipe


def main(arguments=None):
    """Runs one command, and exits with the command's status."""
    if sys.version_info < OLDEST:
        fail("This program needs Python {}.{} or newer. AWS CloudShell has a newer one.".format(*OLDEST))
    hook, sys.unraisablehook = sys.unraisablehook, end_if_interrupted
    try:
        given = parser().parse_args(arguments)
        refuse_contradiction(given)
        status = run(given)
        # If Python itself flushed at exit, a closed pipe would cause a traceback.
        if sys.stdout:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        status = INTERRUPTED
    except BrokenPipeError:
        # The reader ended, for example `head`. Python must not fail on the rest of the buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = CLOSED_PIPE
    finally:
        sys.unraisablehook = hook
    sys.exit(status)


def end_if_interrupted(error):
    """Ends the program after a Ctrl-C during an object's disposal, which Python would ignore."""
    if not issubclass(error.exc_type, KeyboardInterrupt):
        return sys.__unraisablehook__(error)
    sys.stderr.write("\nStopped.\n")
    return os._exit(INTERRUPTED)


def run(given):
    """Runs the command, and returns its status.

    If the command cannot run, prints the reason and ends the program.
    """
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
        reason = "This program needs boto3. AWS CloudShell has it. Elsewhere, run: python3 -m pip install boto3"
    except Exception as error:
        reason = said(error, local=not (given.stack or given.url))
    return fail(printable(reason))


def said(error, local):
    """Explains an error that no command expected: usually AWS refused a call, or did not answer."""
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
    """Prints why the command cannot run, and ends the program."""
    sys.stderr.write(reason + "\n")
    sys.exit(FAILED)


def refuse_contradiction(given):
    """Ends the program if the arguments name both a local run and a deployment, or are empty."""
    for name, value, what in (("STACK", given.stack, "stack"), ("--url", given.url, "webhook")):
        if value == "":
            fail(name + " is empty: give it a value, or leave it out.")
        if value and given.run:
            fail("--run (make: RUN) names a local run, and " + name + " names a deployed " + what + ". Give only one.")


def port(text):
    """Returns the port in an argument, as text without leading zeros."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError("PORT must be a number from 1 to 65535, not " + ascii(text))
    return str(int(text))


def times(text):
    """Returns the number of events in an argument."""
    if not text.isdecimal() or not 0 < int(text) <= 1000:
        raise argparse.ArgumentTypeError("N must be a number from 1 to 1000, not " + ascii(text))
    return int(text)


class Parser(argparse.ArgumentParser):
    """A parser that reports a wrong argument in one line."""

    def error(self, message):
        fail(message + "; see --help")


def parser():
    """Returns the parser of the whole command line."""
    whole = Parser(
        prog="python3 ops.pyz",
        description="Commands for the operator of a stack. They use the AWS account and region that your shell is "
        "logged in to. `COMMAND --help` lists the options and the exit statuses of a command.",
        epilog="If a command cannot run, it prints one line with the reason and exits with 2. After Ctrl-C, it exits "
        "with 130 (`logs`: 0). If the reader of its output ends, it exits with 141. In a script, call this program "
        "instead of `make`: whenever a command fails, `make` exits with 2.",
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
        "0 if all is well, 1 if something is wrong, 2 if no check found a fault but a check could not run.",
    )
    doctor.add_argument(
        "--alert", action="store_true", help="also send an opportunity, whose alert reaches all subscribers"
    )
    doctor.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    logs = add(
        "logs",
        "Prints the log lines of a stack's functions as they arrive, until Ctrl-C",
        "0 if the log was printed until Ctrl-C or, with --no-follow, to its end; 2 if it could not be read.",
    )
    logs.add_argument("--event", metavar="ID", help="print only log lines about the event with this id")
    logs.add_argument("--outcome", metavar="NAME", help="print only log lines with this outcome, such as alerted")
    logs.add_argument("--since", metavar="SPAN", default="10m", help=LOGGED)
    logs.add_argument(
        "--function", choices=("webhook", "redrive", "reconcile"), help="print only this function's log lines"
    )
    logs.add_argument("--all", action="store_true", help="also print Lambda's own log lines about each invocation")
    logs.add_argument("--no-follow", action="store_true", help="print the log lines so far, and exit")
    logs.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    pending = add(
        "pending",
        "Lists pending deliveries: alerts first, then messages of the lead status stream, the oldest first",
        "0 if the list is complete, 2 if it could not be read.",
    )
    pending.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    resend = add(
        "resend",
        "Publishes stored alerts again, with the same ids and bytes, to all current subscribers",
        "0 if every alert was published again, or if there was none since that time; 1 if an alert could not be "
        "published or its row is unreadable, or if the event has none; 2 if the command could not run, or was not "
        "confirmed; 130 after Ctrl-C.",
    )
    resend.add_argument("--since", metavar="SPAN", help=PUBLISHED)
    resend.add_argument("--event", metavar="ID", help="resend what was published for the event with this id")
    resend.add_argument(
        "--stream", action="store_true", help="resend messages of the lead status stream instead of alerts"
    )
    resend.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    resend.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    reconcile = add(
        "reconcile",
        "Finds leads whose webhook never came, and publishes their alerts now",
        "0 if the run did not fail, even if a later run must continue; 1 if the run failed, or if the reconciliation "
        "of the stack is off; 2 if no run was made, such as while another one is in progress, or if the result is not "
        "known; 130 after Ctrl-C, while the run may go on.",
    )
    reconcile.add_argument(
        "--dry-run", action="store_true", help="only list the alerts that a run would publish, and change nothing"
    )
    reconcile.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    forget = add(
        "forget",
        "Deletes what the table of a stack stores about a lead, and lists each row",
        "0 if no row of the table names the lead any more; 1 if a row still names the lead, such as a pending "
        "delivery; 2 if the command could not run to its end, and must be repeated. With --dry-run, the status is 0 or "
        "1 as it would be.",
    )
    forget.add_argument("--lead", metavar="ID", help="the lead's id in SendPilot, such as lead_abc123")
    forget.add_argument(
        "--workspace", metavar="ID", help="delete only the data from this workspace (default: from all workspaces)"
    )
    forget.add_argument("--dry-run", action="store_true", help="only list the rows, and change nothing")
    forget.add_argument("stack", nargs="?", metavar="STACK", help=STACK)

    send = add(
        "send",
        "Signs an event as SendPilot would, and posts it",
        "0 if the event was accepted, 1 if it was not, 2 if it could not be sent or got no answer; with --times, the "
        "highest. `send` reads the signing secret from the environment variable WEBHOOK_SECRET, because other users "
        "can see arguments. Without this variable, `send` signs for a local run with the secret of its stack.",
    )
    send.add_argument(
        "--url", help="the WebhookUrl of a deployed stack (default: the webhook of `make run` in a clone)"
    )
    send.add_argument(
        "--event-id", metavar="ID", help="the event's id, or `keep` for the id in the file (default: a new id)"
    )
    send.add_argument("--lead", metavar="ID", help="the lead's id (data.leadId), instead of the id in the file")
    send.add_argument(
        "--status", metavar="STATUS", help="the lead's new status (data.newStatus), instead of the file's status"
    )
    send.add_argument(
        "--time",
        metavar="TIME",
        help="the event's time, such as 2026-11-25T18:00:00Z, or `keep` for the time in the file (default: now)",
    )
    send.add_argument(
        "--times",
        metavar="N",
        type=times,
        help="send N events at once, up to 1000: each with a new id or, with --event-id, all the same event",
    )
    send.add_argument("--verbose", action="store_true", help="also print the bodies of requests and answers")
    send.add_argument(
        "file",
        metavar="EVENT",
        nargs="?",
        default="opportunity",
        help="the name of a sample (default: opportunity), or a file with a whole request, as in events/, or with a "
        "bare payload. `send` signs every event with the receiver's secret, except the samples forged and unsigned",
    )
    return whole


if __name__ == "__main__":
    main()
