"""Reads from the function's log which AWS calls a request made."""

import time

from ops.logs import Log
from ops.stack import NAME, log_group

# The steps of a delivery, by the field of the log line that has the step's time. Each is one call.
STEPS = {"ClaimTime": "claim", "PaceTime": "slot", "PublishTime": "publish", "CompleteTime": "complete"}
# The calls before the claim, by the detail that each found. A process reads the API key only once.
DETAILS = {"lead": "API key", "reply": "last reply"}


def calls_of_first(event_id: str, patience: float = 5) -> list[str]:
    """Returns the calls that published a process's first alert, in order. Waits for the log line."""
    log = Log({"webhook": log_group(NAME, "webhook")}, since=0)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for fields in (line.fields() for line in log.new_lines()):
            if fields.get("eventId") == event_id and fields.get("outcome") == "alerted":
                found = (fields.get("details") or "").split(", ")
                details = [name for detail, name in DETAILS.items() if detail in found]
                return details + [name for time_of, name in STEPS.items() if fields.get(time_of) is not None]
        time.sleep(0.1)
    return []
