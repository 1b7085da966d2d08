"""The checks of the doctor. Each reports what is wrong with a stack, and how to fix it."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Optional

from botocore.exceptions import BotoCoreError, ClientError

from ops import request, sendpilot_api
from ops.deliveries import Deliveries
from ops.errors import what_to_do
from ops.pending import age, is_for_stream
from ops.refusal import DEPLOY_OR_LOG_IN, GONE, advice, missing_permission
from ops.running import MAY_HAVE_ENDED
from ops.secret_value import NoSecret, api_key_in, secrets_in
from ops.signature import SAMPLE_SECRET
from ops.stack import RECONCILE_OUTPUT, log_group, outputs_of, parameters_of
from ops.subscribers import attributes, client, described, pages, subscriptions

OK, WRONG, CANT_TELL = "ok", "WRONG", "can't tell"

OUTPUTS = {
    "WebhookUrl",
    "WebhookSecretArn",
    "AlertsTopicArn",
    "DeliveriesTableName",
    "RedriveFunctionName",
    "AlarmsTopicArn",
    "DeadLettersUrl",
}
DONE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "IMPORT_COMPLETE"}
OLD = timedelta(minutes=15)  # the longest that the redrive waits between two attempts
RECENT = timedelta(minutes=10)  # ten runs of the redrive; metrics arrive some minutes late
DAY = timedelta(days=1)  # three of the longest intervals between two runs of the reconciliation

AGAIN = "Run the doctor again."

DEPLOY = "Deploy the current template: sam build && sam deploy"
RESTART = "Stop `make run` with Ctrl-C and start it again. It then deploys everything again."
EMAIL = ("email", "email-json")  # each email has a link that ends the subscription


@dataclass
class Finding:
    """The result of one check."""

    verdict: str
    what: str  # one line, never with a secret
    remedy: str = ""  # lines


@dataclass
class _Reconciliation:
    """One run of the reconciliation, from its log line."""

    at: float  # seconds since the Unix epoch
    line: dict

    def count(self, name):
        """Returns a count of the line, or 0 if the line has no such count."""
        number = self.line.get(name)
        return number if type(number) is int else 0


class _CantTell(Exception):
    """A check cannot run. `remedy` says how to make it possible."""

    def __init__(self, what, remedy):
        super().__init__(what)
        self.remedy = remedy


class Examination:
    """One examination of one stack, at the time `now`.

    The examination changes nothing in the stack. It sends a forged event and an event that needs no
    alert. With `alert`, it also sends an event that reaches all subscribers of the alerts and of
    the lead status stream.
    """

    def __init__(
        self,
        stack: str,
        now: float,
        webhook: Optional[str] = None,
        alert: bool = False,
        is_local: bool = False,
        port: Optional[str] = None,
    ):
        """`webhook` is the webhook's URL if it differs from the stack's output, as on a local AWS.

        `is_local` means the stack of `make run`, and `port` its port if the user had to name it.
        """
        self._stack_name = stack
        self._now = now
        self._webhook = webhook
        self._alert = alert
        self._local = is_local
        self._port = port
        self._stack = None
        self._outputs = {}
        self._to_forged = None  # the function's answer to the forged event
        self._secrets = []

    def findings(self) -> Iterator[Finding]:
        """Yields each finding at once.

        A failed check stops no other check, except if the stack is missing.
        """
        yield self._finding("stack", self._check_stack)
        if self._stack is None:
            return
        yield self._finding("URL", self._check_url)
        yield self._finding("secret", self._check_secret)
        yield self._finding("forged event", self._check_forged_event)
        yield self._finding("signed event", self._check_signed_event)
        if self._alert:
            yield self._finding("alert", self._check_alert)
        if "ApiKeySecretArn" in self._outputs:
            yield self._finding("API key", self._check_api_key)
        yield self._finding("subscribers", lambda: self._check_subscribers("AlertsTopicArn", "AlertEmail"))
        if "StatusTopicArn" in self._outputs:
            yield self._finding("stream's subscribers", self._check_stream_subscribers)
        yield self._finding("redrive's schedule", self._check_schedule)
        yield self._finding("redrive's runs", self._check_runs)
        if self._reconciles():
            yield self._finding("reconciliation", self._check_reconciliation)
        yield self._finding("pending", self._check_pending)
        yield self._finding("dead letters", self._check_dead_letters)
        yield self._finding("alarms", self._check_alarms)
        yield self._finding("alarms' subscribers", lambda: self._check_subscribers("AlarmsTopicArn", "AlarmEmail"))

    def _finding(self, title, check):
        try:
            finding = check()
        except _CantTell as reason:
            finding = Finding(CANT_TELL, str(reason), reason.remedy)
        except ClientError as error:
            finding = self._finding_on_refusal(error)
        except BotoCoreError as error:
            finding = Finding(CANT_TELL, str(error), advice(error, self._local))
        except request.NoAnswer as error:
            finding = Finding(CANT_TELL, f"no answer: {error}", MAY_HAVE_ENDED if self._local else AGAIN)
        except Exception as error:  # a bug in one check must not stop the others
            finding = Finding(CANT_TELL, f"{type(error).__name__}: {error}", what_to_do(error))
        return replace(finding, what=f"{title}: {finding.what}")

    def _finding_on_refusal(self, error):
        """Returns the finding about a call that AWS refused."""
        code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        if what_to_do := advice(error, self._local):
            return Finding(CANT_TELL, f"{code}: {message}", what_to_do)
        if GONE.search(code):
            return Finding(WRONG, f"{error.operation_name}: {message}", self._put_back())
        return Finding(CANT_TELL, f"{error.operation_name}: {code}: {message}", AGAIN)

    def _put_back(self):
        """Returns the commands of a drift-aware change set, which keeps the stack's parameters.

        <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/drift-aware-change-sets.html>
        Such a change set does not restore a deleted email subscription:
        <https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/2455>
        """
        if self._local:
            return RESTART
        stack = self._stack["StackName"]
        change_set = f"put-back-{int(self._now)}"
        name = f"--stack-name {shlex.quote(stack)} --change-set-name {change_set}"
        kept = " ".join(f"ParameterKey={key},UsePreviousValue=true" for key in parameters_of(self._stack))
        create = "--deployment-mode REVERT_DRIFT --use-previous-template --capabilities CAPABILITY_IAM"
        lines = [
            "`sam deploy` does not notice manual changes. A drift-aware change set finds and reverts them:",
            f"  aws cloudformation create-change-set {name} --change-set-type UPDATE {create}"
            + (f" --parameters {kept}" if kept else ""),
            "If there is nothing to revert, the next command fails:",
            f"  aws cloudformation wait change-set-create-complete {name}",
            f"  aws cloudformation describe-change-set {name}",
            "If the change set lists the missing parts, and changes nothing that you want to keep, execute it:",
            f"  aws cloudformation execute-change-set {name}",
            f"  aws cloudformation wait stack-update-complete --stack-name {shlex.quote(stack)}",
            "The change set does not restore email subscriptions. Run the doctor again to see how to subscribe.",
        ]
        return "\n".join(lines)

    def _deploy(self):
        return RESTART if self._local else DEPLOY

    def _output(self, name):
        if name not in self._outputs:
            raise _CantTell(f"the stack has no output {name}", self._deploy())
        return self._outputs[name]

    def _parameter(self, name, default=None):
        return parameters_of(self._stack).get(name) or default

    def _tool(self, command):
        """Returns the command line of another command for the same stack."""
        if self._local:
            return f"make {command}" + (f" RUN={self._port}" if self._port else "")
        return f"python3 ops.pyz {command} {shlex.quote(self._stack_name)}"

    def _resource(self, logical_id):
        """Returns the physical id of a resource, given its logical id in the template."""
        asked = {"StackName": self._stack_name, "LogicalResourceId": logical_id}
        found = client("cloudformation").describe_stack_resource(**asked)
        return found["StackResourceDetail"]["PhysicalResourceId"]

    def _check_stack(self):
        try:
            (stack,) = client("cloudformation").describe_stacks(StackName=self._stack_name)["Stacks"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            remedy = RESTART if self._local else DEPLOY_OR_LOG_IN
            return Finding(WRONG, f"there is no stack {self._stack_name} here", remedy)
        self._stack = stack
        self._outputs = outputs_of(stack)
        status = stack["StackStatus"]
        if status not in DONE and status.endswith("_IN_PROGRESS"):
            return Finding(
                CANT_TELL, f"{self._stack_name} is {status}", "Run the doctor again when CloudFormation is done."
            )
        if status not in DONE:
            events = _command("aws cloudformation describe-stack-events --stack-name {}", self._stack_name)
            remedy = f"Fix the cause, and deploy again. These events show the cause:{events}"
            return Finding(WRONG, f"the last deployment of {self._stack_name} did not succeed: {status}", remedy)
        if missing := sorted(OUTPUTS - self._outputs.keys()):
            lacking = ", ".join(missing)
            what = f"{self._stack_name} was deployed from an older template or another one: it lacks {lacking}"
            return Finding(WRONG, what, self._deploy())
        return Finding(OK, f"{self._stack_name} is {status}")

    def _check_url(self):
        url = self._webhook = self._webhook or self._output("WebhookUrl")
        try:
            answer = request.sample("forged").renewed().post(url)
        except request.NoAnswer as error:
            removed = f"If other websites answer, the API was removed.\n{self._put_back()}"
            remedy = MAY_HAVE_ENDED if self._local else removed
            return Finding(WRONG, f"{url} does not answer: {error}", remedy)
        if answer.outcome():
            self._to_forged = answer
            return Finding(OK, f"{url} answers")
        what = f"{url} answers {answer.status}, but the answer is not from the webhook function"
        if answer.status == 429:
            return Finding(
                WRONG,
                what,
                "API Gateway throttles the requests. This log group shows the senders' addresses: "
                f"/aws/vendedlogs/apigateway/{self._stack_name}",
            )
        if answer.status >= 500:
            remedy = f"The function did not start, crashed, or was throttled. Read its log:{self._logs('webhook')}"
            return Finding(WRONG, what, remedy)
        if self._local:
            return Finding(WRONG, what, RESTART)
        # AWS does not document whether a drift-aware change set notices a deleted route, because a
        # route is part of the API's `Body`.
        api = shlex.quote(self._resource("WebhookApi"))
        integration = f"aws apigatewayv2 get-integrations --api-id {api} --query 'Items[0].IntegrationId' --output text"
        route = f'--route-key "POST /webhooks/sendpilot" --target "integrations/$({integration})"'
        remedy = (
            "If only the API's route was removed, this command restores the route:\n"
            f"  aws apigatewayv2 create-route --api-id {api} {route}\n"
            f"If more was removed:\n{self._put_back()}"
        )
        return Finding(WRONG, what, remedy)

    def _check_secret(self):
        secret = self._output("WebhookSecretArn")
        # `read` keeps the secret out of the shell's history.
        put = "Store the signing secret that SendPilot shows:" + _command(
            "read -rs WEBHOOK_SECRET && aws secretsmanager put-secret-value --secret-id {} "
            '--secret-string "$WEBHOOK_SECRET"',
            secret,
        )
        value = self._stored(secret, put)
        if isinstance(value, Finding):
            return value
        try:
            secrets = secrets_in(value.get("SecretString"))
        except NoSecret as error:
            return Finding(WRONG, f"{error}, so the function answers 503", put)
        except ValueError as error:
            return Finding(WRONG, str(error), put)
        self._secrets = secrets
        if fault := _fault_of_previous(secret):
            remedy = (
                "Until this is fixed, a signature that matches no usable secret gets 503 instead of 401. Store the\n"
                "current value once more: it then becomes the previous version too. If SendPilot still signs with the\n"
                f"old secret, store both secrets in one value, with white space between them.{put.partition(':')[2]}"
            )
            return Finding(WRONG, f"the previous version cannot be used: {fault}", remedy)
        if SAMPLE_SECRET in secrets and not self._local:
            return Finding(WRONG, "is the sample secret of this repository, so anyone can sign events with it", put)
        if not all(one.startswith("whsec_") for one in secrets):
            remedy = "The function uses the value as it is. If SendPilot shows the same value, all is well."
            return Finding(CANT_TELL, "does not begin with whsec_, unlike SendPilot's secrets", remedy)
        return Finding(OK, f"{len(secrets)} stored, in the right format")

    def _stored(self, secret, put):
        """Returns Secrets Manager's answer about a secret, or a finding. `put` says how to store it."""
        try:
            return client("secretsmanager").get_secret_value(SecretId=secret)
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
            if code == "ResourceNotFoundException":
                return Finding(
                    WRONG, message, f"{put}\nIf this command fails because the secret was deleted:\n{self._put_back()}"
                )
            if code == "InvalidRequestException":
                restore = _command("aws secretsmanager restore-secret --secret-id {}", secret)
                return Finding(WRONG, message, f"If the secret is scheduled for deletion, restore it:{restore}")
            raise

    def _check_api_key(self):
        secret = self._output("ApiKeySecretArn")
        url = self._parameter("SendPilotApiUrl", sendpilot_api.DEFAULT_URL)
        put = "Make an API key in SendPilot, under Integrations, API Keys. Store the key:" + _command(
            'read -rs API_KEY && aws secretsmanager put-secret-value --secret-id {} --secret-string "$API_KEY"', secret
        )
        if fault := sendpilot_api.fault_of_url(url):
            remedy = f"Deploy with the address of SendPilot's API, such as {sendpilot_api.DEFAULT_URL}."
            return Finding(WRONG, f"the parameter SendPilotApiUrl {fault}", remedy)
        value = self._stored(secret, put)
        if isinstance(value, Finding):
            return value
        try:
            key = api_key_in(value.get("SecretString"))
        except ValueError as error:
            without = ", and the reconciliation cannot run" if self._reconciles() else ""
            return Finding(WRONG, f"{error}. Alerts are published without the lead's name{without}", put)
        try:
            verdict = sendpilot_api.verdict(url, key)
        except request.NoAnswer as error:
            return self._finding_on_unclear_answer(f"{url} does not answer: {error}")
        if verdict.kind == sendpilot_api.UNCLEAR:
            return self._finding_on_unclear_answer(verdict.what)
        if verdict.kind == sendpilot_api.REFUSED:
            odd = (
                "" if key.startswith("sp_live_") else "The key does not begin with sp_live_, unlike SendPilot's keys.\n"
            )
            return Finding(WRONG, verdict.what, f"{odd}{put}\nThe function uses the new key within minutes.")
        if verdict.kind == sendpilot_api.LACKS_SCOPES:
            store = put.partition("Store the key:")[2]
            remedy = (
                f"In SendPilot, under Integrations, API Keys, give the key these scopes: {', '.join(verdict.scopes)}.\n"
                f"If the scopes of a key cannot be changed, make a new key with them, and store it:{store}"
            )
            is_blind = self._reconciles() and "leads:read" in verdict.scopes
            blind = ", so the reconciliation cannot read leads" if is_blind else ""
            return Finding(WRONG, f"{verdict.what}{blind}", remedy)
        return Finding(OK, verdict.what)

    def _finding_on_unclear_answer(self, what):
        """Returns the finding about an answer that says nothing about the key."""
        remedy = (
            "SendPilot's API does not answer as documented, so the doctor cannot say whether the key works.\n"
            "Alerts are published on time, perhaps without the lead's name. Check the parameter SendPilotApiUrl, and\n"
            "run the doctor again later."
        )
        return Finding(CANT_TELL, what, remedy)

    def _check_forged_event(self):
        answer = self._answer_to_forged()
        if answer.status == 401:
            return Finding(OK, "rejected with 401")
        if 200 <= answer.status < 300:
            remedy = f"Another function answers at the URL, or another version of this function. {self._deploy()}"
            return Finding(WRONG, f"accepted with {answer.status}, so anyone can send events", remedy)
        what = f"neither rejected nor accepted: {_said(answer)}"
        return Finding(CANT_TELL, what, "Look at the findings about the secret and the signed event.")

    def _check_signed_event(self):
        for number, secret in enumerate(self._signers(), 1):
            # An event of this type needs no alert, and counts only as a genuine, ignored event.
            event = request.sample("message-sent").renewed()
            answer = event.post(self._webhook, secret)
            if (answer.status, answer.outcome()) != (200, "ignored"):
                return self._finding_on_answer(answer, f"signed with secret {number}: ")
        return Finding(OK, "accepted with 200 ignored, because this event needs no alert")

    def _check_alert(self):
        status = self._parameter("AlertStatuses", "OPPORTUNITY").split(",")[0].strip()
        event = request.sample("opportunity").renewed("evt_doctor")
        # A new lead, because an earlier alert could debounce this one. The status must change.
        event = event.with_data(leadId=request.fresh("lead_doctor"), newStatus=status, previousStatus="DOCTOR")
        answer = event.post(self._webhook, self._signers()[0])
        if (answer.status, answer.outcome()) != (200, "alerted"):
            return self._finding_on_answer(answer)
        delivery = f"{json.loads(event.body)['workspaceId']}#{event.event_id()}"
        out = {}
        for kind in ("alert", "status") if "StatusTopicArn" in self._outputs else ("alert",):
            row = Deliveries(self._output("DeliveriesTableName")).row(f"{delivery}#{kind}") or {}
            if row.get("state") != "PUBLISHED":
                logs = self._logs("webhook")
                remedy = f"The publish is not recorded, so the redrive repeats it. The log shows the reason:{logs}"
                return Finding(WRONG, f"{delivery}#{kind} is {row.get('state', 'not in the table')}", remedy)
            out[kind] = f"{delivery}#{kind} is PUBLISHED, as message {row['messageId']}"
        return Finding(OK, f"{'; '.join(out.values())}; check that the alert arrives")

    def _answer_to_forged(self):
        if self._to_forged is None:
            raise _CantTell("the function does not answer at the URL", "Fix the URL first.")
        return self._to_forged

    def _signers(self):
        self._answer_to_forged()
        if not self._secrets:
            raise _CantTell("there is no secret to sign with", "Fix the secret first.")
        return self._secrets

    def _finding_on_answer(self, answer, by=""):
        what = f"{by}{_said(answer)}"
        if (answer.json() or {}).get("reason") == "stale":
            return Finding(CANT_TELL, what, "The clock of this machine is wrong. Set the clock.")
        if answer.status == 401:
            remedy = (
                "The function does not use the stack's secret. If you have just stored this secret, run the doctor\n"
                "again in some minutes. If that does not help, someone changed the function's environment variables.\n"
                f"{self._put_back()}"
            )
            return Finding(WRONG, what, remedy)
        return Finding(WRONG, what, f"The log shows the reason:{self._logs('webhook')}")

    def _logs(self, function, since="1h"):
        if self._local:
            return _command(f"{self._tool('logs')} FUNCTION={function} SINCE={since}")
        return _command("aws logs tail --since {} {}", since, log_group(self._stack_name, function))

    def _check_subscribers(self, topic_output, email_parameter):
        topic = self._output(topic_output)
        listed = subscriptions(topic)
        email = self._parameter(email_parameter)
        missing = email and email.lower() not in {one["Endpoint"].lower() for one in listed}
        if not missing and not listed:
            remedy = f"Subscribe an address. The command asks for the address:{self._subscribe(topic, 'email')}"
            return Finding(WRONG, "there are none, so messages to this topic reach nobody", remedy)
        if not missing or any(not one["SubscriptionArn"].startswith("arn:") for one in listed):
            return self._finding_on_subscriptions(topic, listed)
        remedy = (
            "Nobody confirmed the subscription within 48 hours, or someone followed the unsubscribe link in an\n"
            f"email. Mail scanners follow links too. While {email_parameter} stays the same, a deployment does not\n"
            "subscribe the address again. Subscribe the address by hand:"
            f"{self._subscribe(topic, 'email', email)}\n{_still_named(email_parameter)}"
        )
        return Finding(WRONG, f"{email} ({email_parameter}) is not subscribed", remedy)

    def _check_stream_subscribers(self):
        topic = self._output("StatusTopicArn")
        listed = subscriptions(topic)
        if not listed:
            remedy = (
                "Subscribe a queue, or deploy with StatusStream=off. The command asks for the ARN of the queue:"
                f"{self._subscribe(topic, 'sqs')}"
            )
            return Finding(WRONG, "there are none, so published changes of status reach nobody", remedy)
        return self._finding_on_subscriptions(topic, listed)

    def _finding_on_subscriptions(self, topic, listed):
        """Returns the finding about the subscriptions of a topic.

        Each must be confirmed and have a dead-letter queue. A user with AWS credentials must have
        confirmed each email subscription. Otherwise the link in each email ends the subscription.
        """
        of, refusal = [], None
        for one in listed:
            try:
                of.append((one, attributes(one)))
            except ClientError as error:
                # The other subscriptions must still be checked. AWS does not document whether the
                # owner of a topic may read a subscription of another account.
                if not missing_permission(error):
                    raise
                refusal = error
        if waiting := [one for one, found in of if found is None]:
            again = self._subscribe(topic, waiting[0]["Protocol"], waiting[0])
            remedy = (
                "SNS deletes an unconfirmed subscription after 48 hours. This command sends another confirmation\n"
                f"request:{again}"
            )
            return Finding(WRONG, f"not confirmed: {', '.join(map(described, waiting))}", remedy)
        emails = [(one, found.get("ConfirmationWasAuthenticated")) for one, found in of if one["Protocol"] in EMAIL]
        ends = {one["SubscriptionArn"] for one, authenticated in emails if authenticated == "false"}
        endable = [(one, found) for one, found in of if one["SubscriptionArn"] in ends]
        losing = [one for one, found in of if not _has_dead_letter_queue(found)]
        what, remedies = [], []
        if endable:
            these = ", ".join(described(one) for one, _ in endable)
            what.append(f"the unsubscribe link in each email works without a login: {these}")
            remedies += self._protect(topic, endable)
        # The new subscription of an endable one gets the queue at once.
        if losing := [one for one in losing if one["SubscriptionArn"] not in ends]:
            what.append(f"without a dead-letter queue: {', '.join(map(described, losing))}")
            remedies += self._attach(topic, losing)
        if what:
            return Finding(WRONG, "; ".join(what), "\n".join(remedies))
        if refusal:
            raise refusal
        if unknown := [one for one, authenticated in emails if authenticated != "true"]:
            these = ", ".join(map(described, unknown))
            what = f"SNS does not say whether the unsubscribe link works without a login: {these}"
            return Finding(CANT_TELL, what, "SNS does not return ConfirmationWasAuthenticated for these subscriptions.")
        protocols = sorted({one["Protocol"] for one in listed})
        return Finding(OK, f"{len(listed)}, all confirmed: {', '.join(protocols)}")

    def _protect(self, topic, endable):
        """Yields how to replace subscriptions by ones that need a login to be ended.

        The confirmation decides who can end a subscription. AWS documents no way to change that
        later.
        <https://docs.aws.amazon.com/sns/latest/api/API_ConfirmSubscription.html>
        """
        yield (
            "The link in each email ends the subscription. Mail scanners follow links, and anyone who gets a\n"
            "forwarded email can. Only a new confirmation changes that, so unsubscribe and subscribe again."
        )
        if topic == self._outputs.get("AlertsTopicArn"):
            since = "SINCE=2h" if self._local else "--since 2h"
            yield f"Afterwards, `{self._tool('resend')} {since}` resends the alerts of the last two hours."
        for one, found in endable:
            yield _command("aws sns unsubscribe --subscription-arn {}", one["SubscriptionArn"])[1:]
            yield self._subscribe(topic, one["Protocol"], one, found)[1:]
            for parameter in ("AlertEmail", "AlarmEmail"):
                if one["Endpoint"].lower() == self._parameter(parameter, "").lower():
                    yield _still_named(parameter)

    def _attach(self, topic, losing):
        """Yields how to attach a dead-letter queue to subscriptions.

        <https://docs.aws.amazon.com/sns/latest/dg/sns-configure-dead-letter-queue.html>
        """
        queue, make_queue = self._dead_letters(topic)
        yield f"If SNS cannot deliver a message, it is lost. A dead-letter queue keeps the message:{make_queue}"
        for one in losing:
            # The queue must be in the account and region of the subscription.
            if one["Owner"] != topic.split(":")[4]:
                yield f"The account {one['Owner']} must attach a queue of its own to {described(one)}."
                continue
            yield _command(
                "aws sns set-subscription-attributes --subscription-arn {} --attribute-name RedrivePolicy "
                "--attribute-value {}",
                one["SubscriptionArn"],
                json.dumps({"deadLetterTargetArn": queue}),
            )[1:]

    def _subscribe(self, topic, protocol, whom=None, found=None):
        """Returns the commands that subscribe `whom`, an address or a listed subscription.

        `found` has the attributes of a subscription to replace: the new subscription gets the same
        filter and dead-letter queue. Without an address, the commands ask for the address. They
        confirm an email subscription by the token in SNS's email, so no link can end the
        subscription later.
        """
        endpoint = whom if isinstance(whom, str) else None
        # The address of an http(s) endpoint may contain a password, so it is not printed.
        if isinstance(whom, dict) and protocol not in ("http", "https"):
            endpoint = whom["Endpoint"]
        queue, commands = self._dead_letters(topic)
        found = found or {}
        kept = ("FilterPolicy", "FilterPolicyScope") if found.get("FilterPolicy") else ()
        wanted = {name: found[name] for name in kept if name in found}
        own = _has_dead_letter_queue(found)
        wanted["RedrivePolicy"] = found["RedrivePolicy"] if own else json.dumps({"deadLetterTargetArn": queue})
        wanted = json.dumps(wanted)
        command = "aws sns subscribe --topic-arn {} --protocol {} --attributes {} --notification-endpoint "
        if endpoint:
            commands += _command(command + "{}", topic, protocol, wanted, endpoint)
        else:
            read = "read -rs ENDPOINT" if protocol in ("http", "https") else "read -r ENDPOINT"
            commands += _command(f'{read} && {command}"$ENDPOINT"', topic, protocol, wanted)
        if protocol not in EMAIL:
            return commands
        # The braces of the shell are doubled for `_command`.
        token = 'read -r LINK && TOKEN="${{LINK##*Token=}}"'
        confirm = (
            'aws sns confirm-subscription --authenticate-on-unsubscribe true --topic-arn {} --token "${{TOKEN%%&*}}"'
        )
        return (
            f"{commands}\nAn email arrives, perhaps in the junk folder. Do not follow the link in it. Copy the link's\n"
            f"address, run this command, and paste the address:{_command(f'{token} && {confirm}', topic)}"
        )

    def _dead_letters(self, topic):
        """Returns the dead-letter queue for a topic's subscriptions: its ARN, and how to create it.

        Subscriptions of a FIFO topic need a FIFO queue, which the stack does not have:
        <https://docs.aws.amazon.com/sns/latest/dg/sns-dead-letter-queues.html>
        """
        _, partition, _, region, account, _ = topic.split(":")
        if not topic.endswith(".fifo"):
            name = self._output("DeadLettersUrl").rsplit("/", 1)[-1]
            return f"arn:{partition}:sqs:{region}:{account}:{name}", ""
        name = f"{self._stack['StackName'][:60]}-dead-letters.fifo"
        queue = f"arn:{partition}:sqs:{region}:{account}:{name}"
        may_send = {
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": queue,
            "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
        }
        made = {"FifoQueue": "true", "MessageRetentionPeriod": "1209600"}
        made["Policy"] = json.dumps({"Version": "2012-10-17", "Statement": [may_send]})
        if key := self._parameter("EncryptionKeyArn"):
            made["KmsMasterKeyId"] = key
        return queue, _command("aws sqs create-queue --queue-name {} --attributes {}", name, json.dumps(made))

    def _check_schedule(self):
        name = self._resource("RedriveFunctionEveryMinute")
        schedule = client("scheduler").get_schedule(Name=name)
        if schedule["State"] != "ENABLED":
            what = f"{name} is {schedule['State']}, so only SendPilot's retries publish pending deliveries"
            return Finding(WRONG, what, self._enable())
        return Finding(OK, f"enabled, {schedule['ScheduleExpression']}")

    def _enable(self):
        return f"Enable the schedule in the console of Amazon EventBridge Scheduler, or:\n{self._put_back()}"

    def _check_runs(self):
        unavailable, failed = None, 0
        try:
            runs = self._counted("Invocations")
            failed = runs and self._counted("Errors")
        except (BotoCoreError, ClientError) as error:
            runs, unavailable = None, error
        if not runs:
            # CloudWatch counts late, and ministack does not count. The shell may have a permission
            # for only one of the two.
            try:
                runs, failed = self._logged_runs()
            except (BotoCoreError, ClientError):
                if unavailable:
                    raise unavailable from None
        recently = f"in the last {_minutes(RECENT)}"
        if runs and failed != runs:
            return Finding(OK, f"{runs} {recently}{f', {failed} of them failed' if failed else ''}")
        if runs:
            return Finding(WRONG, f"{runs} {recently}, and none succeeded", f"Read the log:{self._logs('redrive')}")
        deployed = self._stack.get("LastUpdatedTime") or self._stack["CreationTime"]
        if self._now - deployed.timestamp() < RECENT.total_seconds():
            again = "Run the doctor again in two minutes. The redrive runs every minute."
            return Finding(
                CANT_TELL, "none is recorded yet, but the stack was deployed less than ten minutes ago", again
            )
        run = _command("aws lambda invoke --function-name {} /dev/stdout", self._output("RedriveFunctionName"))
        remedy = (
            "If the schedule is enabled, check that the function's reserved concurrency is not 0. Then read the log:"
            f"{self._logs('redrive')}\nThis command runs the redrive once:{run}"
        )
        return Finding(WRONG, f"none {recently}", remedy)

    def _counted(self, metric):
        """Returns the recent sum of one of Lambda's metrics of the redrive."""
        counted = client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Lambda",
            MetricName=metric,
            Dimensions=[{"Name": "FunctionName", "Value": self._output("RedriveFunctionName")}],
            StartTime=datetime.fromtimestamp(self._now, timezone.utc) - RECENT,
            EndTime=datetime.fromtimestamp(self._now, timezone.utc),
            Period=60,
            Statistics=["Sum"],
        )
        return int(sum(point["Sum"] for point in counted["Datapoints"]))

    def _logged_runs(self):
        """Returns whether recent runs are in the log, and whether all failed: 'some' or None, twice."""
        since = int((self._now - RECENT.total_seconds()) * 1000)
        events = pages(
            "logs", "filter_log_events", "events", logGroupName=self._resource("RedriveLogs"), startTime=since
        )
        runs = None
        for event in events:
            line = request.json_object(event["message"]) or {}
            runs = "some"
            if line.get("message") == "redrive" and line.get("level") != "ERROR":
                return runs, None
        return runs, runs

    def _reconciles(self):
        return RECONCILE_OUTPUT in self._outputs

    def _check_reconciliation(self):
        runs = self._reconciliations()
        span = 3 * timedelta(minutes=int(self._parameter("ReconcileMinutes", DAY // timedelta(minutes=3))))
        if not runs or self._now - runs[-1].at > span.total_seconds():
            return self._finding_on_missing_run(runs, span)
        last, what, remedies = runs[-1], [], []
        if failure := last.line.get("failure"):
            what.append(f"the last run, at {_moment(last.at)}, failed: {_one_line(str(failure))}")
            remedies.append(
                "Fix the cause. If the cause is the API key, the finding about the API key says how.\n"
                f"This command tries again at once:\n  {self._tool('reconcile')}\n"
                f"The log has all runs:{self._logs('reconcile', '24h')}"
            )
        if missed := [run for run in runs if run.count("missed")]:
            since = min(str(run.line.get("missedSince", _moment(run.at))) for run in missed)
            what.append(
                f"missed leads in the last 24 hours: {sum(run.count('missed') for run in missed)}, since {since}"
            )
            remedies.append(
                "SendPilot did not deliver the events of these leads. In SendPilot's settings, the webhook must be\n"
                f"enabled, and must send changes of status to {self._webhook}\n"
                f"Afterwards, this command finds leads that were missed until then:\n  {self._tool('reconcile')}"
            )
        if what:
            return Finding(WRONG, "; ".join(what), "\n".join(remedies))
        paused = ", and paused as SendPilot's API asked" if last.line.get("outcome") == "paused" else ""
        read = f"read {last.count('campaigns')} campaigns and {last.count('leads')} leads{paused}"
        what = f"the last run, at {_moment(last.at)}, {read}; none missed in the last 24 hours"
        if lacking := self._without_baseline():
            what += f"; no missed lead with the status {', '.join(lacking)} is alerted until the baseline is complete"
        return Finding(OK, what)

    def _without_baseline(self):
        """Returns the alert statuses whose baseline is not complete."""
        row = Deliveries(self._output("DeliveriesTableName")).row(f"{self._output(RECONCILE_OUTPUT)}#run") or {}
        complete = (request.json_object(str(row.get("progress"))) or {}).get("baselined")
        complete = {str(status).upper() for status in complete} if isinstance(complete, list) else set()
        statuses = self._parameter("AlertStatuses", "OPPORTUNITY").split(",")
        return [status for status in map(str.strip, statuses) if status.upper() not in complete]

    def _finding_on_missing_run(self, runs, span):
        """Returns the finding about runs that did not end within three intervals."""
        run = self._tool("reconcile")
        deployed = self._stack.get("LastUpdatedTime") or self._stack["CreationTime"]
        if not runs and self._now - deployed.timestamp() < span.total_seconds():
            what = f"no run has ended yet, but the stack was deployed less than {_minutes(span)} ago"
            remedy = f"Run the doctor again later, or run the reconciliation now:\n  {run}"
            return Finding(CANT_TELL, what, remedy)
        last = f"the last one at {_moment(runs[-1].at)}" if runs else "and none in the last 24 hours"
        what = f"no run has ended in the last {_minutes(span)}, {last}"
        schedule = client("scheduler").get_schedule(Name=self._resource("ReconcileFunctionEveryInterval"))
        if schedule["State"] != "ENABLED":
            return Finding(WRONG, f"{what}; the schedule is {schedule['State']}", self._enable())
        remedy = (
            "The schedule is enabled. Check that the function's reserved concurrency is not 0, and read the log:"
            f"{self._logs('reconcile', '24h')}\nThis command runs the reconciliation once:\n  {run}"
        )
        return Finding(WRONG, what, remedy)

    def _reconciliations(self):
        """Returns the runs of the last day, the oldest first, except dry runs.

        A run that found another run in progress did nothing, so it does not count either.
        """
        since = int((self._now - DAY.total_seconds()) * 1000)
        group = self._resource("ReconcileLogs")
        runs = []
        for event in pages("logs", "filter_log_events", "events", logGroupName=group, startTime=since):
            line = request.json_object(event["message"]) or {}
            is_run = line.get("message") == "reconcile" and line.get("outcome") != "in_progress"
            if is_run and line.get("dryRun") is not True:
                runs.append(_Reconciliation(event["timestamp"] / 1000, line))
        return sorted(runs, key=lambda run: run.at)

    def _check_pending(self):
        rows = Deliveries(self._output("DeliveriesTableName")).pending()
        old = []
        for of_stream, kind in ((False, "alerts"), (True, "messages of the lead status stream")):
            ages = [age(row, self._now) for row in rows if is_for_stream(row) == of_stream]
            ages = [one for one in ages if one > OLD]
            if ages:
                old.append(f"{kind}: {len(ages)} for more than {_minutes(OLD)}, the oldest for {max(ages)}")
        if old:
            listing = self._tool("pending")
            remedy = f"Fix the last error of each delivery. The redrive then publishes it. To list all:\n  {listing}"
            return Finding(WRONG, "; ".join(old), remedy)
        return Finding(OK, f"{len(rows)}, none for more than {_minutes(OLD)}")

    def _check_dead_letters(self):
        url = self._output("DeadLettersUrl")
        counts = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
        found = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=counts)["Attributes"]
        number = sum(int(found.get(count, 0)) for count in counts)
        if not number:
            return Finding(OK, "none")
        remedy = (
            "SNS could not deliver these messages. Fix the subscription, pass each message on by hand, and delete it:"
        )
        remedy += _command(
            "aws sqs receive-message --visibility-timeout 600 --message-attribute-names All --queue-url {}", url
        )
        remedy += _command('read -r HANDLE && aws sqs delete-message --receipt-handle "$HANDLE" --queue-url {}', url)
        return Finding(WRONG, f"{number}, where none should be", remedy)

    def _check_alarms(self):
        resources = pages(
            "cloudformation", "list_stack_resources", "StackResourceSummaries", StackName=self._stack_name
        )
        logical = {
            one["PhysicalResourceId"]: one["LogicalResourceId"]
            for one in resources
            if one["ResourceType"] == "AWS::CloudWatch::Alarm" and "PhysicalResourceId" in one
        }
        if not logical:
            return Finding(CANT_TELL, "the stack has none", self._deploy())
        alarms = list(pages("cloudwatch", "describe_alarms", "MetricAlarms", AlarmNames=list(logical)))
        if gone := sorted(logical.keys() - {alarm["AlarmName"] for alarm in alarms}):
            return Finding(WRONG, f"gone: {', '.join(logical[name] for name in gone)}", self._put_back())
        if on := [alarm for alarm in alarms if alarm["StateValue"] == "ALARM"]:
            said = {logical[alarm["AlarmName"]]: _said_by(alarm) for alarm in on}
            return Finding(WRONG, f"in ALARM: {', '.join(said)}", "\n".join(map(": ".join, said.items())))
        if mute := [alarm["AlarmName"] for alarm in alarms if not alarm.get("ActionsEnabled", True)]:
            unmute = _command(f"aws cloudwatch enable-alarm-actions --alarm-names{' {}' * len(mute)}", *mute)
            return Finding(WRONG, f"silenced: {', '.join(logical[name] for name in mute)}", f"If that is over:{unmute}")
        blind = sorted(logical[alarm["AlarmName"]] for alarm in alarms if alarm["StateValue"] == "INSUFFICIENT_DATA")
        if blind:
            remedy = f"Without data, as is normal for some minutes after a deployment: {', '.join(blind)}"
            return Finding(OK, f"{len(alarms)}, none in ALARM", remedy)
        return Finding(OK, f"{len(alarms)}, all in order")


def _fault_of_previous(secret):
    """Returns why the function refuses the previous version, or None if there is no fault.

    A missing or empty previous version is not a fault.
    """
    try:
        value = client("secretsmanager").get_secret_value(SecretId=secret, VersionStage="AWSPREVIOUS")
        secrets_in(value.get("SecretString"))
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
    except NoSecret:
        pass
    except ValueError as error:
        return str(error)
    return None


def _still_named(parameter):
    """Returns how deploys treat a subscription that replaces the template's.

    CloudFormation identifies a subscription by its ARN, and acts only if the properties change:
    <https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-sns-subscription.html>
    """
    return (
        f"Deployments do not touch the new subscription while {parameter} stays the same. If you change {parameter},\n"
        "end the new subscription by hand, because the stack knows only the old one."
    )


def _has_dead_letter_queue(found):
    """Returns whether a subscription's attributes name a dead-letter queue. An empty name loses messages."""
    policy = request.json_object(found.get("RedrivePolicy", "")) or {}
    return str(policy.get("deadLetterTargetArn")).startswith("arn:")


def _said(answer):
    body = answer.json() or {}
    return _one_line(f"{answer.status} {body.get('outcome')}: {body.get('detail')}")


def _said_by(alarm):
    return _one_line(f"{alarm.get('AlarmDescription', '')} ({alarm.get('StateReason', '')})")


def _command(form, *values):
    """Returns a command on a line of its own, to paste into a shell."""
    return f"\n  {form.format(*map(shlex.quote, values))}"


def _moment(at):
    return f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M:%SZ}"


def _one_line(text):
    return " ".join(text.split())


def _minutes(span):
    return f"{span // timedelta(minutes=1)} minutes"
