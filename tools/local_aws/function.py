"""Builds the functions by `sam build`, as for a real deployment, but for this machine and faster.

`make deployed-build` compiles them and the consumers in `examples/`, so that the tests find them compiled.
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

# A local run does not need small binaries, and a release build spends half of its time on their size.
FASTER = {
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0",
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "256",
    # In a folder of its own, because these builds and those of other profiles would replace each other.
    "CARGO_TARGET_DIR": str(ROOT / "target" / "local-aws"),
}


def architecture() -> str:
    """Returns Lambda's name of this machine's architecture."""
    if sys.platform != "linux":
        raise Failed("The local AWS runs the function as a Linux program: use WSL, a container or a virtual machine")
    return "arm64" if platform.machine() == "aarch64" else "x86_64"


def build(directory: Path, logs: Path, template: Path = ROOT / "template.yaml") -> Path:
    """Builds into `directory`, and returns the built template."""
    overrides = ["--parameter-overrides", f"Architecture={architecture()}"]
    import fcntl  # Windows has none, and `architecture` has just refused it

    with LOCK.open("w") as lock:
        # One build at a time, because sam copies the programs from the one place where all builds put them.
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
