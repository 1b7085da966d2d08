"""The command `logs`: prints the lines of a stack's functions as they come."""

import argparse
import heapq
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain
from typing import Optional

from ops.display import short
from ops.errors import Refused
from ops.moments import moment
from ops.request import json_object, timestamp
from ops.resend import key_part
from ops.running import use_what_runs
from ops.stack import described, log_group, output_of
from ops.subscribers import client

FUNCTIONS = ("webhook", "redrive")
# The outcomes of `src/webhook/response.rs` and `src/redrive.rs`.
OUTCOMES = (
    *("alerted", "streamed", "pending", "debounced", "duplicate", "ignored", "in_progress", "unavailable"),
    *("malformed", "unauthorized", "not_found", "method_not_allowed", "too_large", "discarded"),
)
PAUSE = 2  # seconds between two looks at the log
LATE = 60_000  # milliseconds that a line may come after another one with a later time
LONGEST = 400  # characters of a text in a line
PLATFORM = ("START ", "END ", "REPORT ", "INIT_START ", "INIT_REPORT ", "XRAY ", "EXTENSION\t")
COUNTS = ("scanned", "published", "debounced", "discarded", "duplicates", "stillPending", "stoppedEarly")
REASONS = ("reason", "detail", "failure", "streamFailure", "error", "location", "renamed", "bodyMismatch")


@dataclass
class Line:
    """One line of a function's log."""

    function: str
    timestamp: int  # milliseconds since the Unix epoch
    text: str

    def fields(self) -> dict:
        """Returns the members of a line in JSON, or none."""
        return json_object(self.text) or {}


def run(given: argparse.Namespace) -> int:
    """Prints the lines, and returns the exit status."""
    since = moment(given.since, time.time() * 1000)
    if given.outcome is not None and given.outcome not in OUTCOMES:
        raise Refused(f"There is no outcome {given.outcome}. The outcomes are: {', '.join(OUTCOMES)}.")
    if not given.stack:
        use_what_runs(given.run)
    stack = described(given.stack)
    output_of(stack, "RedriveFunctionName")  # refuses a stack of another template
    functions = (given.function,) if given.function else FUNCTIONS
    log = Log({function: log_group(stack["StackName"], function) for function in functions}, since)
    try:
        while True:
            for line in log.new_lines():
                if is_wanted(line, given.event, given.outcome, given.all):
                    print(shown(line), flush=True)
            if given.no_follow:
                return 0
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        return 0


class Log:
    """The lines of some functions since a moment, each once."""

    def __init__(self, groups: dict[str, str], since: int):
        """`groups` has the log group of each function."""
        # One client for all calls. Python swallows a Ctrl-C that comes while it closes a client's
        # connections.
        self._pages = client("logs").get_paginator("filter_log_events")
        self._groups = groups
        self._since = since
        self._seen = {}  # times, by the identity of an entry

    def new_lines(self) -> Iterator[Line]:
        """Yields the lines that were not there at the last call, by their times."""
        entries = (self._new_entries(function) for function in self._groups)
        yield from heapq.merge(*map(whole_lines, entries), key=lambda line: line.timestamp)
        # A line may come late, so the next call looks at the latest minute again.
        self._since = max(self._since, max(self._seen.values(), default=0) - LATE)
        self._seen = {identity: at for identity, at in self._seen.items() if at >= self._since}

    def _new_entries(self, function):
        pages = self._pages.paginate(logGroupName=self._groups[function], startTime=self._since)
        for entry in chain.from_iterable(page["events"] for page in pages):
            # ministack gives no ids, but a stream of its own to each invocation.
            identity = entry.get("eventId") or (entry["logStreamName"], entry["timestamp"], entry["message"])
            if identity not in self._seen:
                self._seen[identity] = entry["timestamp"]
                yield function, entry


def whole_lines(entries) -> Iterator[Line]:
    """Yields the lines of a log's entries. ministack makes two entries of a line that holds a U+2028 or the like."""
    part = None
    for function, entry in entries:
        line = Line(function, entry["timestamp"], entry["message"].rstrip("\n"))
        if part and part.timestamp == line.timestamp and not line.text.startswith(("{", *PLATFORM)):
            line.text = f"{part.text}\u2028{line.text}"
        elif part:
            yield part
        part = line if line.text.startswith("{") and not line.fields() else None
        if not part:
            yield line
    if part:
        yield part


def is_wanted(line: Line, event: Optional[str], outcome: Optional[str], everything: bool) -> bool:
    """Returns whether a line is to be printed."""
    fields = line.fields()
    if event is not None and not is_of(fields, event):
        return False
    # An event may need an alert and a message to the stream. Then its line has an outcome of each.
    if outcome is not None and outcome not in (fields.get("outcome"), fields.get("alert"), fields.get("stream")):
        return False
    return everything or not is_of_platform(line, fields)


def is_of(fields: dict, event: str) -> bool:
    """Returns whether a line is about this event. The redrive's lines name the delivery, in whose key the event is."""
    if fields.get("eventId") == event:
        return True
    parts = str(fields.get("deliveryId", "")).split("#")
    # A second fact under the same event id has a key with a suffix: see `src/webhook/handler.rs`.
    return len(parts) == 3 and key_part(event) in (parts[1], re.sub("(~[0-9a-f]{16})+$", "", parts[1]))


def is_of_platform(line: Line, fields: dict) -> bool:
    """Returns whether Lambda wrote the line about an invocation that went well."""
    if fields:
        return str(fields.get("type", "")).startswith("platform.") and status_of(fields) in (None, "success")
    return line.text.startswith(PLATFORM) and "Status: " not in line.text


def status_of(fields):
    record = fields.get("record")
    return record.get("status") if isinstance(record, dict) else None


def shown(line: Line) -> str:
    """Returns a line for people: time, level, function, and what happened."""
    fields = line.fields()
    # ministack files a line under the end of its invocation, and only the line itself says when it
    # was written.
    own = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})\d*Z$", str(fields.get("timestamp")), re.ASCII)
    at = f"{own[1]}Z" if own else timestamp(datetime.fromtimestamp(line.timestamp / 1000, timezone.utc))
    return f"{at} {short(str(fields.get('level', ''))):<5} {line.function:<7}  {_what(line, fields)}".rstrip()


def _what(line, fields):
    """Returns what happened."""
    if "message" not in fields:
        return short(" ".join(line.text.split()), LONGEST)
    # The message of a line with an outcome, and of the one line of a run, is only the name of the
    # function.
    words = [fields["message"]] if fields["message"] != line.function else []
    if "outcome" in fields:
        words = [f"{fields.get('status', '')} {fields['outcome']}".strip()]
    words += [fields[name] for name in ("eventId", "deliveryId", "newStatus") if name in fields]
    words += [f"{name} {fields[name]}" for name in ("alert", "stream", *COUNTS) if name in fields]
    words += [f"{fields['durationMs']} ms"] if "durationMs" in fields else []
    words += [fields[name] for name in REASONS if name in fields]
    return ", ".join(short(str(word), LONGEST) for word in words)
