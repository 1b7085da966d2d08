"""The deployed examples/crm-sync, with its stream and a CRM."""

import json
import time

import boto3

from examples import MAX_BATCH, depth, eventually


class CrmSync:
    """The deployed example, its stream, and the CRM that it calls."""

    def __init__(self, stream, crm, outputs):
        self.stream, self.crm = stream, crm
        self.queue, self.dead_letters = outputs["QueueUrl"], outputs["DeadLettersUrl"]
        self._function, self._table, self._log = outputs["FunctionName"], outputs["TableName"], outputs["LogGroupName"]
        mappings = boto3.client("lambda").list_event_source_mappings()["EventSourceMappings"]
        [mapping] = [one for one in mappings if one["EventSourceArn"].endswith(self.queue.rsplit("/", 1)[1])]
        self._mapping = mapping["UUID"]

    def restart(self):
        """Replaces the function's processes, as Lambda does at times."""
        environment = boto3.client("lambda").get_function_configuration(FunctionName=self._function)["Environment"]
        environment["Variables"]["RESTARTS"] = str(time.time())
        boto3.client("lambda").update_function_configuration(FunctionName=self._function, Environment=environment)

    def poll(self, **settings):
        """Makes the function read its queue, with these settings of the event source."""
        boto3.client("lambda").update_event_source_mapping(UUID=self._mapping, Enabled=True, **settings)

    def pause(self):
        boto3.client("lambda").update_event_source_mapping(UUID=self._mapping, Enabled=False)

    def retry_after(self, seconds):
        """Makes the queue deliver a failed message again after some seconds, instead of the template's minutes."""
        attributes = {"VisibilityTimeout": str(seconds)}
        boto3.client("sqs").set_queue_attributes(QueueUrl=self.queue, Attributes=attributes)

    def read_by_window(self, size=1000):
        """Invokes the function as a batch window would. The emulator has no windows, and batches of at most ten."""
        sqs, received = boto3.client("sqs"), []
        while messages := sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=MAX_BATCH).get("Messages"):
            received += messages
        for start in range(0, len(received), size):
            batch = received[start : start + size]
            records = [{"messageId": one["MessageId"], "body": one["Body"], "eventSource": "aws:sqs"} for one in batch]
            payload = json.dumps({"Records": records})
            answer = boto3.client("lambda").invoke(FunctionName=self._function, Payload=payload)
            assert json.load(answer["Payload"]) == {"batchItemFailures": []}
        for start in range(0, len(received), MAX_BATCH):
            batch = received[start : start + MAX_BATCH]
            entries = [{"Id": str(number), "ReceiptHandle": one["ReceiptHandle"]} for number, one in enumerate(batch)]
            sqs.delete_message_batch(QueueUrl=self.queue, Entries=entries)

    def read_one_by_one(self):
        """Makes the function read each message in its own batch, several at once."""
        self.poll(BatchSize=1)
        assert eventually(lambda: depth(self.queue) == 0, patience=150), "the queue should be empty"

    def rows(self):
        """Returns the rows of the table, by lead."""
        pages = boto3.client("dynamodb").get_paginator("scan").paginate(TableName=self._table)
        return {row["lead"]["S"].split("#")[1]: row for page in pages for row in page["Items"]}

    def stages(self, lead):
        """Returns the stages that the CRM accepted for a lead, in order."""
        return [body["stage"] for _, _, _, body, _ in self.crm.took() if body["leadId"] == lead]

    def attempts(self, lead):
        """Returns the number of calls to the CRM for a lead, including refused calls."""
        return len([body for _, _, _, body, _ in self.crm.calls() if body["leadId"] == lead])

    def log(self):
        """Returns the text of the function's log."""
        pages = boto3.client("logs").get_paginator("filter_log_events").paginate(logGroupName=self._log)
        return "\n".join(event["message"] for page in pages for event in page["events"])
