"""`make demo`: sends four requests to the service on a local AWS, shows the answers and the alert, and judges them.

`make run` does the same, and stays up.
"""

import argparse
import os
import time
from datetime import timedelta
from pathlib import Path

from local_aws import command, parameters
from local_aws.calls import calls_of
from local_aws.faces import faces
from local_aws.inbox import Inbox
from local_aws.progress import Failed
from local_aws.run import Run
from local_aws.service import Service, service
from local_aws.stay import stay
from ops import request
from ops.display import answer_line, printable, request_line, show_answer, show_request
from ops.running import ROOT
from ops.secret_value import said, secrets_in
from ops.signature import SAMPLE_SECRET

# What happens, the sample that is sent, and the answer that is expected.
SCENES = (
    ("A lead becomes an opportunity", "opportunity", "200 alerted"),
    ("SendPilot sends the same event again", "opportunity", "200 duplicate"),
    ("A lead replies, which needs no alert", "reply-received", "200 ignored"),
    ("Somebody forges an opportunity", "forged", "401 unauthorized"),
)
NEXT = """
Next:
  make run              the same, and stays up for what you send: make send EVENT=opportunity LEAD=lead_42
  make journey          a lead goes through every status, with the lead status stream
  make demo V=1         all that was sent, answered and published
  docs/deploy.md        how to deploy it to AWS
"""


def main():
    parser = command.parser(__doc__)
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="parameters of the template")
    parser.add_argument("--template", type=Path, help="that of an unpacked release; without it, this source is built")
    given = parser.parse_args()
    # Out of the environment, which everything that builds would inherit.
    secret = os.environ.pop("WEBHOOK_SECRET", SAMPLE_SECRET)
    command.run_command(lambda: run(given, secret if given.stay else SAMPLE_SECRET))


def run(given: argparse.Namespace, secret: str) -> bool:
    """Runs the demo, and stays up if that was asked for. Returns whether all was as expected."""
    changed = parameters.given(given.parameters, given.template or ROOT / "template.yaml")
    signer = first(secret)
    with Run(given.port) as local, service(local, given.template, secret, **changed) as deployed:
        alerts = Inbox(deployed.topic_arn)
        stream = Inbox(deployed.stream_arn) if deployed.stream_arn else None
        if changed:
            # They may change what is answered and alerted.
            print(f"\nWith {', '.join(f'{name}={value}' for name, value in changed.items())}")
            as_it_should = True
        else:
            as_it_should = demonstrate(deployed, alerts, signer, given.verbose)
        if given.stay:
            stay(deployed, local, alerts, stream, given.verbose)
        else:
            print(NEXT, end="")
    return as_it_should


def first(value: str) -> str:
    """Returns the first secret in a value, if the functions take that value."""
    try:
        return secrets_in(value)[0]
    except ValueError as fault:
        raise Failed(f"The signing secret in WEBHOOK_SECRET (make: SECRET) cannot be used: {said(fault)}.") from None


def demonstrate(deployed: Service, alerts: Inbox, secret: str, everything: bool) -> bool:
    """Sends the requests, shows the answers and the alert, and returns whether all are as expected."""
    samples = {name: request.sample(name).renewed() for _, name, _ in SCENES}
    print()
    faults, sent = [], {}
    for title, name, expected in SCENES:
        event, before = samples[name], time.time()
        answer = event.post(deployed.webhook_url, secret)
        took = time.time() - before
        sent.setdefault(name, before)
        got = f"{answer.status} {answer.outcome()}"
        print(f"{title:<38}{name:<16}{event.event_id()}  {got}, {took * 1000:.0f} ms", flush=True)
        if everything:
            print(request_line(event, name))
            show_request(event)
            print(answer_line(answer, took))
            show_answer(answer)
        if got != expected:
            faults.append(f"{title}: {got} instead of {expected}")
    event_id = samples["opportunity"].event_id()
    arrived = alerts.collect(expected=1)
    for alert in arrived:
        took = timedelta(seconds=alert.arrived - sent["opportunity"]) / timedelta(milliseconds=1)
        calls = calls_of(event_id)
        print(
            f"\nThe alert, {took:.0f} ms after the event was sent, by {len(calls)} calls to AWS: {', '.join(calls)}\n"
        )
        row = deployed.deliveries.with_alert(alert.text)
        print(faces(row, everything) if row else printable(alert.text))
    ids = [alert.event.get("id") for alert in arrived]
    if ids != [event_id]:
        faults.append(f"Alerts: {ids} instead of {[event_id]}")
    for fault in faults:
        print(f"FAILED  {fault}")
    if not faults:
        print("ok: four answers as expected, and one alert")
    return not faults


if __name__ == "__main__":
    main()
