"""The rows of the deployed table."""

import json
import time

import boto3


class Deliveries:
    """One row per alert and per message to the lead status stream, as the function wrote it.

    Where alerts are debounced, there are rows of quiet periods among them: they have neither a state nor a message.
    """

    def __init__(self, table_name):
        self._table = boto3.resource("dynamodb").Table(table_name)

    def row(self, delivery_id):
        """The row with this key, or None."""
        return self._table.get_item(Key={"deliveryId": delivery_id}, ConsistentRead=True).get("Item")

    def pending(self):
        """What stands in the sparse index."""
        rows, page = [], self._table.scan(IndexName="pending")
        while True:
            rows += page["Items"]
            if "LastEvaluatedKey" not in page:
                return rows
            page = self._table.scan(IndexName="pending", ExclusiveStartKey=page["LastEvaluatedKey"])

    def published(self, message_id, patience=5):
        """The row of a message that has arrived, or None. It is completed after the message is out, so it may take a moment."""
        deadline = time.monotonic() + patience
        while True:
            for row in self._table.scan(ConsistentRead=True)["Items"]:
                if row.get("messageId") == message_id:
                    return row
            if time.monotonic() > deadline:
                return None
            time.sleep(0.1)


def bodies(row):
    """What was published as an alert, by protocol."""
    return json.loads(row["message"]["Message"])
