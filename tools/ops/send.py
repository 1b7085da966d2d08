"""`make send`: signs a request from a file as SendPilot would, posts it, and exits with whether it was accepted."""

import argparse
import os
import sys

from ops import request
from ops.display import show_answer, show_request
from ops.running import RUNNING
from ops.signature import SAMPLE_SECRET


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="a request as in events/, or a bare payload")
    parser.add_argument("--url", help="where to: the WebhookUrl of a deployed stack; without it, what `make run` runs")
    parser.add_argument("--event-id", help="the event's id, or `keep` for the file's own; without it, a fresh one")
    arguments = parser.parse_args()
    url, secret = _receiver(arguments.url)
    try:
        sent = request.read(arguments.file)
    except OSError as error:
        sys.exit(f"{error}")
    if arguments.event_id != "keep":
        sent = sent.with_event_id(arguments.event_id or request.fresh("evt"))
    show_request(sent, arguments.file)
    try:
        answer = sent.post(url, secret)
    except (OSError, ValueError) as error:
        sys.exit(f"No answer from {url}: {error}")
    show_answer(answer)
    sys.exit(not 200 <= answer.status < 300)


def _receiver(url):
    """Where to, and signed with what. The secret comes by the environment, which does not show in `ps`."""
    if url:
        secrets = os.environ.get("WEBHOOK_SECRET", "").split()
        if not secrets:
            sys.exit("Set WEBHOOK_SECRET to the signing secret of that deployment first.")
        return url, secrets[0]
    if not RUNNING.exists():
        sys.exit("Nothing runs here. Start `make run` in another terminal, or name a deployed stack by URL=https://...")
    os.environ["no_proxy"] = "127.0.0.1"
    return RUNNING.read_text(), SAMPLE_SECRET


if __name__ == "__main__":
    main()
