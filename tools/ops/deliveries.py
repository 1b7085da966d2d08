"""Reads the deliveries table of a stack, and removes what `forget` deletes from it."""

import hashlib
import json
from typing import Optional

import boto3
from botocore.exceptions import ClientError


class Deliveries:
    """The rows of one table: one per alert, and one per message of the lead status stream.

    The table also has a row for each debounce lock, each known lead, each slot and each lead's last
    reply, and one for the reconciliation. Those rows have no state and no message.
    """

    def __init__(self, table_name: str):
        self._table = boto3.resource("dynamodb").Table(table_name)

    def row(self, delivery_id: str) -> Optional[dict]:
        """Returns the row with this key, or None."""
        return self._table.get_item(Key={"deliveryId": delivery_id}, ConsistentRead=True).get("Item")

    def pending(self) -> list[dict]:
        """Returns the pending deliveries, from the sparse index."""
        return self._scan(IndexName="pending")

    def matching(self, expression: str, values: dict) -> list[dict]:
        """Returns the rows that match a filter. DynamoDB reads, and bills, the whole table."""
        # These are reserved words of DynamoDB.
        names = {f"#{name}": name for name in ("state", "owner", "key") if f"#{name}" in expression}
        named = {"ExpressionAttributeNames": names} if names else {}
        return self._scan(ConsistentRead=True, FilterExpression=expression, ExpressionAttributeValues=values, **named)

    def _scan(self, **asked):
        """Returns the rows of all pages. A page without rows may still have a next page."""
        rows, page = [], self._table.scan(**asked)
        while True:
            rows += page["Items"]
            if "LastEvaluatedKey" not in page:
                return rows
            page = self._table.scan(ExclusiveStartKey=page["LastEvaluatedKey"], **asked)

    def with_alert(self, text: str) -> Optional[dict]:
        """Returns the row of the alert whose text for programs this is, or None.

        A claim writes the row before anything publishes the alert.
        """
        alerts = self._scan(ConsistentRead=True, FilterExpression="attribute_exists(message.Subject)")
        return next((row for row in alerts if bodies(row)["default"] == text), None)

    def delete(self, key: str) -> None:
        """Deletes a row. A missing row is not an error."""
        self._table.delete_item(Key={"deliveryId": key})

    def delete_lock(self, key: str, now: int) -> bool:
        """Deletes a debounce lock that is over, and returns whether the lock is gone."""
        ended = {"ConditionExpression": "quietUntil <= :now", "ExpressionAttributeValues": {":now": now}}
        return self._changed(self._table.delete_item, key, **ended)

    def remove_message(self, delivery_id: str, state: str, now: int) -> bool:
        """Removes everything about a lead from a delivery in this state. The row stays.

        The row still identifies the event as a duplicate. Returns whether the message is gone.
        """
        return self._changed(
            self._table.update_item,
            delivery_id,
            UpdateExpression="SET forgottenAt = :now REMOVE message, quiet, known",
            ConditionExpression="#state = :state",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={":now": now, ":state": state},
        )

    def _changed(self, write, key, **asked):
        """Makes a conditional write, and returns whether it took effect or the row is gone."""
        try:
            write(Key={"deliveryId": key}, **asked)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return self.row(key) is None
        return True


def bodies(row: dict) -> dict[str, str]:
    """Returns the texts of an alert, by protocol."""
    return json.loads(row["message"]["Message"])


def is_forgotten(row: dict) -> bool:
    """Returns whether the command `forget` removed the message of a delivery."""
    return "forgottenAt" in row and "message" not in row


def key_part(part: str) -> str:
    """Returns a part of a key as `src/message/key.rs` stores it."""
    encoded = part.encode(errors="surrogateescape")
    if len(encoded) > 256:
        return f"%sha256:{hashlib.sha256(encoded).hexdigest()}"
    return "".join(
        chr(byte) if b" " <= bytes([byte]) <= b"~" and byte not in b"#%" else f"%{byte:02X}" for byte in encoded
    )
