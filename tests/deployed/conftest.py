"""Fixtures of the deployed tests: a local AWS, the deployed template, subscribers, and cleanup.

Each process of the tests has its own local AWS. The local AWS starts with the first test that needs
it. It ends with the process, even if the process is killed.
"""

import os
import signal
from contextlib import ExitStack, closing

import pytest

from local_aws.emulator import Emulator
from local_aws.function import build
from local_aws.inbox import Inbox
from local_aws.lifeline import end_with_parent
from local_aws.service import deploy
from ops.running import RUNS
from ops.signature import SAMPLE_SECRET
from ops.stack import NAME, outputs


def pytest_sessionstart():
    """Ends the tests with the `make` that started them, and each worker with the process that started it."""
    end_with_parent(os.getppid())
    # A shell without job control ignores the first two for a job in the background, and nohup the
    # third. So would every program that a test starts and interrupts.
    handlers = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGQUIT: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    for number, handler in handlers.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def local_aws():
    logs = RUNS / f"tests-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
    logs.mkdir(parents=True, exist_ok=True)
    with Emulator(logs) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def service(local_aws):
    """The template, deployed once. `redeploy` changes its options."""
    return deploy(local_aws, build(local_aws.scratch / "build", local_aws.logs))


@pytest.fixture(scope="module")
def deployed(service):
    """The template with its default options. Its redrive runs only if a test invokes it."""
    service.redeploy()
    service.redrive.pause()
    return service


@pytest.fixture
def cleanup():
    """Callbacks that undo the changes of a test, the last change first, even if the test fails."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def open_inbox(cleanup):
    """Subscribes an inbox to a topic, until the test is over."""
    return lambda topic_arn: cleanup.enter_context(closing(Inbox(topic_arn)))


@pytest.fixture
def table_name(deployed):
    return outputs(NAME)["DeliveriesTableName"]


@pytest.fixture
def post(deployed):
    """Sends an event to the webhook, signed with the stack's secret."""

    def post(event, secret=SAMPLE_SECRET):
        return event.post(deployed.webhook_url, secret)

    return post
