"""`make journey`: a lead goes through every status of SendPilot's, on a local AWS with the lead status stream, and who gets what of it."""

import re
import sys
from dataclasses import dataclass

from local_aws.function import ROOT
from local_aws.inbox import Inbox, Message
from local_aws.progress import Failed
from local_aws.service import service
from ops import request
from ops.display import printable

UNLISTED = "ON_HOLIDAY"  # a status that SendPilot's documentation does not list
# By SendPilot's own example of a mapping. What is not in it is unknown.
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
# Those that may subscribe, and what each asks for.
SUBSCRIBERS = {
    "archive": None,
    "lost leads": {"newStatus": ["NOT_INTERESTED"]},
    "sales": {"crmStage": ["qualified", "closed_won"]},
}
# Each a column, but for `eventType`, which is always the same.
ATTRIBUTES = ("previousStatus", "crmStage", "changedBy", "campaignId", "workspaceId")


@dataclass
class Step:
    """One change of status, and what came of it."""

    status: str
    event_id: str
    answer: str
    alerts: list[Message]
    received: dict[str, list[Message]]  # by subscriber

    def message(self):
        """As the archive got it."""
        return self.received["archive"][0]


def main():
    try:
        with service(StatusStream="standard") as deployed:
            print(f"\n{table(travel(deployed))}")
    except Failed as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")


def statuses():
    """Those that the code lists, which are SendPilot's in its order, and one that nobody lists."""
    source = (ROOT / "src" / "event.rs").read_text()
    listed = re.search(r"pub const STATUSES: \[&str; \d+\] = \[(.*?)\];", source, re.DOTALL)[1]
    return [name.strip().strip('"') for name in listed.split(",") if name.strip()] + [UNLISTED]


def travel(deployed):
    """Sends a lead through all of them, and returns a step for each."""
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
    # What the archive has, the others have.
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


def change(lead, status, previous="REPLY_RECEIVED"):
    """A new event: this lead comes to this status."""
    event = request.read("events/reply-received.json").with_event_id(request.fresh("evt"))
    return event.with_data(leadId=lead, newStatus=status, previousStatus=previous)


def of_event(messages):
    """Messages by the event that they are of."""
    found = {}
    for message in messages:
        found.setdefault(message.event["id"], []).append(message)
    return found


def table(steps):
    """For people: who got which status, with which attributes."""
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
