"""What the documentation says is so: doctests, and the README's examples, snippets and commands."""

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import unittest

from support import DEADLINE, ROOT, FolderTest
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
        self.assertTrue({"amount_in_cents", "normalized_timestamp", "dollars", "flag_of", "SocialNetwork",
                         "PurchaseHistory", "Detector"} <= names, names)

    def test_everything_public_exists_and_is_documented(self):
        for name in anomaly_detection.__all__:
            self.assertTrue(getattr(anomaly_detection, name).__doc__, name)


# A block of code: fenced, with its language, or indented.
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n|((?:^    [^\n]*\n)+)", re.MULTILINE | re.DOTALL)


def blocks(readme):
    """Return [language, text, expected] of the README's blocks of code, in order.

    Indented blocks are shell commands, language "sh".  A block of JSON or text directly below
    another one is what that prints: it is the other's `expected`, which is else None.
    """
    found, end = [], None
    for match in BLOCK.finditer(readme):
        language, text = match[1] or "sh", match[2] or textwrap.dedent(match[3] or "")
        if language in ("json", "text") and match.start() == end:
            found[-1][2] = text
        else:
            found.append([language, text, None])
        end = match.end()
    return found


class Readme(unittest.TestCase):

    def test_example(self):
        """The logs and the answer that it shows are the ones of the project."""
        shown = [line.strip() for line in text_of("README.md").splitlines()]
        for path in [("log_input", "batch_log.json"), ("log_output", "flagged_purchases.json")]:
            lines = text_of(*path).splitlines()
            self.assertTrue(any(shown[k:k + len(lines)] == lines for k in range(len(shown))), path)

    def test_every_option_is_explained(self):
        readme, usage = text_of("README.md"), anomaly_detection.make_parser().format_help()
        options = re.findall(r"(?m)^  (-\w)?(?:, | \w, )?(--[a-z-]+)?", usage)
        options = [name for names in options for name in names if name]
        self.assertGreater(len(options), 20)
        for name in options:
            self.assertRegex(readme, "(?m)^[|].*`%s[` ]" % name)

    def test_picture(self):
        """It is there, and small enough to be loaded with the page."""
        self.assertIn("](.github/report.png)", text_of("README.md"))
        self.assertLess(os.path.getsize(os.path.join(ROOT, ".github", "report.png")), 150000)


@unittest.skipUnless(shutil.which("bash"), "no bash here")
class ReadmeCommands(FolderTest):
    """Every command of the README, in order, in a copy of the project."""

    # Lines that are not run, and why.
    EXCEPTIONS = {"run_tests.sh": "runs these tests", "/unit_tests": "runs these tests"}
    # Commands that never end, and what is run in their place.
    BOUNDED = {"tail -n +1 -F": "cat"}
    # Files that hold the flags of the same purchases, found in different ways.
    SAME_FLAGS = "all-flags.json", "joined.json", "daily/flagged-2017-06-13.json"

    def setUp(self):
        super().setUp()
        self.project, self.logs, self.said = self.path("project"), self.path("logs"), ""
        shutil.copytree(ROOT, self.project, ignore=shutil.ignore_patterns(
            ".git", "temp", "__pycache__", "results.txt"))
        self.write("python3", b'#!/bin/sh\nexec %s "$@"\n' % shlex.quote(sys.executable).encode())
        os.chmod(self.path("python3"), 0o755)

    def run_block(self, language, text):
        """Run a block from the project's folder; return what it printed, and keep what it said."""
        if language == "ini":
            text = re.search("(?m)^ExecStart=(.*)", text)[1]
        for command, bounded in {**self.BOUNDED, "/tmp/market-ter": self.logs}.items():
            text = text.replace(command, bounded)
        text = "".join(line for line in text.splitlines(keepends=True)
                       if not any(part in line for part in self.EXCEPTIONS))
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1",
                       "PATH": self.folder + os.pathsep + os.environ["PATH"]}
        done = subprocess.run(["python3" if language == "python" else "sh", "-c", text],
                              cwd=self.project, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE)
        self.assertEqual((done.returncode, b"Traceback" in done.stderr), (0, False), done.stderr)
        self.said += done.stderr.decode()
        return done.stdout.decode()

    def assert_said(self, shown):
        """A shown summary was said, but for the seconds.  Its last word is "...", for other files."""
        seconds = re.compile("[0-9.]+ s ")
        shown = " ".join(shown.replace("/tmp/market-ter", self.logs).split()[:-1])
        self.assertIn(seconds.sub("", shown), seconds.sub("", self.said))

    def project_files(self):
        return sorted(os.path.join(folder, name)
                      for folder, _, names in os.walk(self.project) for name in names)

    def test_all(self):
        """They succeed, print what is shown below them, and leave nothing in the project."""
        before = self.project_files()
        found, everything = blocks(text_of("README.md")), ""
        self.assertGreater(sum(language == "sh" for language, _, _ in found), 10)
        for language, text, expected in found:
            self.assertIn(language, ("sh", "python", "ini", "json", "text"), text)
            if text.startswith("anomaly_detection: "):
                self.assert_said(text)
            if language in ("json", "text"):
                continue
            printed = self.run_block(language, text)
            everything += printed
            if language == "python":
                expected = "".join(line + "\n" for line in re.findall("        # (.*)", text))
            if expected is not None:
                self.assertEqual(printed, expected, text)
        self.assertEqual(self.project_files(), before)
        flags = self.read("logs/flagged.json")
        self.assertEqual(flags.count(b"\n"), 32)
        self.assertIn("D=2 T=50 N=3: 32 flagged\n", everything)
        self.assertEqual((everything.count("right "), everything.count("wrong ")), (32, 0))     # the evidence
        for name in self.SAME_FLAGS:
            self.assertEqual(self.read(os.path.join("logs", name)), flags, name)


if __name__ == "__main__":
    unittest.main()
