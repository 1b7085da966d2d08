"""`make missed`: shows how the reconciliation finds an opportunity whose webhook never came.

It runs on a local AWS, with a stand-in for SendPilot's API. Each step prints the answer that it got.
"""

import argparse
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from local_aws import command, details
from local_aws.calls import calls_since
from local_aws.faces import faces
from local_aws.inbox import Inbox, Message
from local_aws.progress import Failed
from local_aws.run import Run
from local_aws.scheduled import FunctionFailed
from local_aws.sendpilot_api import SendPilotApi
from local_aws.service import Service, service
from ops import request
from ops.display import answer_line, pretty, printable, request_line, show, show_answer, show_request

# The third lead of the campaign, whose webhook never comes. The two sample leads are opportunities
# from the beginning.
LEAD = {
    "id": "lead_7",
    "linkedinUrl": "https://www.linkedin.com/in/mia-moe",
    "firstName": "Mia",
    "lastName": "Moe",
    "title": "Head of Purchasing",
    "company": "Sample Corp.",
    "campaignId": details.CAMPAIGN["id"],
}
OUTAGE = timedelta(hours=1)  # ago; the reconciliation waits 20 minutes for a webhook
WIDTH = 66  # of a step's description
# The counts of a report that tell what the run did, in the report's order.
COUNTS = ("baseline", "waiting", "missed", "alerted", "pending", "arrived")
NEXT = """
Next:
  make run ReconcileMinutes=5   keeps running, and reconciles every 5 minutes
  make missed V=1               shows every report, request, answer and message in full
  docs/deploy.md                says, under "Missed webhooks", how to turn it on in your stack
"""


def main():
    given = command.parser(__doc__, "--verbose", "--template").parse_args()
    command.run_command(lambda: run(given))


def run(given: argparse.Namespace) -> bool:
    """Runs the steps on a local AWS, and returns whether each was as expected."""
    with (
        details.sample_api() as api,
        Run() as local,
        service(local, given.template, ReconcileMinutes=60, **details.parameters(api)) as deployed,
    ):
        details.store_key(deployed, api)
        passed = demonstrate(deployed, api, given.verbose)
    print(NEXT, end="")
    return passed


def demonstrate(deployed: Service, api: SendPilotApi, everything: bool = False) -> bool:
    """Takes the steps, prints the answers and the alert, and returns whether all are right."""
    deployed.reconciliation.pause()  # so that only these steps run it
    alerts = Inbox(deployed.topic_arn)
    steps = Steps(deployed, everything)
    missed_at = datetime.now(timezone.utc) - OUTAGE

    print()
    steps.reconcile("Two leads are opportunities already: the first run alerts nobody", "complete: baseline 2")
    api.put_lead({**LEAD, "status": "OPPORTUNITY", "updatedAt": request.timestamp(missed_at)})
    steps.reconcile("A third became one an hour ago, without a webhook: a dry run", "complete: missed 1", dry_run=True)
    api.forget_requests()
    before = time.time()
    steps.reconcile("A run finds the missed lead, and alerts it", "complete: missed 1, alerted 1")
    calls, asked = calls_since(before, deployed.api_key.arn), [one.path for one in api.requests()]
    found = alerts.collect(expected=1)
    late, again = opportunity(missed_at), opportunity(datetime.now(timezone.utc))
    steps.send("The lead's webhook comes after all: no second alert", late, "200 debounced")
    steps.reconcile("Another run finds nothing", "complete")
    steps.send("Later, the lead becomes an opportunity again: an alert as always", again, "200 alerted")
    later = alerts.collect(expected=1)

    for alert in found:
        print(f"\nThe run that found the lead made {len(calls)} calls to AWS:\n  {', '.join(calls)}")
        print(f"and {len(asked)} to SendPilot's API:")
        print("".join(f"  {path}\n" for path in asked))
        print("The alert of the missed lead:\n")
        row = deployed.deliveries.with_alert(alert.text)
        print(faces(row, everything) if row else printable(alert.text))
    faults = steps.faults
    faults += faults_of("the missed lead", found, "reconciliation_[0-9a-f]{32}", "reconciliation")
    faults += faults_of("the later change", later, again.event_id(), None)
    for fault in faults:
        print(f"FAILED  {fault}")
    if not faults:
        print("ok: six answers as expected, and one alert for each of two changes")
    return not faults


class Steps:
    """Takes steps, prints each with its answer, and collects the unexpected answers."""

    def __init__(self, deployed: Service, everything: bool):
        self.faults = []
        self._deployed = deployed
        self._everything = everything

    def reconcile(self, title: str, expected: str, dry_run: bool = False) -> None:
        """Runs the reconciliation. Raises Failed if the run fails, because the next steps need it."""
        try:
            report = self._deployed.reconciliation.run({"dryRun": True} if dry_run else None)
        except FunctionFailed as failure:
            raise Failed(f"FAILED  {title}: {printable(str(failure))}") from None
        self._answered(title, said(report), expected, lambda: show(pretty(report)))

    def send(self, title: str, event: request.Request, expected: str) -> None:
        """Sends an event to the webhook."""
        before = time.monotonic()
        answer = event.post(self._deployed.webhook_url)
        took = time.monotonic() - before

        def show_both():
            print(request_line(event, "opportunity"))
            show_request(event)
            print(answer_line(answer, took))
            show_answer(answer)

        self._answered(title, f"{answer.status} {answer.outcome()}", expected, show_both)

    def _answered(self, title: str, got: str, expected: str, show_all: Callable[[], None]) -> None:
        print(f"{title:<{WIDTH}}{got}", flush=True)
        if self._everything:
            show_all()
        if got != expected:
            self.faults.append(f"{title}: {got} instead of {expected}")


def said(report: dict) -> str:
    """Returns a report of the reconciliation in a few words: the outcome, and each count over 0."""
    counts = ", ".join(f"{name} {report[name]}" for name in COUNTS if report.get(name))
    return f"{report['outcome']}: {counts}" if counts else report["outcome"]


def opportunity(moment: datetime) -> request.Request:
    """Returns the webhook by which the lead became an opportunity at this moment."""
    sample = request.sample("opportunity").with_event_id(request.fresh("evt")).at(moment)
    return sample.with_data(leadId=LEAD["id"], campaignId=LEAD["campaignId"], linkedinUrl=LEAD["linkedinUrl"])


def faults_of(change: str, alerts: list[Message], id_form: str, found_by: str | None) -> list[str]:
    """Returns every difference from one alert with an id of this form, this origin and the lead's name."""
    ids = [alert.event.get("id") for alert in alerts]
    if len(ids) != 1 or not re.fullmatch(id_form, str(ids[0])):
        return [f"The alerts of {change} have the ids {ids} instead of one: {id_form}"]
    data = alerts[0].event["data"]
    faults = []
    if data.get("foundBy") != found_by:
        faults.append(f"The alert of {change} has foundBy {data.get('foundBy')} instead of {found_by}")
    if data.get("lead", {}).get("lastName") != LEAD["lastName"]:
        faults.append(f"The alert of {change} has no details of the lead")
    return faults


if __name__ == "__main__":
    main()
