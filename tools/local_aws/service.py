"""The whole service, from the source on, deployed to a local AWS for as long as a context lasts."""

from contextlib import contextmanager
from dataclasses import dataclass
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
    parameters: dict  # of the last deployment
    webhook_url: str
    topic_arn: str
    stream_arn: str  # None where every change of status is not streamed
    deliveries: Deliveries
    redrive: Redrive
    secret: Secret

    def redeploy(self, **parameters):
        """Deploys it once more, with these parameters. Does nothing if they are those of the last deployment."""
        if parameters == self.parameters:
            return
        with step(f"Deploying once more, with {parameters or 'the defaults'}"):
            self.stream_arn = stack.deploy(self.template, self.emulator, **parameters).stream_arn
        self.parameters = parameters


@contextmanager
def service(template=None, **parameters):
    """Builds, unless `template` is a built one, and deploys. In the end, nothing of it is left."""
    function.LOGS.mkdir(exist_ok=True)
    with Emulator(function.LOGS / "ministack.log") as emulator:
        if template is None:
            with step("Building the functions (the first time, this takes some minutes)"):
                template = function.build(emulator.scratch / "build")
        yield deploy(emulator, template, **parameters)


def deploy(emulator, template, **parameters):
    """Deploys a built template. Returns the service, which has the sample secret."""
    with step("Deploying template.yaml to the local AWS"):
        deployed = stack.deploy(template, emulator, **parameters)
    deliveries, redrive = Deliveries(deployed.table_name), Redrive(deployed.redrive_name)
    secret = Secret(deployed.secret_arn)
    secret.put(SAMPLE_SECRET)
    topics = deployed.topic_arn, deployed.stream_arn
    return Service(emulator, template, parameters, deployed.webhook_url, *topics, deliveries, redrive, secret)
