"""The template with its defaults, with each option alone and with all of them, on a local AWS: what that makes.

ministack takes dashboards and alarms on one metric, but no metric math, no saved queries and no
chat. The test what_the_template_watches_is_what_the_code_says.rs holds what they say against the
code, and cfn-lint holds it against CloudFormation.
"""

import io
import json
import re
import unittest
import zipfile
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

from local_aws.emulator import Emulator
from local_aws.function import LOGS
from local_aws.stack import as_ministack_takes_it
from ops.running import REGION

STREAM = {
    "StatusTopic",
    "StatusTopicPolicy",
    "PublishToStream",
    "NobodyHearsStreamAlarm",
    "StreamDeliveriesFailedAlarm",
    "StreamPendingTooOldAlarm",
}
# What parameters are set to, and the resources that come or go by that.
OPTIONS = [
    ({"AlertEmail": "sales@example.com"}, {"AlertEmailSubscription"}),
    ({"AlertStatuses": "OPPORTUNITY,Meeting_Booked"}, set()),
    ({"AlertTags": "hot lead, call back"}, set()),
    ({"DebounceMinutes": "60"}, set()),
    ({"AlertsPerSecond": "0"}, set()),
    ({"StatusStream": "fifo"}, STREAM),
    ({"StatusStream": "standard"}, STREAM),
    ({"StatusPipeline": "OPPORTUNITY=sales qualified, DONE=customer"}, set()),
    ({"StatusPipeline": '{"OPPORTUNITY": "sales, qualified"}'}, set()),
    ({"AlarmEmail": "operations@example.com"}, {"AlarmEmailSubscription"}),
    ({"SilenceHours": "72"}, {"SilenceAlarm"}),
    ({"MakeDashboard": "no"}, {"Dashboard"}),
    ({"ReserveConcurrency": "yes"}, set()),
    ({"WebhookConcurrency": "20"}, set()),
    ({"EncryptionKeyArn": f"arn:aws:kms:{REGION}:000000000000:key/12345678-90ab-cdef-1234-567890abcdef"}, set()),
    ({"SlackWorkspaceId": "T0123ABCD", "SlackChannelId": "C0123ABCD"}, {"SlackChannel", "ChatRole"}),
    (
        {
            "TeamsTeamId": "12345678-90ab-cdef-1234-567890abcdef",
            "TeamsTenantId": "fedcba09-8765-4321-fedc-ba0987654321",
            "TeamsChannelId": "19%3ab6ef35dc342d56ba5654e6fc6d25a071%40thread.tacv2",
        },
        {"TeamsChannel", "ChatRole"},
    ),
    (
        {"WebhookSecretArn": f"arn:aws:secretsmanager:{REGION}:000000000000:secret:sendpilot-AbCdEf"},
        {"WebhookSecret"},
    ),
]
# What a parameter does not take.
REFUSED = [
    ("AlertStatuses", ""),
    ("AlertStatuses", "Opportunity!"),
    ("AlertStatuses", "OPPORTUNITY,"),
    ("AlertTags", "hot\nlead"),
    ("DebounceMinutes", "1441"),
    ("DebounceMinutes", "-1"),
    ("DebounceMinutes", "0.5"),
    ("AlertsPerSecond", "101"),
    ("AlertsPerSecond", "-1"),
    ("AlertsPerSecond", "0.5"),
    ("RetentionDays", "1"),
    ("RetentionDays", "3651"),
    ("RetentionDays", "30.5"),
    ("StatusStream", "false"),
    ("StatusStream", "on"),
    ("StatusPipeline", "OPPORTUNITY"),
    ("StatusPipeline", "OPPORTUNITY=qualified,DONE"),
]
# The examples that subscribe a queue to the stream.
QUEUED = {"archive": {}, "crm-sync": {"CrmUrl": "https://crm.example.com"}}
TOPICS = {"standard": {"Name": "status"}, "fifo": {"Name": "status.fifo", "Attributes": {"FifoTopic": "true"}}}
NUMBERS = count()
# Those that every stack has, of whatever value.
GIVEN = {"RetentionDays", "PendingSeconds", "Architecture"}


def setUpModule():
    global template
    LOGS.mkdir(exist_ok=True)
    emulator = Emulator(LOGS / "ministack.log")
    emulator.__enter__()
    unittest.addModuleCleanup(emulator.__exit__)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="bucket")
    # No function is invoked here, so there is nothing to build.
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("bootstrap", "")
    s3.put_object(Bucket="bucket", Key="code.zip", Body=code.getvalue())
    for path in ("template.yaml", *(f"examples/{name}/template.yaml" for name in QUEUED)):
        text = as_ministack_takes_it(Path(path).read_text()).replace("CodeUri: .", "CodeUri: s3://bucket/code.zip")
        # With its comments, the template is longer than a request may be.
        s3.put_object(Bucket="bucket", Key=path, Body=text.encode())
    template = f"{emulator.endpoint}/bucket/template.yaml"


def deploy(test, url=None, **options):
    """Deploys with these options, until the test is over. Returns the physical ids, by logical ones."""
    cloudformation = boto3.client("cloudformation")
    name = "-".join(["with", *map(str.lower, options or ["defaults"])])[:100] + f"-{next(NUMBERS)}"
    cloudformation.create_stack(
        StackName=name,
        TemplateURL=url or template,
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in options.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    test.addCleanup(cloudformation.delete_stack, StackName=name)
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}


class EveryOption(unittest.TestCase):
    def test_every_parameter_is_tried_here_or_has_a_value_in_every_stack(self):
        summary = boto3.client("cloudformation").get_template_summary(TemplateURL=template)
        tried = {name for options, _ in OPTIONS for name in options}
        self.assertEqual({given["ParameterKey"] for given in summary["Parameters"]}, tried | GIVEN)

    def test_each_alone_makes_its_own_resources_and_no_other(self):
        defaults = deploy(self).keys()
        for options, own in OPTIONS:
            with self.subTest(options):
                self.assertEqual(deploy(self, **options).keys() ^ defaults, own)

    def test_all_together_and_alarms_and_dashboard_are_of_this_stack(self):
        everything = {name: value for options, _ in OPTIONS for name, value in options.items()}
        # But for the one that takes away what is looked at here.
        made = deploy(self, **everything | {"MakeDashboard": "yes"})
        cloudwatch = boto3.client("cloudwatch")
        names = [physical for logical, physical in made.items() if logical.endswith("Alarm")]
        alarms = cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]
        self.assertEqual({alarm["AlarmName"] for alarm in alarms}, set(names))
        # A queue's id is its URL, a topic's its ARN.
        watched = {re.split("[/:]", physical)[-1] for physical in made.values()}
        for alarm in alarms:
            self.assertEqual(alarm["AlarmActions"], [made["AlarmsTopic"]])
            self.assertNotIn("${", alarm["AlarmDescription"])
            self.assertIn(alarm["Dimensions"][0]["Value"], watched)
        body = cloudwatch.get_dashboard(DashboardName=made["Dashboard"])["DashboardBody"]
        self.assertNotIn("${", body)
        (shown,) = (widget for widget in json.loads(body)["widgets"] if widget["type"] == "alarm")
        self.assertEqual(set(shown["properties"]["alarms"]), {alarm["AlarmArn"] for alarm in alarms})

    def test_the_functions_know_the_streams_topic_where_there_is_one(self):
        for kind in ("off", "standard", "fifo"):
            made = deploy(self, StatusStream=kind)
            for function in ("WebhookFunction", "RedriveFunction"):
                with self.subTest(kind, function=function):
                    configuration = boto3.client("lambda").get_function_configuration(FunctionName=made[function])
                    self.assertEqual(
                        configuration["Environment"]["Variables"].get("STATUS_TOPIC_ARN"), made.get("StatusTopic")
                    )

    def test_half_a_chat_is_refused(self):
        for part in ({"SlackWorkspaceId": "T0123ABCD"}, {"TeamsChannelId": "19%3ab6ef%40thread.tacv2"}):
            with self.subTest(part), self.assertRaisesRegex(ClientError, "belong together"):
                deploy(self, **part)

    def test_what_a_parameter_does_not_take_is_refused(self):
        for name, value in REFUSED:
            with self.subTest(name, value=value), self.assertRaisesRegex(ClientError, name):
                deploy(self, **{name: value})

    def test_only_a_fifo_topic_has_a_name_of_its_own_so_that_neither_kind_is_in_the_others_way(self):
        for kind, name in (
            ("standard", r":with-statusstream-\d+-StatusTopic-\w+$"),
            ("fifo", r":with-statusstream-\d+-status\.fifo$"),
        ):
            self.assertRegex(deploy(self, StatusStream=kind)["StatusTopic"], name)

    def test_topics_and_queues_refuse_the_transport_that_their_policies_name_and_take_the_other(self):
        made = deploy(self, StatusStream="standard")
        topics = "AlertsTopic", "AlarmsTopic", "StatusTopic"
        for by_tls in (False, True):
            sns, sqs = client("sns", by_tls), client("sqs", by_tls)
            calls = {topic: partial(sns.publish, TopicArn=made[topic], Message="-") for topic in topics}
            for queue in ("RedriveFailures", "DeadLetters"):
                calls[queue] = partial(sqs.send_message, QueueUrl=made[queue], MessageBody="-")
            for name, call in calls.items():
                with self.subTest(name, by_tls=by_tls):
                    # The other way round than on the real AWS: see as_ministack_takes_it.
                    with self.assertRaises(ClientError) if by_tls else nullcontext():
                        call()

    def test_the_dead_letters_take_what_sns_sends_for_the_topics_of_the_stack_and_for_no_other_topic(self):
        sns, sqs = boto3.client("sns"), boto3.client("sqs")
        stranger = sns.create_topic(Name="stranger")["TopicArn"]
        self.addCleanup(sns.delete_topic, TopicArn=stranger)
        for options, streams in (({}, []), ({"StatusStream": "standard"}, ["StatusTopic"])):
            made = {**deploy(self, **options), "stranger": stranger}
            topics = ["AlertsTopic", "AlarmsTopic", *streams]
            attributes = sqs.get_queue_attributes(QueueUrl=made["DeadLetters"], AttributeNames=["QueueArn"])[
                "Attributes"
            ]
            for topic in ("stranger", *topics):
                sns.subscribe(TopicArn=made[topic], Protocol="sqs", Endpoint=attributes["QueueArn"])
                sns.publish(TopicArn=made[topic], Message=topic)
            received = sqs.receive_message(QueueUrl=made["DeadLetters"], MaxNumberOfMessages=10, WaitTimeSeconds=2)
            self.assertCountEqual([json.loads(message["Body"])["Message"] for message in received["Messages"]], topics)


class QueuedExamples(unittest.TestCase):
    def test_a_fifo_topic_has_fifo_dead_letters_and_without_a_window_a_batch_is_of_ten(self):
        sns = boto3.client("sns")
        topics = {kind: sns.create_topic(**given)["TopicArn"] for kind, given in TOPICS.items()}
        for name, given in QUEUED.items():
            for kind, topic in topics.items():
                with self.subTest(name, kind=kind):
                    url = template.replace("template.yaml", f"examples/{name}/template.yaml")
                    given |= {"StatusTopicArn": topic, "StatusStream": kind, "BatchWindowSeconds": "0"}
                    made = deploy(self, url, **given)
                    attributes = sns.get_subscription_attributes(SubscriptionArn=made["Subscription"])["Attributes"]
                    target = json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"]
                    queue = made["FifoDeadLetters" if kind == "fifo" else "DeadLetters"]
                    self.assertEqual(target.rsplit(":", 1)[1], queue.rsplit("/", 1)[1])
                    self.assertEqual(target.endswith(".fifo"), kind == "fifo")
                    mappings = boto3.client("lambda").list_event_source_mappings()["EventSourceMappings"]
                    (mapping,) = (
                        one for one in mappings if one["EventSourceArn"].endswith(made["Changes"].rsplit("/", 1)[1])
                    )
                    self.assertEqual((mapping["BatchSize"], mapping.get("MaximumBatchingWindowInSeconds", 0)), (10, 0))


def client(service, by_tls):
    """A client whose requests come as if a proxy had taken them by TLS, or as they come."""
    made = boto3.client(service)
    if by_tls:
        forwarded = {"X-Forwarded-Proto": "https"}
        made.meta.events.register("before-send", lambda request, **_: request.headers.update(forwarded))
    return made
