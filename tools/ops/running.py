"""Finds the local AWS of each `make run` that is running.

A run has the folder `.local-aws/run-PORT`, and holds a lock on a file in that folder. The kernel
releases the lock when the process ends, even if the process is killed.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ops.errors import Refused

ROOT = Path(__file__).resolve().parents[2]  # the top of the clone, which also has ops.pyz
RUNS = ROOT / ".local-aws"
LOCK = "lock"  # the file in a run's folder that the run keeps locked
ADDRESSES = "up.json"  # the file in a run's folder that exists while the run can be used
REGION = "us-east-1"  # of every local AWS
MAY_HAVE_ENDED = "`make run` may have ended. Start it again, or give the name of a deployed stack."


@dataclass
class Running:
    """A run that can be used."""

    port: str  # its name
    webhook_url: str
    endpoint: str  # the URL of its AWS


def running() -> list[Running]:
    """Returns the runs that can be used, and removes the addresses of runs that have ended."""
    found = []
    for addresses in sorted(RUNS.glob(f"run-*/{ADDRESSES}")):
        if is_held(addresses.with_name(LOCK)):
            # The run may end at this moment, and someone may have edited the file.
            with suppress(OSError, ValueError, TypeError):
                known = Running(addresses.parent.name.partition("-")[2], **json.loads(addresses.read_text("utf-8")))
                if isinstance(known.webhook_url, str) and isinstance(known.endpoint, str):
                    found.append(known)
        else:
            with suppress(OSError):
                addresses.unlink()
    return found


def is_held(lock: Path) -> bool:
    """Returns whether a living process holds this lock."""
    import fcntl  # Windows has no fcntl, and no local AWS runs there

    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # not a file of a run
    return False


def use_local_run(port: Optional[str] = None) -> str:
    """Makes a `make run` the only AWS of this process, and returns the run's webhook URL.

    If several runs can be used, `port` selects one. Raises Refused if there is no run, or if
    several match.
    """
    up = running()
    chosen = [one for one in up if port in (None, one.port)]
    if len(chosen) != 1:
        raise Refused(_which(up, port))
    use_only_aws_at(chosen[0].endpoint)
    return chosen[0].webhook_url


def _which(up, port):
    """Returns why no run was chosen, and what to do."""
    if not up:
        what = f"No `make run` is running on port {port} here." if port else "`make run` is not running here."
        named = "by STACK or, for `send`, by --url (make: URL=<WebhookUrl>)"
        return f"{what} Start it in another terminal, or name a deployed stack {named}."
    ports = " and ".join(one.port for one in up)
    if port:
        return f"No `make run` is running on port {port} here. These ports have one: {ports}."
    select = f"RUN={up[0].port} (make) or --run {up[0].port}"
    return f"Several `make run` are running here, on the ports {ports}. Select one, for example by {select}."


def exports() -> str:
    """Returns the shell command that points the AWS CLI to the local AWS of this process."""
    names = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return " ".join(["export", *(f"{name}={os.environ[name]}" for name in names)])


def use_only_aws_at(endpoint: str) -> None:
    """Makes a local AWS the only AWS of this process and its children."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "SAM_")):
            del os.environ[name]
    local = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    os.environ.update(local)
