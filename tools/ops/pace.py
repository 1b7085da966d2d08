"""Keeps the pace of alerts together with the functions: one alert per slot.

The functions follow the same rules. With rate r, a second has r slots, counted from the Unix epoch.
A slot has a row in the deliveries table, with the key `{start in ms}#slot`. To publish an alert, a
process takes a slot by one conditional write, waits until the slot starts, and publishes. A slot
serves one alert, and only within a second of its start.
"""

import secrets
import time
from email.utils import parsedate_to_datetime

import boto3
from botocore.exceptions import ClientError

DEFAULT_RATE = 5  # alerts per second, if the stack's template is older than the parameter
PUBLISH_WINDOW = 1000  # milliseconds from a slot's start in which its alert may be published
SLOT_TTL = 60 * 60  # seconds from a slot's start until its row expires
MAX_DELAY = 10_000  # milliseconds; a longer delay means that the machine slept
MAX_SKEW = 2  # seconds between this machine's clock and AWS's


class WrongClock(Exception):
    """This machine's clock differs so much from AWS's that its slots are other ones."""


def slot_at(now: int, rate: int) -> int:
    """Returns the number of the slot at a moment, which is in milliseconds."""
    return now * rate // 1000


def start_of(slot: int, rate: int) -> int:
    """Returns the first millisecond of a slot."""
    return -(-slot * 1000 // rate)


class Pace:
    """One publisher that keeps the pace."""

    def __init__(self, table_name: str, rate: int, clock=time):
        """`rate` is in alerts per second. With 0, alerts are not paced."""
        self._table = boto3.resource("dynamodb").Table(table_name)
        self._rate = rate
        self._clock = clock
        self._next = 0  # the first slot that this publisher has not tried yet
        self._answer = 0  # milliseconds that the last answer took

    def wait(self) -> None:
        """Takes the next free slot, and returns when an alert may be published in the slot."""
        ahead = 0
        while self._rate:
            start = self._take(ahead)
            self._clock.sleep(max(0, start - self._now()) / 1000)
            # If the answer took long or the machine slept, the slot is over. The current slot may
            # belong to another alert.
            if self._now() < start + PUBLISH_WINDOW:
                return
            # Over a slow network, every slot would be over, and the functions could not use them.
            ahead = min(self._answer, MAX_DELAY)

    def _take(self, ahead):
        # With a new token for every alert, no second alert gets the same slot. If boto3 repeats a
        # write that took effect, the repeated write finds its own token and succeeds.
        owner = f"resend/{secrets.token_hex(8)}"
        while True:
            slot = max(slot_at(self._now() + ahead, self._rate), self._next)
            self._next = slot + 1
            if self._write(start := start_of(slot, self._rate), owner):
                return start

    def _write(self, start, owner):
        """Takes a slot. Returns whether it was free."""
        before = self._now()
        try:
            answer = self._table.update_item(
                Key={"deliveryId": f"{start}#slot"},
                UpdateExpression="SET #owner = :me, expiresAt = :expires",
                ConditionExpression="attribute_not_exists(#owner) OR #owner = :me",
                ExpressionAttributeNames={"#owner": "owner"},
                ExpressionAttributeValues={":me": owner, ":expires": start // 1000 + SLOT_TTL},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return False
        finally:
            self._answer = self._now() - before
        self._assert_clock(answer["ResponseMetadata"]["HTTPHeaders"].get("date"), before)
        return True

    def _assert_clock(self, date, before):
        if not date:
            return
        theirs = parsedate_to_datetime(date).timestamp()  # in whole seconds
        ahead, behind = before / 1000 - theirs - 1, theirs - self._now() / 1000
        if max(ahead, behind) > MAX_SKEW:
            by = f"{ahead:.0f} seconds ahead of" if ahead > behind else f"{behind:.0f} seconds behind"
            raise WrongClock(f"This machine's clock is {by} AWS's, so alerts cannot be paced. Set the clock first.")

    def _now(self):
        return int(self._clock.time() * 1000)
