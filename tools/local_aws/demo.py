"""`make demo`: sends five requests to a local AWS, and checks the answers and the alert.

`make run` does the same, and keeps running.
"""

import argparse
import os
import time
from datetime import datetime, timedelta, timezone

from local_aws import command, details, parameters
from local_aws.calls import calls_since
from local_aws.faces import faces
from local_aws.inbox import Inbox
from local_aws.progress import Failed
from local_aws.run import Run
from local_aws.sendpilot_api import SendPilotApi
from local_aws.service import Service, service
from local_aws.stay import stay
from ops import request
from ops.display import answer_line, printable, request_line, show_answer, show_request
from ops.running import ROOT
from ops.secret_value import said, secrets_in
from ops.signature import SAMPLE_SECRET

# A description, the sample to send, and the expected answer.
SCENES = (
    ("A lead replies", "reply", "200 remembered"),
    ("The lead becomes an opportunity", "opportunity", "200 alerted"),
    ("SendPilot sends the same event again", "opportunity", "200 duplicate"),
    ("A lead gets a message: no alert", "message-sent", "200 ignored"),
    ("Someone forges an opportunity", "forged", "401 unauthorized"),
)
REPLIED = timedelta(hours=2, minutes=5)  # before the lead becomes an opportunity
NEXT = """
Next:
  make run              the same, and keeps running for your events: make send EVENT=opportunity LEAD=lead_42
  make journey          sends a lead through every status, with the lead status stream
  make missed           finds an opportunity whose webhook never came, and alerts it
  make demo V=1         shows every request, answer and message in full
  docs/deploy.md        says how to deploy to AWS
"""


def main():
    parser = command.parser(__doc__, "--stay", "--verbose", "--port", "--template")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="parameters of the template")
    given = parser.parse_args()
    # Removed from the environment, which every build process would inherit.
    secret = os.environ.pop("WEBHOOK_SECRET", SAMPLE_SECRET)
    command.run_command(lambda: run(given, secret if given.stay else SAMPLE_SECRET))


def run(given: argparse.Namespace, secret: str) -> bool:
    """Runs the demo, and with `--stay` keeps running. Returns whether the checks passed."""
    changed = parameters.given(given.parameters, given.template or ROOT / "template.yaml")
    signer = first(secret)
    with (
        details.sample_api() as api,
        Run(given.port) as local,
        service(local, given.template, secret, **{**details.parameters(api), **changed}) as deployed,
    ):
        details.store_key(deployed, api)
        alerts = Inbox(deployed.topic_arn)
        stream = Inbox(deployed.stream_arn) if deployed.stream_arn else None
        if changed:
            # Other parameters may cause other answers and alerts than the demo expects.
            print(f"\nWith {', '.join(f'{name}={value}' for name, value in changed.items())}. No samples were sent.")
            passed = True
        else:
            passed = demonstrate(deployed, api, alerts, signer, given.verbose)
        if given.stay:
            stay(deployed, local, alerts, stream, given.verbose)
        else:
            print(NEXT, end="")
    return passed


def first(value: str) -> str:
    """Returns the first secret in a value.

    Raises Failed if the functions would refuse the value.
    """
    try:
        return secrets_in(value)[0]
    except ValueError as fault:
        raise Failed(f"The signing secret in WEBHOOK_SECRET (make: SECRET) cannot be used: {said(fault)}.") from None


def demonstrate(deployed: Service, api: SendPilotApi, alerts: Inbox, secret: str, everything: bool) -> bool:
    """Sends the requests, prints the answers and the alert, and returns whether all are right."""
    samples = {name: request.sample(name).renewed() for _, name, _ in SCENES}
    samples["reply"] = samples["reply"].at(datetime.now(timezone.utc) - REPLIED)
    print()
    faults, sent, asked, calls = [], {}, {}, {}
    for title, name, expected in SCENES:
        event, before = samples[name], time.time()
        answer = event.post(deployed.webhook_url, secret)
        took = time.time() - before
        sent.setdefault(name, before)
        if name not in calls:
            calls[name] = calls_since(before, deployed.api_key.arn)
            asked[name] = [one.path for one in api.requests() if one.time >= before]
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
        made, paths = calls["opportunity"], asked["opportunity"]
        print(f"\nThe alert, {took:.0f} ms after the event was sent, by {len(made)} calls to AWS: {', '.join(made)}")
        print(f"and {len(paths)} to SendPilot's API: {', '.join(paths)}\n")
        row = deployed.deliveries.with_alert(alert.text)
        print(faces(row, everything) if row else printable(alert.text))
    ids = [alert.event.get("id") for alert in arrived]
    if ids != [event_id]:
        faults.append(f"Alerts: {ids} instead of {[event_id]}")
    for alert in arrived:
        missing = {"lead", "campaignName", "lastReply"} - alert.event.get("data", {}).keys()
        faults.extend(f"The alert has no {name}" for name in sorted(missing))
    for fault in faults:
        print(f"FAILED  {fault}")
    if not faults:
        print("ok: five answers as expected, and one alert with all details")
    return not faults


if __name__ == "__main__":
    main()
