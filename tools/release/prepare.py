"""Makes the edits that a release of a version needs, and checks that they agree.

The program does not commit, tag or push. It refuses a malformed or older version, an "Unreleased"
section without entries, and a working tree with changes.
"""

import datetime
import re
import subprocess
import sys
from pathlib import Path

import source
from notes import notes

CONTRACTS = Path("docs/contracts")
# Each place with this project's version: a file, and a pattern whose group `version` matches the
# version. In Cargo.lock, only the versions of our own packages may change.
STATED = (
    ("Cargo.toml", r'^\[package\]\nname = "[\w-]+"\nversion = "(?P<version>[^"]+)"'),
    ("Cargo.toml", r'^sendpilot-events = \{ version = "(?P<version>[^"]+)"'),
    ("crates/events/Cargo.toml", r'^\[package\]\nname = "[\w-]+"\nversion = "(?P<version>[^"]+)"'),
    ("Cargo.lock", r'^name = "sendpilot-opportunity-alerts"\nversion = "(?P<version>[^"]+)"'),
    ("Cargo.lock", r'^name = "sendpilot-events"\nversion = "(?P<version>[^"]+)"'),
    ("docs/contracts/asyncapi.yaml", r"^info:\n(?:  .*\n)*?  version: (?P<version>\S+)"),
    ("docs/contracts/openapi.yaml", r"^info:\n(?:  .*\n)*?  version: (?P<version>\S+)"),
    ("examples/README.md", r'^sendpilot-events = \{.* tag = "v(?P<version>[^"]+)"'),
)
UNRELEASED = re.compile(r"^## \[Unreleased\]\n(?s:(.*?))(?=^## |\Z)", re.MULTILINE)


def parsed(version: str) -> tuple[int, ...]:
    """Returns the three numbers of a version, which compare like versions."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise SystemExit(f"VERSION={version} is not of the form MAJOR.MINOR.PATCH, as in 1.4.0")
    return tuple(int(number) for number in version.split("."))


def stated(root: Path) -> list[tuple[str, str]]:
    """Returns each file that states the version, with that version."""
    return [(path, _place(root, path, pattern)["version"]) for path, pattern in STATED]


def released(changelog: str) -> list[str]:
    """Returns the versions that the changelog has a section for."""
    return re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)


def refuse(version: str, current: str, changelog: str) -> None:
    """Exits if a version cannot follow the released ones, or if there is nothing to release."""
    wanted = parsed(version)
    newest = max(map(parsed, released(changelog)), default=None)
    # The version in Cargo.toml may be unreleased. A release may then have the same version.
    if wanted < parsed(current) or (newest and wanted <= newest):
        before = ".".join(map(str, max(parsed(current), newest or (0,))))
        raise SystemExit(f"{version} is not newer than {before}")
    if (source.ROOT / CONTRACTS / "released" / version).exists():
        raise SystemExit(f"{CONTRACTS}/released/{version} already exists")
    section = UNRELEASED.search(changelog)
    if not section or not re.search(r"^- ", section[1], re.MULTILINE):
        raise SystemExit('CHANGELOG.md has no entry in its section "Unreleased"')


def prepare(root: Path, version: str, today: datetime.date) -> None:
    """Writes the version everywhere, dates the changelog, and copies the schemas of the release."""
    for path, pattern in STATED:
        found = _place(root, path, pattern)
        text = found.string
        _write(root / path, text[: found.start("version")] + version + text[found.end("version") :])
    changelog = root / "CHANGELOG.md"
    heading = f"## [Unreleased]\n\n## [{version}] - {today.isoformat()}\n"
    _write(changelog, changelog.read_text("utf-8").replace("## [Unreleased]\n", heading, 1))
    copies = root / CONTRACTS / "released" / version
    copies.mkdir(parents=True)
    for schema in sorted((root / CONTRACTS).glob("*.schema.json")):
        (copies / schema.name).write_bytes(schema.read_bytes())


def _place(root, path, pattern):
    found = list(re.finditer(pattern, (root / path).read_text("utf-8"), re.MULTILINE))
    if len(found) != 1:
        raise SystemExit(f"{path} must match {pattern} once, but matches {len(found)} times")
    return found[0]


def _write(path, text):
    path.write_text(text, "utf-8", newline="\n")


def main(version: str) -> None:
    """Prepares the release of a version in this repository."""
    parsed(version)
    if changes := source.changes():
        raise SystemExit(f"Commit these changes first. The release must be a separate commit.\n{changes}")
    changelog = source.ROOT / "CHANGELOG.md"
    current = sorted({stated_version for _, stated_version in stated(source.ROOT)}, key=parsed)
    if len(current) != 1:
        raise SystemExit(
            f"The versions disagree: {', '.join(current)}. First set all of them to the version in Cargo.toml."
        )
    refuse(version, current[0], changelog.read_text("utf-8"))
    prepare(source.ROOT, version, datetime.datetime.now(datetime.timezone.utc).date())
    # Cargo fails if the manifests and the lock do not agree.
    subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1"],
        cwd=source.ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    notes(f"v{version}", source.package()["version"], changelog.read_text("utf-8"))
    print(f"""\
The version is {version} everywhere now. Next:

  git diff                                      # read it
  .ci/run
  git add --all && git commit --message "release: {version}"
  git push                                      # then wait until CI has passed on the main branch
  git tag v{version} && git push origin v{version}   # the release workflow publishes it""")


if __name__ == "__main__":
    main(sys.argv[1])
