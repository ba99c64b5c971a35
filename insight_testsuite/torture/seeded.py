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
DEADLINE = 400      # seconds after which a suite counts as hanging, which is a failure too

# A text that occurs exactly once in the program, the text that takes its place, what that breaks.
Fault = namedtuple("Fault", "text replacement breaks")
FAULTS = [Fault(*fault) for fault in (
    ("", "", "nothing: the program as it is"),

    # ---- the values
    ("len(decimals) <= 2", "len(decimals) <= 3", "amounts finer than a cent"),
    ('[0-9]{1,15}(?:', '[0-9]{1,16}(?:', "amounts have at most 15 digits"),
    ('text.rstrip("0").rstrip(".") if "." in text else text', "text", "two spellings of one timestamp are one"),
    ("date(*map(int, match.groups()))", "match.groups()", "the 30th of February is malformed"),
    ('"-" if cents < 0 else ""', '""', "negative means have a sign"),
    ('"%013d"', '"%d"', "parts of a cent have their leading zeros"),
    ("ascii(text if len(text) <= 60", "ascii(text if len(text) <= 60000", "messages are short"),
    ("c if c.isprintable() else ascii(c)[1:-1]", "c", "messages move no cursor"),

    # ---- the social network
    ("            friends.discard(friend)\n", "", "unfriend ends a friendship"),
    ("self.circles.pop(user, None)", "pass", "the search forgets who is a friend no more"),
    ("seen, ring = {user}, self", "seen, ring = set(), self", "a buyer is not at distance 2 of themselves"),
    ("        ball.discard(user)\n", "", "nobody is in their own network"),
    ("range(degree - 1, 0, -1)", "range(degree, 0, -1)", "the network ends at distance D"),
    ("self.social.rings(v, self.hops - 1)", "self.social.rings(v, self.hops)", "a member is near enough"),
    ("raise ValueError(f\"id1 and id2", "print(f\"id1 and id2", "nobody is their own friend"),

    # ---- the purchase history
    ("        elif purchase > purchases[0]:\n", "        elif purchase > purchases[-1]:\n", "late purchases count"),
    ("            purchases.popleft()\n", "            purchases.pop()\n", "the oldest purchase goes"),
    ("key=itemgetter(-1))", "key=itemgetter(0))", "the users who bought last are merged"),
    ("bisect(self.line, purchase)", "0", "a page is in order"),
    ("if purchase >= page.since:", "if purchase <= page.since:", "a purchase is on its page"),
    ("found = [purchases[-count:]", "found = [purchases[:count]", "of a user who buys much the last purchases count"),

    # ---- the verdict
    ("over <= 0 or over * over * size <= known", "over <= 0 or over * over * size < known",
     "exactly mean + 3 sd is not flagged"),
    ("over <= 0 or over * over", "over * over", "what is far below the mean is not flagged"),
    ("known = 10 * n - size", "known = 11 * n - size", "an early acquittal is certain"),
    ("if n < 2 or", "if n < 1 or", "two purchases are needed"),
    ("return Flag(mean if total >= 0 else -mean", "return Flag(total // n", "means are truncated, not floored"),
    ("isqrt(int(n * squares - total * total)) // n", "round((n * squares - total * total) ** .5 / n)",
     "sd is exact and truncated"),

    # ---- the logs
    ('b"" if start else b"\\xef\\xbb\\xbf"', 'b""', "a byte-order mark is no part of the log"),
    ('raise ValueError("not UTF-8")', "pass", "bytes that are not UTF-8 are malformed"),
    ("parse_constant=_no_constant", "parse_constant=str", "NaN is malformed"),
    ("except RecursionError:", "except ZeroDivisionError:", "deep nesting is malformed"),
    ('"T" in header and whole_number(header["T"], 2)', '"T" in header and whole_number(header["T"], 1)',
     "T is at least 2"),
    ("                data = b\"\\n\"\n", "                return\n", "a last line needs no newline"),
    ("            if data is None:", "            if False:", "a pipe that does not block"),

    # ---- the outputs
    ("os.fsync(self.file.fileno())", "pass", "an output is on the disk before it takes its place"),
    ("os.chmod(self.temporary, stat.S_IMODE(old.st_mode))", "pass", "a file that is replaced keeps its permissions"),
    ("self.target = os.path.realpath(self.path)", "self.target = self.path", "a link's target is replaced"),
    ("os.makedirs(folder, exist_ok=True)", "pass", "missing folders are made"),
    ("                os.unlink(self.temporary)\n", "                pass\n", "nothing is left behind"),
    ("            if self.direct:\n                self.file.flush()\n", "", "a verdict is there at once"),
    ("{line.rstrip(BLANKS)[:-1]}", "{line.strip(BLANKS)[:-1]}", "a flagged line is as it was"),
    ('self.write(line + "\\n", "surrogateescape")', 'self.write(line + "\\n")', "rejects are byte for byte"),
    ("key=common.__getitem__, reverse=True)", "key=common.__getitem__)", "most friends in common come first"),
    ("sorted(sorted(ring), key", "sorted(ring, key", "equals come by id"),
    ("return sorted(friends), recommend", "return list(friends), recommend", "the friends come by id"),
    ("OUTPUTS = Flags, Rejects, Notify, Report, Snapshot", "OUTPUTS = Snapshot, Flags, Rejects, Notify, Report",
     "the snapshot takes its place last"),

    # ---- parts of a stream
    ("            raise Failure(\"a worker process died", "            print(\"a worker process died",
     "a run fails with its worker"),
    ("            file.readline()\n", "", "parts begin where lines do"),
    ('kept.tell("failed", explained(error))', "pass", "an error in a worker ends the run"),

    # ---- the command line
    ("return 128 + signals.received if signals.received else 0", "return 0", "a stopped run says so in its status"),
    ("        return 128 + signals.received\n", "        return 1\n", "a signal has its own status"),
    ('(--help tells the usage)", 2', '(--help tells the usage)", 1', "usage errors have status 2"),
    ("self.counts[\"skipped\"] <= self.reports_shown", "self.counts[\"skipped\"] < self.reports_shown",
     "the first 10 malformed lines are shown"),
    ("return 0        # who reads it", "return 1        # who reads it", "a closed pipe is no error"),
    ("    if k == 1:\n        this.batch.outputs", "    if k:\n        this.batch.outputs",
     "only the first shard rejects lines of the batch log"),
    ("if file and file in taken:", "if False:", "an output is no other file of the run"),
    ("allow_abbrev=False", "allow_abbrev=True", "options are not guessed"),
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
