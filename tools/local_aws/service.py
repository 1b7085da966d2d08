"""Deploys the whole service to a local AWS."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_aws import function, stack
from local_aws.emulator import Emulator
from local_aws.progress import step
from local_aws.redrive import Redrive
from local_aws.run import Run
from local_aws.secret import Secret
from ops.deliveries import Deliveries
from ops.signature import SAMPLE_SECRET


@dataclass
class Service:
    """A deployed service."""

    emulator: Emulator
    parameters: dict  # of the last deployment
    webhook_url: str
    topic_arn: str
    stream_arn: str | None  # None if the lead status stream is off
    deliveries: Deliveries
    redrive: Redrive
    secret: Secret
    api_key: Secret | None  # None if alerts have no details from SendPilot's API

    def redeploy(self, **parameters) -> None:
        """Deploys the service again, unless it already has these parameters."""
        if parameters == self.parameters:
            return
        with step(f"Deploying again, with {parameters or 'the defaults'}"):
            deployed = stack.redeploy(self.emulator, **parameters)
        self.stream_arn, self.api_key = deployed.stream_arn, _api_key(deployed)
        self.parameters = parameters


@contextmanager
def service(run: Run, template: Path | None = None, secret: str = SAMPLE_SECRET, **parameters) -> Iterator[Service]:
    """Builds the service, and deploys it at the run's address. The local AWS ends with the context.

    If `template` is given, it is a built template, and nothing is built.
    """
    with Emulator(run.logs) as emulator:
        if template is None:
            with step("Building the functions (the first time, this takes some minutes)"):
                template = function.build(emulator.scratch / "build", run.logs)
        deployed = deploy(emulator, template, secret, **parameters)
        run.front.target, deployed.webhook_url = deployed.webhook_url, run.front.url
        yield deployed


def deploy(emulator: Emulator, template: Path, secret_value: str = SAMPLE_SECRET, **parameters) -> Service:
    """Deploys a built template, stores the signing secret, and returns the service."""
    with step("Deploying template.yaml to the local AWS"):
        deployed = stack.deploy(template, emulator, **parameters)
    deliveries, redrive = Deliveries(deployed.table_name), Redrive(deployed.redrive_name)
    secret = Secret(deployed.secret_arn)
    secret.put(secret_value)
    topics = deployed.topic_arn, deployed.stream_arn
    api_key = _api_key(deployed)
    return Service(emulator, parameters, deployed.webhook_url, *topics, deliveries, redrive, secret, api_key)


def _api_key(deployed):
    return Secret(deployed.api_key_arn) if deployed.api_key_arn else None
