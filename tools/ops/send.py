"""The command `send`: signs an event as SendPilot would, and posts the event once or many times."""

import argparse
import os
import queue
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from ops import request
from ops.display import answer_line, printable, request_line, short, show_answer, show_request
from ops.errors import Refused
from ops.moments import with_offset
from ops.running import MAY_HAVE_ENDED, use_local_run
from ops.secret_value import said, secrets_in

MAX_AT_ONCE = 100  # connections
NO_ANSWER = "no answer"
RETRIED = "503 asks SendPilot to send the event again. AlertsPerSecond paces alerts, so a burst can cause 503."
NOT_UTF8 = "The body is not UTF-8. The local AWS changes such bytes, so the signature does not match there."


def run(given: argparse.Namespace) -> int:
    """Sends the event, prints the request and the answer, and returns the exit status."""
    try:
        if given.url is not None and (fault := request.fault_of_url(given.url)):
            raise Refused(f"The URL {given.url} {fault}.")
        events = _events(given)
        url, secret = _receiver(given)
    except Refused as reason:
        raise Refused(f"{reason} Nothing was sent.") from None
    by = ", with the secret that you gave" if given.url is None and "WEBHOOK_SECRET" in os.environ else ""
    print(f"{_announcement(events, given)}{by}")
    if given.verbose:
        show_request(events[0])
    if given.url is None and not events[0].is_utf8():
        print(NOT_UTF8)
    return _show(_post(events, url, secret), given)


def _events(given):
    """Returns the events to send."""
    event = _changed(_found(given.file), given)
    if given.times is None:
        return [event.with_event_id(request.fresh("evt")) if given.event_id is None else event]
    if given.event_id is not None:
        return [event] * given.times
    return [event.with_event_id(request.fresh("evt")) for _ in range(given.times)]


def _found(file):
    """Returns the request of the sample with this name, or the one in this file."""
    names = request.sample_names()
    if file in names:
        return request.sample(file)
    try:
        there = file and Path(file).exists()
    except (OSError, ValueError):  # not a valid path
        there = False
    if not there:
        raise Refused(f"There is no sample and no file {file!r}. The samples are: {', '.join(names)}.")
    return request.read(file)


def _changed(event, given):
    """Returns the event with the values from the command line."""
    if given.event_id not in (None, "keep"):
        event = event.with_text("eventId", _text("--event-id", given.event_id))
        event = replace(event, message_id=request.fresh("msg"))
    if given.lead is not None:
        event = event.with_text("data.leadId", _text("--lead", given.lead))
    if given.status is not None:
        event = event.with_text("data.newStatus", _text("--status", given.status))
    if given.time is None:
        return event.at(datetime.now(timezone.utc))
    if given.time == "keep":
        return event
    moment = with_offset(given.time)
    if moment is None:
        raise Refused(f"--time {given.time} is neither `keep` nor a time such as 2026-11-25T18:00:00Z.")
    return event.with_text("timestamp", request.timestamp(moment))


def _text(option, value):
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(f"The value of {option} is not UTF-8.") from None
    return value


def _receiver(given):
    """Returns the URL of the receiver, and a secret that the receiver knows."""
    secret = _given_secret()
    if given.url is None:
        url = use_local_run(given.run)
        return url, secret or _local_secret()
    if not secret:
        raise Refused("First set the environment variable WEBHOOK_SECRET to the signing secret of the deployed stack.")
    return given.url, secret


def _given_secret():
    """Returns the first secret in WEBHOOK_SECRET, or None.

    There is no option for the secret, because other users can see arguments.
    """
    given = os.environ.get("WEBHOOK_SECRET")
    try:
        return None if given is None else secrets_in(given)[0]
    except ValueError as reason:
        raise Refused(f"The signing secret in WEBHOOK_SECRET (make: SECRET) cannot be used: {said(reason)}.") from None


def _local_secret():
    """Returns the first secret of the stack of `make run`."""
    # Imported here, because `send --url` must work without boto3.
    from ops.stack import described, output_of
    from ops.subscribers import client

    secret = output_of(described(None), "WebhookSecretArn")
    value = client("secretsmanager").get_secret_value(SecretId=secret)
    try:
        return secrets_in(value.get("SecretString"))[0]
    except ValueError as reason:
        raise Refused(f"The signing secret of the local stack cannot be used: {said(reason)}.") from None


def _announcement(events, given):
    """Returns the line about the events that are sent."""
    if given.times is None:
        return request_line(events[0], given.file)
    if given.event_id is not None:
        return f"{request_line(events[0], given.file)}, {given.times} times as the same event"
    lead = "" if given.lead is not None else ", all on the same lead"
    return f"{request_line(events[0], given.file, with_id=False)}, {given.times} times as new events{lead}"


def _post(events, url, secret):
    """Posts the events at once. Yields event, answer and seconds as each answer arrives.

    If an event gets no answer, the NoAnswer takes the place of the answer.
    """
    waiting, done = queue.SimpleQueue(), queue.SimpleQueue()
    for event in events:
        waiting.put(event)

    def work():
        while True:
            try:
                event = waiting.get_nowait()
            except queue.Empty:
                return
            before = time.monotonic()
            try:
                answer = event.post(url, secret)
            except Exception as reason:
                answer = reason
            done.put((event, answer, time.monotonic() - before))

    for _ in range(min(len(events), MAX_AT_ONCE)):
        # A daemon thread, because Ctrl-C must not wait for answers.
        threading.Thread(target=work, daemon=True).start()
    for _ in events:
        event, answer, seconds = done.get()
        if isinstance(answer, Exception) and not isinstance(answer, request.NoAnswer):
            raise answer
        yield event, answer, seconds


def _show(results, given):
    """Prints each answer, and the counts with --times. Returns the exit status."""
    where, ended = (given.url, "") if given.url else ("the local webhook", f" {MAY_HAVE_ENDED}")
    statuses, counts, began = set(), Counter(), time.monotonic()
    for event, answer, seconds in results:
        if isinstance(answer, request.NoAnswer):
            status, outcome = 2, NO_ANSWER
            line = f"< {NO_ANSWER} from {printable(where)}: {printable(str(answer))}.{ended}"
        else:
            status, outcome = (
                int(not (200 <= answer.status < 300 and answer.outcome())),
                f"{answer.status} {short(str(answer.outcome()))}",
            )
            line = answer_line(answer, seconds)
        new_id = event.event_id() if given.times and given.event_id is None else None
        print(line if new_id is None else f"{line}, event {short(new_id)}", flush=True)
        if given.verbose and status != 2:
            show_answer(answer)
        statuses.add(status)
        counts[outcome] += 1
    if given.times:
        sums = ", ".join(f"{number} x {outcome}" for outcome, number in counts.most_common())
        print(f"{given.times} sent in {time.monotonic() - began:.1f} s: {sums}")
        if any(outcome.startswith("503 ") for outcome in counts):
            print(RETRIED)
    return max(statuses)
