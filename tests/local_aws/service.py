"""The whole service, from the source on, deployed to a local AWS for as long as a context lasts."""

from contextlib import contextmanager
from dataclasses import dataclass

from local_aws import function, stack
from local_aws.deliveries import Deliveries
from local_aws.emulator import Emulator
from local_aws.progress import step


@dataclass
class Service:
    """Up and running."""

    emulator: Emulator
    webhook_url: str
    topic_arn: str
    deliveries: Deliveries


@contextmanager
def service():
    """Builds and deploys. Whatever happens then, nothing of it is left in the end."""
    function.LOGS.mkdir(exist_ok=True)
    with Emulator(function.LOGS / "ministack.log") as emulator:
        with step("Building the function (the first time, this takes some minutes)"):
            template = function.build(emulator.scratch / "build")
        with step("Deploying template.yaml to the local AWS"):
            outputs = stack.deploy(template, emulator)
        yield Service(emulator, outputs.webhook_url, outputs.topic_arn, Deliveries(outputs.table_name))
