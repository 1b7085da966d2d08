"""The consumers in examples/, each deployed by its own template to the local AWS: what they do with what the stream brings."""

import json
import random
import time
import unittest

import boto3

from consumer import Endpoint, Stream, change, deploy
from local_aws import function
from local_aws.emulator import Emulator
from local_aws.journey import STAGES

SEED = 6


def setUpModule():
    global emulator, stream
    function.LOGS.mkdir(exist_ok=True)
    emulator = unittest.enterModuleContext(Emulator(function.LOGS / "ministack-examples.log"))
    stream = Stream()


def eventually(condition, patience=60):
    """Waits until it is true; the last thing that it was."""
    deadline = time.monotonic() + patience
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def depth(queue_url):
    """Messages in a queue, those in somebody's hands too."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = boto3.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def come_again_after(queue_url, seconds):
    """What failed, and not after minutes as in the template, for which a test will not wait."""
    boto3.client("sqs").set_queue_attributes(QueueUrl=queue_url, Attributes={"VisibilityTimeout": str(seconds)})


class TheCrmSync(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.crm = Endpoint()
        url = cls.enterClassContext(cls.crm.serving())
        cls.stack = deploy("crm-sync", emulator, StatusTopicArn=stream.arn, CrmUrl=url)
        cls.queue, cls.function = cls.stack["QueueUrl"], cls.stack["FunctionName"]
        mappings = boto3.client("lambda").list_event_source_mappings()["EventSourceMappings"]
        [cls.mapping] = [one for one in mappings if one["EventSourceArn"].endswith(cls.queue.rsplit("/", 1)[1])]

    def enable(self, enabled):
        boto3.client("lambda").update_event_source_mapping(UUID=self.mapping["UUID"], Enabled=enabled)

    def one_by_one(self):
        """Each message in a batch of its own, some at once."""
        boto3.client("lambda").update_event_source_mapping(UUID=self.mapping["UUID"], BatchSize=1, Enabled=True)
        self.assertTrue(eventually(lambda: depth(self.queue) == 0, patience=150), "the queue is not empty yet")

    def by_the_window(self, size=1000):
        """What a window collects, as Lambda hands it over. The emulator has no windows, and batches of ten at most."""
        sqs, received = boto3.client("sqs"), []
        while messages := sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            received += messages
        for start in range(0, len(received), size):
            batch = received[start : start + size]
            records = [{"messageId": one["MessageId"], "body": one["Body"], "eventSource": "aws:sqs"} for one in batch]
            answer = boto3.client("lambda").invoke(FunctionName=self.function, Payload=json.dumps({"Records": records}))
            self.assertEqual(json.load(answer["Payload"]), {"batchItemFailures": []})
            for one in batch:
                sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=one["ReceiptHandle"])

    def test_a_thousand_changes_over_fifty_leads_end_in_the_last_of_each_with_and_without_a_window(self):
        come_again_after(self.queue, 60)
        calls = {}
        for name, read in [("with", self.by_the_window), ("without", self.one_by_one)]:
            chance = random.Random(SEED)
            leads = [f"lead_{name}_{number}" for number in range(50)]
            changes, last = [], {}
            for number in range(800):
                lead, (status, stage) = chance.choice(leads), chance.choice(list(STAGES.items()))
                changes.append(change(lead, number, status, stage))
                last[lead] = (number, stage)
            changes += chance.choices(changes, k=200)
            chance.shuffle(changes)
            before = len(self.crm.took())
            self.enable(False)
            for event in changes:
                stream.publish(event)
            read()
            taken = self.crm.took()[before:]
            calls[name] = len(taken)
            final = {path.removeprefix("/leads/").replace("%5F", "_"): body["stage"] for _, path, _, body, _ in taken}
            self.assertEqual(final, {lead: stage for lead, (_, stage) in last.items()})
            rows = boto3.client("dynamodb").scan(TableName=self.stack["TableName"])["Items"]
            rows = {row["lead"]["S"].split("#")[1]: row for row in rows}
            for lead, (number, stage) in last.items():
                self.assertEqual(rows[lead]["stage"]["S"], stage)
                self.assertTrue(rows[lead]["version"]["S"].endswith(f"#evt_{lead}_{number}"))
                self.assertNotIn("owner", rows[lead])
        print(
            f"\n1000 changes over 50 leads, 200 of them repeated, in random order (seed {SEED}): {calls['with']} calls to the CRM"
            f" with a batch window (up to 1000 changes at once), {calls['without']} without",
            flush=True,
        )
        self.assertLess(calls["with"], calls["without"])

    def test_while_the_crm_refuses_nothing_is_lost_and_nothing_old_is_told_afterwards(self):
        self.enable(True)
        come_again_after(self.queue, 1)
        self.crm.answers = 503
        stream.publish(change("lead_refused", 1, "OPPORTUNITY", "qualified"))
        self.assertTrue(eventually(lambda: [call for call in self.crm.calls() if not call[4]]))
        stream.publish(change("lead_refused", 2, "DONE", "closed_won"))
        self.crm.answers = 200
        self.assertTrue(eventually(lambda: depth(self.queue) == 0))
        stages = [body["stage"] for _, path, _, body, _ in self.crm.took() if "refused" in path]
        self.assertEqual(stages[-1], "closed_won")

    def last_told(self, lead):
        return [body["stage"] for _, path, _, body, _ in self.crm.took() if path.endswith(f"/{lead}")][-1]

    def test_a_crm_that_is_slow_hears_of_a_lead_once_at_a_time(self):
        come_again_after(self.queue, 1)
        self.crm.dawdles = {"evt_slow_1": 3}
        boto3.client("lambda").update_event_source_mapping(UUID=self.mapping["UUID"], BatchSize=1, Enabled=True)
        stream.publish(change("slow", 1, "OPPORTUNITY", "qualified"))
        self.assertTrue(eventually(lambda: not self.crm.dawdles))
        stream.publish(change("slow", 2, "DONE", "closed_won"))
        self.assertTrue(eventually(lambda: depth(self.queue) == 0))
        self.assertEqual(self.last_told("slow"), "closed_won")
        self.assertEqual(self.crm.overlaps, [])

    def test_what_the_crm_does_after_it_was_given_up_does_not_undo_what_is_newer(self):
        come_again_after(self.queue, 1)
        # Longer than the function waits for an answer.
        self.crm.dawdles = {"evt_late_1": 8}
        boto3.client("lambda").update_event_source_mapping(UUID=self.mapping["UUID"], BatchSize=1, Enabled=True)
        stream.publish(change("late", 1, "OPPORTUNITY", "qualified"))
        self.assertTrue(eventually(lambda: not self.crm.dawdles))
        stream.publish(change("late", 2, "DONE", "closed_won"))
        self.assertTrue(eventually(lambda: depth(self.queue) == 0, patience=90))
        self.assertTrue(eventually(self.crm.is_idle))
        self.assertEqual(self.last_told("late"), "closed_won")
        self.assertEqual(self.crm.overlaps, [])

    def test_a_redirect_is_no_yes(self):
        self.enable(True)
        come_again_after(self.queue, 1)
        for status in (302, 303):
            self.crm.answers = status
            stream.publish(change(f"redirected{status}", 1, "DONE", "closed_won"))
            self.assertTrue(eventually(lambda: [one for one in self.crm.calls() if one[1].endswith(str(status))]))
            time.sleep(0.5)
            self.crm.answers = 200
            self.assertTrue(eventually(lambda: depth(self.queue) == 0))
            self.assertEqual(self.last_told(f"redirected{status}"), "closed_won")

    def test_what_is_no_change_ends_in_the_dead_letters_and_holds_nobody_up(self):
        self.enable(True)
        come_again_after(self.queue, 1)
        stream.publish_text("no event")
        stream.publish(change("lead_behind", 1, "OPPORTUNITY", "qualified"))
        self.assertTrue(eventually(lambda: [call for call in self.crm.took() if "behind" in call[1]]))
        self.assertTrue(eventually(lambda: depth(self.stack["DeadLettersUrl"]) == 1), "not in the dead letters")
        self.assertEqual(depth(self.queue), 0)


class TheAutomation(unittest.TestCase):
    def test_it_hears_of_lost_leads_alone_each_with_its_key(self):
        automation = Endpoint()
        url = self.enterContext(automation.serving())
        deploy("lead-lost", emulator, StatusTopicArn=stream.arn, AutomationUrl=url)
        for number, (status, stage) in enumerate(STAGES.items()):
            stream.publish(change("lead_1", number, status, stage))
        self.assertTrue(eventually(automation.took))
        time.sleep(1)
        [(method, _, key, body, _)] = automation.took()
        self.assertEqual((method, key), ("POST", "evt_lead_1_7"))
        self.assertEqual((body["action"], body["leadId"], body["newStatus"]), ("lead_lost", "lead_1", "NOT_INTERESTED"))

    def test_what_fails_is_tried_three_times_with_one_key_and_kept_in_the_end(self):
        automation = Endpoint()
        url = self.enterContext(automation.serving())
        stack = deploy("lead-lost", emulator, StatusTopicArn=stream.arn, AutomationUrl=url)
        # As SNS would: the emulator's SNS calls the function directly, and so without the queue in which Lambda tries again.
        event = change("lead_3", 1, "NOT_INTERESTED", "closed_lost")
        payload = json.dumps({"Records": [record(event)]})
        for answer in (503, 303):
            automation.answers = answer
            boto3.client("lambda").invoke(FunctionName=stack["FunctionName"], InvocationType="Event", Payload=payload)
            received = boto3.client("sqs").receive_message(QueueUrl=stack["FailuresUrl"], WaitTimeSeconds=20)
            [kept] = received["Messages"]
            boto3.client("sqs").delete_message(QueueUrl=stack["FailuresUrl"], ReceiptHandle=kept["ReceiptHandle"])
            kept = json.loads(kept["Body"])
            self.assertEqual(json.loads(kept["requestPayload"]["Records"][0]["Sns"]["Message"]), event)
            self.assertIn(str(answer), kept["responsePayload"]["errorMessage"])
            self.assertNotIn(url, json.dumps(kept), "the address may have a key in it")
        self.assertEqual([key for _, _, key, _, _ in automation.calls()], ["evt_lead_3_1"] * 6)


def record(event):
    """A message as SNS hands it to a function."""
    notification = {
        "Type": "Notification",
        "MessageId": event["id"],
        "TopicArn": stream.arn,
        "Subject": None,
        "Timestamp": "2024-02-24T10:30:00.000Z",
        "SignatureVersion": "1",
        "Signature": "",
        "SigningCertUrl": "https://sns.us-east-1.amazonaws.com/certificate.pem",
        "UnsubscribeUrl": "https://sns.us-east-1.amazonaws.com/",
        "Message": json.dumps(event),
        "MessageAttributes": {},
    }
    return {"EventSource": "aws:sns", "EventVersion": "1.0", "EventSubscriptionArn": stream.arn, "Sns": notification}


class TheArchive(unittest.TestCase):
    def test_every_change_is_a_line_under_its_day(self):
        stack = deploy("archive", emulator, StatusTopicArn=stream.arn)
        published = [change("lead_2", number, status, stage) for number, (status, stage) in enumerate(STAGES.items())]
        for event in [*published, published[0]]:
            stream.publish(event)
        self.assertTrue(eventually(lambda: depth(stack["QueueUrl"]) == 0))
        s3 = boto3.client("s3")
        kept = {}
        for found in s3.list_objects_v2(Bucket=stack["BucketName"])["Contents"]:
            self.assertTrue(found["Key"].startswith("changes/dt=2024-02-24/"), found["Key"])
            text = s3.get_object(Bucket=stack["BucketName"], Key=found["Key"])["Body"].read().decode()
            for line in text.splitlines():
                event = json.loads(line)
                kept[event["id"]] = event
        self.assertEqual(sorted(kept.values(), key=lambda event: event["time"]), published)


if __name__ == "__main__":
    unittest.main()
