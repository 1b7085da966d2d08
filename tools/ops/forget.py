"""The command `forget`: deletes what the table of a stack stores about a lead.

A delivery's row stays without its message, so that SendPilot's next try is still a duplicate. The
row of a known lead stays too, so that the reconciliation does not alert the lead again. That row
has only a hash of the lead's id.
"""

import argparse
import hashlib
import json
import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Optional
from urllib.parse import quote

from ops.deliveries import Deliveries, bodies, key_part
from ops.display import printable
from ops.errors import Refused
from ops.running import use_local_run
from ops.stack import described, output_of, reconciles

REPLY, LOCK, DELIVERY, KNOWN = "reply", "debounce lock", "delivery", "known lead"
# The last part of a row's key says what the row is.
KINDS = {"reply": REPLY, "quiet": LOCK, "quiet-tag": LOCK, "alert": DELIVERY, "status": DELIVERY, "known": KNOWN}
FINISHED = ("PUBLISHED", "DEBOUNCED", "DISCARDED")
OF_LEAD = (
    "contains(deliveryId, :key) OR contains(quiet, :key) OR contains(message.Message, :text) "
    "OR begins_with(deliveryId, :known) OR contains(known.#key, :known)"
)
DELETED, EMPTIED, STAYS, KEPT = "deleted", "emptied", "stays", "kept"
WOULD = {DELETED: "would delete", EMPTIED: "would empty", STAYS: "would stay", KEPT: "would keep"}
SUMS = {
    DELETED: ("1 row was deleted.", "{} rows were deleted."),
    EMPTIED: ("1 delivery lost its message.", "{} deliveries lost their message."),
    STAYS: ("1 row stays with only a hash.", "{} rows stay with only a hash."),
    KEPT: ("1 row still names the lead.", "{} rows still name the lead."),
}
WOULD_SUMS = {
    DELETED: ("1 row would be deleted.", "{} rows would be deleted."),
    EMPTIED: ("1 delivery would lose its message.", "{} deliveries would lose their message."),
    STAYS: ("1 row would stay with only a hash.", "{} rows would stay with only a hash."),
    KEPT: ("1 row would still name the lead.", "{} rows would still name the lead."),
}
WHY_STAYS = (
    "By the hash of the lead's id, the reconciliation does not alert the lead again. The row expires at most 400 days "
    "after SendPilot last listed the lead in this status."
)
ELSEWHERE = (
    "Not deleted: what subscribers received, dead letters (up to 14 days) and the table's backups (up to 35 days)."
)


@dataclass
class Done:
    """The result for one row."""

    action: str
    key: str
    why: str


def run(given: argparse.Namespace) -> int:
    """Deletes the lead's data, prints what was done, and returns the exit status."""
    lead, workspace = _id("--lead", given.lead), _id("--workspace", given.workspace)
    if not lead:
        raise Refused("Give the lead's id in SendPilot by --lead (make: LEAD), for example lead_abc123.")
    if not given.stack:
        use_local_run(given.run)
    stack = described(given.stack)
    table = Deliveries(output_of(stack, "DeliveriesTableName"))
    return Forget(table, lead, workspace, int(time.time() * 1000), given.dry_run, reconciles(stack)).run()


class Forget:
    """Deletes the data of one lead, at the time `now` in milliseconds.

    `reconciles` is whether the stack's reconciliation is on.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        lead: str,
        workspace: Optional[str],
        now: int,
        dry_run: bool,
        reconciles: bool,
    ):
        self._deliveries = deliveries
        self._lead = lead
        self._workspace = workspace
        self._now = now
        self._dry_run = dry_run
        self._reconciles = reconciles

    def run(self) -> int:
        """Prints what it does with each row, and returns the exit status."""
        counts = dict.fromkeys(SUMS, 0)
        for row in sorted(self.find(), key=lambda row: row["deliveryId"]):
            done = self._forget(row)
            counts[done.action] += 1
            action = WOULD[done.action] if self._dry_run else done.action
            print(f"{action:<12}  {printable(done.key)}: {printable(done.why)}", flush=True)
        self._sum(counts)
        return 1 if counts[KEPT] else 0

    def find(self) -> list[dict]:
        """Returns the rows that name the lead.

        The scan reads the whole table, and DynamoDB bills that, because no index has the lead's id.
        """
        # The text that JSON does not escape finds the rows. `is_about` then compares the whole id.
        text = max(re.split(r'["\\\x00-\x1f\x7f]', self._lead), key=len)
        if not text:
            raise Refused("The lead's id has only quotation marks, backslashes or control characters.")
        values = {":key": key_part(self._lead), ":text": text, ":known": known_prefix(self._lead)}
        rows = self._deliveries.matching(OF_LEAD, values)
        return [row for row in rows if is_about(row, self._lead) and self._is_in_workspace(row)]

    def _is_in_workspace(self, row):
        # A lead is known in all workspaces.
        if self._workspace is None or kind_of(row) == KNOWN:
            return True
        parts = row["deliveryId"].split("#")
        # A very long key is hashed as a whole, and the key of an alert of the reconciliation never
        # names the workspace. The messages name it.
        if kind_of(row) == DELIVERY and (not parts[0] or len(parts) == 2):
            return event_in(row).get("source", source(parts[0])) == source(self._workspace)
        return parts[0] == key_part(self._workspace)

    def _forget(self, row):
        key = row["deliveryId"]
        kind = kind_of(row)
        if kind == REPLY:
            if not self._dry_run:
                self._deliveries.delete(key)
            return Done(DELETED, key, "the lead's last reply")
        if kind == LOCK:
            return self._forget_lock(row)
        if kind == KNOWN:
            return self._forget_known(row)
        return self._forget_delivery(row)

    def _forget_lock(self, row):
        key, until = row["deliveryId"], row.get("quietUntil")
        if not isinstance(until, Decimal):
            return Done(KEPT, key, "the debounce lock does not say when it ends")
        if until > self._now:
            return Done(KEPT, key, f"the debounce lock suppresses alerts until {moment(until)}")
        if self._dry_run or self._deliveries.delete_lock(key, self._now):
            return Done(DELETED, key, f"the debounce lock ended at {moment(until)}")
        return Done(KEPT, key, "another alert has just taken the debounce lock")

    def _forget_delivery(self, row):
        key, state = row["deliveryId"], str(row.get("state"))
        if state == "PENDING":
            return Done(KEPT, key, "pending, because the message is still to be published")
        if state not in FINISHED:
            return Done(KEPT, key, f"its state is {state}, which this version does not know")
        if self._dry_run or self._deliveries.remove_message(key, state, self._now):
            return Done(EMPTIED, key, "the row stays without its message, so a duplicate is still recognized")
        return Done(KEPT, key, "its state has just changed")

    def _forget_known(self, row):
        if self._reconciles:
            return Done(STAYS, row["deliveryId"], "the lead is known to the reconciliation")
        # If the reconciliation is turned on again, it makes a new baseline.
        if not self._dry_run:
            self._deliveries.delete(row["deliveryId"])
        return Done(DELETED, row["deliveryId"], "the lead is known, but the reconciliation is off")

    def _sum(self, counts):
        if not any(counts.values()):
            where = "" if self._workspace is None else f" in the workspace {self._workspace}"
            print(printable(f"The table stores nothing about the lead {self._lead}{where}."))
        else:
            sums = WOULD_SUMS if self._dry_run else SUMS
            said = [sums[action][number != 1].format(number) for action, number in counts.items() if number]
            print("\n" + " ".join(said))
        if counts[STAYS]:
            print(WHY_STAYS)
        if counts[KEPT]:
            print("Run the command again after the pending messages are published and the debounce locks are over.")
        print("Nothing was changed, because this was a dry run." if self._dry_run else ELSEWHERE)


def is_about(row: dict, lead: str) -> bool:
    """Returns whether a row is about the lead, by its key, the key of a lock or its message."""
    kind = kind_of(row)
    if kind == KNOWN:
        return row["deliveryId"].startswith(known_prefix(lead))
    if kind in (REPLY, LOCK):
        return _lead_in(row["deliveryId"]) == key_part(lead)
    if kind != DELIVERY:
        return False
    # The id in the message lacks invisible characters. The id in the key of a lock is complete.
    if event_in(row).get("subject") == lead or _lead_in(str(row.get("quiet"))) == key_part(lead):
        return True
    known = row.get("known")
    return isinstance(known, dict) and str(known.get("key")).startswith(known_prefix(lead))


def known_prefix(lead: str) -> str:
    """Returns the begin of the keys that make a lead known, as `src/message/key.rs` writes them."""
    return f"{hashlib.sha256(lead.encode()).hexdigest()}#"


def kind_of(row: dict) -> Optional[str]:
    """Returns what a row is, or None for a slot."""
    return KINDS.get(row["deliveryId"].split("#")[-1])


def event_in(row: dict) -> dict:
    """Returns the CloudEvent in the message of a delivery, or an empty dict."""
    try:
        is_alert = row["deliveryId"].endswith("#alert")
        event = json.loads(bodies(row)["default"] if is_alert else row["message"]["Message"])
    except (LookupError, TypeError, ValueError):
        return {}
    return event if isinstance(event, dict) else {}


def source(workspace: str) -> str:
    """Returns the `source` of a workspace's CloudEvents, as `src/message/cloud_event.rs` writes it."""
    encoded = workspace.encode()
    if not encoded:
        return "urn:sendpilot:workspace"
    if len(encoded) > 256:
        return f"urn:sendpilot:workspace:sha256:{hashlib.sha256(encoded).hexdigest()}"
    return f"urn:sendpilot:workspace:{quote(workspace, safe='')}"


def moment(milliseconds: Decimal) -> str:
    """Returns a time in readable form."""
    try:
        return f"{datetime.fromtimestamp(int(milliseconds) // 1000, timezone.utc):%Y-%m-%d %H:%M:%SZ}"
    except (OverflowError, OSError, ValueError):
        return str(milliseconds)


def _lead_in(key):
    """Returns the lead's part of the key of a reply or a debounce lock. A hashed key has no such part."""
    parts = key.split("#")
    return parts[1] if len(parts) == (3 if parts[-1] == "reply" else 4) else None


def _id(option, text):
    """Returns an id from the command line. Other bytes than UTF-8 cannot be in a row."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise Refused(f"{option} is not UTF-8.") from None
    return text
