"""The calls to AWS that a request made, as the function's log has them."""

import time

from ops.logs import Log
from ops.stack import NAME, log_group

# The steps of a delivery, each of which is one call, by the member of the line that has its time.
STEPS = {"ClaimTime": "claim", "PaceTime": "slot", "PublishTime": "publish", "CompleteTime": "complete"}


def calls_of(event_id: str, patience: float = 5) -> list[str]:
    """Returns the calls of the request that published an event's alert, in order. Waits for the log."""
    log = Log({"webhook": log_group(NAME, "webhook")}, since=0)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for fields in (line.fields() for line in log.new_lines()):
            if fields.get("eventId") == event_id and fields.get("outcome") == "alerted":
                return [name for time_of, name in STEPS.items() if fields.get(time_of) is not None]
        time.sleep(0.1)
    return []
