"""Deploys the whole service to a local AWS."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_aws import function, stack
from local_aws.emulator import Emulator
from local_aws.progress import step
from local_aws.run import Run
from local_aws.scheduled import ScheduledFunction
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
    redrive: ScheduledFunction
    reconciliation: ScheduledFunction | None  # None if the reconciliation is off
    secret: Secret
    api_key: Secret | None  # None if the stack does not use SendPilot's API

    def redeploy(self, **parameters) -> None:
        """Deploys the service again, unless it already has these parameters."""
        if parameters == self.parameters:
            return
        with step(f"Deploying again, with {parameters or 'the defaults'}"):
            deployed = stack.redeploy(self.emulator, **parameters)
        self.stream_arn = deployed.stream_arn
        self.reconciliation = _if_deployed(ScheduledFunction, deployed.reconcile_name)
        self.api_key = _if_deployed(Secret, deployed.api_key_arn)
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
    secret = Secret(deployed.secret_arn)
    secret.put(secret_value)
    return Service(
        emulator,
        parameters,
        deployed.webhook_url,
        deployed.topic_arn,
        deployed.stream_arn,
        Deliveries(deployed.table_name),
        ScheduledFunction(deployed.redrive_name),
        _if_deployed(ScheduledFunction, deployed.reconcile_name),
        secret,
        _if_deployed(Secret, deployed.api_key_arn),
    )


def _if_deployed(kind, name):
    """Returns an object for a part of the stack, or None if the stack does not have the part."""
    return kind(name) if name else None
