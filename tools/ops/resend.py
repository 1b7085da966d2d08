"""The command `resend`: publishes stored alerts again, with the same ids and bytes.

All current subscribers get the alerts, including subscribers that got them before.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Optional

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from ops.deliveries import Deliveries, bodies, is_forgotten, key_part
from ops.display import printable
from ops.errors import Refused
from ops.moments import moment
from ops.pace import DEFAULT_RATE, Pace, WrongClock
from ops.refusal import NOT_LOGGED_IN, explained, missing_permission
from ops.running import use_local_run
from ops.stack import described, output_of, outputs_of, parameters_of
from ops.subscribers import confirmed, subscriptions

GIVE_ONE = "Give either --since 2h (m, h or d, or a time such as 2026-11-25T18:00:00Z) or --event ID, but not both."
# Rows without a readable `publishedAt` match too, because the command reports them.
SINCE = (
    "publishedAt >= :since OR (#state <> :published AND firstSeenAt >= :since) "
    "OR (#state = :published AND NOT attribute_type(publishedAt, :number))"
)
# A long part of a key is stored as its hash. Then `is_of` reads the id in the message.
OF_EVENT = "contains(deliveryId, :id) OR contains(deliveryId, :hashed)"
MAX_OWN_IDS = 4  # further facts with the same event id, as in `src/webhook/handler.rs`
LEFT_OUT = {
    "PENDING": "pending, which the redrive publishes",
    "DEBOUNCED": "debounced, because another alert was published for the same lead and status",
    "DISCARDED": "discarded, because the stream was turned off",
}
FORGOTTEN = "without a message, because the command `forget` removed it"
UNKNOWN = "It is not known whether SNS published the message."
ALERT = {"Subject": str, "Message": str, "MessageStructure": str}
STATUS = {"Message": str, "MessageAttributes": dict, "MessageGroupId": str, "MessageDeduplicationId": str}


@dataclass
class Found:
    """The result of a scan of the table."""

    sendable: list  # rows, the oldest first
    left_out: dict  # numbers of rows, by reason
    unreadable: dict  # reasons, by delivery id


def run(given: argparse.Namespace) -> int:
    """Publishes the selected alerts again, and returns the exit status."""
    try:
        since = moment(given.since, time.time() * 1000) if given.since else None
        if (since is None) == (not given.event):
            raise Refused(GIVE_ONE)
        if not given.stack:
            use_local_run(given.run)
        return Resend(given.stack, given.stream).run(since, given.event, given.yes)
    except WrongClock as reason:
        raise Refused(str(reason)) from None
    except KeyboardInterrupt:
        print("\nStopped. Nothing was sent.", file=sys.stderr)
        return 130


class Resend:
    """Resends the messages of one topic of a stack."""

    def __init__(self, stack_name: Optional[str], stream: bool = False):
        stack = described(stack_name)
        self._local = stack_name is None
        self._kind, self._noun = ("status", "message") if stream else ("alert", "alert")
        self._table_name = output_of(stack, "DeliveriesTableName")
        if stream and "StatusTopicArn" not in outputs_of(stack):
            raise Refused(
                f"The lead status stream of {stack['StackName']} is off, so there is no topic for its messages."
            )
        self._topic = output_of(stack, "StatusTopicArn" if stream else "AlertsTopicArn")
        # Only alerts are paced.
        self._rate = 0 if stream else int(parameters_of(stack).get("AlertsPerSecond") or DEFAULT_RATE)
        # If SNS does not answer, the message may be published. A retry could publish it twice.
        self._sns = boto3.client(
            "sns", config=Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 1})
        )

    def run(self, since: Optional[int], event: Optional[str], yes: bool) -> int:
        """Finds the rows, prints them, asks, and publishes them. Returns the exit status."""
        found = self.find(since, event)
        self._show(found)
        if not found.sendable:
            print(f"There is no published {self._noun} to send again.")
            return 1 if event or found.unreadable else 0
        self._assert_subscribed()
        self._show_pace(len(found.sendable))
        if not yes:
            self._ask(len(found.sendable))
        return self._send(found.sendable) or (1 if found.unreadable else 0)

    def find(self, since: Optional[int], event: Optional[str]) -> Found:
        """Finds the deliveries that were published since then, or for the event.

        The scan reads the whole table, and DynamoDB bills that, because no index has published
        rows.
        """
        deliveries = Deliveries(self._table_name)
        if event:
            rows = deliveries.matching(OF_EVENT, {":id": key_part(event), ":hashed": "%sha256:"})
            rows = [row for row in rows if is_of(row, event)]
        else:
            rows = deliveries.matching(SINCE, {":since": since, ":published": "PUBLISHED", ":number": "N"})
        found = Found([], {}, {})
        for row in rows:
            if row["deliveryId"].split("#")[-1] != self._kind:
                continue
            state = str(row.get("state"))
            if reason := LEFT_OUT.get(state) or (FORGOTTEN if is_forgotten(row) else None):
                found.left_out[reason] = found.left_out.get(reason, 0) + 1
            elif fault := fault_of(row, self._kind):
                found.unreadable[row["deliveryId"]] = fault
            else:
                found.sendable.append(row)
        found.sendable.sort(key=lambda row: (row["publishedAt"], row["deliveryId"]))
        return found

    def _show(self, found):
        if found.sendable:
            lines = [("PUBLISHED AT", "DELIVERY", "SUBJECT")]
            lines += [(at(row), row["deliveryId"], row["message"].get("Subject", "")) for row in found.sendable]
            lines = [tuple(map(printable, line)) for line in lines]
            widths = [max(len(line[column]) for line in lines) for column in range(2)]
            print("\n".join("  ".join([*map(str.ljust, line, widths), line[2]]).rstrip() for line in lines) + "\n")
        for reason, number in sorted(found.left_out.items()):
            print(f"Left out: {number} {reason}.")
        for delivery, fault in sorted(found.unreadable.items()):
            print(f"Cannot be sent: {printable(delivery)}: {fault}.")

    def _assert_subscribed(self):
        try:
            confirmed_ones = [one for one in subscriptions(self._topic) if confirmed(one)]
        except ClientError as error:
            if not (action := missing_permission(error)):
                raise
            print(f"Your shell may not use {action}, so the topic's subscribers are not known.")
            return
        if not confirmed_ones:
            raise Refused(
                f"The topic {self._topic} has no confirmed subscription, so nobody would get the {self._noun}s. First "
                "subscribe an address. The command `doctor` says how."
            )
        protocols = ", ".join(sorted({one["Protocol"] for one in confirmed_ones}))
        print(f"Confirmed subscriptions: {len(confirmed_ones)} ({protocols}).")
        print(f"Every subscriber gets every {self._noun}, including {self._noun}s that it got before.")
        if self._topic.endswith(".fifo"):
            print("A FIFO topic accepts a message that it got less than five minutes ago, but delivers it to nobody.")

    def _show_pace(self, number):
        """Prints how long the resend takes.

        A publish itself takes only some hundredths of a second.
        """
        if self._rate and number > 1:
            seconds = -(-(number - 1) // self._rate)
            lasting = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
            print(f"The pace is {self._rate} alerts a second (AlertsPerSecond), so the resend takes about {lasting}.")

    def _ask(self, number):
        if not sys.stdin.isatty():
            raise Refused(
                "Nothing was sent: there is no terminal to ask for confirmation. To send without it, add --yes."
            )
        these = f"this {self._noun}" if number == 1 else f"these {number} {self._noun}s"
        try:
            answer = input(f"Send {these} again? [y/N] ")
        except EOFError:
            print()
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise Refused("Nothing was sent.")

    def _send(self, rows):
        """Publishes each row's message, and prints each result at once. Returns the exit status."""
        pace = Pace(self._table_name, self._rate)
        published, failed, delivery = 0, 0, None
        try:
            for row in rows:
                delivery = None
                pace.wait()
                delivery = printable(row["deliveryId"])
                try:
                    message_id = self._publish(row["message"])
                except (BotoCoreError, ClientError) as error:
                    failed += 1
                    print(f"FAILED     {delivery}: {said(error, self._local)}", flush=True)
                    if isinstance(error, ClientError) and affects_every_publish(error):
                        break
                    continue
                published += 1
                print(f"published  {delivery} as message {message_id}", flush=True)
        except KeyboardInterrupt:
            unknown = f" It is not known whether SNS published {delivery}." if delivery else ""
            print(f"\nStopped. {self._sum(published, rows)}{unknown}")
            return 130
        except (BotoCoreError, ClientError, WrongClock) as error:
            # Without a slot, no further alert may be published.
            print(f"Stopped: {error if isinstance(error, WrongClock) else said(error, self._local)}")
            failed += 1
        print(self._sum(published, rows))
        return 1 if failed else 0

    def _sum(self, published, rows):
        left = len(rows) - published
        rest = f" {left} {'was' if left == 1 else 'were'} not." if left else ""
        return f"{published} of {len(rows)} {self._noun}s {'was' if published == 1 else 'were'} published again.{rest}"

    def _publish(self, message):
        """Sends a row's publish request as `src/delivery/topic/sns.rs` does.

        Returns SNS's message id.
        """
        request = {name: message[name] for name in (STATUS if self._kind == "status" else ALERT)}
        if not self._topic.endswith(".fifo"):
            request.pop("MessageDeduplicationId", None)
        return self._sns.publish(TopicArn=self._topic, **request)["MessageId"]


def fault_of(row: dict, kind: str) -> Optional[str]:
    """Returns why a row cannot be sent, or None if it can be sent."""
    if row.get("state") != "PUBLISHED":
        return f"its state is {printable(str(row.get('state')))}, which this version does not know"
    if not isinstance(row.get("publishedAt"), Decimal):
        return "its row does not say when it was published"
    message = row.get("message")
    if message is None:
        return "its row keeps no publish request"
    wanted = STATUS if kind == "status" else ALERT
    if not isinstance(message, dict) or not all(isinstance(message.get(name), type_) for name, type_ in wanted.items()):
        return f"the publish request in its row lacks one of {', '.join(wanted)}"
    return None


def is_of(row: dict, event: str) -> bool:
    """Returns whether a row belongs to the event.

    A second fact with the same event id has the id `{event}~{hash}` (`src/webhook/handler.rs`).
    """
    suffix = f"~{str(row.get('contentSha256', ''))[:16]}"
    ids = [event + suffix * times for times in range(MAX_OWN_IDS + 1)]
    in_keys = [key_part(one) for one in ids]
    parts = row["deliveryId"].split("#")
    if len(parts) == 3:
        return parts[1] in in_keys
    # A very long key is hashed as a whole. Its message has the id, plain or escaped as in a key.
    try:
        body = row["message"]["Message"]
        return json.loads(body if parts[-1] == "status" else bodies(row)["default"])["id"] in ids + in_keys
    except (LookupError, TypeError, ValueError):
        return False


def at(row: dict) -> str:
    """Returns when a row's message was published, in readable form."""
    try:
        return f"{datetime.fromtimestamp(int(row['publishedAt']) // 1000, timezone.utc):%Y-%m-%d %H:%M:%SZ}"
    except (OverflowError, OSError, ValueError):
        return str(row["publishedAt"])


def said(error: Exception, local: bool) -> str:
    """Returns why a publish failed, what to do, and whether SNS may have published the message."""
    what = explained(error, local)
    if isinstance(error, ClientError):
        is_unknown = error.response["ResponseMetadata"].get("HTTPStatusCode", 0) >= 500
    else:
        is_unknown = isinstance(error, HTTPClientError) and not isinstance(error, ConnectionError)
    return printable(f"{what} {UNKNOWN}" if is_unknown else what)


def affects_every_publish(error: ClientError) -> bool:
    """Returns whether AWS would refuse every other publish for the same reason."""
    return bool(missing_permission(error) or NOT_LOGGED_IN.search(error.response["Error"]["Code"]))
