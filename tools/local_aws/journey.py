"""`make journey`: sends a lead through every status, with the lead status stream, and shows who gets what."""

import json
import sys
from dataclasses import dataclass

from local_aws.function import ROOT
from local_aws.inbox import Inbox, Message
from local_aws.progress import Failed
from local_aws.service import Service, service
from ops import request
from ops.display import printable

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
# The columns of the table. `eventType` is always the same.
ATTRIBUTES = ("previousStatus", "crmStage", "changedBy", "campaignId", "workspaceId")


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
    try:
        with service(StatusStream="standard") as deployed:
            print(f"\n{table(travel(deployed))}")
    except Failed as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")


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


def change(lead: str, status: str, previous: str | None = "REPLY_RECEIVED") -> request.Request:
    """Returns a new event that moves this lead to this status."""
    event = request.read(ROOT / "events" / "reply-received.json").with_event_id(request.fresh("evt"))
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
