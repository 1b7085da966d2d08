"""Keeps a local run up, and prints subscribers' messages as they arrive."""

import time
from textwrap import indent

from botocore.exceptions import BotoCoreError

from local_aws.faces import email, faces
from local_aws.inbox import Inbox, Message
from local_aws.progress import Failed
from local_aws.run import Run
from local_aws.service import Service
from ops.display import printable
from ops.running import running
from ops.signature import SAMPLE_SECRET

USES = """
Up at {url}
The webhook accepts events that are signed with {secret}.

In another terminal:
  make send EVENT=opportunity LEAD=lead_42{run}   sends another opportunity; events/README.md lists the samples
  make send EVENT=opportunity N=20{run}           sends twenty at once
  make send EVENT=reply LEAD=lead_42{run}         sends a reply, which the lead's next alert shows
  make logs{run}                                  prints the functions' log lines as they arrive
  make doctor{run}                                checks that all is well; wait two minutes first
{reconciliation}
Each alert appears here when it arrives. Ctrl-C stops and removes everything.
"""

RECONCILIATION = """  make reconcile{run}                             reconciles now, and prints the report

SendPilot's API is at {api}. If this is the stand-in, docs/local.md says how to give
it a lead whose webhook never came.
"""


def stay(deployed: Service, run: Run, alerts: Inbox, stream: Inbox | None, everything: bool) -> None:
    """Prints alerts and messages of the lead status stream as they arrive, until Ctrl-C."""
    run.announce(deployed.emulator.endpoint)
    known = deployed.secret.value() == SAMPLE_SECRET
    secret = "the sample secret, which `make send` uses" if known else "the secret that you gave"
    which = f" RUN={run.front.port}" if len(running()) > 1 else ""
    api = deployed.parameters.get("SendPilotApiUrl")
    reconciliation = RECONCILIATION.format(run=which, api=api) if deployed.reconciliation else ""
    print(USES.format(url=run.front.url, secret=secret, run=which, reconciliation=reconciliation), flush=True)
    try:
        while deployed.emulator.running():
            for message in alerts.receive(wait=1):
                show_alert(message, deployed, everything)
            for message in stream.receive() if stream else ():
                print(f"{_now()}  Lead status stream: {change(message)}", flush=True)
    except BotoCoreError:
        pass  # the local AWS has ended, as reported below
    except KeyboardInterrupt:
        print("\nStopped.")
        return
    raise Failed("The local AWS has ended", run.logs / "ministack.log")


def show_alert(alert: Message, deployed: Service, everything: bool) -> None:
    """Prints an alert's email, or everything, from the publish request in the alert's row."""
    row = deployed.deliveries.with_alert(alert.text)
    if row is None:
        print(f"{_now()}  Another publisher's message on the alerts topic: {printable(alert.text)}", flush=True)
        return
    shown = faces(row, everything) if everything else f"{indent(email(row), '    ')}\n"
    print(f"{_now()}  An alert\n\n{shown}", flush=True)


def change(message: Message) -> str:
    """Returns a message of the stream in one line."""
    if message.event.get("type") != "sendpilot.lead.status_changed":
        return f"another publisher's message: {printable(message.text)}"
    data = message.event["data"]
    words = f"{data['leadId']} {data.get('previousStatus') or '(none)'} -> {data['newStatus']} ({data['crmStage']})"
    return printable(words)


def _now():
    return time.strftime("%H:%M:%S")
