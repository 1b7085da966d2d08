"""Deploys the template to the local AWS, by the same commands as to AWS."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from urllib.parse import urlsplit
from uuid import uuid4

import boto3

from local_aws.emulator import Emulator
from local_aws.function import architecture, run_sam
from local_aws.progress import Failed
from ops.running import REGION
from ops.stack import NAME, outputs

# The template's defaults. Without them, an update would keep the values of the last deployment.
DEFAULTS = {
    "RememberReplies": "no",
    "LeadDetails": "no",
    "ReconcileMinutes": 0,
    "SendPilotApiUrl": "https://api.sendpilot.ai",
    "StatusStream": "off",
    "StatusPipeline": "",
    "AlertStatuses": "OPPORTUNITY",
    "AlertTags": "",
    "DebounceMinutes": 0,
    "AlertsPerSecond": 5,
    "DetailedMetrics": "no",
}
NEEDED = {
    "WebhookUrl",
    "AlertsTopicArn",
    "AlarmsTopicArn",
    "DeliveriesTableName",
    "RedriveFunctionName",
    "WebhookSecretArn",
}
ALARM_EMAIL = "operations@example.com"  # ministack sends no email

# ministack does not support these types, and a deployment with one of them fails.
UNKNOWN = "|".join(
    (
        "AWS::Logs::QueryDefinition",
        "AWS::Chatbot::SlackChannelConfiguration",
        "AWS::Chatbot::MicrosoftTeamsChannelConfiguration",
    )
)


@dataclass
class Stack:
    """The outputs of the deployed template."""

    webhook_url: str
    topic_arn: str
    stream_arn: str | None  # None if the lead status stream is off
    table_name: str
    redrive_name: str
    reconcile_name: str | None  # None if the reconciliation is off
    secret_arn: str
    api_key_arn: str | None  # None if the stack does not use SendPilot's API


def deploy(template: Path, emulator: Emulator, **parameters) -> Stack:
    """Deploys a built template with these parameters."""
    # sam reads values in a file literally, but interprets some characters in an argument. JSON is
    # also YAML.
    overrides = emulator.scratch / "parameters.yaml"
    overrides.write_text(json.dumps(_values(parameters)), "utf-8")
    # The user's samconfig.toml may name another stack, so these are arguments.
    where = ["--stack-name", NAME, "--region", REGION, "--no-confirm-changeset", "--no-progressbar"]
    # The paths in a template are relative to its folder, so the adapted template must be there too.
    adapted = template.with_name(f"adapted-{uuid4()}.yaml")
    try:
        adapted.write_text(as_ministack_takes_it(template.read_text("utf-8")), "utf-8")
    except OSError as error:
        raise Failed(f"The folder of {template} must be writable: {error.strerror}.") from None
    try:
        files = ["--template-file", str(adapted), "--parameter-overrides", f"file://{overrides}"]
        run_sam("deploy", [*where, *files], emulator.logs)
    finally:
        adapted.unlink(missing_ok=True)
    return _completed(emulator)


def redeploy(emulator: Emulator, **parameters) -> Stack:
    """Updates the stack to these parameters. All other parameters get their defaults."""
    cloudformation = boto3.client("cloudformation")
    given = [{"ParameterKey": name, "ParameterValue": value} for name, value in _values(parameters).items()]
    capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
    cloudformation.update_stack(StackName=NAME, UsePreviousTemplate=True, Parameters=given, Capabilities=capabilities)
    # A local update takes a second or two.
    wait = {"Delay": 0.2, "MaxAttempts": 300}
    cloudformation.get_waiter("stack_update_complete").wait(StackName=NAME, WaiterConfig=wait)
    return _completed(emulator)


def _values(parameters: dict) -> dict[str, str]:
    given = {"Architecture": architecture(), "AlarmEmail": ALARM_EMAIL, **DEFAULTS, **parameters}
    return {name: str(value) for name, value in given.items()}


def _completed(emulator: Emulator) -> Stack:
    """Completes a deployment by the parts that ministack leaves out, and returns the outputs."""
    _create_routes()
    deployed = outputs(NAME)
    if missing := sorted(NEEDED - deployed.keys()):
        raise Failed(f"This is not the template of this project: its stack has no output {', '.join(missing)}.")
    stream_arn = deployed.get("StatusTopicArn")
    if stream_arn and stream_arn.endswith(".fifo"):
        _make_fifo(stream_arn)
    _confirm(deployed["AlertsTopicArn"], deployed["AlarmsTopicArn"])
    url = urlsplit(deployed["WebhookUrl"])
    api_id = url.hostname.split(".")[0]
    return Stack(
        # Not every machine resolves the host of the output, <api id>.execute-api.localhost.
        webhook_url=f"{emulator.endpoint}/_aws/execute-api/{api_id}{url.path}",
        topic_arn=deployed["AlertsTopicArn"],
        stream_arn=stream_arn,
        table_name=deployed["DeliveriesTableName"],
        redrive_name=deployed["RedriveFunctionName"],
        reconcile_name=deployed.get("ReconcileFunctionName"),
        secret_arn=deployed["WebhookSecretArn"],
        api_key_arn=deployed.get("ApiKeySecretArn"),
    )


def as_ministack_takes_it(template: str) -> str:
    """Adapts the text of a template to ministack.

    A resource of an unknown type becomes one without effect. An alarm on metric math becomes an
    alarm on its first metric. The local AWS has no TLS, so policies that deny requests without TLS
    must instead deny requests with TLS.
    """
    nothing = "Type: AWS::CloudFormation::WaitConditionHandle"
    known = re.sub(rf"Type: ({UNKNOWN})$", nothing, template, flags=re.MULTILINE)
    unmathematical = re.sub(r"^( +)Metrics:\n((?:\1[ -] ?.*\n)+)", _first_metric, known, flags=re.MULTILINE)
    return re.sub(r"""(aws:SecureTransport: )(['"])false\2""", r"\1\2true\2", unmathematical)


def _first_metric(metrics):
    """Returns the properties of an alarm on the first metric that the alarm's math reads."""
    stat = dedent(re.search(r"^( +)MetricStat:\n((?:\1 .*\n)+)", metrics[2], re.MULTILINE)[2])
    metric = dedent(re.search(r"^Metric:\n((?: .*\n)+)", stat, re.MULTILINE)[1])
    over = re.search(r"^Period: .*\n", stat, re.MULTILINE)[0]
    statistic = re.search(r"^Stat: (.*\n)", stat, re.MULTILINE)[1]
    return indent(f"{metric}{over}Statistic: {statistic}", metrics[1])


def _create_routes():
    """Creates the HTTP API's routes, because ministack ignores the OpenAPI body that SAM writes."""
    cloudformation = boto3.client("cloudformation")
    gateway = boto3.client("apigatewayv2")
    lambdas = boto3.client("lambda")
    template = cloudformation.get_template(StackName=NAME, TemplateStage="Processed")["TemplateBody"]
    resources = (json.loads(template) if isinstance(template, str) else template)["Resources"]
    stack_resources = cloudformation.describe_stack_resources(StackName=NAME)["StackResources"]
    physical = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in stack_resources}
    for logical, resource in resources.items():
        if resource["Type"] != "AWS::ApiGatewayV2::Api":
            continue
        routes = {route["RouteKey"] for route in gateway.get_routes(ApiId=physical[logical])["Items"]}
        for path, methods in resource["Properties"]["Body"]["paths"].items():
            for method, operation in methods.items():
                if f"{method.upper()} {path}" in routes:
                    continue
                described = operation["x-amazon-apigateway-integration"]
                logical_function = re.search(r"\$\{(\w+)\.Arn\}", described["uri"]["Fn::Sub"])[1]
                function = lambdas.get_function(FunctionName=physical[logical_function])
                integration = gateway.create_integration(
                    ApiId=physical[logical],
                    IntegrationType="AWS_PROXY",
                    IntegrationUri=function["Configuration"]["FunctionArn"],
                    PayloadFormatVersion=described["payloadFormatVersion"],
                    TimeoutInMillis=described["timeoutInMillis"],
                )
                gateway.create_route(
                    ApiId=physical[logical],
                    RouteKey=f"{method.upper()} {path}",
                    Target=f"integrations/{integration['IntegrationId']}",
                )


def _make_fifo(topic_arn):
    """Makes the topic a FIFO topic, because ministack reads only a topic's name in a template."""
    boto3.client("sns").set_topic_attributes(TopicArn=topic_arn, AttributeName="FifoTopic", AttributeValue="true")


def _confirm(*topic_arns):
    """Makes the template's email subscriptions look confirmed by a user with AWS credentials.

    ministack confirms each subscription itself. It records an authenticated confirmation only for
    subscriptions that an API call made, so this function subscribes the addresses again.
    """
    sns = boto3.client("sns")
    for topic_arn in topic_arns:
        for subscription in sns.list_subscriptions_by_topic(TopicArn=topic_arn)["Subscriptions"]:
            attributes = sns.get_subscription_attributes(SubscriptionArn=subscription["SubscriptionArn"])["Attributes"]
            if subscription["Protocol"] == "email" and "ConfirmationWasAuthenticated" not in attributes:
                redrive = {"RedrivePolicy": attributes["RedrivePolicy"]} if "RedrivePolicy" in attributes else {}
                sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
                wanted = {"Protocol": "email", "Endpoint": subscription["Endpoint"], "Attributes": redrive}
                sns.subscribe(TopicArn=topic_arn, **wanted)
