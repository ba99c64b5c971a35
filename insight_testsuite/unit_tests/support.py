"""What the test modules share: places, lines of a log, a folder and the real command line."""

import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SUITE = os.path.dirname(HERE)
ROOT = os.path.dirname(SUITE)
PROGRAM = os.path.join(ROOT, "src", "anomaly_detection.py")
sys.path[:0] = [SUITE, os.path.join(ROOT, "src")]

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

    def start(self, *arguments, program=PROGRAM, **options):
        """Start the command line as a process, its standard streams pipes."""
        for stream in "stdin", "stdout", "stderr":
            options.setdefault(stream, subprocess.PIPE)
        process = subprocess.Popen([sys.executable, program, *arguments], **options)

        def end():
            for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
                stream.close()
            process.kill()
            process.wait()
        self.addCleanup(end)
        return process

    def finish(self, process, data=None, status=0):
        """Wait for a process to end with a status; return what it wrote (stdout, stderr)."""
        out, said = process.communicate(data, timeout=DEADLINE)
        self.assertEqual(process.returncode, status, said)
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

    def snapshot(self):
        """Every name in the folder, and what the regular files hold."""
        return {entry.name: self.read(entry.path) if entry.is_file() else None
                for entry in os.scandir(self.folder)}
