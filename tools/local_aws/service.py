"""The whole service, from the source on, deployed to a local AWS for as long as a context lasts."""

import atexit
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from local_aws import function, stack
from local_aws.emulator import Emulator
from local_aws.progress import step
from local_aws.redrive import Redrive
from local_aws.secret import Secret
from ops.deliveries import Deliveries
from ops.signature import SAMPLE_SECRET


@dataclass
class Service:
    """Up and running."""

    emulator: Emulator
    template: Path  # the built one
    webhook_url: str
    topic_arn: str
    stream_arn: str  # None where every change of status is not streamed
    deliveries: Deliveries
    redrive: Redrive
    secret: Secret

    def redeploy(self, **parameters):
        """Deploys it once more, with these parameters."""
        with step(f"Deploying once more, with {parameters or 'the defaults'}"):
            self.stream_arn = stack.deploy(self.template, self.emulator, **parameters).stream_arn


@contextmanager
def service(template=None, **parameters):
    """Builds, unless it is given a built template, and deploys. Whatever happens then, nothing of it is left in the end."""
    function.LOGS.mkdir(exist_ok=True)
    with Emulator(function.LOGS / "ministack.log") as emulator:
        if template is None:
            with step("Building the functions (the first time, this takes some minutes)"):
                template = function.build(emulator.scratch / "build")
        with step("Deploying template.yaml to the local AWS"):
            deployed = stack.deploy(template, emulator, **parameters)
        deliveries, redrive = Deliveries(deployed.table_name), Redrive(deployed.redrive_name)
        secret = Secret(deployed.secret_arn)
        secret.put(SAMPLE_SECRET)
        topics = deployed.topic_arn, deployed.stream_arn
        yield Service(emulator, template, deployed.webhook_url, *topics, deliveries, redrive, secret)


@cache
def shared_service():
    """One for all test files of this process, since it takes long to come up. It goes when the process ends."""
    context = service()
    deployed = context.__enter__()
    atexit.register(context.__exit__, None, None, None)
    return deployed
