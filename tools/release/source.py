"""Collects the parts of a release: version, commit, compiler, documents and licences."""

import json
import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {"arm64": "aarch64-unknown-linux-gnu", "x86_64": "x86_64-unknown-linux-gnu"}
# The guide and the files that it refers to: the settings of `sam deploy`, the contracts, the
# pictures, and the sample events of `ops.pyz send`.
DOCUMENTS = (
    "samconfig.toml",
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "docs",
    ":(glob)events/*",
)
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def _said_by(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _packages(*options):
    return json.loads(_said_by("cargo", "metadata", "--locked", "--format-version", "1", *options))["packages"]


@cache
def package() -> dict:
    """Returns Cargo's description of the main package."""
    return next(package for package in _packages("--no-deps") if Path(package["manifest_path"]).parent == ROOT)


def committed_at() -> int:
    """Returns the commit's time in seconds since the Unix epoch, for every file of the release."""
    return int(_said_by("git", "log", "-1", "--format=%ct"))


def documents() -> dict[str, bytes]:
    """Returns the files that a release copies from the repository, by path."""
    return {path: (ROOT / path).read_bytes() for path in _said_by("git", "ls-files", *DOCUMENTS).splitlines()}


def changes() -> str:
    """Returns git's list of the files with uncommitted changes, one per line."""
    return _said_by("git", "status", "--porcelain")


def built_from() -> str:
    """Returns the commit, which pins all tools, and the compiler. Both determine the bytes."""
    changed = ", and uncommitted changes" if changes() else ""
    return f"commit {_said_by('git', 'rev-parse', 'HEAD')}{changed}\n{_said_by('rustc', '--version')}\n"


def notices(architecture: str) -> str:
    """Returns the licences of all crates in the functions' binaries, each text once."""
    target = TARGETS[architecture]
    # `cargo metadata` alone would include crates that only the tests need.
    tree = _said_by(
        *[
            "cargo",
            "tree",
            "--locked",
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--target",
        ],
        target,
    )
    used = {tuple(line.split()[:2]) for line in tree.splitlines()}
    crates = [
        crate
        for crate in sorted(_packages("--filter-platform", target), key=lambda crate: (crate["name"], crate["version"]))
        if crate["source"] and (crate["name"], f"v{crate['version']}") in used
    ]
    texts = {}
    for crate in crates:
        for file in sorted(Path(crate["manifest_path"]).parent.iterdir()):
            if file.is_file() and LICENCE_FILE.match(file.name):
                text = file.read_text("utf-8", "replace").replace("\r\n", "\n").strip()
                texts.setdefault(text, []).append(f"{crate['name']} {crate['version']}")
    return "\n".join(
        [
            "The functions contain the Rust standard library (MIT OR Apache-2.0, https://www.rust-lang.org) and these "
            "crates:",
            "",
            *(_credit(crate) for crate in crates),
            *(f"\n{'=' * 79}\nOf {', '.join(of)}:\n\n{text}" for text, of in texts.items()),
            "",
        ]
    )


def _credit(crate):
    where = crate["repository"] or crate["homepage"] or ""
    return f"{crate['name']} {crate['version']}, {crate['license']}, {where}".rstrip(", ")
