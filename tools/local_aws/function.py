"""Builds the functions by `sam build`, like a real deployment, for this machine and faster.

`make deployed-build` runs this module as a program. It compiles the functions and the consumers in
`examples/` before the tests need them.
"""

import os
import platform
import sys
import tempfile
from pathlib import Path

from local_aws.lifeline import Lifeline
from local_aws.progress import Failed
from ops.running import ROOT, RUNS

LOCK = RUNS / "build.lock"

# A local run does not need small binaries. A release build spends half of its time on their size.
FASTER = {
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0",
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "256",
    # A separate folder, because builds with other settings would replace these builds.
    "CARGO_TARGET_DIR": str(ROOT / "target" / "local-aws"),
}


def architecture() -> str:
    """Returns Lambda's name for this machine's architecture."""
    if sys.platform != "linux":
        raise Failed("The local AWS runs the functions as Linux programs. Use WSL, a container or a virtual machine.")
    return "arm64" if platform.machine() == "aarch64" else "x86_64"


def build(directory: Path, logs: Path, template: Path = ROOT / "template.yaml") -> Path:
    """Builds into `directory`, and returns the built template."""
    overrides = ["--parameter-overrides", f"Architecture={architecture()}"]
    import fcntl  # Windows has no fcntl, and `architecture` has just refused Windows

    with LOCK.open("w") as lock:
        # One build at a time, because all builds write the programs to the same place, from which
        # sam copies them.
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_sam("build", ["--template-file", str(template), "--build-dir", str(directory), *overrides], logs, FASTER)
    return directory / "template.yaml"


def run_sam(subcommand: str, arguments: list[str], logs: Path, environment: dict[str, str] | None = None) -> None:
    """Runs one sam command of the project."""
    log = logs / f"{subcommand}.log"
    tools = Path(sys.executable).parent
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    command = [str(tools / "sam"), subcommand, "--config-file", str(ROOT / "samconfig.toml"), *arguments]
    with Lifeline(command, {**os.environ, **(environment or {}), "PATH": path}, log, ROOT) as sam:
        if sam.wait() != 0:
            raise Failed(f"sam {subcommand} failed", log)


if __name__ == "__main__":
    RUNS.mkdir(exist_ok=True)
    for source in (ROOT / "template.yaml", *sorted(ROOT.glob("examples/*/template.yaml"))):
        with tempfile.TemporaryDirectory() as scratch:
            build(Path(scratch), RUNS, source)
