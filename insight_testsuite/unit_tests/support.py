"""What the test modules share: places, lines of a log, a folder and the real command line."""

import array
import contextlib
import fcntl
import io
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import termios
import time
import unittest
import warnings
from random import Random
from unittest.mock import patch

HERE = os.path.dirname(os.path.abspath(__file__))
SUITE = os.path.dirname(HERE)
ROOT = os.path.dirname(SUITE)
PROGRAM = os.path.join(ROOT, "src", "anomaly_detection.py")
sys.path[:0] = [SUITE, os.path.join(ROOT, "src")]

import anomaly_detection
import random_logs
from torture.common import start

DEADLINE = 60       # seconds until a child process is taken for hanging: generous


def purchase(user="2", amount="1601.83", when="2017-06-13 11:33:02"):
    return ('{"event_type":"purchase", "timestamp":"%s", "id": "%s", "amount": "%s"}\n'
            % (when, user, amount)).encode()


def friendship(one, other, verb="befriend"):
    return ('{"event_type":"%s", "timestamp":"2017-06-13 11:33:01", "id1": "%s", "id2": "%s"}\n'
            % (verb, one, other)).encode()


def flagged(line, mean, sd):
    """The answer to a line that ends with }\\n."""
    return line[:-2] + b', "mean": "%s", "sd": "%s"}\n' % (mean.encode(), sd.encode())


# The challenge's example, and a stream of which every purchase is flagged.
HEADER = b'{"D":"3", "T":"50"}\n'
EVENTS = b"".join([
    *(purchase("1", amount, "2017-06-13 11:33:01") for amount in ("16.83", "59.28")),
    friendship("1", "2"), friendship("3", "1"),
    purchase("1", "11.20", "2017-06-13 11:33:01"), friendship("1", "3", "unfriend")])
BATCH = HEADER + EVENTS
STREAM = purchase()
FLAGGED = flagged(STREAM, "29.10", "21.46")
OLD = b"what an earlier run wrote\n"


def answered(lines):
    """The flagged lines of a stream of purchases by user 2, whose own ones never count."""
    return b"".join(flagged(line, "29.10", "21.46") for line in lines)


def drawn_log(seed, dirt=0, **chosen):
    """A random batch and stream log, but for what is chosen: degree, shape, clock, amount, churn, users."""
    log = random_logs.Log(Random(seed), dirt)
    for name, value in chosen.items():
        setattr(log.rule if name == "degree" else log, name, value)
    log.ids = list(map(str, log.rng.sample(range(1, 60), log.users)))
    log.header = '{"D":"%d", "T":"%d"}' % (log.rule.degree, log.rule.tracked)
    return log.written()


# What users may be called: all of these are different ones.
ODD_IDS = ["1", "01", "1.0", "10", "9", "-0", "1e5", "12345678901234567890123", "1 ", " 1", " ",
           'a "quoted" one', '"', "back\\slash", "\\", "\\ud800", "\n", "tab\tand \0", "\x1f", "\x7f\x85",
           "Zo\xeb", "Zoe\u0308", "\u65e5\u672c", "\U0001f600", "\u2028", "\ufeff", "\uffff",
           "\ud800", "\udfff", "x\udc80y", "}", '{"id": "1"}', "null", "/", "x" * 100]


def spellings(text):
    """All the ways in which a log may write an id (bytes): as is, escaped here and there, as a number."""
    units = text.encode("utf-16-be", "surrogatepass")
    escaped = "".join("\\u%02X%02x" % pair for pair in zip(units[::2], units[1::2]))
    return [json.dumps(text, ensure_ascii=False).encode(errors="backslashreplace"),
            json.dumps(text).encode(), b'"%s"' % escaped.encode(),
            *([text.encode()] if re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?(e\d+)?", text) else [])]


def with_odd_ids(seed, *logs):
    """The logs with ids from ODD_IDS in place of their own, spelled differently every time."""
    rng = Random(seed)
    called = {}
    free = rng.sample(ODD_IDS, len(ODD_IDS))

    def another(match):
        if match[2] not in called:
            called[match[2]] = spellings(free.pop())
        return match[1] + rng.choice(called[match[2]])
    return [re.sub(rb'("id[12]?": )"(\d+)"', another, log) for log in logs]


def is_full(reader):
    """Does a pipe hold as much as it takes?  Then nothing is added to it for a while."""
    held = []
    for _ in range(2):
        number = array.array("i", [0])
        fcntl.ioctl(reader, termios.FIONREAD, number)
        held.append(number[0])
        time.sleep(0.1)
    return held[0] == held[1] > 60000


class FolderTest(unittest.TestCase):
    """A test with a folder of its own, where BATCH, STREAM and an old output lie."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.realpath(folder.name)
        self.batch, self.stream = self.write("batch", BATCH), self.write("stream", STREAM)
        self.output = self.write("output", OLD)
        self.files = [self.batch, self.stream, self.output]

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        """Write a file of the folder and return its path."""
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def start(self, *arguments, **options):
        """Start the command line as a process, its standard streams pipes; options as for torture.common.start."""
        for stream in "stdin", "stdout", "stderr":
            options.setdefault(stream, subprocess.PIPE)
        process = start(*arguments, **options)

        def end():
            for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
                stream.close()
            process.kill()
            process.wait()
        self.addCleanup(end)
        return process

    def finish(self, process, data=None, status=0):
        """Wait for a process to end with a status, or any if it is None; return what it wrote (stdout, stderr)."""
        out, said = process.communicate(data, timeout=DEADLINE)
        self.assertIn(process.returncode, range(256) if status is None else [status], said)
        return out, (said or b"").decode()

    def do(self, *arguments, data=None, status=0, **options):
        """Run the command line to its end; return what it wrote (stdout, stderr)."""
        return self.finish(self.start(*arguments, **options), data, status)

    def assert_one_line(self, said):
        """An error is exactly one line, and no traceback."""
        self.assertRegex(said, r"\A[^\n]+\n\Z")
        self.assertNotIn("Traceback", said)

    def assert_fails(self, status, *arguments, data=None, **options):
        """The command line fails with one line and leaves all files as they were; return the line."""
        before = self.snapshot()
        out, said = self.do(*arguments, data=data, status=status, **options)
        self.assert_one_line(said)
        self.assertFalse(out)
        self.assertEqual(self.snapshot(), before)
        return said

    def assert_no_other_file(self, option):
        """An output over an input or over the flags is refused, by whatever name."""
        for name in "batch", "stream", "output":
            os.symlink(name, self.path("symlink to " + name))
            os.link(self.path(name), self.path("hard link to " + name))
            for same in name, "symlink to " + name, "hard link to " + name:
                with self.subTest(same=same):
                    self.assert_fails(2, *self.files, option, self.path(same))

    def snapshot(self):
        """Every name in the folder, and what the regular files hold."""
        return {entry.name: self.read(entry.path) if entry.is_file() else None
                for entry in os.scandir(self.folder)}

    def wait_until(self, happened):
        """Wait for happened() to be true; return what it gives."""
        give_up = time.monotonic() + DEADLINE
        while True:
            answer = happened()
            if answer:
                return answer
            self.assertLess(time.monotonic(), give_up, "waited in vain")
            time.sleep(0.002)

    def lines_arriving(self, file):
        """What can be read from a pipe as soon as there is anything, up to the end of a line."""
        lines = b""
        while not lines.endswith(b"\n"):
            ready, _, _ = select.select([file], [], [], DEADLINE)
            self.assertTrue(ready, "nothing comes; so far %r" % lines)
            data = os.read(file if isinstance(file, int) else file.fileno(), 1 << 16)
            self.assertTrue(data, "the pipe ended after %r" % lines)
            lines += data
        return lines


class MainTest(FolderTest):
    """A test that runs many logs through the command line, in this process."""

    def setUp(self):
        super().setUp()
        disk = patch("os.fsync")        # may take long, and is not what is tested
        disk.start()
        self.addCleanup(disk.stop)

    def main(self, *arguments, status=0):
        """Run the command line; return its standard error."""
        with contextlib.redirect_stderr(io.StringIO()) as said, warnings.catch_warnings():
            warnings.simplefilter("ignore")     # of forks
            ended = anomaly_detection.main(list(map(str, arguments)))
        self.assertEqual(ended, status, said.getvalue())
        return said.getvalue()
