"""The zip of a release: its bytes, its template, its licences, its notes, and its commands for operators."""

import hashlib
import os
import re
import tempfile
import unittest
import zipfile
from pathlib import Path

from samcli.yamlhelper import yaml_parse

import source
from notes import notes
from pack import pack

FUNCTIONS = ("RedriveFunction", "WebhookFunction")
AT = 1_708_770_600  # 24 February 2024, 10:30 UTC


class Packing(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)

    def built(self, name):
        """What `sam build` would make of the project's own template."""
        build = self.scratch / name
        for function in FUNCTIONS:
            (build / function).mkdir(parents=True)
            (build / function / "bootstrap").write_bytes(f"the program of {function}".encode())
        template = Path("template.yaml").read_text("utf-8").replace("CodeUri: .", "CodeUri: WebhookFunction")
        (build / "template.yaml").write_text(template, "utf-8")
        return build

    def packed(self, build, architecture="x86_64", into="dist"):
        name = self.scratch / into / f"alerts-1.2.3-{architecture}"
        return pack(build, architecture, {"LICENSE-MIT": b"the licence"}, AT, name)

    def test_the_same_build_gives_the_same_bytes(self):
        first, second = self.built("first"), self.built("second")
        for program in second.glob("*/bootstrap"):
            program.chmod(0o600)
            os.utime(program, (0, 0))
        self.assertEqual(self.packed(first).read_bytes(), self.packed(second, into="elsewhere").read_bytes())

    def test_it_unpacks_into_one_folder_whose_programs_can_be_run(self):
        with zipfile.ZipFile(self.packed(self.built("build"))) as archive:
            modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
            dates = {entry.date_time for entry in archive.infolist()}
        programs = {f"alerts-1.2.3-x86_64/{function}/bootstrap": 0o100755 for function in FUNCTIONS}
        programs["alerts-1.2.3-x86_64/ops.pyz"] = 0o100755
        texts = {f"alerts-1.2.3-x86_64/{name}": 0o100644 for name in ("LICENSE-MIT", "template.yaml")}
        self.assertEqual(modes, programs | texts)
        self.assertEqual(dates, {(2024, 2, 24, 10, 30, 0)})

    def test_its_template_refuses_the_other_architecture_and_is_otherwise_as_it_was(self):
        for architecture in ("arm64", "x86_64"):
            build = self.built(architecture)
            with zipfile.ZipFile(self.packed(build, architecture)) as archive:
                template = yaml_parse(archive.read(f"alerts-1.2.3-{architecture}/template.yaml").decode())
            parameter = template["Parameters"]["Architecture"]
            self.assertEqual((parameter["Default"], parameter["AllowedValues"]), (architecture, [architecture]))
            built = yaml_parse((build / "template.yaml").read_text("utf-8"))
            del template["Parameters"]["Architecture"], built["Parameters"]["Architecture"]
            self.assertEqual(template, built)

    def test_its_digest_is_as_sha256sum_reads_it(self):
        packed = self.packed(self.built("build"))
        digest = hashlib.sha256(packed.read_bytes()).hexdigest()
        self.assertEqual((packed.parent / f"{packed.name}.sha256").read_text(), f"{digest}  {packed.name}\n")

    def test_a_build_without_functions_is_not_packed(self):
        build = self.built("build")
        for program in build.glob("*/bootstrap"):
            program.unlink()
        with self.assertRaisesRegex(SystemExit, "no function"):
            self.packed(build)
        self.assertFalse((self.scratch / "dist").exists())


class Notices(unittest.TestCase):
    def test_they_are_of_the_crates_in_the_functions_and_not_of_those_in_the_tests(self):
        notices = source.notices("arm64")
        credits = re.findall(r"^(\S+) \d+\.\d+\.\d+, ", notices, re.MULTILINE)
        for crate in ("aws-sdk-sns", "ring", "serde_json", "tokio"):
            self.assertIn(crate, credits)
        for crate in ("proptest", "aws-lc-rs", "serde_derive", source.package()["name"]):
            self.assertNotIn(crate, credits)
        self.assertRegex(notices, r"Of [^:]*\btokio 1\.[^:]*:\n\nMIT License\n")


class Notes(unittest.TestCase):
    CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2024-02-24\n\n### Added\n\n- This.\n\n## [1.2.2] - 2024-02-23\n\n- That.\n"

    def test_they_are_the_section_of_the_tagged_version_and_no_other(self):
        self.assertEqual(notes("v1.2.3", "1.2.3", self.CHANGELOG), "### Added\n\n- This.")
        self.assertEqual(notes("v1.2.2", "1.2.2", self.CHANGELOG), "- That.")

    def test_a_tag_of_another_version_gets_none(self):
        with self.assertRaisesRegex(SystemExit, "The tag is v1.2.2, but Cargo.toml says 1.2.3"):
            notes("v1.2.2", "1.2.3", self.CHANGELOG)

    def test_nor_does_a_version_that_the_changelog_does_not_tell_of(self):
        with self.assertRaisesRegex(SystemExit, "says nothing of 1.2.4"):
            notes("v1.2.4", "1.2.4", self.CHANGELOG)


if __name__ == "__main__":
    unittest.main()
