"""What a build or a workflow fetches is named exactly: tools by hash, actions by commit. Cargo.lock is held by `--locked`."""

import re
import unittest
from pathlib import Path

WORKFLOWS = {path: path.read_text("utf-8") for path in Path(".github/workflows").glob("*.yml")}


class Pinned(unittest.TestCase):
    def test_each_lock_has_every_tool_as_it_is_asked_for(self):
        for required in Path("tools").glob("requirements*.txt"):
            asked = re.findall(r"^([\w-]+==\S+)", required.read_text("utf-8"), re.MULTILINE)
            lock = required.with_suffix(".lock").read_text("utf-8")
            locked = re.findall(r"^([\w-]+==\S+).*\\\n +--hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)
            self.assertTrue(asked, required)
            self.assertEqual(set(asked) - set(locked), set(), f"{required} says how its lock is written anew")

    def test_each_action_is_a_commit_with_its_version_beside_it(self):
        for path, workflow in WORKFLOWS.items():
            used = re.findall(r"uses: *(.*)", workflow)
            self.assertTrue(used, path)
            for action in used:
                self.assertRegex(action, r"^[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", path)

    def test_each_make_target_that_a_workflow_calls_is_there(self):
        targets = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text("utf-8"), re.MULTILINE))
        for path, workflow in WORKFLOWS.items():
            called = re.findall(r"\bmake (?:--\w+ )*([a-z-]+)", workflow)
            self.assertTrue(called, path)
            self.assertEqual(set(called) - targets, set(), path)


if __name__ == "__main__":
    unittest.main()
