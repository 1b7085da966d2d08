"""`make journey`: sends a lead through every status, with the lead status stream, and shows who gets what."""

import argparse
import json
from dataclasses import dataclass

from local_aws import command
from local_aws.inbox import Inbox, Message
from local_aws.run import Run
from local_aws.service import Service, service
from local_aws.stay import stay
from ops import request
from ops.display import printable
from ops.running import ROOT

CONTRACT = ROOT / "docs" / "contracts" / "lead-status-changed.schema.json"
UNLISTED = "ON_HOLIDAY"  # a status that SendPilot's documentation does not list
# SendPilot's own example of a mapping. Every other status is unknown.
STAGES = {
    "PENDING": "new",
    "CONNECTION_SENT": "contacted",
    "CONNECTION_ACCEPTED": "connected",
    "MESSAGE_SENT": "in_conversation",
    "REPLY_RECEIVED": "engaged",
    "OPPORTUNITY": "qualified",
    "MEETING_BOOKED": "unknown",
    "NOT_INTERESTED": "closed_lost",
    "DONE": "closed_won",
    UNLISTED: "unknown",
}
# Subscribers, and the filter of each.
SUBSCRIBERS = {
    "archive": None,
    "lost leads": {"newStatus": ["NOT_INTERESTED"]},
    "sales": {"crmStage": ["qualified", "closed_won"]},
}
ATTRIBUTES = ("previousStatus", "crmStage")  # those that change on the way
LEGEND = """
Each row is one change of a lead's status that was sent to the webhook.
  answer       what the webhook answered: "streamed" if the stream got the change, "alerted" if people got it too
  alerts       how many alerts the topic for people got
  archive      how many messages a queue got that subscribes to the whole lead status stream
  lost leads   the same, with the filter newStatus = NOT_INTERESTED
  sales        the same, with the filter crmStage = qualified or closed_won
The other columns are two of the message attributes, by which a subscriber can filter. StatusPipeline sets the stages.
"""


@dataclass
class Step:
    """One change of status, and the messages that it caused."""

    status: str
    event_id: str
    answer: str
    alerts: list[Message]
    received: dict[str, list[Message]]  # by subscriber

    def message(self) -> Message:
        """Returns the message that the archive got."""
        return self.received["archive"][0]


def main():
    parser = command.parser(__doc__)
    given = parser.parse_args()
    if given.verbose and not given.stay:
        parser.error("V=1 (--verbose) shows more of what comes later, so it needs STAY=yes (--stay)")
    command.run_command(lambda: run(given))


def run(given: argparse.Namespace) -> bool:
    """Runs the journey, and stays up if that was asked for. Returns whether everybody got what they should."""
    with Run(given.port) as local, service(local, StatusStream="standard") as deployed:
        steps = travel(deployed)
        faults = faults_of(steps)
        print(f"\n{table(steps)}\n{LEGEND}")
        print("\n".join(f"FAILED  {fault}" for fault in faults) or f"ok: {len(steps)} changes, each as expected")
        if given.stay:
            stay(deployed, local, Inbox(deployed.topic_arn), Inbox(deployed.stream_arn), given.verbose)
        else:
            print("\nTo stay up and send more: make journey STAY=yes. To let SendPilot's stages be yours:")
            print("make run StatusStream=standard StatusPipeline=OPPORTUNITY=sql,DONE=won")
    return not faults


def statuses() -> list[str]:
    """Returns SendPilot's statuses, in its order, and one that it does not list.

    A Rust test holds the contract's examples to the statuses in the code.
    """
    definitions = json.loads(CONTRACT.read_text("utf-8"))["$defs"]
    return [*definitions["LeadStatusChanged"]["properties"]["newStatus"]["examples"], UNLISTED]


def travel(deployed: Service) -> list[Step]:
    """Sends a lead through all statuses, and returns a step for each."""
    alerts = Inbox(deployed.topic_arn)
    inboxes = {name: Inbox(deployed.stream_arn, policy) for name, policy in SUBSCRIBERS.items()}
    lead, previous, sent = request.fresh("lead"), None, []
    for status in statuses():
        event = change(lead, status, previous)
        answer = event.post(deployed.webhook_url)
        sent.append((status, event.event_id(), f"{answer.status} {answer.outcome()}"))
        previous = status
    out = of_event(alerts.collect(expected=1))
    got = {"archive": of_event(inboxes["archive"].collect(expected=len(sent)))}
    # The archive gets every message, so the other messages are there by now.
    got |= {name: of_event(inbox.collect(expected=0)) for name, inbox in inboxes.items() if name not in got}
    return [
        Step(
            status,
            event_id,
            answer,
            out.pop(event_id, []),
            {name: by_id.pop(event_id, []) for name, by_id in got.items()},
        )
        for status, event_id, answer in sent
    ]


def faults_of(steps: list[Step]) -> list[str]:
    """Returns what differs from what everybody should get: an alert of an opportunity, and what each filter takes."""
    faults = []
    for step in steps:
        stage = STAGES[step.status]
        expected = {
            "alerts": step.status == "OPPORTUNITY",
            "archive": True,
            "lost leads": step.status == "NOT_INTERESTED",
            "sales": stage in ("qualified", "closed_won"),
        }
        for name, messages in {"alerts": step.alerts, **step.received}.items():
            if len(messages) != expected[name]:
                faults.append(f"{step.status}: {name} got {len(messages)} instead of {int(expected[name])}")
        if not step.answer.startswith("200 "):
            faults.append(f"{step.status}: answered {step.answer}")
        elif step.received["archive"] and step.message().attributes.get("crmStage") != stage:
            faults.append(f"{step.status}: the stage is {step.message().attributes.get('crmStage')} instead of {stage}")
    return faults


def change(lead: str, status: str, previous: str | None = "REPLY_RECEIVED") -> request.Request:
    """Returns a new event that moves this lead to this status."""
    event = request.sample("reply-received").with_event_id(request.fresh("evt"))
    return event.with_data(leadId=lead, newStatus=status, previousStatus=previous)


def of_event(messages: list[Message]) -> dict[str, list[Message]]:
    """Groups messages by their event."""
    found = {}
    for message in messages:
        found.setdefault(message.event["id"], []).append(message)
    return found


def table(steps: list[Step]) -> str:
    """Returns a table for people: who got which status, with which attributes."""
    lines = [("newStatus", "answer", "alerts", *SUBSCRIBERS, *ATTRIBUTES)]
    for step in steps:
        counts = map(len, (step.alerts, *step.received.values()))
        attributes = step.message().attributes if step.received["archive"] else {}
        cells = (
            step.status,
            step.answer,
            *(count or "" for count in counts),
            *(attributes.get(name, "") for name in ATTRIBUTES),
        )
        lines.append(tuple(printable(str(cell)) for cell in cells))
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


if __name__ == "__main__":
    main()
