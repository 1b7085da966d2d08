"""The rows of the deployed table."""

import json
import time

import boto3


class Deliveries:
    """One row per alert and per message to the lead status stream, as the function wrote it.

    The rows of quiet periods and of slots are in the same table. They have neither a state nor a
    message.
    """

    def __init__(self, table_name):
        self._table = boto3.resource("dynamodb").Table(table_name)

    def row(self, delivery_id):
        """The row with this key, or None."""
        return self._table.get_item(Key={"deliveryId": delivery_id}, ConsistentRead=True).get("Item")

    def pending(self):
        """What stands in the sparse index."""
        return self._scan(IndexName="pending")

    def matching(self, expression, values):
        """Returns the rows that match a filter. DynamoDB reads, and bills, the whole table."""
        # Both are reserved words of DynamoDB.
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

    def published(self, message_id, patience=5):
        """The row of a message that has arrived, or None. It is completed after the message is out, so it may take a moment."""
        deadline = time.monotonic() + patience
        while True:
            for row in self._scan(ConsistentRead=True):
                if row.get("messageId") == message_id:
                    return row
            if time.monotonic() > deadline:
                return None
            time.sleep(0.1)


def bodies(row):
    """What was published as an alert, by protocol."""
    return json.loads(row["message"]["Message"])
