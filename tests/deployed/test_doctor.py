"""The doctor against the deployed template, with each thing broken in turn.

The doctor finds the broken thing and nothing else, and says how to fix it.
"""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock
from uuid import uuid4

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from faults import hooked, refusing, without_permission
from local_aws.inbox import Inbox
from local_aws.sendpilot_api import KEY, SendPilotApi
from ops import examination, request
from ops.display import printable
from ops.doctor import examine
from ops.examination import CANT_TELL, OK, WRONG, Examination
from ops.secret_value import secrets_in
from ops.signature import SAMPLE_SECRET
from ops.stack import NAME, outputs

# A secret in the form of SendPilot's.
ANOTHER_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EMPTY = '{"secrets":[]}'  # the value in a new stack
HOUR = 60 * 60
# Values of the secret, each with its secrets or its fault. The function's tests read the same file.
SECRETS = json.loads(Path("tests/support/secrets.json").read_text())
# Values that are not a secret, each with a pattern of the doctor's finding.
NO_SECRETS = [
    (EMPTY, "^holds no secret, so the function answers 503"),
    (" \n", "^holds no secret, so the function answers 503"),
    ("whsec_...", "placeholder"),
    ("whsec_secret", "placeholder"),
    ("whsec_", "placeholder"),
    ("changeme", "too short"),
    (f'"{ANOTHER_SECRET}"', "quotation mark"),
    (f"{SAMPLE_SECRET} whsec_", "number 2 "),
    (f"# production\n{ANOTHER_SECRET}", "number 1 does not start with whsec_"),
    (f"\ufeff{ANOTHER_SECRET}", "number 1 holds a byte order mark"),
    (json.dumps({"secret": ANOTHER_SECRET, "note": ""}), "is JSON, but not"),
    (json.dumps([ANOTHER_SECRET]), "is JSON, but not"),
    (f'{{"secrets":["{ANOTHER_SECRET}"', "is JSON, but not"),
]


@pytest.fixture(scope="module")
def patient(deployed):
    """The healthy deployed template: it has a subscriber, and the redrive runs."""
    Inbox(deployed.topic_arn)
    # The schedule might start the first run only after a minute.
    deployed.redrive.run()
    deployed.redrive.resume()
    yield deployed
    for subscription in subscriptions(deployed.topic_arn):
        unsubscribe(subscription)


@pytest.fixture
def names(patient):
    """The outputs of the stack."""
    return outputs(NAME)


@pytest.fixture
def doctor(patient):
    # This takes time only if the test before deployed other options.
    patient.redeploy()
    return Doctor(patient.webhook_url)


class Doctor:
    """The examinations of a test, with the findings, the output and the exit status of the last one.

    `is_local` makes the stack that of `make run`. Otherwise it is a stack in AWS.
    """

    is_local = False
    port = None
    # In these tests, the sample secret counts as a private secret.
    secret_of_others = ANOTHER_SECRET

    def __init__(self, webhook):
        self.webhook = webhook

    def examine(self, stack=NAME, later=0, alert=False):
        with mock.patch.object(examination, "SAMPLE_SECRET", self.secret_of_others):
            found = Examination(stack, time.time() + later, self.webhook, alert, self.is_local, self.port)
            self.findings = list(found.findings())
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.status = examine(self.findings, "export AWS=local" if self.is_local else "")
        self.printed = printed.getvalue()
        for finding in self.findings:
            assert f"{finding.verdict:<12}{printable(finding.what)}\n" in self.printed
        for secret in (SAMPLE_SECRET, ANOTHER_SECRET, KEY):
            assert secret.removeprefix("whsec_") not in self.printed
        assert all(" " <= character <= "~" for character in self.printed.replace("\n", "")), self.printed
        # Each command can be pasted without changes.
        for command in self.commands():
            assert not re.search(r"\.\.\.|<|you@|[A-Z]_ARN(?!=)", command), "the command should need no changes"
        checked = subprocess.run(["bash", "-n"], input="\n".join(self.commands()), text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")

    def commands(self):
        """Returns the commands among the remedies, which are indented."""
        remedies = (line for finding in self.findings for line in finding.remedy.splitlines())
        return [printable(line).strip() for line in remedies if line.startswith("  ")]

    def of(self, verdict):
        """Returns the titles of the findings with this verdict."""
        return [finding.what.split(":")[0] for finding in self.findings if finding.verdict == verdict]

    def what(self, title):
        """Returns the text of the finding with this title."""
        (found,) = (finding.what for finding in self.findings if finding.what.startswith(f"{title}: "))
        return printable(found.removeprefix(f"{title}: "))

    def assert_wrong(self, title, what, remedy, **asked):
        """Asserts that the doctor finds only this fault, and gives this remedy."""
        self.examine(**asked)
        assert (self.of(WRONG), self.status) == ([title], 1), self.printed
        assert re.search(what, self.what(title)), self.printed
        (wrong,) = (finding for finding in self.findings if finding.verdict == WRONG)
        assert re.search(remedy, wrong.remedy), self.printed

    def assert_it_subscribes(self, topic, endpoint):
        """Asserts that the last two commands subscribe, with a dead-letter queue and authentication."""
        subscribe, confirm = self.commands()[-2:]
        if subscribe.startswith("read "):
            subscribe = typed(subscribe, endpoint)
        arn = paste(subscribe)["SubscriptionArn"]
        assert attributes(arn)["RedrivePolicy"] == dead_letters()
        link = (
            f"https://sns.us-east-1.amazonaws.com/confirmation.html?TopicArn={topic}&Token=2336412f&Endpoint={endpoint}"
        )
        confirms = "aws sns confirm-subscription --authenticate-on-unsubscribe true"
        for given in (link, link.partition("&Endpoint")[0], "2336412f"):
            assert typed(confirm, given) == f"{confirms} --topic-arn {topic} --token 2336412f"
        return arn


def physical(logical_id):
    asked = {"StackName": NAME, "LogicalResourceId": logical_id}
    found = boto3.client("cloudformation").describe_stack_resource(**asked)
    return found["StackResourceDetail"]["PhysicalResourceId"]


@contextlib.contextmanager
def described_with(status="CREATE_COMPLETE", **changed):
    """Changes the stack's described status and outputs while the context is open."""
    found = [{"OutputKey": key, "OutputValue": value} for key, value in {**outputs(NAME), **changed}.items() if value]

    def change(parsed, **_):
        parsed["Stacks"][0].update(StackStatus=status, Outputs=found)

    with hooked("after-call.cloudformation.DescribeStacks", change):
        yield


@pytest.fixture
def api(cleanup):
    """A stand-in for SendPilot's API, whose key the stack has. The template's parameters are not needed."""
    api = cleanup.enter_context(SendPilotApi())
    client = boto3.client("secretsmanager")
    api.secret = client.create_secret(Name=f"api-key-{uuid4()}", SecretString=json.dumps({"apiKey": KEY}))["ARN"]
    cleanup.callback(client.delete_secret, SecretId=api.secret, ForceDeleteWithoutRecovery=True)

    def change(parsed, **_):
        for stack in parsed["Stacks"]:
            stack["Outputs"] += [{"OutputKey": "ApiKeySecretArn", "OutputValue": api.secret}]
            others = [one for one in stack["Parameters"] if one["ParameterKey"] != "SendPilotApiUrl"]
            stack["Parameters"] = [*others, {"ParameterKey": "SendPilotApiUrl", "ParameterValue": api.url}]

    cleanup.enter_context(hooked("after-call.cloudformation.DescribeStacks", change))
    return api


@contextlib.contextmanager
def nothing_logged():
    """Hides all log lines and metrics while the context is open."""

    def empty(parsed, model, **_):
        parsed.update(
            {"FilterLogEvents": {"events": []}, "GetMetricStatistics": {"Datapoints": []}}.get(model.name, {})
        )

    with hooked("after-call", empty):
        yield


@contextlib.contextmanager
def confirmed_by_link(endpoint, authenticated="false"):
    """Presents a subscription as confirmed by the link in SNS's email. ministack confirms each by itself."""

    def change(parsed, **_):
        if parsed.get("Attributes", {}).get("Endpoint") == endpoint:
            parsed["Attributes"].pop("ConfirmationWasAuthenticated", None)
            parsed["Attributes"].update({"ConfirmationWasAuthenticated": authenticated} if authenticated else {})

    with hooked("after-call.sns.GetSubscriptionAttributes", change):
        yield


def restart(**changed):
    """Restarts the processes of the webhook function with these additional variables. None removes a variable.

    Returns the variables before the change.
    """
    client = boto3.client("lambda")
    function = {"FunctionName": physical("WebhookFunction")}
    before = client.get_function_configuration(**function)["Environment"]["Variables"]
    variables = {name: value for name, value in {**before, **changed}.items() if value is not None}
    client.update_function_configuration(**function, Environment={"Variables": variables})
    return before


@pytest.fixture
def change_variables(patient, cleanup):
    """Changes variables of the webhook function, until the test is over. None removes a variable."""

    def change_variables(**changed):
        gone = dict.fromkeys(changed)
        cleanup.callback(restart, **gone | restart(**changed))

    return change_variables


@pytest.fixture
def secret(patient):
    """The stack's secret, which is the sample secret again after the test."""
    yield patient.secret
    # Stored twice, because both versions must be usable.
    patient.secret.put(SAMPLE_SECRET)
    patient.secret.put(SAMPLE_SECRET)
    # A running process fetches the secret at most six times a minute. A new process fetches it at
    # once.
    restart()
    for name, status in (("message-sent", 200), ("forged", 401)):
        assert request.read(f"events/{name}.json").post(patient.webhook_url).status == status


def subscriptions(topic):
    return boto3.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]


def unsubscribe(subscription):
    boto3.client("sns").unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])


def subscribe(subscription):
    """Subscribes with a dead-letter queue, as the stack does."""
    wanted = {name: subscription[name] for name in ("TopicArn", "Protocol", "Endpoint")}
    return boto3.client("sns").subscribe(**wanted, Attributes={"RedrivePolicy": dead_letters()})["SubscriptionArn"]


def dead_letters():
    url = {"QueueUrl": outputs(NAME)["DeadLettersUrl"], "AttributeNames": ["QueueArn"]}
    return json.dumps(
        {"deadLetterTargetArn": boto3.client("sqs").get_queue_attributes(**url)["Attributes"]["QueueArn"]}
    )


def attributes(subscription_arn):
    return boto3.client("sns").get_subscription_attributes(SubscriptionArn=subscription_arn)["Attributes"]


def typed(command, answer):
    """Returns the command that the shell runs after a prompt is answered."""
    script = f"aws() {{ printf '%q ' aws \"$@\"; }}\n{command}"
    ran = subprocess.run(["bash", "-c", script], input=answer + "\n", text=True, capture_output=True, check=True)
    return ran.stdout.strip()


def paste(command):
    """Makes the call of an AWS CLI command, and returns the answer. The tests do not need the CLI."""
    aws, service, operation, *options = shlex.split(command)
    assert aws == "aws", command
    client = boto3.client(service)
    call = operation.replace("-", "_")
    members = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[call]).input_shape.members
    named = {xform_name(name, "-"): (name, shape) for name, shape in members.items()}
    if call == "subscribe":
        # The CLI would confuse `--endpoint` with its own `--endpoint-url`.
        named["notification-endpoint"] = named.pop("endpoint")
    given = {}
    for option, value in zip(options[::2], options[1::2], strict=True):
        name, shape = named[option.removeprefix("--")]
        given[name] = json.loads(value) if shape.type_name == "map" else value
    return getattr(client, call)(**given)


@pytest.mark.parametrize("row", SECRETS, ids=lambda row: row["value"])
def test_it_judges_a_secret_as_the_function_does(row):
    try:
        found = {"secrets": secrets_in(row["value"])}
    except ValueError as error:
        found = {"fault": str(error)}
    assert found == {name: row[name] for name in row if name != "value"}


def test_a_healthy_stack_has_nothing_wrong(doctor):
    doctor.examine()
    assert (doctor.of(WRONG), doctor.of(CANT_TELL), doctor.status) == ([], [], 0), doctor.printed
    assert doctor.of(OK) == [
        *("stack", "URL", "secret", "forged event", "signed event", "subscribers", "redrive's schedule"),
        *("redrive's runs", "pending", "dead letters", "alarms", "alarms' subscribers"),
    ]


def test_it_sends_an_alert_only_if_asked_to(doctor, deployed, open_inbox):
    inbox = open_inbox(deployed.topic_arn)
    doctor.examine()
    assert inbox.collect(expected=0) == []
    doctor.examine(alert=True)
    (alert,) = inbox.collect(expected=1)
    assert (doctor.of(WRONG), doctor.status) == ([], 0), doctor.printed
    row = f"{alert.event['source'].removeprefix('urn:sendpilot:workspace:')}#{alert.event['id']}#alert"
    assert f"{row} is PUBLISHED, as message {alert.message_id}" in doctor.what("alert")
    ago = datetime.now(timezone.utc) - datetime.fromisoformat(alert.event["time"].replace("Z", "+00:00"))
    assert ago < timedelta(minutes=2)


def test_it_finds_a_topic_that_refuses_the_alert(doctor, deployed, cleanup):
    cleanup.callback(deployed.redrive.run)
    with refusing(deployed.topic_arn):
        doctor.assert_wrong("alert", "503 unavailable", "aws logs tail .*-webhook", alert=True)


def test_it_finds_a_missing_stack(doctor):
    doctor.assert_wrong("stack", "there is no stack elsewhere here", "get-caller-identity", stack="elsewhere")
    assert doctor.of(OK) + doctor.of(CANT_TELL) == []


def test_it_finds_a_failed_deployment(doctor):
    for status in ("UPDATE_ROLLBACK_COMPLETE", "CREATE_FAILED"):
        with described_with(status):
            doctor.assert_wrong("stack", f"did not succeed: {status}", "describe-stack-events")
    with described_with("UPDATE_IN_PROGRESS"):
        doctor.examine()
    assert (doctor.of(WRONG), doctor.of(CANT_TELL), doctor.status) == ([], ["stack"], 2), doctor.printed


def test_it_finds_a_stack_of_an_older_template(doctor):
    with described_with(DeadLettersUrl=None):
        doctor.assert_wrong("stack", "it lacks DeadLettersUrl", "sam build && sam deploy")
    assert doctor.of(CANT_TELL) == ["dead letters"]


def test_it_finds_a_url_at_which_nothing_listens(doctor):
    doctor.webhook = "http://127.0.0.1:9/webhooks/sendpilot"
    doctor.assert_wrong("URL", "does not answer: .*refused", "REVERT_DRIFT")
    create, wait, describe, execute, last = doctor.commands()
    given = shlex.split(create)
    kept = given[given.index("--parameters") + 1 :]
    parameters = boto3.client("cloudformation").describe_stacks(StackName=NAME)["Stacks"][0]["Parameters"]
    assert sorted(kept) == sorted([f"ParameterKey={one['ParameterKey']},UsePreviousValue=true" for one in parameters])
    change_set = given[given.index("--change-set-name") + 1]
    for command, operation in (
        (wait, "wait change-set-create-complete"),
        (describe, "describe-change-set"),
        (execute, "execute-change-set"),
    ):
        assert command == f"aws cloudformation {operation} --stack-name {NAME} --change-set-name {change_set}"
    assert last == f"aws cloudformation wait stack-update-complete --stack-name {NAME}"
    assert doctor.of(CANT_TELL) == ["forged event", "signed event"]


def test_it_finds_a_missing_route(doctor, cleanup):
    gateway = boto3.client("apigatewayv2")
    api = physical("WebhookApi")
    (route,) = gateway.get_routes(ApiId=api)["Items"]
    gateway.delete_route(ApiId=api, RouteId=route["RouteId"])
    cleanup.callback(gateway.create_route, ApiId=api, RouteKey=route["RouteKey"], Target=route["Target"])
    doctor.assert_wrong("URL", "answers 404, but the answer is not from the webhook function", "REVERT_DRIFT")
    made = f'aws apigatewayv2 create-route --api-id {api} --route-key "{route["RouteKey"]}" --target'
    assert made in doctor.commands()[0]
    assert doctor.of(CANT_TELL) == ["forged event", "signed event"]


def test_it_finds_a_url_that_accepts_a_forged_event(doctor):
    class Open(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            body = b'{"outcome":"ignored"}'
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Open) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            doctor.webhook = f"http://127.0.0.1:{server.server_port}/"
            doctor.assert_wrong("forged event", "accepted with 200", "sam deploy")
        finally:
            server.shutdown()


def test_it_finds_a_function_that_does_not_start(doctor, change_variables):
    change_variables(RETENTION_DAYS="many")
    doctor.assert_wrong(
        "URL",
        r"answers 5\d\d, but the answer is not from the webhook function",
        "aws logs tail .* /aws/lambda/.*-webhook",
    )


@pytest.mark.parametrize(("text", "what"), NO_SECRETS)
def test_it_finds_a_secret_that_cannot_be_used(text, what, doctor, secret):
    secret.put(text)
    doctor.assert_wrong("secret", what, 'put-secret-value --secret-id .* --secret-string "\\$WEBHOOK_SECRET"')
    # While the function remembers a usable secret, it still refuses a stranger.
    assert {"signed event"} <= set(doctor.of(CANT_TELL)) <= {"forged event", "signed event"}, doctor.printed


def test_it_finds_a_previous_version_that_the_function_refuses(doctor, secret):
    secret.put(f"v1,{ANOTHER_SECRET}")
    secret.put(SAMPLE_SECRET)
    what = "the previous version cannot be used: secret number 1 holds whsec_ behind other characters"
    doctor.assert_wrong("secret", what, "once more")
    assert set(doctor.of(CANT_TELL)) <= {"forged event"}, doctor.printed


def test_it_finds_a_secret_scheduled_for_deletion(doctor, secret, names, cleanup):
    client = boto3.client("secretsmanager")
    client.delete_secret(SecretId=names["WebhookSecretArn"], RecoveryWindowInDays=7)
    cleanup.callback(client.restore_secret, SecretId=names["WebhookSecretArn"])
    doctor.assert_wrong("secret", "delet", "restore-secret")


def test_it_finds_the_sample_secret(doctor, deployed):
    doctor.secret_of_others = SAMPLE_SECRET
    with described_with(WebhookUrl=deployed.webhook_url):
        doctor.webhook = None
        doctor.assert_wrong("secret", "is the sample secret of this repository", "put-secret-value")
    # A local AWS may use the sample secret.
    doctor.webhook, doctor.is_local = deployed.webhook_url, True
    doctor.examine()
    assert (doctor.of(WRONG), doctor.of(CANT_TELL), doctor.status) == ([], [], 0), doctor.printed


def test_it_tries_each_secret(doctor, secret):
    secret.put(json.dumps({"secrets": [SAMPLE_SECRET, SAMPLE_SECRET]}))
    doctor.examine()
    assert doctor.status == 0, doctor.printed
    assert doctor.what("secret") == "2 stored, in the right format"


def test_it_finds_a_function_with_another_secret_than_the_stacks(doctor, change_variables):
    change_variables(WEBHOOK_SECRET_ID=None, WEBHOOK_SECRET=ANOTHER_SECRET)
    doctor.assert_wrong("signed event", "signed with secret 1: 401 unauthorized", "does not use the stack's secret")


def test_it_does_not_blame_the_stack_for_a_wrong_clock(doctor):
    ahead = mock.Mock(wraps=time, time=lambda: time.time() + HOUR)
    with mock.patch.object(request, "time", ahead):
        doctor.examine()
    assert (doctor.of(WRONG), doctor.of(CANT_TELL), doctor.status) == ([], ["signed event"], 2), doctor.printed
    assert "The clock of this machine is wrong. Set the clock." in doctor.printed


def test_it_finds_a_function_that_may_not_read_its_secret(doctor, change_variables):
    # The function's role may read only the stack's secret.
    stranger = boto3.client("secretsmanager").create_secret(Name=f"stranger-{uuid4()}", SecretString=SAMPLE_SECRET)
    change_variables(WEBHOOK_SECRET_ID=stranger["ARN"])
    doctor.assert_wrong("signed event", "signed with secret 1: 503 unavailable: .*secret", "aws logs tail .*-webhook")
    assert doctor.of(CANT_TELL) == ["forged event"]


def test_an_api_key_works(doctor, api):
    doctor.examine()
    assert (doctor.of(WRONG), doctor.of(CANT_TELL), doctor.status) == ([], [], 0), doctor.printed
    assert doctor.what("API key") == "SendPilot accepts the key"
    assert [(one.method, one.path, one.headers["x-api-key"]) for one in api.requests()] == [("GET", "/v1/me", KEY)]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ('{"apiKey":""}', "^holds no API key"),
        (SAMPLE_SECRET, "^is the webhook's signing secret"),
        ('{"a":"b","c":"d"}', "^is JSON, but not"),
        ("sp_live_other", "^SendPilot refuses the key with 401$"),
    ],
)
def test_it_finds_an_api_key_that_cannot_be_used(value, what, doctor, api):
    client = boto3.client("secretsmanager")
    client.put_secret_value(SecretId=api.secret, SecretString=value)
    doctor.assert_wrong("API key", what, f"put-secret-value --secret-id {api.secret} ")
    (put,) = doctor.commands()
    assert typed(put, "sp_live_new").endswith(" --secret-string sp_live_new")
    assert [one.path for one in api.requests()] == (["/v1/me"] if value == "sp_live_other" else [])


def test_it_finds_a_deleted_api_key(doctor, api, cleanup):
    client = boto3.client("secretsmanager")
    client.delete_secret(SecretId=api.secret, RecoveryWindowInDays=7)
    cleanup.callback(client.restore_secret, SecretId=api.secret)
    doctor.assert_wrong("API key", "delet", "restore-secret")


def test_it_names_the_scopes_that_an_api_key_lacks(doctor, api):
    api.scopes = ["senders:read"]
    doctor.assert_wrong("API key", "lacks leads:read, workspace:read$", "these scopes: leads:read, workspace:read")
    api.answer("/v1/me", status=403, body={"statusCode": 403, "message": "Forbidden resource"})
    doctor.assert_wrong("API key", "403", r"these scopes: leads:read, workspace:read\.")


def test_it_cannot_tell_whether_a_key_works_if_the_api_answers_otherwise(doctor, api):
    for answer in ({"status": 404}, {"status": 500}, {"body": "<html>"}, {"close": True}):
        api.answer("/v1/me", **answer)
        doctor.examine()
        assert (doctor.of(WRONG), doctor.of(CANT_TELL), doctor.status) == ([], ["API key"], 2), doctor.printed
        assert "SendPilotApiUrl" in doctor.printed


def test_it_sends_an_api_key_only_by_tls(doctor, api):
    known, api.url = api.url, "http://api.example.com"
    doctor.assert_wrong("API key", "SendPilotApiUrl begins with http://", "https://api.sendpilot.ai")
    api.url = known
    assert api.requests() == []


def test_it_finds_a_topic_without_subscribers(doctor, deployed, cleanup):
    for subscription in subscriptions(deployed.topic_arn):
        unsubscribe(subscription)
        cleanup.callback(subscribe, subscription)
    doctor.assert_wrong("subscribers", "there are none", "aws sns subscribe --topic-arn .* --protocol email")
    arn = doctor.assert_it_subscribes(deployed.topic_arn, "sales@example.com")
    cleanup.callback(unsubscribe, {"SubscriptionArn": arn})


def test_it_finds_an_email_subscription_that_anyone_can_end(doctor, deployed, names, cleanup):
    for protocol in ("email", "email-json"):
        email = {"TopicArn": deployed.topic_arn, "Protocol": protocol, "Endpoint": f"{protocol}@example.com"}
        arn = subscribe(email)
        cleanup.callback(unsubscribe, {"SubscriptionArn": arn})
        doctor.examine()
        assert (doctor.of(WRONG), doctor.status) == ([], 0), doctor.printed
        with confirmed_by_link(email["Endpoint"]):
            what = rf"the unsubscribe link in each email works without a login: {protocol} {email['Endpoint']}$"
            doctor.assert_wrong("subscribers", what, "python3 ops.pyz resend")
            for topic in ("AlarmsTopicArn", "DeadLettersUrl"):
                assert f"unsubscribe --subscription-arn {names[topic]}" not in doctor.printed
        end, again, _ = doctor.commands()
        paste(end)
        assert arn not in [one["SubscriptionArn"] for one in subscriptions(deployed.topic_arn)]
        assert shlex.split(again)[-1] == email["Endpoint"]
        arn = doctor.assert_it_subscribes(deployed.topic_arn, email["Endpoint"])
        cleanup.callback(unsubscribe, {"SubscriptionArn": arn})


def test_a_new_subscription_keeps_the_filter(doctor, deployed, cleanup):
    email = {"TopicArn": deployed.topic_arn, "Protocol": "email", "Endpoint": "filtered@example.com"}
    sns, arn = boto3.client("sns"), subscribe(email)
    cleanup.callback(unsubscribe, {"SubscriptionArn": arn})
    filtered = {"FilterPolicy": '{"it\'s": ["{}"]}', "FilterPolicyScope": "MessageBody"}
    for name, value in filtered.items():
        sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName=name, AttributeValue=value)
    with confirmed_by_link(email["Endpoint"]):
        doctor.assert_wrong("subscribers", "works without a login", "aws sns unsubscribe")
    paste(doctor.commands()[0])
    arn = doctor.assert_it_subscribes(deployed.topic_arn, email["Endpoint"])
    cleanup.callback(unsubscribe, {"SubscriptionArn": arn})
    assert filtered.items() <= attributes(arn).items()


def test_a_subscription_that_it_may_not_see_hides_no_other(doctor, deployed, cleanup):
    sns = boto3.client("sns")
    (first, *_) = subscriptions(deployed.topic_arn)
    email = {"TopicArn": deployed.topic_arn, "Protocol": "email", "Endpoint": "other@example.com"}
    arn = subscribe(email)
    cleanup.callback(unsubscribe, {"SubscriptionArn": arn})

    def refuse(model, params, **_):
        if params["body"].get("SubscriptionArn") == first["SubscriptionArn"]:
            error = {"Code": "AuthorizationError", "Message": "it is of another account"}
            raise ClientError({"Error": error, "ResponseMetadata": {}}, model.name)

    with hooked("before-call.sns.GetSubscriptionAttributes", refuse):
        doctor.examine()
        assert (doctor.of(WRONG), doctor.of(CANT_TELL)) == ([], ["subscribers"]), doctor.printed
        sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName="RedrivePolicy", AttributeValue="")
        doctor.assert_wrong("subscribers", "without a dead-letter queue: email other@example.com$", "is lost")


def test_it_finds_an_alarm_email_that_anyone_can_end(doctor, names):
    (email,) = subscriptions(names["AlarmsTopicArn"])
    with confirmed_by_link(email["Endpoint"]):
        doctor.assert_wrong("alarms' subscribers", "works without a login", r"AlarmEmail stays\s+the same")
    doctor.assert_it_subscribes(names["AlarmsTopicArn"], email["Endpoint"])


def test_it_cannot_tell_who_can_end_a_subscription_if_sns_does_not_say(doctor, names):
    (email,) = subscriptions(names["AlarmsTopicArn"])
    with confirmed_by_link(email["Endpoint"], None):
        doctor.examine()
    found = doctor.of(WRONG), doctor.of(CANT_TELL), doctor.status
    assert found == ([], ["alarms' subscribers"], 2), doctor.printed


def test_it_finds_a_subscription_without_a_dead_letter_queue(doctor, deployed, names):
    def of_another_account(parsed, **_):
        for subscription in parsed["Subscriptions"]:
            subscription["Owner"] = "111122223333"

    sns = boto3.client("sns")
    (email,) = subscriptions(names["AlarmsTopicArn"])
    (queue,) = (one for one in subscriptions(deployed.topic_arn) if one["Protocol"] == "sqs")
    for title, subscription in (("alarms' subscribers", email), ("subscribers", queue)):
        arn = {"SubscriptionArn": subscription["SubscriptionArn"], "AttributeName": "RedrivePolicy"}
        empty = "" if subscription is email else json.dumps({"deadLetterTargetArn": ""})
        sns.set_subscription_attributes(**arn, AttributeValue=empty)
        what = f"without a dead-letter queue: {subscription['Protocol']} {subscription['Endpoint']}$"
        doctor.assert_wrong(title, what, "A dead-letter queue keeps the message")
        (attach,) = doctor.commands()
        with hooked("after-call.sns.ListSubscriptionsByTopic", of_another_account):
            doctor.assert_wrong(title, what, "The account 111122223333 must attach")
            assert doctor.commands() == []
        paste(attach)
        assert attributes(subscription["SubscriptionArn"])["RedrivePolicy"] == dead_letters()
    doctor.examine()
    assert doctor.status == 0, doctor.printed


def test_it_finds_an_unconfirmed_subscription_and_hides_its_password(doctor, deployed, cleanup):
    # Nothing listens at this URL, so the subscription stays unconfirmed.
    endpoint = "https://127.0.0.1:9/pass/word?token=token"
    boto3.client("sns").subscribe(TopicArn=deployed.topic_arn, Protocol="https", Endpoint=endpoint)
    cleanup.callback(lambda: unsubscribe(subscriptions(deployed.topic_arn)[-1]))
    doctor.assert_wrong("subscribers", r"not confirmed: https https://127\.0\.0\.1/\.\.\.$", "--protocol https")
    assert not re.search("pass/word|token=", doctor.printed)


def test_it_reads_pending_and_deleted_subscriptions_as_sns_lists_them(doctor, deployed):
    # ministack confirms email subscriptions by itself.
    email = {"Protocol": "email", "Endpoint": "sales@example.com", "TopicArn": deployed.topic_arn}

    def list_too(state):
        return lambda parsed, **_: parsed["Subscriptions"].append({**email, "SubscriptionArn": state})

    with hooked("after-call.sns.ListSubscriptionsByTopic", list_too("Deleted")):
        doctor.examine()
        assert doctor.status == 0, doctor.printed
    with hooked("after-call.sns.ListSubscriptionsByTopic", list_too("PendingConfirmation")):
        doctor.examine()
        assert doctor.of(WRONG) == ["subscribers", "alarms' subscribers"]
        for title in doctor.of(WRONG):
            assert doctor.what(title).endswith("not confirmed: email sales@example.com")


def test_it_finds_alarms_without_subscribers(doctor, names, cleanup):
    (email,) = subscriptions(names["AlarmsTopicArn"])
    unsubscribe(email)
    cleanup.callback(subscribe, email)
    what = rf"{email['Endpoint']} \(AlarmEmail\) is not subscribed$"
    doctor.assert_wrong("alarms' subscribers", what, r"AlarmEmail stays\s+the same")
    doctor.assert_it_subscribes(names["AlarmsTopicArn"], email["Endpoint"])


def test_it_finds_a_disabled_schedule(doctor, deployed, cleanup):
    deployed.redrive.pause()
    cleanup.callback(deployed.redrive.resume)
    doctor.assert_wrong("redrive's schedule", "is DISABLED", "Enable the schedule")


def test_it_finds_that_the_redrive_does_not_run(doctor):
    doctor.assert_wrong("redrive's runs", "none in the last 10 minutes", "reserved concurrency", later=HOUR)


def test_it_reads_the_redrives_log_if_cloudwatch_denies_metrics(doctor):
    denied = {"Effect": "Deny", "Action": "cloudwatch:GetMetricStatistics", "Resource": "*"}
    with without_permission(denied):
        doctor.examine()
        assert doctor.what("redrive's runs").startswith("some in the last 10 minutes")
        doctor.assert_wrong("redrive's runs", "none in the last 10 minutes", "reserved concurrency", later=HOUR)


def test_it_reads_the_redrives_log_if_cloudwatch_has_no_metric(doctor):
    with hooked("after-call.cloudwatch.GetMetricStatistics", lambda parsed, **_: parsed.update(Datapoints=[])):
        doctor.examine()
        assert doctor.what("redrive's runs") == "some in the last 10 minutes"
    with nothing_logged():
        doctor.examine()
        assert (doctor.of(WRONG), doctor.of(CANT_TELL)) == ([], ["redrive's runs"]), doctor.printed
        assert "Run the doctor again in two minutes" in doctor.printed
        doctor.assert_wrong("redrive's runs", "none in the last 10 minutes", "reserved concurrency", later=HOUR)


def test_it_finds_that_no_run_succeeds(doctor):
    lines = [{"message": json.dumps({"message": name, "level": "ERROR"})} for name in ("listing", "redrive")]
    answers = {"FilterLogEvents": {"events": lines}}
    with hooked("after-call", lambda parsed, model, **_: parsed.update(answers.get(model.name, {}))):
        for runs, counted in (("10", [{"Sum": 4.0}, {"Sum": 6.0}]), ("some", [])):
            answers["GetMetricStatistics"] = {"Datapoints": counted}
            what = f"^{runs} in the last 10 minutes, and none succeeded$"
            doctor.assert_wrong("redrive's runs", what, "Read the log")


def test_its_remedies_for_a_local_run_work_there(doctor, deployed, names, cleanup):
    doctor.is_local = True
    with refusing(deployed.topic_arn):
        doctor.assert_wrong(
            "alert", "503 unavailable", "^The log shows the reason:\n  make logs FUNCTION=webhook", alert=True
        )
    deployed.redrive.run()
    doctor.assert_wrong("redrive's runs", "none in the last 10 minutes", "make logs FUNCTION=redrive", later=HOUR)
    doctor.assert_wrong("stack", "there is no stack elsewhere here", "^Stop `make run`", stack="elsewhere")
    doctor.port = "8080"
    table = boto3.resource("dynamodb").Table(names["DeliveriesTableName"])
    key = {"deliveryId": f"ws_abc123xyz#{request.fresh('evt')}#alert"}
    claimed = {"leaseUntil": int(time.time() + HOUR) * 1000, "firstSeenAt": int(time.time() - HOUR) * 1000}
    table.put_item(Item={**key, "state": "PENDING", "pending": "0", **claimed})
    cleanup.callback(table.delete_item, Key=key)
    doctor.assert_wrong("pending", "alerts: 1 for more than", "  make pending RUN=8080$")
    table.delete_item(Key=key)
    assert "export AWS" not in doctor.printed
    cleanup.callback(deployed.redrive.resume)
    deployed.redrive.pause()
    doctor.assert_wrong("redrive's schedule", "is DISABLED", "Stop `make run`")
    deployed.redrive.resume()
    boto3.client("sqs").send_message(QueueUrl=names["DeadLettersUrl"], MessageBody="{}")
    cleanup.callback(boto3.client("sqs").purge_queue, QueueUrl=names["DeadLettersUrl"])
    doctor.assert_wrong("dead letters", "^1, where none should be", "aws sqs delete-message")
    assert "Before the commands of the AWS CLI, run:\n  export AWS=local\n" in doctor.printed


def test_a_local_run_that_does_not_answer_may_have_ended(doctor):
    doctor.is_local = True
    doctor.webhook = "http://127.0.0.1:9/webhooks/sendpilot"
    doctor.assert_wrong("URL", "does not answer: .*refused", "^`make run` may have ended")
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    with mock.patch.dict(os.environ, nowhere), mock.patch.object(boto3, "DEFAULT_SESSION", None):
        doctor.examine()
    assert (doctor.of(CANT_TELL), doctor.status) == (["stack"], 2)
    assert "`make run` may have ended" in doctor.printed
    assert not re.search("aws sts|aws logs", doctor.printed)


def test_it_finds_old_pending_deliveries_by_topic(doctor, names, cleanup):
    table = boto3.resource("dynamodb").Table(names["DeliveriesTableName"])
    now = int(time.time() * 1000)
    said = []
    for kind, name, hours in (("status", "messages of the lead status stream", 2), ("alert", "alerts", 1)):
        key = {"deliveryId": f"ws_abc123xyz#{request.fresh('evt')}#{kind}"}
        # The delivery is claimed, so the redrive leaves it pending.
        row = {
            "state": "PENDING",
            "pending": "0",
            "leaseUntil": now + HOUR * 1000,
            "firstSeenAt": now - hours * HOUR * 1000,
        }
        table.put_item(Item={**key, **row})
        cleanup.callback(table.delete_item, Key=key)
        said.insert(0, rf"{name}: 1 for more than 15 minutes, the oldest for {hours}:00:\d\d")
        doctor.assert_wrong("pending", "; ".join(said), f"python3 ops.pyz pending {NAME}$")


def test_it_finds_a_dead_letter(doctor, names, cleanup):
    queue = {"QueueUrl": names["DeadLettersUrl"]}
    sqs = boto3.client("sqs")
    cleanup.callback(sqs.purge_queue, **queue)
    sqs.send_message(**queue, MessageBody="{}")
    for _ in ("waiting", "received but not deleted"):
        command = f"receive-message .*--queue-url {names['DeadLettersUrl']}"
        doctor.assert_wrong("dead letters", "^1, where none should be", command)
        sqs.receive_message(**queue)


def test_it_finds_an_active_or_disabled_alarm(doctor, cleanup):
    cloudwatch = boto3.client("cloudwatch")
    alarm = {"AlarmName": physical("ErrorsAlarm")}

    def turn(state, reason):
        cloudwatch.set_alarm_state(**alarm, StateValue=state, StateReason=reason)

    cleanup.callback(turn, "OK", "tried out")
    turn("ALARM", "\x1b[2Jtried\nout \u202e")
    description = cloudwatch.describe_alarms(AlarmNames=[alarm["AlarmName"]])["MetricAlarms"][0]["AlarmDescription"]
    doctor.assert_wrong("alarms", "in ALARM: ErrorsAlarm", rf"ErrorsAlarm: {description[:20]}.*\(.*tried out")
    turn("OK", "tried out")
    cloudwatch.disable_alarm_actions(AlarmNames=[alarm["AlarmName"]])
    cleanup.callback(cloudwatch.enable_alarm_actions, AlarmNames=[alarm["AlarmName"]])
    doctor.assert_wrong("alarms", "silenced: ErrorsAlarm", "enable-alarm-actions")


def test_it_says_which_permissions_are_missing(doctor):
    secret = {"Effect": "Deny", "Action": "secretsmanager:*", "Resource": "*"}
    with without_permission(secret):
        doctor.examine()
    assert (doctor.of(WRONG), doctor.status) == ([], 2), doctor.printed
    assert doctor.of(CANT_TELL) == ["secret", "signed event"]
    assert "Grant secretsmanager:GetSecretValue" in doctor.printed
    everything = {"Effect": "Deny", "NotAction": "cloudformation:*", "Resource": "*"}
    with without_permission(everything):
        doctor.examine()
    assert (doctor.of(WRONG), doctor.status) == ([], 2), doctor.printed
    assert doctor.of(OK) == ["stack", "URL", "forged event"]
    for action in (
        "secretsmanager:GetSecretValue",
        "(?i:sns):ListSubscriptionsByTopic",
        "scheduler:GetSchedule",
        "cloudwatch:GetMetricStatistics",
        "dynamodb:Scan",
        "(?i:sqs):(?i:GetQueueAttributes)",
        "cloudwatch:DescribeAlarms",
    ):
        assert re.search(f"Grant {action} to", doctor.printed), doctor.printed


def test_a_fifo_stream_gets_a_fifo_dead_letter_queue(doctor, open_inbox, cleanup):
    topic = boto3.client("sns").create_topic(Name=f"{uuid4()}.fifo", Attributes={"FifoTopic": "true"})["TopicArn"]
    cleanup.callback(boto3.client("sns").delete_topic, TopicArn=topic)
    open_inbox(topic)
    (subscription,) = subscriptions(topic)
    arn = {"SubscriptionArn": subscription["SubscriptionArn"], "AttributeName": "RedrivePolicy"}
    boto3.client("sns").set_subscription_attributes(**arn, AttributeValue="")
    with described_with(StatusTopicArn=topic):
        doctor.assert_wrong("stream's subscribers", "without a dead-letter queue: sqs ", "create-queue")
        make, attach = doctor.commands()
        made = paste(make)["QueueUrl"]
        cleanup.callback(boto3.client("sqs").delete_queue, QueueUrl=made)
        wanted = {"QueueUrl": made, "AttributeNames": ["QueueArn", "FifoQueue", "Policy"]}
        queue = boto3.client("sqs").get_queue_attributes(**wanted)["Attributes"]
        paste(attach)
        policy = json.loads(attributes(subscription["SubscriptionArn"])["RedrivePolicy"])
        assert (policy, queue["FifoQueue"]) == ({"deadLetterTargetArn": queue["QueueArn"]}, "true")
        (allowed,) = json.loads(queue["Policy"])["Statement"]
        assert allowed["Resource"] == queue["QueueArn"]
        assert allowed["Condition"] == {"ArnEquals": {"aws:SourceArn": topic}}
        doctor.examine()
        assert doctor.status == 0, doctor.printed


# The last test, because a later test would have to deploy the defaults again.
def test_it_finds_a_stream_without_subscribers_and_checks_the_key(doctor, deployed, open_inbox, cleanup):
    details = {"LeadDetails": "yes", "SendPilotApiUrl": cleanup.enter_context(SendPilotApi()).url}
    statuses = "MEETING_BOOKED,OPPORTUNITY"
    deployed.redeploy(StatusStream="standard", AlertStatuses=statuses, DebounceMinutes=60, **details)
    doctor.examine()
    assert doctor.what("API key").startswith("holds no API key"), doctor.printed
    key = {"SecretId": outputs(NAME)["ApiKeySecretArn"], "SecretString": json.dumps({"apiKey": KEY})}
    boto3.client("secretsmanager").put_secret_value(**key)
    doctor.assert_wrong("stream's subscribers", "there are none", r"StatusStream=off\.[^:]*:\n.*--protocol sqs")
    open_inbox(deployed.stream_arn)
    # Two examinations, because the first alert must not debounce the second.
    for _ in range(2):
        doctor.examine(alert=True)
        assert (doctor.of(WRONG), doctor.status) == ([], 0), doctor.printed
        assert doctor.what("stream's subscribers") == "1, all confirmed: sqs"
        assert doctor.what("API key") == "SendPilot accepts the key"
        both = "#alert is PUBLISHED, as message .*; .*#status is PUBLISHED, as message "
        assert re.search(both, doctor.what("alert")), doctor.printed
