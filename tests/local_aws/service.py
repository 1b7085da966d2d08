"""The whole service, from the source on, deployed to a local AWS for as long as a context lasts."""

from contextlib import contextmanager
from dataclasses import dataclass

from local_aws import function, stack
from local_aws.deliveries import Deliveries
from local_aws.emulator import Emulator
from local_aws.progress import step
from local_aws.redrive import Redrive


@dataclass
class Service:
    """Up and running."""

    emulator: Emulator
    webhook_url: str
    topic_arn: str
    deliveries: Deliveries
    redrive: Redrive


@contextmanager
def service(template=None):
    """Builds, unless it is given a built template, and deploys. Whatever happens then, nothing of it is left in the end."""
    function.LOGS.mkdir(exist_ok=True)
    with Emulator(function.LOGS / "ministack.log") as emulator:
        if template is None:
            with step("Building the functions (the first time, this takes some minutes)"):
                template = function.build(emulator.scratch / "build")
        with step("Deploying template.yaml to the local AWS"):
            deployed = stack.deploy(template, emulator)
        deliveries, redrive = Deliveries(deployed.table_name), Redrive(deployed.redrive_name)
        yield Service(emulator, deployed.webhook_url, deployed.topic_arn, deliveries, redrive)
