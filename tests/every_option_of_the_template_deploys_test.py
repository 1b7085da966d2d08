"""The template with its defaults, with each option alone and with all of them, on a local AWS: what that makes, and what not.

ministack takes alarms and dashboards as they come, and saved queries not at all. What they say is held against the code by
what_the_template_watches_is_what_the_code_says.rs, and against CloudFormation by cfn-lint.
"""

import io
import json
import unittest
import zipfile
from pathlib import Path

import boto3

from local_aws.emulator import Emulator
from local_aws.function import LOGS
from local_aws.stack import without_unknown

# What a parameter is set to, and the resources that come or go by that.
OPTIONS = {
    "WebhookSecretArn": ("arn:aws:secretsmanager:us-east-1:000000000000:secret:sendpilot-AbCdEf", {"WebhookSecret"}),
    "AlertEmail": ("sales@example.com", {"AlertEmailSubscription"}),
    "AlarmEmail": ("operations@example.com", {"AlarmEmailSubscription"}),
    "SilenceHours": ("72", {"SilenceAlarm"}),
    "MakeDashboard": ("no", {"Dashboard"}),
    "ReserveConcurrency": ("no", set()),
}
# Those that every stack has, of whatever value.
GIVEN = {"RetentionDays", "PendingSeconds", "Architecture"}


def setUpModule():
    global template
    LOGS.mkdir(exist_ok=True)
    emulator = Emulator(LOGS / "ministack.log")
    emulator.__enter__()
    unittest.addModuleCleanup(emulator.__exit__)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="code")
    # No function is invoked here, so there is nothing to build.
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("bootstrap", "")
    s3.put_object(Bucket="code", Key="code.zip", Body=code.getvalue())
    template = without_unknown(Path("template.yaml").read_text()).replace("CodeUri: .", "CodeUri: s3://code/code.zip")


def deploy(test, **parameters):
    """Deploys with these parameters, until the test is over. Returns the physical ids, by logical ones."""
    cloudformation = boto3.client("cloudformation")
    name = "-".join(["with", *map(str.lower, parameters)])
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=template,
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    test.addCleanup(cloudformation.delete_stack, StackName=name)
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}


class EveryOption(unittest.TestCase):
    def test_every_parameter_is_tried_here_or_has_a_value_in_every_stack(self):
        parameters = {given["ParameterKey"] for given in self.parameters()}
        self.assertEqual(parameters, OPTIONS.keys() | GIVEN)
        self.assertEqual(OPTIONS.keys() & GIVEN, set())

    def test_each_alone_makes_its_own_resources_and_no_other(self):
        defaults = deploy(self).keys()
        for name, (value, own) in OPTIONS.items():
            with self.subTest(name):
                self.assertEqual(deploy(self, **{name: value}).keys() ^ defaults, own)

    def test_all_together_and_alarms_and_dashboard_are_of_this_stack(self):
        everything = {name: value for name, (value, _) in OPTIONS.items() if name != "MakeDashboard"}
        made = deploy(self, **everything)
        cloudwatch = boto3.client("cloudwatch")
        names = [physical for logical, physical in made.items() if logical.endswith("Alarm")]
        alarms = cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]
        self.assertEqual({alarm["AlarmName"] for alarm in alarms}, set(names))
        for alarm in alarms:
            self.assertEqual(alarm["AlarmActions"], [made["AlarmsTopic"]])
            self.assertNotIn("${", alarm["AlarmDescription"])
            for dimension in alarm["Dimensions"]:
                self.assertTrue(
                    dimension["Name"] == "Reason" or any(dimension["Value"] in physical for physical in made.values()),
                    dimension,
                )
        body = cloudwatch.get_dashboard(DashboardName=made["Dashboard"])["DashboardBody"]
        self.assertNotIn("${", body)
        (shown,) = (widget for widget in json.loads(body)["widgets"] if widget["type"] == "alarm")
        self.assertEqual(set(shown["properties"]["alarms"]), {alarm["AlarmArn"] for alarm in alarms})

    def parameters(self):
        return boto3.client("cloudformation").get_template_summary(TemplateBody=template)["Parameters"]
