"""`make release`: makes the edits of a release, and refuses wrong versions."""

import datetime
import re
import shutil
import subprocess
import sys

import pytest

from notes import notes
from prepare import STATED, refuse, released, stated
from source import ROOT

NEXT = "97.98.99"
CHANGELOG = """\
# Changelog

## [Unreleased]

### Fixed

- This.

## [1.2.3] - 2024-02-24

- That.
"""


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A new repository with the project's files, all of them committed."""
    copy = tmp_path_factory.mktemp("committed") / "project"
    for name in _said_by(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    _said_by(copy, "git", "init", "--quiet")
    changelog = (copy / "CHANGELOG.md").read_text("utf-8")
    (copy / "CHANGELOG.md").write_text(changelog.replace("## [Unreleased]\n", "## [Unreleased]\n\n- An entry.\n"))
    _commit(copy)
    return copy


@pytest.fixture
def project(committed, tmp_path):
    return shutil.copytree(committed, tmp_path / "project")


def _said_by(folder, *command):
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def _commit(folder):
    _said_by(folder, "git", "add", "--all")
    _said_by(
        folder,
        *("git", "-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"),
        *("commit", "--quiet", "--message", "test: commit everything"),
    )


def _make(project, version):
    """Runs `make release`'s program, and returns its exit status and everything that it printed."""
    command = [sys.executable, "-B", "tools/release/prepare.py", version]
    done = subprocess.run(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def test_every_place_states_the_same_version():
    assert len({version for _, version in stated(ROOT)}) == 1, stated(ROOT)


def test_writes_the_version_everywhere_and_dates_the_changelog(project):
    before = datetime.datetime.now(datetime.timezone.utc).date()
    status, said = _make(project, NEXT)
    after = datetime.datetime.now(datetime.timezone.utc).date()
    assert status == 0, said
    assert f"git tag v{NEXT}" in said
    assert [version for _, version in stated(project)] == [NEXT] * len(STATED)
    changelog = (project / "CHANGELOG.md").read_text("utf-8")
    dated = re.search(
        rf"^## \[Unreleased\]\n\n## \[{re.escape(NEXT)}\] - (\S+)\n\n- An entry\.\n", changelog, re.MULTILINE
    )
    assert dated, changelog[:500]
    assert before <= datetime.date.fromisoformat(dated[1]) <= after
    assert "- An entry." in notes(f"v{NEXT}", NEXT, changelog)
    changed = {line[3:] for line in _said_by(project, "git", "status", "--porcelain").splitlines()}
    assert changed == {path for path, _ in STATED} | {"CHANGELOG.md", f"docs/contracts/released/{NEXT}/"}
    assert not _said_by(project, "git", "tag")


def test_copies_each_schema(project):
    status, said = _make(project, NEXT)
    assert status == 0, said
    schemas = {file.name: file.read_bytes() for file in (project / "docs/contracts").glob("*.schema.json")}
    copies = {file.name: file.read_bytes() for file in (project / f"docs/contracts/released/{NEXT}").iterdir()}
    assert copies == schemas
    assert schemas


@pytest.mark.parametrize("version", ["", "1", "1.2", "v1.2.3", "1.2.3.4", "1.02.3", "1.2.3-rc.1", "1.2.x", "1.2.3\n"])
def test_refuses_a_malformed_version(version, project):
    status, said = _make(project, version)
    assert status == 1
    assert "MAJOR.MINOR.PATCH" in said
    assert not _said_by(project, "git", "status", "--porcelain")


def test_refuses_an_older_version(project):
    status, said = _make(project, "0.0.1")
    assert status == 1
    assert "0.0.1 is not newer than" in said
    assert not _said_by(project, "git", "status", "--porcelain")


@pytest.mark.parametrize("change", ["README.md", "new file"])
def test_refuses_a_working_tree_with_changes(change, project):
    with (project / change).open("a") as file:
        file.write("A change.\n")
    status, said = _make(project, NEXT)
    assert status == 1
    assert change in said
    assert (project / "Cargo.toml").read_bytes() == (ROOT / "Cargo.toml").read_bytes()


def test_refuses_a_second_release_without_entries(project):
    assert _make(project, NEXT)[0] == 0
    _commit(project)
    status, said = _make(project, "97.98.100")
    assert status == 1
    assert "no entry" in said


@pytest.mark.parametrize("version", ["1.2.3", "1.2.2", "1.1.9", "0.9.9"])
def test_a_version_must_be_newer_than_every_released_one(version):
    with pytest.raises(SystemExit, match=rf"{version} is not newer than 1\.2\.3"):
        refuse(version, "1.2.3", CHANGELOG)


@pytest.mark.parametrize("version", ["1.2.4", "1.10.0", "2.0.0"])
def test_a_newer_version_is_accepted(version):
    refuse(version, "1.2.3", CHANGELOG)


def test_the_version_of_the_manifest_can_be_the_first_release():
    unreleased = CHANGELOG.partition("## [1.2.3]")[0]
    assert released(unreleased) == []
    refuse(NEXT, NEXT, unreleased)


@pytest.mark.parametrize("entries", ["", "### Fixed\n\n"])
def test_refuses_a_section_without_entries(entries):
    with pytest.raises(SystemExit, match="no entry"):
        refuse("1.2.4", "1.2.3", CHANGELOG.replace("### Fixed\n\n- This.\n\n", entries))
