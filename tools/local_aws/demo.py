"""`make demo`: sends four requests to the service on a local AWS, shows the answers and the alert, and judges them.

`make run` does the same, and stays up.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from local_aws.function import LOGS, ROOT
from local_aws.inbox import Inbox, Message
from local_aws.progress import Failed
from local_aws.service import Service, service
from ops import request
from ops.deliveries import bodies
from ops.display import pretty, show, show_answer, show_request
from ops.running import RUNNING


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stay", action="store_true", help="stay up until Ctrl-C")
    parser.add_argument("--template", type=Path, help="that of an unpacked release; without it, this source is built")
    arguments = parser.parse_args()
    # Both signals take everything down in order. A background job of a script ignores Ctrl-C otherwise.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with service(arguments.template) as deployed:
            inbox = Inbox(deployed.topic_arn)
            as_it_should = demonstrate(deployed, inbox)
            if arguments.stay:
                stay(deployed, inbox)
    except Failed as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    sys.exit(not as_it_should)


def demonstrate(deployed: Service, inbox: Inbox) -> bool:
    """Sends the requests, shows the answers and the alert, and returns whether all are as expected."""
    fresh = {
        name: request.read(ROOT / "events" / f"{name}.json").with_event_id(request.fresh("evt"))
        for name in ("opportunity", "reply-received", "forged")
    }
    verdicts = []
    for title, name, expected in (
        ("A lead becomes an opportunity", "opportunity", "200 alerted"),
        ("SendPilot sends the same event again", "opportunity", "200 duplicate"),
        ("A lead replies, which is no opportunity", "reply-received", "200 ignored"),
        ("Somebody forges an opportunity", "forged", "401 unauthorized"),
    ):
        print(f"\n{title}\n")
        show_request(fresh[name], f"events/{name}.json")
        answer = fresh[name].post(deployed.webhook_url)
        show_answer(answer)
        verdicts.append((title, expected, f"{answer.status} {answer.outcome()}"))
    alerts = inbox.collect(expected=1)
    for alert in alerts:
        show_arrival(alert, deployed)
    ids = [alert.event["id"] for alert in alerts]
    verdicts.append(("Alerts that were published", fresh["opportunity"].event_id(), ", ".join(ids)))
    for title, expected, got in verdicts:
        print(f"ok      {title}: {got}" if got == expected else f"FAILED  {title}: {got} instead of {expected}")
    return all(got == expected for _, expected, got in verdicts)


def stay(deployed: Service, inbox: Inbox) -> None:
    """Shows alerts as they come, until Ctrl-C."""
    RUNNING.write_text(deployed.webhook_url)
    print(f"\nUp at {deployed.webhook_url}\nTo send more, in another terminal:\n")
    for name in ("opportunity", "opportunity-lead-updated", "opportunity-hostile", "malformed"):
        print(f"  make send EVENT=events/{name}.json")
    print("\nAlerts show here as they come. Ctrl-C takes all of it down.", flush=True)
    try:
        while deployed.emulator.running():
            for alert in inbox.receive(wait=1):
                show_arrival(alert, deployed)
        raise Failed("The local AWS has ended", LOGS / "ministack.log")
    except KeyboardInterrupt:
        print("\nStopped.")
    finally:
        RUNNING.unlink(missing_ok=True)


def show_arrival(alert: Message, deployed: Service) -> None:
    """Prints what subscribers get. The alert's row in the table holds the exact publish request."""
    row = deployed.deliveries.published(alert.message_id)
    print("\nAn alert was published\n")
    print("  To a program (delivered: this is what the queue received)")
    show(pretty(alert.event))
    if row is None:
        print("  The table has no row of it.")
        return
    # ministack takes email, SMS and HTTPS subscriptions, but delivers nothing to the first two.
    print("  By email, SMS and chat (not delivered here: read from the publish request in the table's row)")
    by_protocol = bodies(row)
    print("  email")
    show(f"Subject: {row['message']['Subject']}\n\n{by_protocol['email']}")
    print("  SMS")
    show(by_protocol["sms"])
    print("  Slack and Teams")
    show(pretty(json.loads(by_protocol["https"])))


if __name__ == "__main__":
    main()
