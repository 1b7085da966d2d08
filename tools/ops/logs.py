"""The command `logs`: prints the log lines of a stack's functions as they arrive."""

import argparse
import heapq
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain
from typing import Optional

from ops.deliveries import key_part
from ops.display import short
from ops.errors import Refused
from ops.moments import moment
from ops.request import json_object, timestamp
from ops.running import use_local_run
from ops.stack import described, log_group, output_of, reconciles, reconciliation_is_off
from ops.subscribers import client

FUNCTIONS = ("webhook", "redrive", "reconcile")
# The outcomes of `src/webhook/response.rs`, of `src/delivery/log.rs`, and of a run of the
# reconciliation.
OUTCOMES = (
    *("alerted", "streamed", "remembered", "pending", "debounced", "duplicate", "ignored", "in_progress"),
    *("unavailable", "malformed", "unauthorized", "not_found", "method_not_allowed", "too_large", "discarded"),
    *("complete", "continues", "paused", "failed"),
)
POLL_INTERVAL = 2  # seconds between two reads of the log
MAX_DELAY = 60_000  # milliseconds that a line may arrive after a line with a later time
MAX_TEXT = 400  # characters of a field that is printed
PLATFORM = ("START ", "END ", "REPORT ", "INIT_START ", "INIT_REPORT ", "XRAY ", "EXTENSION\t")
COUNTS = (
    *("scanned", "published", "debounced", "discarded", "duplicates", "stillPending", "stoppedEarly"),
    *("requests", "campaigns", "leads", "baseline", "waiting", "missed", "alerted", "pending", "arrived"),
    *("missedSince", "retryAt"),
)
REASONS = ("reason", "detail", "failure", "streamFailure", "error", "location", "renamed", "bodyMismatch")


@dataclass
class LogLine:
    """One log line of a function."""

    function: str
    timestamp: int  # milliseconds since the Unix epoch
    text: str

    def fields(self) -> dict:
        """Returns the line's fields, or an empty dict if the line is not JSON."""
        return json_object(self.text) or {}


def run(given: argparse.Namespace) -> int:
    """Prints the lines, and returns the exit status."""
    since = moment(given.since, time.time() * 1000)
    if given.outcome is not None and given.outcome not in OUTCOMES:
        raise Refused(f"There is no outcome {given.outcome}. The outcomes are: {', '.join(OUTCOMES)}.")
    if not given.stack:
        use_local_run(given.run)
    stack = described(given.stack)
    output_of(stack, "RedriveFunctionName")  # raises Refused for a stack of another template
    if given.function == "reconcile" and not reconciles(stack):
        raise Refused(reconciliation_is_off(stack, local=not given.stack))
    functions = (given.function,) if given.function else FUNCTIONS if reconciles(stack) else FUNCTIONS[:2]
    log = Log({function: log_group(stack["StackName"], function) for function in functions}, since)
    try:
        while True:
            for line in log.new_lines():
                if is_wanted(line, given.event, given.outcome, given.all):
                    print(formatted(line), flush=True)
            if given.no_follow:
                return 0
            time.sleep(POLL_INTERVAL)
    except KeyboardInterrupt:
        return 0


class Log:
    """Reads the log lines of some functions since a moment, each once."""

    def __init__(self, groups: dict[str, str], since: int):
        """`groups` has the log group of each function."""
        # One client for all calls, because Python ignores a Ctrl-C while it closes a client's
        # connections.
        self._pages = client("logs").get_paginator("filter_log_events")
        self._groups = groups
        self._since = since
        self._seen = {}  # times, by the identity of an entry

    def new_lines(self) -> Iterator[LogLine]:
        """Yields the lines that are new since the last call, in the order of their times."""
        entries = (self._new_entries(function) for function in self._groups)
        yield from heapq.merge(*map(whole_lines, entries), key=lambda line: line.timestamp)
        # A line may arrive late, so the next call reads the latest minute again.
        self._since = max(self._since, max(self._seen.values(), default=0) - MAX_DELAY)
        self._seen = {identity: at for identity, at in self._seen.items() if at >= self._since}

    def _new_entries(self, function):
        pages = self._pages.paginate(logGroupName=self._groups[function], startTime=self._since)
        for entry in chain.from_iterable(page["events"] for page in pages):
            # ministack has no entry ids, but it gives each invocation its own log stream.
            identity = entry.get("eventId") or (entry["logStreamName"], entry["timestamp"], entry["message"])
            if identity not in self._seen:
                self._seen[identity] = entry["timestamp"]
                yield function, entry


def whole_lines(entries) -> Iterator[LogLine]:
    """Yields the lines of a log's entries.

    ministack splits a line at a U+2028 or a similar character into two entries.
    """
    part = None
    for function, entry in entries:
        line = LogLine(function, entry["timestamp"], entry["message"].rstrip("\n"))
        if part and part.timestamp == line.timestamp and not line.text.startswith(("{", *PLATFORM)):
            line.text = f"{part.text}\u2028{line.text}"
        elif part:
            yield part
        part = line if line.text.startswith("{") and not line.fields() else None
        if not part:
            yield line
    if part:
        yield part


def is_wanted(line: LogLine, event: Optional[str], outcome: Optional[str], everything: bool) -> bool:
    """Returns whether the options select a line."""
    fields = line.fields()
    if event is not None and not is_of(fields, event):
        return False
    # If an event needed an alert and a message to the stream, its line has an outcome of each.
    if outcome is not None and outcome not in (fields.get("outcome"), fields.get("alert"), fields.get("stream")):
        return False
    return everything or not is_of_platform(line, fields)


def is_of(fields: dict, event: str) -> bool:
    """Returns whether a line is about this event.

    The redrive's lines have only the delivery's key, which contains the event id.
    """
    if fields.get("eventId") == event:
        return True
    parts = str(fields.get("deliveryId", "")).split("#")
    # A second fact under the same event id has a key with a suffix: see `src/webhook/handler.rs`.
    return len(parts) == 3 and key_part(event) in (parts[1], re.sub("(~[0-9a-f]{16})+$", "", parts[1]))


def is_of_platform(line: LogLine, fields: dict) -> bool:
    """Returns whether Lambda wrote the line, about a successful invocation."""
    if fields:
        return str(fields.get("type", "")).startswith("platform.") and status_of(fields) in (None, "success")
    return line.text.startswith(PLATFORM) and "Status: " not in line.text


def status_of(fields):
    record = fields.get("record")
    return record.get("status") if isinstance(record, dict) else None


def formatted(line: LogLine) -> str:
    """Returns a line as it is printed: time, level, function, and what happened."""
    fields = line.fields()
    # ministack stamps a line with the end of its invocation. Only the line itself has the time when
    # it was written.
    own = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})\d*Z$", str(fields.get("timestamp")), re.ASCII)
    at = f"{own[1]}Z" if own else timestamp(datetime.fromtimestamp(line.timestamp / 1000, timezone.utc))
    return f"{at} {short(str(fields.get('level', ''))):<5} {line.function:<7}  {_what(line, fields)}".rstrip()


def _what(line, fields):
    if "message" not in fields:
        return short(" ".join(line.text.split()), MAX_TEXT)
    # The message of a line with an outcome, and of a line about a run, is only the function's name.
    words = [fields["message"]] if fields["message"] != line.function else []
    if "outcome" in fields:
        words = [f"{fields.get('status', '')} {fields['outcome']}".strip()]
    words += ["dry run"] if fields.get("dryRun") is True else []
    words += [fields[name] for name in ("eventId", "deliveryId", "newStatus") if name in fields]
    words += [f"{name} {fields[name]}" for name in ("alert", "stream", *COUNTS) if name in fields]
    words += [f"{fields['durationMs']} ms"] if "durationMs" in fields else []
    words += [fields[name] for name in REASONS if name in fields]
    return ", ".join(short(str(word), MAX_TEXT) for word in words)
