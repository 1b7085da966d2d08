"""The local AWS that `make run` keeps up."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]  # the top of the clone, where `make ops.pyz` puts ops.pyz too
RUNNING = ROOT / ".local-aws" / "webhook-url"  # has the URL of the webhook while `make run` is up
REGION = "us-east-1"  # of every local AWS


def use_what_runs() -> str:
    """Makes the local AWS of `make run` the only AWS that this process knows. Returns the URL of its webhook.

    Ends the program if `make run` is not up.
    """
    if not RUNNING.exists():
        print(
            "`make run` is not up here. Start it in another terminal, or name a deployed stack: STACK, or for send, "
            "--url URL.",
            file=sys.stderr,
        )
        sys.exit(2)
    webhook = RUNNING.read_text()
    url = urlsplit(webhook)
    know_only(f"{url.scheme}://{url.netloc}")
    return webhook


def know_only(endpoint: str) -> None:
    """Makes a local AWS the only one that this process and its children know, whatever account the user uses."""
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
