"""What the documentation says is so: doctests, and the README's example and snippet."""

import doctest
import os
import re
import subprocess
import sys
import unittest

from support import ROOT
import anomaly_detection
import generate
import plain
import test_command_line


def load_tests(loader, tests, pattern):
    for module in anomaly_detection, generate, plain, test_command_line:
        tests.addTests(doctest.DocTestSuite(module))
    return tests


def text_of(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


class Doctests(unittest.TestCase):

    def test_there_are_some(self):
        """A module whose doctests are lost would pass."""
        names = {test.name.split(".", 1)[1] for test in doctest.DocTestFinder().find(anomaly_detection)
                 if test.examples}
        self.assertTrue({"amount_in_cents", "moment", "dollars", "baseline", "SocialNetwork", "PurchaseHistory",
                         "Detector"} <= names, names)

    def test_everything_public_exists_and_is_documented(self):
        for name in anomaly_detection.__all__:
            self.assertTrue(getattr(anomaly_detection, name).__doc__, name)


class Readme(unittest.TestCase):

    def test_library_snippet(self):
        """It runs from the project's folder, and what it prints is what the README says."""
        readme = text_of("README.md")
        snippets = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
        self.assertTrue(snippets, "the README has no ```python block")
        for snippet in snippets:
            self.assertIn("anomaly_detection", snippet)
            printed = subprocess.run([sys.executable, "-c", snippet], cwd=ROOT, check=True, stdout=subprocess.PIPE)
            self.assertTrue(printed.stdout)
            for line in printed.stdout.decode().splitlines():
                self.assertIn("# " + line, snippet)

    def test_example(self):
        """The logs and the answer that it shows are the ones of the project."""
        shown = [line.strip() for line in text_of("README.md").splitlines()]
        for path in [("log_input", "batch_log.json"), ("log_input", "stream_log.json"),
                     ("log_output", "flagged_purchases.json")]:
            lines = text_of(*path).splitlines()
            self.assertTrue(any(shown[k:k + len(lines)] == lines for k in range(len(shown))), path)

    def test_every_option_is_explained(self):
        readme = text_of("README.md")
        for name in ("--batch-log", "--stream-log", "--output", "-D", "--degree", "-T", "--tracked", "--rejects",
                     "--strict", "--jobs", "--shard", "--quiet", "--version", "--help"):
            self.assertIn("`" + name, readme)


if __name__ == "__main__":
    unittest.main()
