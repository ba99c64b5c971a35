"""One-line faults put into copies of the program: the suite fails for each.

This protects the tests: what they catch today, they still catch when they are rewritten. The
program as it is comes first and has to pass. Copies are tested side by side, one per processor.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from multiprocessing.pool import ThreadPool

from .common import SUITE, read, scratch, write

ROOT = os.path.dirname(SUITE)
PROGRAM = "src/anomaly_detection.py"
DEADLINE = 900      # seconds after which a suite counts as hanging, which is a failure too

# A text that occurs exactly once in the program, the text that takes its place, what that breaks.
Fault = namedtuple("Fault", "text replacement breaks")
FAULTS = [Fault(*fault) for fault in (
    ("", "", "nothing: the program as it is"),
    # the values
    ("len(decimals) <= 2", "len(decimals) <= 3", "amounts finer than a cent"),
    ('text.rstrip("0").rstrip(".") if "." in text else text', "text",
     "two spellings of one timestamp are one time"),
    ("return Flag(mean if total >= 0 else -mean", "return Flag(total // n", "means are truncated, not floored"),
    # the social network
    ("self.circles.pop(user, None)", "pass", "unfriend is forgotten by the search"),
    ("ring -= seen", "pass", "a user is at one distance only"),
    ("ball.discard(user)", "pass", "nobody is in their own network"),
    # the purchase history
    ("purchase > purchases[0]", "purchase >= purchases[-1]", "late purchases take their place"),
    ("if timestamp >= self.newest:", "if timestamp <= self.newest:", "purchases are in order"),
    # the verdict
    ("over * over * size <= known", "over * over * size < known", "exactly mean + 3 sd is not flagged"),
    ("known = 10 * n - size", "known = 11 * n - size", "an early acquittal is certain"),
    ("if n < 2 or", "if n < 1 or", "two purchases are needed"),
    # the logs
    ('b"" if start else b"\\xef\\xbb\\xbf"', 'b""', "a byte-order mark is no part of the log"),
    # the outputs
    ("os.fsync(self.file.fileno())", "pass", "an output is on the disk before it takes its place"),
    ("os.chmod(self.temporary, stat.S_IMODE(old.st_mode))", "pass", "a file that is replaced keeps its permissions"),
    ('key=common.__getitem__, reverse=True)', 'key=common.__getitem__)', "most friends in common come first"),
    # the command line
    ("return 128 + signals.received if signals.received else 0", "return 0", "a stopped run says so in its status"),
)]


def run(trial):
    program = read(os.path.join(ROOT, PROGRAM)).decode()
    with ThreadPool(os.cpu_count()) as pool:
        outcomes = pool.imap(lambda fault: outcome_of(program, fault), FAULTS)
        for number, (fault, outcome) in enumerate(zip(FAULTS, outcomes)):
            with trial.one(fault.breaks):
                trial.expect(outcome.startswith("caught" if number else "not caught"), outcome)
                trial.measured("%-60s %s" % (fault.breaks, outcome))


def outcome_of(program, fault):
    """Return how the suite fares with the program (its text) once the fault is in it, in words."""
    count = program.count(fault.text)
    if fault.text and count != 1:
        return "the text %r occurs %d times in the program" % (fault.text, count)
    with scratch() as folder:
        copy = os.path.join(folder, "copy")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(
            ".git", "__pycache__", "temp", "results.txt"))
        write(os.path.join(copy, PROGRAM), program.replace(
            fault.text, fault.replacement, bool(fault.text)).encode())
        started = time.monotonic()
        status, said = run_suite(copy)
        seconds = time.monotonic() - started
    if status == 0:
        return "not caught, in %.0f s" % seconds
    failed = re.search(r"^(?:\[FAIL\]|FAIL|ERROR): (\S+(?: \(\S+\))?)", said, re.MULTILINE)
    return "caught in %.0f s by %s" % (seconds, failed[1] if failed else repr(said[-300:]))


def run_suite(folder):
    """Run the suite of a copy up to its first failure; return its status and what it said."""
    suite = subprocess.Popen(
        ["bash", "insight_testsuite/run_tests.sh", "--fail-fast", "--jobs", "1"], cwd=folder,
        env=dict(os.environ, PYTHON=sys.executable, PYTHONDONTWRITEBYTECODE="1"), start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        said, _ = suite.communicate(timeout=DEADLINE)
        return suite.returncode, said.decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(suite.pid, signal.SIGTERM)        # the runner ends its processes
        said, _ = suite.communicate()
        return 1, said.decode(errors="replace") + "\nERROR: the suite hangs"
