"""The command `send`: signs a request from a file as SendPilot would, and posts it."""

import argparse
import os
import sys
import time
from typing import Optional

from ops import request
from ops.display import answer_line, request_line
from ops.running import use_what_runs
from ops.signature import SAMPLE_SECRET


class NotSent(Exception):
    """The reason why nothing was sent, or why there was no answer."""


def run(given: argparse.Namespace) -> int:
    """Sends the request, shows it and its answer, and returns the exit status."""
    try:
        answer = _send(given.file, given.url, given.event_id)
    except NotSent as reason:
        print(reason, file=sys.stderr)
        return 2
    return 0 if 200 <= answer.status < 300 else 1


def _send(file: str, url: Optional[str], event_id: Optional[str]) -> request.Answer:
    url, secret = _receiver(url)
    try:
        sent = request.read(file)
    except OSError as error:
        raise NotSent(f"{error}") from None
    if event_id != "keep":
        sent = sent.with_event_id(event_id or request.fresh("evt"))
    print(request_line(sent, file))
    before = time.monotonic()
    try:
        answer = sent.post(url, secret)
    except (OSError, ValueError) as error:
        raise NotSent(f"No answer from {url}: {error}") from None
    print(answer_line(answer, time.monotonic() - before))
    return answer


def _receiver(url):
    """Returns the URL of the receiver, and a secret that the receiver knows.

    The secret comes from the environment, because other users can see arguments.
    """
    if not url:
        return use_what_runs(), SAMPLE_SECRET
    secrets = os.environ.get("WEBHOOK_SECRET", "").split()
    if not secrets:
        raise NotSent("First set the environment variable WEBHOOK_SECRET to the signing secret of that deployment.")
    return url, secrets[0]
