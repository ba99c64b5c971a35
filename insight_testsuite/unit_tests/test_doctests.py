"""What the documentation says is so: doctests, and the README's examples, snippets and commands."""

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
import unittest

from support import BATCH, FLAGGED, ROOT, STREAM, FolderTest, friendship
import anomaly_detection
import generate
import plain
import test_command_line
import test_structure


def load_tests(loader, tests, pattern):
    for module in anomaly_detection, generate, plain, test_command_line, test_structure:
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
        self.assertTrue({"amount_in_cents", "normalized_timestamp", "dollars", "baseline", "SocialNetwork", "PurchaseHistory",
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
                     "--notify", "--report", "--snapshot", "--strict", "--jobs", "--shard", "--quiet", "--version",
                     "--help"):
            self.assertIn("`" + name, readme)

    def test_picture(self):
        """It is there, and small enough to be loaded with the page."""
        self.assertIn("](.github/report.png)", text_of("README.md"))
        self.assertLess(os.path.getsize(os.path.join(ROOT, ".github", "report.png")), 150000)


@unittest.skipUnless(shutil.which("sh"), "no sh here")
class ReadmeCommands(FolderTest):
    """Commands of the README, in a folder with the program and the logs that they name."""

    def setUp(self):
        super().setUp()
        shutil.copytree(os.path.join(ROOT, "src"), self.path("src"))
        self.write("python3", b'#!/bin/sh\nexec %s "$@"\n' % shlex.quote(sys.executable).encode())
        os.chmod(self.path("python3"), 0o755)
        self.write("batch_log.json", BATCH)
        self.write("stream_log.json", STREAM)

    def sh(self, command):
        """Run a command in the folder; return what it printed."""
        return subprocess.run(["sh", "-c", command], cwd=self.folder, check=True, stdout=subprocess.PIPE, env={
            **os.environ, "PATH": self.folder + os.pathsep + os.environ["PATH"]}).stdout.decode()

    def shown(self, pattern):
        """What the README shows, indented, that matches a pattern."""
        found = re.search(r"^    (%s)$" % pattern, text_of("README.md"), re.MULTILINE | re.DOTALL)
        self.assertTrue(found, pattern)
        return found.group(1)

    def test_how_many_degrees_and_purchases(self):
        """The loop counts the flags for every D and T."""
        printed = self.sh(self.shown(r"for D in [^\n]*\n[^\n]*\n    done; done"))
        wanted = ["D=%d T=%d: 1 flagged" % (degree, tracked) for degree in (1, 2, 3) for tracked in (20, 50, 100)]
        self.assertEqual([line.replace(":       ", ": ") for line in printed.splitlines()], wanted)

    def test_daily_run(self):
        """From yesterday's snapshot, today's log: the flags, and a snapshot for tomorrow."""
        self.sh("python3 src/anomaly_detection.py --quiet --snapshot after-14.json batch_log.json /dev/null /dev/null")
        self.write("log-15.json", STREAM)
        self.sh(self.shown(r"python3 [^\n]* after-14.json [^\n]*") + " --quiet")
        self.assertEqual(self.read("flagged-15.json"), FLAGGED)
        self.assertIn(b'"1601.83"', self.read("after-15.json"))

    def test_who_is_to_be_told(self):
        self.write("batch_log.json", BATCH + friendship("3", "1"))
        self.sh("python3 src/anomaly_detection.py --quiet -D 3 --notify told batch_log.json stream_log.json flagged")
        self.assertEqual(self.read("told").decode(), self.shown(r'[^\n]*"feed": [^\n]*') + "\n")

    def test_page(self):
        """The picture's commands, as they stand."""
        shutil.copytree(os.path.join(ROOT, "insight_testsuite"), self.path("insight_testsuite"),
                        ignore=shutil.ignore_patterns("temp", "tests", "__pycache__"))
        self.sh(self.shown(r"python3 [^\n]*generate.py medium logs"))
        self.sh(self.shown(r"python3 [^\n]* --report report.html logs/[^\n]*") + " --quiet")
        self.assertIn(b"</html>", self.read("report.html"))


if __name__ == "__main__":
    unittest.main()
