"""The template on a local AWS: with its defaults, with each option alone, and with all options.

ministack supports dashboards and alarms on one metric, but neither metric math nor saved queries nor
chat. The Rust tests compare those parts with the code, and cfn-lint checks them against
CloudFormation.
"""

import io
import json
import re
import zipfile
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import count
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

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
# The policy and the alarm come with a secret of the stack's, or with one that is given.
DETAILS = {"ReadApiKey", "ApiKeyAlarm"}
RECONCILIATION = DETAILS | {
    "ReconcileFunction",
    "ReconcileFunctionEventInvokeConfig",
    "ReconcileFunctionEveryInterval",
    "ReconcileFunctionEveryIntervalRole",
    "ReconcileRole",
    "ReconcileLogs",
    "ReconcileQuery",
    "MissedWebhooksAlarm",
    "ReconcileAlarm",
}
API_KEY_ARN = f"arn:aws:secretsmanager:{REGION}:000000000000:secret:sendpilot-api-key-AbCdEf"
# Values of parameters, and the resources that these values add or remove.
OPTIONS = [
    ({"AlertEmail": "sales@example.com"}, {"AlertEmailSubscription"}),
    ({"AlertStatuses": "OPPORTUNITY,Meeting_Booked"}, set()),
    ({"AlertTags": "hot lead, call back"}, set()),
    ({"DebounceMinutes": "60"}, set()),
    ({"AlertsPerSecond": "0"}, set()),
    ({"RememberReplies": "yes"}, {"ReadReplies"}),
    ({"LeadDetails": "yes"}, DETAILS | {"ApiKeySecret"}),
    ({"SendPilotApiKeyArn": API_KEY_ARN}, DETAILS),
    ({"SendPilotApiUrl": "http://127.0.0.1:8080/api"}, set()),
    ({"ReconcileMinutes": "60"}, RECONCILIATION | {"ApiKeySecret"}),
    ({"StatusStream": "fifo"}, STREAM),
    ({"StatusStream": "standard"}, STREAM),
    ({"StatusPipeline": "OPPORTUNITY=sales qualified, DONE=customer"}, set()),
    ({"StatusPipeline": '{"OPPORTUNITY": "sales, qualified"}'}, set()),
    ({"AlarmEmail": "operations@example.com"}, {"AlarmEmailSubscription"}),
    ({"SilenceHours": "72"}, {"SilenceAlarm", "AcceptedEvents"}),
    ({"MakeDashboard": "no"}, {"Dashboard"}),
    ({"DetailedMetrics": "yes"}, set()),
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
# Values that a parameter rejects.
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
    ("RememberReplies", "on"),
    ("LeadDetails", "on"),
    ("SendPilotApiKeyArn", "sp_live_key"),
    ("SendPilotApiUrl", "http://api.sendpilot.ai"),
    ("SendPilotApiUrl", "http://localhost.example.com"),
    ("ReconcileMinutes", ""),
    ("ReconcileMinutes", "4"),
    ("ReconcileMinutes", "481"),
    ("ReconcileMinutes", "7.5"),
    ("StatusStream", "false"),
    ("StatusStream", "on"),
    ("StatusPipeline", "OPPORTUNITY"),
    ("StatusPipeline", "OPPORTUNITY=qualified,DONE"),
]
# The examples that subscribe a queue to the stream.
QUEUED = {"archive": {}, "crm-sync": {"CrmUrl": "https://crm.example.com"}}
TOPICS = {"standard": {"Name": "status"}, "fifo": {"Name": "status.fifo", "Attributes": {"FifoTopic": "true"}}}
NUMBERS = count()
# These parameters are not options, because they have a value in every stack.
GIVEN = {"RetentionDays", "PendingSeconds", "Architecture"}


def label(value):
    """Returns the name of a test's options in the summary."""
    return "-".join(value) if isinstance(value, dict) else None


@pytest.fixture(scope="module")
def bucket(local_aws):
    """The URL of a bucket with the templates. Their functions are empty, because nothing invokes them."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="bucket")
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("bootstrap", "")
    s3.put_object(Bucket="bucket", Key="code.zip", Body=code.getvalue())
    for path in ("template.yaml", *(f"examples/{name}/template.yaml" for name in QUEUED)):
        text = as_ministack_takes_it(Path(path).read_text()).replace("CodeUri: .", "CodeUri: s3://bucket/code.zip")
        # The template with its comments exceeds the limit of a request.
        s3.put_object(Bucket="bucket", Key=path, Body=text.encode())
    return f"{local_aws.endpoint}/bucket"


def deployed_from(bucket, cleanup, path="template.yaml", **options):
    """Deploys a template with these options, until the cleanup. Returns the physical ids by logical id."""
    cloudformation = boto3.client("cloudformation")
    name = "-".join(["with", *map(str.lower, options or ["defaults"])])[:100] + f"-{next(NUMBERS)}"
    cloudformation.create_stack(
        StackName=name,
        TemplateURL=f"{bucket}/{path}",
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in options.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    cleanup.callback(cloudformation.delete_stack, StackName=name)
    wait = {"Delay": 0.1, "MaxAttempts": 600}
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig=wait)
    resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}


@pytest.fixture
def deploy(bucket, cleanup):
    """Deploys a template until the test is over."""
    return partial(deployed_from, bucket, cleanup)


@pytest.fixture(scope="module")
def defaults(bucket):
    """The logical ids of the resources that a stack has by default."""
    with ExitStack() as cleanup:
        return deployed_from(bucket, cleanup).keys()


def client(service, by_tls):
    """Returns a client. With `by_tls`, its requests look as if they had reached a proxy by TLS."""
    made = boto3.client(service)
    if by_tls:
        forwarded = {"X-Forwarded-Proto": "https"}
        made.meta.events.register("before-send", lambda request, **_: request.headers.update(forwarded))
    return made


def test_every_parameter_is_an_option_or_has_a_value_in_every_stack(bucket):
    summary = boto3.client("cloudformation").get_template_summary(TemplateURL=f"{bucket}/template.yaml")
    tried = {name for options, _ in OPTIONS for name in options}
    assert {given["ParameterKey"] for given in summary["Parameters"]} == tried | GIVEN


@pytest.mark.parametrize(("options", "own"), OPTIONS, ids=label)
def test_an_option_adds_only_its_own_resources(options, own, deploy, defaults):
    assert deploy(**options).keys() ^ defaults == own


def test_all_options_together_deploy_and_the_alarms_watch_this_stack(deploy):
    everything = {name: value for options, _ in OPTIONS for name, value in options.items()}
    # This test checks the dashboard.
    made = deploy(**everything | {"MakeDashboard": "yes"})
    cloudwatch = boto3.client("cloudwatch")
    names = [physical for logical, physical in made.items() if logical.endswith("Alarm")]
    alarms = cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]
    assert {alarm["AlarmName"] for alarm in alarms} == set(names)
    # A queue's physical id is its URL, and a topic's is its ARN.
    own = {re.split("[/:]", physical)[-1] for physical in made.values()}
    for alarm in alarms:
        assert alarm["AlarmActions"] == [made["AlarmsTopic"]]
        assert "${" not in alarm["AlarmDescription"]
        watched = {dimension["Value"] for dimension in alarm["Dimensions"]}
        assert watched or alarm["AlarmName"] == made["SilenceAlarm"], alarm["AlarmName"]
        assert watched <= own, alarm["AlarmName"]
    (accepted,) = boto3.client("logs").describe_metric_filters(logGroupName=made["WebhookLogs"])["metricFilters"]
    (written,) = accepted["metricTransformations"]
    # Otherwise two stacks would share the metric.
    assert written["metricNamespace"].removeprefix("OpportunityAlerts/") in made["SilenceAlarm"]
    body = cloudwatch.get_dashboard(DashboardName=made["Dashboard"])["DashboardBody"]
    assert "${" not in body
    (shown,) = (widget for widget in json.loads(body)["widgets"] if widget["type"] == "alarm")
    assert set(shown["properties"]["alarms"]) == {alarm["AlarmArn"] for alarm in alarms}


@pytest.mark.parametrize("kind", ["off", "standard", "fifo"])
def test_the_functions_know_the_streams_topic_if_there_is_one(kind, deploy):
    made = deploy(StatusStream=kind)
    for function in ("WebhookFunction", "RedriveFunction"):
        configuration = boto3.client("lambda").get_function_configuration(FunctionName=made[function])
        assert configuration["Environment"]["Variables"].get("STATUS_TOPIC_ARN") == made.get("StatusTopic"), function


@pytest.mark.parametrize(
    ("options", "replies", "key"),
    [
        ({}, "no", None),
        ({"RememberReplies": "yes"}, "yes", None),
        ({"LeadDetails": "yes"}, "no", "ApiKeySecret"),
        ({"SendPilotApiKeyArn": API_KEY_ARN}, "no", API_KEY_ARN),
        ({"LeadDetails": "yes", "SendPilotApiKeyArn": API_KEY_ARN}, "no", API_KEY_ARN),
        ({"ReconcileMinutes": "60"}, "no", "ApiKeySecret"),
        ({"ReconcileMinutes": "60", "SendPilotApiKeyArn": API_KEY_ARN}, "no", API_KEY_ARN),
    ],
    ids=["defaults", "replies", "details", "own-key", "both", "reconciliation", "reconciliation-own-key"],
)
def test_the_webhook_function_knows_the_api_key_if_there_is_one(options, replies, key, deploy):
    made = deploy(**options)
    configuration = boto3.client("lambda").get_function_configuration(FunctionName=made["WebhookFunction"])
    variables = configuration["Environment"]["Variables"]
    assert variables["REMEMBER_REPLIES"] == replies
    assert variables["SENDPILOT_API_URL"] == "https://api.sendpilot.ai"
    if key in made:
        secret = boto3.client("secretsmanager").get_secret_value(SecretId=made[key])
        assert secret["SecretString"] == '{"apiKey":""}', "no key yet"
        key = secret["ARN"]
    assert variables.get("SENDPILOT_API_KEY_ID") == key


@pytest.mark.parametrize("minutes", ["5", "480"])
def test_the_reconciliation_gets_the_webhook_functions_values_and_its_own_schedule(minutes, deploy):
    made = deploy(ReconcileMinutes=minutes, RememberReplies="yes", AlertStatuses="MEETING_BOOKED")
    functions = boto3.client("lambda")
    webhook, reconcile = (
        functions.get_function_configuration(FunctionName=made[name])["Environment"]["Variables"]
        for name in ("WebhookFunction", "ReconcileFunction")
    )
    assert (webhook["RECONCILE"], reconcile["REMEMBER_REPLIES"]) == ("yes", "yes")
    assert reconcile["ALERT_STATUSES"] == "MEETING_BOOKED" and reconcile["SENDPILOT_API_KEY_ID"]
    assert reconcile.items() <= webhook.items()
    schedule = boto3.client("scheduler").get_schedule(Name=made["ReconcileFunctionEveryInterval"])
    assert schedule["ScheduleExpression"] == f"rate({minutes} minutes)"


def test_without_the_reconciliation_the_webhook_function_makes_no_lead_known(deploy):
    configuration = boto3.client("lambda").get_function_configuration(FunctionName=deploy()["WebhookFunction"])
    assert configuration["Environment"]["Variables"]["RECONCILE"] == "no"


@pytest.mark.parametrize(
    "part", [{"SlackWorkspaceId": "T0123ABCD"}, {"TeamsChannelId": "19%3ab6ef%40thread.tacv2"}], ids=label
)
def test_incomplete_chat_parameters_are_rejected(part, deploy):
    with pytest.raises(ClientError, match="belong together"):
        deploy(**part)


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_parameter_rejects_a_wrong_value(name, value, deploy):
    with pytest.raises(ClientError, match=name):
        deploy(**{name: value})


# If the kind of topic changes, the new topic must not have the name of the old one.
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("standard", r":with-statusstream-\d+-StatusTopic-\w+$"),
        ("fifo", r":with-statusstream-\d+-status\.fifo$"),
    ],
)
def test_only_a_fifo_topic_has_a_name_of_its_own(kind, name, deploy):
    assert re.search(name, deploy(StatusStream=kind)["StatusTopic"])


def test_topics_and_queue_refuse_the_transport_that_their_policies_name(deploy):
    made = deploy(StatusStream="standard")
    topics = "AlertsTopic", "AlarmsTopic", "StatusTopic"
    for by_tls in (False, True):
        sns, sqs = client("sns", by_tls), client("sqs", by_tls)
        calls = [partial(sns.publish, TopicArn=made[topic], Message="-") for topic in topics]
        calls.append(partial(sqs.send_message, QueueUrl=made["DeadLetters"], MessageBody="-"))
        for call in calls:
            # This is the opposite of the real AWS: see as_ministack_takes_it.
            with pytest.raises(ClientError) if by_tls else nullcontext():
                call()


@pytest.mark.parametrize(
    ("options", "streams"), [({}, []), ({"StatusStream": "standard"}, ["StatusTopic"])], ids=["defaults", "stream"]
)
def test_the_dead_letter_queue_accepts_only_the_stacks_own_topics(options, streams, deploy, cleanup):
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    stranger = sns.create_topic(Name="stranger")["TopicArn"]
    cleanup.callback(sns.delete_topic, TopicArn=stranger)
    made = {**deploy(**options), "stranger": stranger}
    topics = ["AlertsTopic", "AlarmsTopic", *streams]
    queue = {"QueueUrl": made["DeadLetters"]}
    arn = sqs.get_queue_attributes(**queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    for topic in ("stranger", *topics):
        sns.subscribe(TopicArn=made[topic], Protocol="sqs", Endpoint=arn)
        sns.publish(TopicArn=made[topic], Message=topic)
    received = sqs.receive_message(**queue, MaxNumberOfMessages=10, WaitTimeSeconds=2)["Messages"]
    assert sorted(json.loads(message["Body"])["Message"] for message in received) == sorted(topics)


@pytest.mark.parametrize("kind", ["standard", "fifo"])
@pytest.mark.parametrize("name", QUEUED)
def test_an_example_fits_its_dead_letter_queue_and_batch_size_to_its_options(name, kind, deploy):
    sns = boto3.client("sns")
    topic = sns.create_topic(**TOPICS[kind])["TopicArn"]
    given = {"StatusTopicArn": topic, "StatusStream": kind, "BatchWindowSeconds": "0"}
    made = deploy(f"examples/{name}/template.yaml", **QUEUED[name], **given)
    attributes = sns.get_subscription_attributes(SubscriptionArn=made["Subscription"])["Attributes"]
    target = json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"]
    queue = made["FifoDeadLetters" if kind == "fifo" else "DeadLetters"]
    assert target.rsplit(":", 1)[1] == queue.rsplit("/", 1)[1]
    assert target.endswith(".fifo") == (kind == "fifo")
    mappings = boto3.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    (mapping,) = (one for one in mappings if one["EventSourceArn"].endswith(made["Changes"].rsplit("/", 1)[1]))
    assert (mapping["BatchSize"], mapping.get("MaximumBatchingWindowInSeconds", 0)) == (10, 0)
