"""`make journey`: sends a lead through every status, and shows which subscriber gets what."""

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
# The stages of SendPilot's own example. Every other status has the stage `unknown`.
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
# The subscribers of the stream, each with its filter policy.
SUBSCRIBERS = {
    "archive": None,
    "lost leads": {"newStatus": ["NOT_INTERESTED"]},
    "sales": {"crmStage": ["qualified", "closed_won"]},
}
ATTRIBUTES = ("previousStatus", "crmStage")  # these change from message to message
LEGEND = """
Each row is one change of a lead's status that was sent to the webhook.
  answer       the webhook's answer: "streamed" if the stream got the change, "alerted" if people got an alert too
  alerts       the number of alerts on the alerts topic
  archive      the number of messages in a queue that subscribes to the whole lead status stream
  lost leads   the same for a queue with the filter newStatus = NOT_INTERESTED
  sales        the same for a queue with the filter crmStage = qualified or closed_won
The last two columns are message attributes that a subscriber can filter by. StatusPipeline sets the stages.
"""


@dataclass
class Step:
    """One change of status, and the messages that the change caused."""

    status: str
    event_id: str
    answer: str
    alerts: list[Message]
    received: dict[str, list[Message]]  # by subscriber

    def message(self) -> Message:
        """Returns the message that the archive got."""
        return self.received["archive"][0]


def main():
    parser = command.parser(__doc__, "--stay", "--verbose", "--port")
    given = parser.parse_args()
    if given.verbose and not given.stay:
        parser.error("V=1 (--verbose) affects only messages that arrive later, so it needs STAY=yes (--stay)")
    command.run_command(lambda: run(given))


def run(given: argparse.Namespace) -> bool:
    """Runs the journey, and with `--stay` keeps running.

    Returns whether every step was as expected.
    """
    with Run(given.port) as local, service(local, StatusStream="standard") as deployed:
        steps = travel(deployed)
        faults = faults_of(steps)
        print(f"\n{table(steps)}\n{LEGEND}")
        print("\n".join(f"FAILED  {fault}" for fault in faults) or f"ok: {len(steps)} changes, each as expected")
        if given.stay:
            stay(deployed, local, Inbox(deployed.topic_arn), Inbox(deployed.stream_arn), given.verbose)
        else:
            print("\nTo keep it running and send more events: make journey STAY=yes. To use your own stages:")
            print("make run StatusStream=standard StatusPipeline=OPPORTUNITY=sql,DONE=won")
    return not faults


def statuses() -> list[str]:
    """Returns SendPilot's statuses in SendPilot's order, and one unlisted status.

    A Rust test compares the contract's examples with the statuses in the code.
    """
    definitions = json.loads(CONTRACT.read_text("utf-8"))["$defs"]
    return [*definitions["LeadStatusChanged"]["properties"]["newStatus"]["examples"], UNLISTED]


def travel(deployed: Service) -> list[Step]:
    """Sends a lead through all statuses, and returns one step for each status."""
    alerts = Inbox(deployed.topic_arn)
    inboxes = {name: Inbox(deployed.stream_arn, policy) for name, policy in SUBSCRIBERS.items()}
    lead, previous, sent = request.fresh("lead"), None, []
    for status in statuses():
        event = change(lead, status, previous)
        answer = event.post(deployed.webhook_url)
        sent.append((status, event.event_id(), f"{answer.status} {answer.outcome()}"))
        previous = status
    alerted = of_event(alerts.collect(expected=1))
    got = {"archive": of_event(inboxes["archive"].collect(expected=len(sent)))}
    # The archive gets every message, so the other queues have their messages by now.
    got |= {name: of_event(inbox.collect(expected=0)) for name, inbox in inboxes.items() if name not in got}
    return [
        Step(
            status,
            event_id,
            answer,
            alerted.pop(event_id, []),
            {name: by_id.pop(event_id, []) for name, by_id in got.items()},
        )
        for status, event_id, answer in sent
    ]


def faults_of(steps: list[Step]) -> list[str]:
    """Returns every difference from the one alert and the messages that pass each filter."""
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
    """Returns the steps as a table: the answer, the numbers of messages and the attributes."""
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
