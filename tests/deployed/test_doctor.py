"""`make doctor` against the deployed template, with each thing broken in turn: it finds that and nothing else, and says how to mend it."""

import contextlib
import io
import json
import shlex
import subprocess
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock
from uuid import uuid4

import boto3
from botocore import xform_name
from botocore.exceptions import ClientError

from local_aws.inbox import Inbox
from local_aws.service import shared_service
from ops import examination, request
from ops.doctor import examine
from ops.examination import Examination
from ops.signature import SAMPLE_SECRET
from ops.stack import NAME, outputs
from session import hooked, somebody_who_may_not
from topic import refusing

# As SendPilot might have made it.
ANOTHER_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EMPTY = '{"secrets":[]}'  # what the template puts there
HOUR = 60 * 60


def setUpModule():
    global deployed, names
    deployed = shared_service()
    names = outputs(NAME)
    Inbox(deployed.topic_arn)
    # Or there would be no run for up to a minute.
    deployed.redrive.run()
    deployed.redrive.resume()
    unittest.addModuleCleanup(deployed.redrive.pause)


def physical(logical_id):
    asked = {"StackName": NAME, "LogicalResourceId": logical_id}
    found = boto3.client("cloudformation").describe_stack_resource(**asked)
    return found["StackResourceDetail"]["PhysicalResourceId"]


def accepted():
    """Whether an event that the sample secret signed gets in."""
    return request.read("events/message-sent.json").post(deployed.webhook_url).status == 200


def forgery_is_refused():
    """Whether a stranger's event gets 401. It gets 503 while the function refuses a version of its secret."""
    return request.read("events/forged.json").post(deployed.webhook_url).status == 401


def subscriptions(topic):
    return boto3.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]


def unsubscribe(subscription):
    boto3.client("sns").unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])


def subscribe(subscription):
    """Subscribes as the stack does: with a dead-letter queue."""
    wanted = {name: subscription[name] for name in ("TopicArn", "Protocol", "Endpoint")}
    return boto3.client("sns").subscribe(**wanted, Attributes={"RedrivePolicy": dead_letters()})["SubscriptionArn"]


def dead_letters():
    url = {"QueueUrl": names["DeadLettersUrl"], "AttributeNames": ["QueueArn"]}
    return json.dumps(
        {"deadLetterTargetArn": boto3.client("sqs").get_queue_attributes(**url)["Attributes"]["QueueArn"]}
    )


def attributes(subscription_arn):
    return boto3.client("sns").get_subscription_attributes(SubscriptionArn=subscription_arn)["Attributes"]


def paste(command):
    """Makes the call that a command of the AWS CLI makes, and returns the answer.

    The CLI itself is not installed here.
    """
    aws, service, operation, *options = shlex.split(command)
    assert aws == "aws", command
    client = boto3.client(service)
    call = operation.replace("-", "_")
    members = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[call]).input_shape.members
    named = {xform_name(name, "-"): (name, shape) for name, shape in members.items()}
    if call == "subscribe":
        # The CLI's own `--endpoint-url` would be taken for `--endpoint`.
        named["notification-endpoint"] = named.pop("endpoint")
    given = {}
    for option, value in zip(options[::2], options[1::2]):
        name, shape = named[option.removeprefix("--")]
        given[name] = json.loads(value) if shape.type_name == "map" else value
    return getattr(client, call)(**given)


class Secrets(unittest.TestCase):
    def test_it_judges_each_value_as_the_function_does_and_says_the_same(self):
        for row in json.loads(Path("tests/support/secrets.json").read_text()):
            with self.subTest(value=row["value"]):
                try:
                    found = {"secrets": examination._secrets_in(row["value"])}
                except ValueError as error:
                    found = {"fault": str(error)}
                self.assertEqual(found, {name: row[name] for name in row if name != "value"})


class Doctor(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.webhook = deployed.webhook_url

    def examine(self, stack=NAME, later=0, alert=False):
        """Keeps what it prints, and its exit status."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.status = examine(Examination(stack, time.time() + later, self.webhook, alert))
        self.printed = printed.getvalue()
        for secret in (SAMPLE_SECRET, ANOTHER_SECRET):
            self.assertNotIn(secret.removeprefix("whsec_"), self.printed)
        self.assertTrue(all(" " <= character <= "~" for character in self.printed.replace("\n", "")), self.printed)
        # Each command can be pasted as it is.
        for command in self.commands():
            self.assertNotRegex(command, r"\.\.\.|<|you@|[A-Z]_ARN(?!=)", "has to be filled in first")
        checked = subprocess.run(["bash", "-n"], input="\n".join(self.commands()), text=True, capture_output=True)
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))

    def commands(self):
        """The commands among what it printed."""
        return [line.strip() for line in self.printed.splitlines() if line.startswith(" " * 14)]

    def of(self, verdict):
        """The titles of the findings with this verdict."""
        lines = self.printed.splitlines()[:-1]
        return [line[12:].split(":")[0] for line in lines if line.startswith(verdict.ljust(12))]

    def assert_wrong(self, title, what, remedy, **asked):
        """This one thing is wrong: it is said what, and what to do."""
        self.examine(**asked)
        self.assertEqual((self.of("WRONG"), self.status), ([title], 1), self.printed)
        found = self.printed.split(f"WRONG       {title}: ")[1]
        first, *rest = found.splitlines()
        self.assertRegex(first, what)
        below = []
        for line in rest:
            if not line.startswith(" " * 12):
                break
            below.append(line)
        self.assertRegex("\n".join(below), remedy)

    def test_a_healthy_stack_has_nothing_wrong(self):
        self.examine()
        self.assertEqual((self.of("WRONG"), self.of("can't tell"), self.status), ([], [], 0), self.printed)
        self.assertEqual(
            self.of("ok"),
            ["stack", "URL", "secret", "forged event", "signed event", "subscribers", "redrive's schedule"]
            + ["redrive's runs", "pending", "failed runs", "dead letters", "alarms", "alarms' subscribers"],
        )

    def test_nobody_is_alarmed_by_it_unless_that_is_asked_for(self):
        inbox = Inbox(deployed.topic_arn)
        self.examine()
        self.assertEqual(inbox.collect(expected=0), [])
        self.examine(alert=True)
        (alert,) = inbox.collect(expected=1)
        self.assertEqual((self.of("WRONG"), self.status), ([], 0), self.printed)
        row = f"{alert.event['source'].removeprefix('urn:sendpilot:workspace:')}#{alert.event['id']}#alert"
        self.assertIn(f"ok          alert: {row} is PUBLISHED, as message {alert.message_id}", self.printed)

    def test_a_stream_that_nothing_takes_and_one_that_is_taken(self):
        self.addCleanup(deployed.redeploy)
        deployed.redeploy(StatusStream="standard", AlertStatuses="MEETING_BOOKED,OPPORTUNITY", DebounceMinutes=60)
        self.assert_wrong("stream's subscribers", "there is none", r"StatusStream=off\.[^:]*:\n.*--protocol sqs")
        Inbox(deployed.stream_arn)
        # Twice, because an alert may keep another one quiet.
        for _ in range(2):
            self.examine(alert=True)
            self.assertEqual((self.of("WRONG"), self.status), ([], 0), self.printed)
            self.assertIn("ok          stream's subscribers: 1, all confirmed: sqs\n", self.printed)
            self.assertRegex(
                self.printed,
                "ok          alert: .*#alert is PUBLISHED, as message .*; .*#status is PUBLISHED, as message ",
            )

    def test_an_alert_that_the_topic_does_not_take(self):
        self.addCleanup(deployed.redrive.run)
        with refusing(deployed.topic_arn):
            self.assert_wrong("alert", "503 unavailable", "aws logs tail .*-webhook", alert=True)

    def test_a_stack_that_is_not_there(self):
        self.assert_wrong("stack", "there is no elsewhere here", "get-caller-identity", stack="elsewhere")
        self.assertEqual(self.of("ok") + self.of("can't tell"), [])

    def test_a_stack_whose_deploy_is_not_done(self):
        for status in ("UPDATE_ROLLBACK_COMPLETE", "CREATE_FAILED"):
            with self.described_with(status):
                self.assert_wrong("stack", f"did not succeed: {status}", "describe-stack-events")
        with self.described_with("UPDATE_IN_PROGRESS"):
            self.examine()
        self.assertEqual((self.of("WRONG"), self.of("can't tell"), self.status), ([], ["stack"], 2), self.printed)

    def test_a_stack_of_an_older_template(self):
        with self.described_with(DeadLettersUrl=None):
            self.assert_wrong("stack", "it lacks DeadLettersUrl", "sam build && sam deploy")
        self.assertEqual(self.of("can't tell"), ["dead letters"])

    def test_a_url_at_which_nothing_listens(self):
        self.webhook = "http://127.0.0.1:9/webhooks/sendpilot"
        self.assert_wrong("URL", "does not answer: .*refused", "REVERT_DRIFT")
        create, wait, describe, execute, last = self.commands()
        given = shlex.split(create)
        kept = given[given.index("--parameters") + 1 :]
        parameters = boto3.client("cloudformation").describe_stacks(StackName=NAME)["Stacks"][0]["Parameters"]
        self.assertCountEqual(kept, [f"ParameterKey={one['ParameterKey']},UsePreviousValue=true" for one in parameters])
        change_set = given[given.index("--change-set-name") + 1]
        for command, operation in (
            (wait, "wait change-set-create-complete"),
            (describe, "describe-change-set"),
            (execute, "execute-change-set"),
        ):
            self.assertEqual(
                command, f"aws cloudformation {operation} --stack-name {NAME} --change-set-name {change_set}"
            )
        self.assertEqual(last, f"aws cloudformation wait stack-update-complete --stack-name {NAME}")
        self.assertEqual(self.of("can't tell"), ["forged event", "signed event"])

    def test_a_route_that_is_gone(self):
        gateway = boto3.client("apigatewayv2")
        api = physical("WebhookApi")
        (route,) = gateway.get_routes(ApiId=api)["Items"]
        gateway.delete_route(ApiId=api, RouteId=route["RouteId"])
        self.addCleanup(gateway.create_route, ApiId=api, RouteKey=route["RouteKey"], Target=route["Target"])
        self.assert_wrong("URL", "answers 404, but not by the function", "REVERT_DRIFT")
        made = f'aws apigatewayv2 create-route --api-id {api} --route-key "{route["RouteKey"]}" --target'
        self.assertIn(made, self.commands()[0])
        self.assertEqual(self.of("can't tell"), ["forged event", "signed event"])

    def test_a_url_that_lets_anybody_in(self):
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
                self.webhook = f"http://127.0.0.1:{server.server_port}/"
                self.assert_wrong("forged event", "accepted, with 200", "sam deploy")
            finally:
                server.shutdown()

    def test_a_function_that_does_not_start(self):
        self.change_variables(RETENTION_DAYS="many")
        self.assert_wrong("URL", r"answers 5\d\d, but not by the function", "aws logs tail .* /aws/lambda/.*-webhook")

    def test_a_secret_that_is_none(self):
        self.addCleanup(self.heal_secret)
        for text, what in (
            (EMPTY, "^holds no secret, and without one"),
            (" \n", "^holds no secret, and without one"),
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
        ):
            with self.subTest(text):
                deployed.secret.put(text)
                self.assert_wrong("secret", what, 'put-secret-value --secret-id .* --secret-string "\\$WEBHOOK_SECRET"')
                # As long as the function remembers one that was good, it still refuses a stranger.
                self.assertLessEqual({"signed event"}, set(self.of("can't tell")), self.printed)
                self.assertLessEqual(set(self.of("can't tell")), {"forged event", "signed event"}, self.printed)

    def test_a_previous_version_that_the_function_refuses(self):
        self.addCleanup(self.heal_secret)
        deployed.secret.put(f"v1,{ANOTHER_SECRET}")
        deployed.secret.put(SAMPLE_SECRET)
        what = "the previous version cannot be used: secret number 1 holds whsec_ behind other characters"
        self.assert_wrong("secret", what, "once more")
        self.assertLessEqual(set(self.of("can't tell")), {"forged event"}, self.printed)

    def test_a_secret_that_is_to_be_deleted(self):
        client = boto3.client("secretsmanager")
        client.delete_secret(SecretId=names["WebhookSecretArn"], RecoveryWindowInDays=7)
        self.addCleanup(self.heal_secret)
        self.addCleanup(client.restore_secret, SecretId=names["WebhookSecretArn"])
        self.assert_wrong("secret", "delet", "restore-secret")

    def test_the_secret_that_everybody_knows(self):
        # It is good enough for a local AWS, where the webhook is not at the URL that the output names.
        with self.described_with(WebhookUrl=deployed.webhook_url):
            self.webhook = None
            self.assert_wrong("secret", "the sample secret of this repository", "put-secret-value")

    def test_each_secret_that_counts_is_tried(self):
        self.addCleanup(self.heal_secret)
        deployed.secret.put(json.dumps({"secrets": [SAMPLE_SECRET, SAMPLE_SECRET]}))
        self.examine()
        self.assertEqual(self.status, 0, self.printed)
        self.assertIn("ok          secret: 2, of the right shape", self.printed)

    def test_a_function_with_another_secret_than_the_stacks(self):
        self.change_variables(WEBHOOK_SECRET_ID=None, WEBHOOK_SECRET=ANOTHER_SECRET)
        self.assert_wrong(
            "signed event", "signed by secret 1: 401 unauthorized", "knows other secrets than the stack's"
        )

    def test_a_clock_that_is_wrong_is_not_held_against_the_stack(self):
        ahead = mock.Mock(wraps=time, time=lambda: time.time() + HOUR)
        with mock.patch.object(request, "time", ahead):
            self.examine()
        self.assertEqual(
            (self.of("WRONG"), self.of("can't tell"), self.status), ([], ["signed event"], 2), self.printed
        )
        self.assertIn("Set the clock of this machine.", self.printed)

    def test_a_function_that_may_not_read_its_secret(self):
        # Its role may read no secret but the stack's.
        stranger = boto3.client("secretsmanager").create_secret(Name=f"stranger-{uuid4()}", SecretString=SAMPLE_SECRET)
        self.change_variables(WEBHOOK_SECRET_ID=stranger["ARN"])
        self.assert_wrong("signed event", "signed by secret 1: 503 unavailable: .*secret", "aws logs tail .*-webhook")
        self.assertEqual(self.of("can't tell"), ["forged event"])

    def test_a_topic_without_subscribers(self):
        for subscription in subscriptions(deployed.topic_arn):
            unsubscribe(subscription)
            self.addCleanup(subscribe, subscription)
        self.assert_wrong("subscribers", "there is none", "aws sns subscribe --topic-arn .* --protocol email")
        self.assert_it_subscribes(deployed.topic_arn, "sales@example.com")

    def test_an_email_subscription_that_anybody_can_end(self):
        for protocol in ("email", "email-json"):
            email = {"TopicArn": deployed.topic_arn, "Protocol": protocol, "Endpoint": f"{protocol}@example.com"}
            arn = subscribe(email)
            self.addCleanup(unsubscribe, {"SubscriptionArn": arn})
            self.examine()
            self.assertEqual((self.of("WRONG"), self.status), ([], 0), self.printed)
            with self.confirmed_by_link(email["Endpoint"]):
                what = rf"can be ended by anybody who gets one of its mails: {protocol} {email['Endpoint']}$"
                self.assert_wrong("subscribers", what, "make resend")
                for topic in ("AlarmsTopicArn", "DeadLettersUrl"):
                    self.assertNotIn(f"unsubscribe --subscription-arn {names[topic]}", self.printed)
            end, again, _ = self.commands()
            paste(end)
            self.assertNotIn(arn, [one["SubscriptionArn"] for one in subscriptions(deployed.topic_arn)])
            self.assertEqual(shlex.split(again)[-1], email["Endpoint"])
            arn = self.assert_it_subscribes(deployed.topic_arn, email["Endpoint"])
            self.addCleanup(unsubscribe, {"SubscriptionArn": arn})

    def test_whoever_subscribes_again_keeps_the_filter(self):
        email = {"TopicArn": deployed.topic_arn, "Protocol": "email", "Endpoint": "filtered@example.com"}
        sns, arn = boto3.client("sns"), subscribe(email)
        self.addCleanup(unsubscribe, {"SubscriptionArn": arn})
        filtered = {"FilterPolicy": '{"it\'s": ["{}"]}', "FilterPolicyScope": "MessageBody"}
        for name, value in filtered.items():
            sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName=name, AttributeValue=value)
        with self.confirmed_by_link(email["Endpoint"]):
            self.assert_wrong("subscribers", "can be ended by anybody", "aws sns unsubscribe")
        paste(self.commands()[0])
        arn = self.assert_it_subscribes(deployed.topic_arn, email["Endpoint"])
        self.addCleanup(unsubscribe, {"SubscriptionArn": arn})
        self.assertLessEqual(filtered.items(), attributes(arn).items())

    def test_a_subscription_that_may_not_be_looked_at_hides_no_other(self):
        sns = boto3.client("sns")
        (first, *_) = subscriptions(deployed.topic_arn)
        email = {"TopicArn": deployed.topic_arn, "Protocol": "email", "Endpoint": "other@example.com"}
        arn = subscribe(email)
        self.addCleanup(unsubscribe, {"SubscriptionArn": arn})

        def refuse(model, params, **_):
            if params["body"].get("SubscriptionArn") == first["SubscriptionArn"]:
                error = {"Code": "AuthorizationError", "Message": "it is of another account"}
                raise ClientError({"Error": error, "ResponseMetadata": {}}, model.name)

        with hooked("before-call.sns.GetSubscriptionAttributes", refuse):
            self.examine()
            self.assertEqual((self.of("WRONG"), self.of("can't tell")), ([], ["subscribers"]), self.printed)
            sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName="RedrivePolicy", AttributeValue="")
            self.assert_wrong("subscribers", "without a dead-letter queue: email other@example.com$", "is lost")

    def test_an_email_subscription_of_the_alarms_that_anybody_can_end(self):
        (email,) = subscriptions(names["AlarmsTopicArn"])
        with self.confirmed_by_link(email["Endpoint"]):
            self.assert_wrong("alarms' subscribers", "can be ended by anybody", r"AlarmEmail stays\s+the same")
        self.assert_it_subscribes(names["AlarmsTopicArn"], email["Endpoint"])

    def test_an_email_subscription_of_which_sns_does_not_say_who_can_end_it(self):
        (email,) = subscriptions(names["AlarmsTopicArn"])
        with self.confirmed_by_link(email["Endpoint"], None):
            self.examine()
        found = self.of("WRONG"), self.of("can't tell"), self.status
        self.assertEqual(found, ([], ["alarms' subscribers"], 2), self.printed)

    def test_a_subscription_without_a_dead_letter_queue(self):
        def of_somebody_else(parsed, **_):
            for subscription in parsed["Subscriptions"]:
                subscription["Owner"] = "111122223333"

        sns = boto3.client("sns")
        (email,) = subscriptions(names["AlarmsTopicArn"])
        queue = subscriptions(deployed.topic_arn)[0]
        for title, subscription in (("alarms' subscribers", email), ("subscribers", queue)):
            with self.subTest(title):
                arn = {"SubscriptionArn": subscription["SubscriptionArn"], "AttributeName": "RedrivePolicy"}
                sns.set_subscription_attributes(**arn, AttributeValue="")
                what = f"without a dead-letter queue: {subscription['Protocol']} {subscription['Endpoint']}$"
                self.assert_wrong(title, what, "What SNS cannot deliver to it is lost")
                (attach,) = self.commands()
                with hooked("after-call.sns.ListSubscriptionsByTopic", of_somebody_else):
                    self.assert_wrong(title, what, "The account 111122223333 has to give")
                    self.assertEqual(self.commands(), [])
                paste(attach)
                self.assertEqual(attributes(subscription["SubscriptionArn"])["RedrivePolicy"], dead_letters())
        self.examine()
        self.assertEqual(self.status, 0, self.printed)

    def test_a_subscription_that_waits_for_confirmation(self):
        # Nothing listens there, so nobody confirms.
        endpoint = "https://127.0.0.1:9/pass/word?token=token"
        boto3.client("sns").subscribe(TopicArn=deployed.topic_arn, Protocol="https", Endpoint=endpoint)
        self.addCleanup(lambda: unsubscribe(subscriptions(deployed.topic_arn)[-1]))
        self.assert_wrong("subscribers", r"not confirmed: https https://127\.0\.0\.1/\.\.\.$", "--protocol https")
        self.assertNotRegex(self.printed, "pass/word|token=")

    def test_an_email_as_the_real_sns_lists_it_until_it_is_confirmed(self):
        # ministack confirms e-mail by itself.
        email = {"Protocol": "email", "Endpoint": "sales@example.com", "TopicArn": deployed.topic_arn}

        def list_too(state):
            return lambda parsed, **_: parsed["Subscriptions"].append({**email, "SubscriptionArn": state})

        with hooked("after-call.sns.ListSubscriptionsByTopic", list_too("Deleted")):
            self.examine()
            self.assertEqual(self.status, 0, self.printed)
        with hooked("after-call.sns.ListSubscriptionsByTopic", list_too("PendingConfirmation")):
            self.examine()
            self.assertEqual(self.of("WRONG"), ["subscribers", "alarms' subscribers"])
            self.assertIn("not confirmed: email sales@example.com\n", self.printed)

    def test_alarms_that_nobody_would_hear(self):
        (email,) = subscriptions(names["AlarmsTopicArn"])
        unsubscribe(email)
        self.addCleanup(subscribe, email)
        what = rf"{email['Endpoint']} \(AlarmEmail\) is not subscribed$"
        self.assert_wrong("alarms' subscribers", what, r"AlarmEmail stays\s+the same")
        self.assert_it_subscribes(names["AlarmsTopicArn"], email["Endpoint"])

    def test_a_redrive_that_is_switched_off(self):
        deployed.redrive.pause()
        self.addCleanup(deployed.redrive.resume)
        self.assert_wrong("redrive's schedule", "is DISABLED", "Enable it")

    def test_a_redrive_that_does_not_run(self):
        self.assert_wrong("redrive's runs", "none in the last 10 minutes", "reserved concurrency", later=HOUR)

    def test_the_log_tells_of_the_redrive_where_cloudwatch_does_not(self):
        denied = {"Effect": "Deny", "Action": "cloudwatch:GetMetricStatistics", "Resource": "*"}
        with somebody_who_may_not(denied):
            self.examine()
            self.assertIn("ok          redrive's runs: some in the last 10 minutes", self.printed)
            self.assert_wrong("redrive's runs", "none in the last 10 minutes", "reserved concurrency", later=HOUR)

    def test_what_has_long_been_pending_by_topic(self):
        table = boto3.resource("dynamodb").Table(names["DeliveriesTableName"])
        now = int(time.time() * 1000)
        said = []
        for kind, name, hours in (("status", "messages of the stream", 2), ("alert", "alerts", 1)):
            key = {"deliveryId": f"ws_abc123xyz#{request.fresh('evt')}#{kind}"}
            # Claimed, so that the redrive leaves it alone.
            row = {
                "state": "PENDING",
                "pending": "0",
                "leaseUntil": now + HOUR * 1000,
                "firstSeenAt": now - hours * HOUR * 1000,
            }
            table.put_item(Item={**key, **row})
            self.addCleanup(table.delete_item, Key=key)
            said.insert(0, rf"{name}: 1 for more than 15 minutes, the oldest for {hours}:00:\d\d")
            self.assert_wrong("pending", "; ".join(said), "make pending$")

    def test_queues_that_should_be_empty(self):
        sqs = boto3.client("sqs")
        for title, output in (("failed runs", "RedriveFailuresUrl"), ("dead letters", "DeadLettersUrl")):
            with self.subTest(title):
                sqs.send_message(QueueUrl=names[output], MessageBody="{}")
                try:
                    for _ in ("waiting", "taken up by somebody who looks at it"):
                        self.assert_wrong(
                            title, "^1, where none should be", f"receive-message .*--queue-url {names[output]}"
                        )
                        sqs.receive_message(QueueUrl=names[output])
                finally:
                    sqs.purge_queue(QueueUrl=names[output])

    def test_an_alarm_that_is_on_or_silenced(self):
        cloudwatch = boto3.client("cloudwatch")
        alarm = {"AlarmName": physical("ErrorsAlarm")}

        def turn(state, reason):
            cloudwatch.set_alarm_state(**alarm, StateValue=state, StateReason=reason)

        self.addCleanup(turn, "OK", "tried out")
        turn("ALARM", "\x1b[2Jtried\nout \u202e")
        description = cloudwatch.describe_alarms(AlarmNames=[alarm["AlarmName"]])["MetricAlarms"][0]["AlarmDescription"]
        self.assert_wrong("alarms", "in ALARM: ErrorsAlarm", rf"ErrorsAlarm: {description[:20]}.*\(.*tried out")
        turn("OK", "tried out")
        cloudwatch.disable_alarm_actions(AlarmNames=[alarm["AlarmName"]])
        self.addCleanup(cloudwatch.enable_alarm_actions, AlarmNames=[alarm["AlarmName"]])
        self.assert_wrong("alarms", "silenced: ErrorsAlarm", "enable-alarm-actions")

    def test_who_may_see_nothing_is_told_what_to_grant(self):
        secret = {"Effect": "Deny", "Action": "secretsmanager:*", "Resource": "*"}
        with somebody_who_may_not(secret):
            self.examine()
        self.assertEqual((self.of("WRONG"), self.status), ([], 2), self.printed)
        self.assertEqual(self.of("can't tell"), ["secret", "signed event"])
        self.assertIn("Grant secretsmanager:GetSecretValue", self.printed)
        everything = {"Effect": "Deny", "NotAction": "cloudformation:*", "Resource": "*"}
        with somebody_who_may_not(everything):
            self.examine()
        self.assertEqual((self.of("WRONG"), self.status), ([], 2), self.printed)
        self.assertEqual(self.of("ok"), ["stack", "URL", "forged event"])
        for action in (
            "secretsmanager:GetSecretValue",
            "(?i:sns):ListSubscriptionsByTopic",
            "scheduler:GetSchedule",
            "cloudwatch:GetMetricStatistics",
            "dynamodb:Scan",
            "(?i:sqs):(?i:GetQueueAttributes)",
            "cloudwatch:DescribeAlarms",
        ):
            self.assertRegex(self.printed, f"Grant {action} to")

    def test_a_fifo_streams_subscription_gets_a_fifo_queue_for_its_dead_letters(self):
        topic = boto3.client("sns").create_topic(Name=f"{uuid4()}.fifo", Attributes={"FifoTopic": "true"})["TopicArn"]
        self.addCleanup(boto3.client("sns").delete_topic, TopicArn=topic)
        Inbox(topic)
        (subscription,) = subscriptions(topic)
        arn = {"SubscriptionArn": subscription["SubscriptionArn"], "AttributeName": "RedrivePolicy"}
        boto3.client("sns").set_subscription_attributes(**arn, AttributeValue="")
        with self.described_with(StatusTopicArn=topic):
            self.assert_wrong("stream's subscribers", "without a dead-letter queue: sqs ", "create-queue")
            make, attach = self.commands()
            made = paste(make)["QueueUrl"]
            self.addCleanup(boto3.client("sqs").delete_queue, QueueUrl=made)
            wanted = {"QueueUrl": made, "AttributeNames": ["QueueArn", "FifoQueue", "Policy"]}
            queue = boto3.client("sqs").get_queue_attributes(**wanted)["Attributes"]
            paste(attach)
            policy = json.loads(attributes(subscription["SubscriptionArn"])["RedrivePolicy"])
            self.assertEqual((policy, queue["FifoQueue"]), ({"deadLetterTargetArn": queue["QueueArn"]}, "true"))
            (allowed,) = json.loads(queue["Policy"])["Statement"]
            self.assertEqual(allowed["Resource"], queue["QueueArn"])
            self.assertEqual(allowed["Condition"], {"ArnEquals": {"aws:SourceArn": topic}})
            self.examine()
            self.assertEqual(self.status, 0, self.printed)

    @contextlib.contextmanager
    def confirmed_by_link(self, endpoint, authenticated="false"):
        """Makes a subscription one that the link in SNS's mail confirmed. ministack confirms each itself."""

        def change(parsed, **_):
            if parsed.get("Attributes", {}).get("Endpoint") == endpoint:
                parsed["Attributes"].pop("ConfirmationWasAuthenticated", None)
                parsed["Attributes"].update({"ConfirmationWasAuthenticated": authenticated} if authenticated else {})

        with hooked("after-call.sns.GetSubscriptionAttributes", change):
            yield

    def assert_it_subscribes(self, topic, endpoint):
        """Asserts that the last two commands subscribe, with a dead-letter queue and authentication."""
        subscribe, confirm = self.commands()[-2:]
        if subscribe.startswith("read "):
            subscribe = self.typed(subscribe, endpoint)
        arn = paste(subscribe)["SubscriptionArn"]
        self.assertEqual(attributes(arn)["RedrivePolicy"], dead_letters())
        link = (
            f"https://sns.us-east-1.amazonaws.com/confirmation.html?TopicArn={topic}&Token=2336412f&Endpoint={endpoint}"
        )
        confirms = "aws sns confirm-subscription --authenticate-on-unsubscribe true"
        for given in (link, link.partition("&Endpoint")[0], "2336412f"):
            self.assertEqual(self.typed(confirm, given), f"{confirms} --topic-arn {topic} --token 2336412f")
        return arn

    def typed(self, command, answer):
        """What the shell makes of a command that asks for something, once that is typed."""
        script = f"aws() {{ printf '%q ' aws \"$@\"; }}\n{command}"
        ran = subprocess.run(["bash", "-c", script], input=answer + "\n", text=True, capture_output=True, check=True)
        return ran.stdout.strip()

    def heal_secret(self):
        """The function has the sample secret again. It looks for one six times a minute, once it has had to look often."""
        # Twice, so that the function refuses neither version.
        deployed.secret.put(SAMPLE_SECRET)
        deployed.secret.put(SAMPLE_SECRET)
        deadline = time.monotonic() + 60
        while not (accepted() and forgery_is_refused()):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(1)

    def change_variables(self, **changed):
        """The webhook function has other variables, until the test is over; those that are None it has not."""
        client = boto3.client("lambda")
        function = physical("WebhookFunction")
        before = client.get_function_configuration(FunctionName=function)["Environment"]["Variables"]

        def set_variables(variables):
            client.update_function_configuration(FunctionName=function, Environment={"Variables": variables})

        set_variables({name: value for name, value in {**before, **changed}.items() if value is not None})
        self.addCleanup(set_variables, before)

    @contextlib.contextmanager
    def described_with(self, status="CREATE_COMPLETE", **changed):
        """Meanwhile, the stack has this status, and these outputs have these values."""
        found = [{"OutputKey": key, "OutputValue": value} for key, value in {**names, **changed}.items() if value]

        def change(parsed, **_):
            parsed["Stacks"][0].update(StackStatus=status, Outputs=found)

        with hooked("after-call.cloudformation.DescribeStacks", change):
            yield
