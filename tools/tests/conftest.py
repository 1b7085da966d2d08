"""A build and the release that is packed from it."""

from pathlib import Path

import pytest

from pack import pack
from source import ROOT

FUNCTIONS = ("RedriveFunction", "WebhookFunction")
AT = 1_708_770_600  # 24 February 2024, 10:30 UTC


@pytest.fixture
def build(tmp_path):
    """Makes what `sam build` would make of the project's own template, with a text in the place of each program."""

    def build(name: str = "build") -> Path:
        built = tmp_path / name
        for function in FUNCTIONS:
            (built / function).mkdir(parents=True)
            (built / function / "bootstrap").write_bytes(f"the program of {function}".encode())
        template = (ROOT / "template.yaml").read_text("utf-8").replace("CodeUri: .", "CodeUri: WebhookFunction")
        (built / "template.yaml").write_text(template, "utf-8")
        return built

    return build


@pytest.fixture
def release(tmp_path):
    """Packs a build into a release, and returns the zip."""

    def release(build: Path, architecture: str = "x86_64", into: str = "dist") -> Path:
        name = tmp_path / into / f"alerts-1.2.3-{architecture}"
        return pack(build, architecture, {"LICENSE-MIT": b"the licence"}, AT, name)

    return release
