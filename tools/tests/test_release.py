"""The zip of a release: its bytes, its template, its licences and its notes."""

import hashlib
import os
import re
import zipfile

import pytest
from samcli.yamlhelper import yaml_parse

import source
from conftest import FUNCTIONS
from notes import notes

CHANGELOG = """\
# Changelog

## [Unreleased]

## [1.2.3] - 2024-02-24

### Added

- This.

## [1.2.2] - 2024-02-23

- That.
"""


def test_the_same_build_gives_the_same_bytes(build, release):
    first, second = build("first"), build("second")
    for program in second.glob("*/bootstrap"):
        program.chmod(0o600)
        os.utime(program, (0, 0))
    assert release(first).read_bytes() == release(second, into="elsewhere").read_bytes()


def test_it_unpacks_into_one_folder_with_executable_programs(build, release):
    with zipfile.ZipFile(release(build())) as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
        dates = {entry.date_time for entry in archive.infolist()}
    programs = {f"alerts-1.2.3-x86_64/{function}/bootstrap": 0o100755 for function in FUNCTIONS}
    programs["alerts-1.2.3-x86_64/ops.pyz"] = 0o100755
    texts = {f"alerts-1.2.3-x86_64/{name}": 0o100644 for name in ("LICENSE-MIT", "template.yaml")}
    assert modes == programs | texts
    assert dates == {(2024, 2, 24, 10, 30, 0)}


@pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
def test_its_template_differs_only_in_the_allowed_architecture(architecture, build, release):
    built = build()
    with zipfile.ZipFile(release(built, architecture)) as archive:
        template = yaml_parse(archive.read(f"alerts-1.2.3-{architecture}/template.yaml").decode())
    parameter = template["Parameters"]["Architecture"]
    assert (parameter["Default"], parameter["AllowedValues"]) == (architecture, [architecture])
    original = yaml_parse((built / "template.yaml").read_text("utf-8"))
    del template["Parameters"]["Architecture"], original["Parameters"]["Architecture"]
    assert template == original


def test_sha256sum_reads_its_digest(build, release):
    packed = release(build())
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    assert (packed.parent / f"{packed.name}.sha256").read_text() == f"{digest}  {packed.name}\n"


def test_a_build_without_functions_is_not_packed(build, release, tmp_path):
    built = build()
    for program in built.glob("*/bootstrap"):
        program.unlink()
    with pytest.raises(SystemExit, match="no function"):
        release(built)
    assert not (tmp_path / "dist").exists()


def test_has_the_guide_and_the_files_that_the_guide_refers_to():
    documents = source.documents()
    for path in ("README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE-MIT", "docs/contracts/alert.schema.json"):
        assert documents[path] == (source.ROOT / path).read_bytes()
    assert {"events/test-event.json", "samconfig.toml"} <= documents.keys()
    assert not [path for path in documents if path.startswith(("events/alerts/", "events/statuses/"))]


def test_its_notices_name_the_crates_of_the_functions_only():
    notices = source.notices("arm64")
    credits = re.findall(r"^(\S+) \d+\.\d+\.\d+, ", notices, re.MULTILINE)
    for crate in ("aws-sdk-sns", "ring", "serde_json", "tokio"):
        assert crate in credits
    for crate in ("proptest", "aws-lc-rs", "serde_derive", source.package()["name"]):
        assert crate not in credits
    assert re.search(r"Of [^:]*\btokio 1\.[^:]*:\n\nMIT License\n", notices)


def test_its_notes_are_the_section_of_its_version():
    assert notes("v1.2.3", "1.2.3", CHANGELOG) == "### Added\n\n- This."
    assert notes("v1.2.2", "1.2.2", CHANGELOG) == "- That."


def test_a_tag_of_another_version_has_no_notes():
    with pytest.raises(SystemExit, match=r"The tag is v1\.2\.2, but Cargo\.toml says 1\.2\.3"):
        notes("v1.2.2", "1.2.3", CHANGELOG)


def test_a_version_without_a_section_has_no_notes():
    with pytest.raises(SystemExit, match=r"no section with entries for 1\.2\.4"):
        notes("v1.2.4", "1.2.4", CHANGELOG)
