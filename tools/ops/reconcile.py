"""The command `reconcile`: runs the reconciliation of a stack once, and prints its report.

The reconciliation finds leads whose webhook never came, and alerts them. The stack also runs it on
a schedule.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from ops.display import printable, short
from ops.errors import Refused
from ops.request import json_object
from ops.running import use_local_run
from ops.stack import (
    RECONCILE_OUTPUT,
    described,
    output_of,
    outputs_of,
    parameters_of,
    reconciles,
    reconciliation_is_off,
)

# The function's timeout is 230 s. An error of Lambda about this timeout must still arrive.
READ_TIMEOUT = 260  # seconds
THROTTLED = re.compile("TooManyRequests|Throttl")
OUTCOMES = ("complete", "continues", "paused", "in_progress")
COUNTS = ("requests", "campaigns", "leads", "baseline", "waiting", "missed", "alerted", "pending", "arrived")
MAX_TEXT = 500  # characters of an error that is printed


def run(given: argparse.Namespace) -> int:
    """Makes one run, prints its report, and returns the exit status."""
    if not given.stack:
        use_local_run(given.run)
    stack = described(given.stack)
    output_of(stack, "DeliveriesTableName")  # raises Refused for a stack of another template
    if not reconciles(stack):
        print(printable(reconciliation_is_off(stack, local=not given.stack)))
        return 1
    if sys.stderr.isatty():
        print("The run takes at most four minutes ...", file=sys.stderr)
    try:
        answer, is_error = invoked(outputs_of(stack)[RECONCILE_OUTPUT], given.dry_run)
    except KeyboardInterrupt:
        print("\nStopped waiting. The run may go on in AWS. Its log line has the result.", file=sys.stderr)
        return 130
    except HTTPClientError as error:
        if isinstance(error, ConnectionError):  # the request was not sent
            raise
        raise Refused(
            f"Lambda did not answer ({error}), so the result of the run is not known. The log may have it: "
            f"{log_of(given)}"
        ) from None
    except ClientError as error:
        if THROTTLED.search(error.response["Error"]["Code"]):
            raise Refused(throttled(error)) from None
        raise
    if is_error:
        print(printable(failure(answer, given)))
        return 1
    report = read(answer)
    if report["outcome"] == "in_progress":
        raise Refused(f"Another run is in progress{_until(report)}. Run the command again later.")
    statuses = (parameters_of(stack).get("AlertStatuses") or "OPPORTUNITY").split(",")
    for line in lines(report, [status.strip() for status in statuses]):
        print(printable(line))
    return 0


def invoked(function: str, dry_run: bool) -> tuple[bytes, bool]:
    """Invokes the function, and returns its answer and whether the answer is an error.

    A repeated invocation could make a second run, so a failed call is not repeated.
    """
    # Without keep-alive, a network may drop a connection that is silent for minutes.
    config = Config(connect_timeout=5, read_timeout=READ_TIMEOUT, retries={"total_max_attempts": 1}, tcp_keepalive=True)
    answer = boto3.client("lambda", config=config).invoke(
        FunctionName=function, Payload=json.dumps({"dryRun": True} if dry_run else {}).encode()
    )
    return answer["Payload"].read(), "FunctionError" in answer


def throttled(error: ClientError) -> str:
    """Returns why Lambda started no run, and what to do."""
    refusal = error.response["Error"]
    return (
        f"Lambda started no run: {refusal['Code']}: {refusal['Message'].rstrip('. ')}. Another run may be in progress, "
        "or the account's concurrent executions may be used up. Run the command again in some minutes."
    )


def failure(answer: bytes, given: argparse.Namespace) -> str:
    """Returns one line about a failed run."""
    error = json_object(answer) or {}
    kind, message = (" ".join(str(error.get(name, "")).split()) for name in ("errorType", "errorMessage"))
    if kind == "Reconcile":
        return f"The run failed: {message}"
    if kind == "Sandbox.Timedout" or "Task timed out" in message:
        return f"Lambda ended the run at its time limit. A later run does the rest. The log: {log_of(given)}"
    what = short(": ".join(part for part in (kind, message) if part), MAX_TEXT) or "without a reason"
    return f"The function did not start, or it crashed: {what}. The log may have the reason: {log_of(given)}"


def log_of(given: argparse.Namespace) -> str:
    """Returns the command that prints the function's log."""
    if given.stack:
        return f"python3 ops.pyz logs {shlex.quote(given.stack)} --function reconcile --since 1h"
    return "make logs FUNCTION=reconcile SINCE=1h" + (f" RUN={given.run}" if given.run else "")


def read(answer: bytes) -> dict:
    """Returns the report in the function's answer. Raises Refused if there is no readable report."""
    report = json_object(answer)
    if not report or report.get("outcome") not in OUTCOMES:
        raise Refused(unreadable(answer))
    counts = {name: report.get(name, 0) for name in COUNTS}
    listed = report.get("wouldAlert", [])
    if any(type(count) is not int for count in counts.values()) or not isinstance(listed, list):
        raise Refused(unreadable(answer))
    return {**report, **counts, "wouldAlert": [one for one in listed if isinstance(one, dict)]}


def unreadable(answer: bytes) -> str:
    """Returns why an answer is not a report, and what to do."""
    text = " ".join(answer.decode(errors="replace").split())
    return (
        f"The function answered, but not with a report that this version knows: {short(text, MAX_TEXT)}. "
        "Use the ops.pyz of the release that the stack was deployed from."
    )


def lines(report: dict, statuses: list[str]) -> Iterator[str]:
    """Yields the lines about a run that did not fail. `statuses` are the stack's alert statuses."""
    dry_run, leads, status = report.get("dryRun") is True, report["leads"], " or ".join(statuses)
    yield (
        f"{_number(report['campaigns'], 'campaign')} read with {_number(report['requests'], 'request')}. "
        f"{_number(leads, 'lead')} {'has' if leads == 1 else 'have'} the status {status}."
    )
    yield from _on_baseline(report, dry_run)
    if waiting := report["waiting"]:
        one = waiting == 1
        yield (
            f"{_number(waiting, 'lead')} {'was' if one else 'were'} updated only minutes ago, "
            f"so {'its webhook' if one else 'their webhooks'} may still arrive."
        )
    yield from _on_missed(report, dry_run)
    if report["outcome"] == "continues":
        rest = "so this list may be incomplete" if dry_run else "and the next run continues there"
        yield f"The run ended before it had read every campaign, {rest}."
    if report["outcome"] == "paused":
        rest = "so this list may be incomplete" if dry_run else "and a later run continues"
        yield f"SendPilot's API asked to wait{_until(report)}, {rest}."
    if dry_run:
        yield "Nothing was changed, because this was a dry run."


def _on_baseline(report, dry_run):
    if baseline := report["baseline"]:
        one, leads = baseline == 1, _number(baseline, "lead")
        if dry_run:
            yield f"A run would make {leads} known without an alert, because the baseline is not complete."
        else:
            yield f"{leads} {'is' if one else 'are'} known from now on, without an alert: the baseline."


def _on_missed(report, dry_run):
    missed = report["missed"]
    if not missed and not report["baseline"]:
        yield "No missed lead was found."
    if missed:
        since = f" since {report['missedSince']}" if "missedSince" in report else ""
        was = f"{missed} {'was' if missed == 1 else 'were'} missed{since}"
        if dry_run:
            yield f"{was}. A run would alert:"
            yield from _table(report["wouldAlert"])
            if (more := missed - len(report["wouldAlert"])) > 0:
                yield f"... and {more} more"
        else:
            yield f"{was}: {_results(report)}."
        yield "SendPilot did not deliver the missed events. Check the webhook in SendPilot's settings."
    if arrived := report["arrived"]:
        yield f"{_number(arrived, 'lead')} seemed missed, but the webhook arrived during the run."


def _results(report):
    """Returns what became of the missed leads of a run."""
    left = report["missed"] - report["alerted"] - report["pending"]
    parts = [f"{_number(report['alerted'], 'alert')} published"]
    if report["pending"]:
        parts.append(f"{_number(report['pending'], 'alert')} pending, which the redrive publishes")
    if left > 0:
        parts.append(f"{left} left to the next run")
    return ", ".join(parts)


def _table(leads):
    rows = [("LEAD", "STATUS", "UPDATED AT", "CAMPAIGN")]
    rows += [tuple(_cell(lead, name) for name in ("leadId", "status", "updatedAt", "campaignId")) for lead in leads]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        yield "  ".join([*map(str.ljust, row, widths), row[3]]).rstrip()


def _cell(lead, name):
    value = lead.get(name)
    return printable("" if value is None else str(value))


def _until(report):
    return f" until {report['retryAt']}" if "retryAt" in report else ""


def _number(count, noun):
    return f"{count} {noun}{'' if count == 1 else 's'}"
