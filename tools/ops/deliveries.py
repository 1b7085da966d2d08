"""Reads the deliveries table of a stack."""

import json
from typing import Optional

import boto3


class Deliveries:
    """The rows of one table: one per alert, and one per message of the lead status stream.

    The table also has a row for each debounce lock and each slot. Those rows have no state and no
    message.
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
        # `state` and `owner` are reserved words of DynamoDB.
        names = {f"#{name}": name for name in ("state", "owner") if f"#{name}" in expression}
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


def bodies(row: dict) -> dict[str, str]:
    """Returns the texts of an alert, by protocol."""
    return json.loads(row["message"]["Message"])
