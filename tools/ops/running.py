"""What `make run` has up."""

import sys
from urllib.parse import urlsplit

from local_aws.emulator import know_only
from local_aws.function import RUNNING


def use_what_runs():
    """From here on, its local AWS is the only one that is known. Returns its webhook's URL."""
    if not RUNNING.exists():
        sys.exit("Nothing runs here. Start `make run` in another terminal, or name a deployed stack by STACK=...")
    webhook = RUNNING.read_text()
    url = urlsplit(webhook)
    know_only(f"{url.scheme}://{url.netloc}")
    return webhook
