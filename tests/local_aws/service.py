"""The whole service, from the source on, deployed to a local AWS for as long as a context lasts."""

import atexit
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from local_aws import function, stack
from local_aws.deliveries import Deliveries
from local_aws.emulator import Emulator
from local_aws.progress import step
from local_aws.redrive import Redrive
from local_aws.secret import Secret
from local_aws.signature import SAMPLE_SECRET


@dataclass
class Service:
    """Up and running."""

    emulator: Emulator
    webhook_url: str
    topic_arn: str
    deliveries: Deliveries
    redrive: Redrive
    secret: Secret


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
        secret = Secret(deployed.secret_arn)
        secret.put(SAMPLE_SECRET)
        yield Service(emulator, deployed.webhook_url, deployed.topic_arn, deliveries, redrive, secret)


@cache
def shared_service():
    """One for all test files of this process, since it takes long to come up. It goes when the process ends."""
    context = service()
    deployed = context.__enter__()
    atexit.register(context.__exit__, None, None, None)
    return deployed
