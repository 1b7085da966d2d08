"""`make doctor` against the deployed template, with each thing broken in turn: it finds that and nothing else, and says how to mend it."""

import contextlib
import io
import json
import os
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock
from uuid import uuid4

import boto3

from local_aws import examination, request
from local_aws.doctor import examine
from local_aws.examination import Examination
from local_aws.inbox import Inbox
from local_aws.service import shared_service
from local_aws.signature import SAMPLE_SECRET
from local_aws.stack import NAME, outputs
from local_aws.topic import refusing

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
    wanted = {name: subscription[name] for name in ("TopicArn", "Protocol", "Endpoint")}
    boto3.client("sns").subscribe(**wanted)


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
        self.assert_wrong("stream's subscribers", "there is none", "StatusStream=off:\n.*--protocol sqs")
        Inbox(deployed.stream_arn)
        # Twice, because an alert may keep another one quiet.
        for _ in range(2):
            self.examine(alert=True)
            self.assertEqual((self.of("WRONG"), self.status), ([], 0), self.printed)
            self.assertIn("ok          stream's subscribers: 1, all confirmed: sqs\n", self.printed)
            self.assertRegex(self.printed, "ok          alert: .*#alert is PUBLISHED, as message .*; .*#status is PUBLISHED, as message ")

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
        self.assertEqual(self.of("can't tell"), ["forged event", "signed event"])

    def test_a_route_that_is_gone(self):
        gateway = boto3.client("apigatewayv2")
        api = physical("WebhookApi")
        (route,) = gateway.get_routes(ApiId=api)["Items"]
        gateway.delete_route(ApiId=api, RouteId=route["RouteId"])
        self.addCleanup(gateway.create_route, ApiId=api, RouteKey=route["RouteKey"], Target=route["Target"])
        self.assert_wrong("URL", "answers 404, but not by the function", "REVERT_DRIFT")
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
        self.assert_wrong("signed event", "signed by secret 1: 401 unauthorized", "knows other secrets than the stack's")

    def test_a_clock_that_is_wrong_is_not_held_against_the_stack(self):
        ahead = mock.Mock(wraps=time, time=lambda: time.time() + HOUR)
        with mock.patch.object(request, "time", ahead):
            self.examine()
        self.assertEqual((self.of("WRONG"), self.of("can't tell"), self.status), ([], ["signed event"], 2), self.printed)
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

        with self.hooked("after-call.sns.ListSubscriptionsByTopic", list_too("Deleted")):
            self.examine()
            self.assertEqual(self.status, 0, self.printed)
        with self.hooked("after-call.sns.ListSubscriptionsByTopic", list_too("PendingConfirmation")):
            self.examine()
            self.assertEqual(self.of("WRONG"), ["subscribers", "alarms' subscribers"])
            self.assertIn("not confirmed: email sales@example.com\n", self.printed)

    def test_alarms_that_nobody_would_hear(self):
        (email,) = subscriptions(names["AlarmsTopicArn"])
        unsubscribe(email)
        self.addCleanup(subscribe, email)
        what = rf"{email['Endpoint']} \(AlarmEmail\) is not subscribed$"
        self.assert_wrong("alarms' subscribers", what, "authenticate-on-unsubscribe")

    def test_a_redrive_that_is_switched_off(self):
        deployed.redrive.pause()
        self.addCleanup(deployed.redrive.resume)
        self.assert_wrong("redrive's schedule", "is DISABLED", "Enable it")

    def test_a_redrive_that_does_not_run(self):
        self.assert_wrong("redrive's runs", "none in the last 10 minutes", "reserved concurrency", later=HOUR)

    def test_the_log_tells_of_the_redrive_where_cloudwatch_does_not(self):
        denied = {"Effect": "Deny", "Action": "cloudwatch:GetMetricStatistics", "Resource": "*"}
        with self.somebody_who_may_not(denied):
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
            row = {"state": "PENDING", "pending": "0", "leaseUntil": now + HOUR * 1000, "firstSeenAt": now - hours * HOUR * 1000}
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
                        self.assert_wrong(title, "^1, where none should be", f"receive-message .*--queue-url {names[output]}")
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
        with self.somebody_who_may_not(secret):
            self.examine()
        self.assertEqual((self.of("WRONG"), self.status), ([], 2), self.printed)
        self.assertEqual(self.of("can't tell"), ["secret", "signed event"])
        self.assertIn("Grant secretsmanager:GetSecretValue", self.printed)
        everything = {"Effect": "Deny", "NotAction": "cloudformation:*", "Resource": "*"}
        with self.somebody_who_may_not(everything):
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

        with self.hooked("after-call.cloudformation.DescribeStacks", change):
            yield

    @contextlib.contextmanager
    def hooked(self, event, handler):
        """Meanwhile, the answers of AWS pass through `handler`."""
        session = boto3.Session()
        session.events.register(event, handler)
        with mock.patch.object(boto3, "DEFAULT_SESSION", session):
            yield

    @contextlib.contextmanager
    def somebody_who_may_not(self, *denied):
        """Meanwhile, this process is a user who may do everything but this, which ministack enforces."""
        iam = boto3.client("iam")
        name = f"doctor-{uuid4()}"
        iam.create_user(UserName=name)
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [everything, *denied]}
        iam.put_user_policy(UserName=name, PolicyName="doctor", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        credentials = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        with mock.patch.dict(os.environ, credentials), mock.patch.object(boto3, "DEFAULT_SESSION", None):
            yield
