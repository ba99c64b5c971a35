#!/usr/bin/env python3
"""Try to make the detector wrong, hang, end with a traceback or lose data.

    python3 insight_testsuite/torture.py [--seed N] [--seconds S] [--list] [PART ...]

Each part goes on for S seconds (or through its list of cases, if it has one), says what
it measured, and ends with a line of figures: cases tried, mismatches, crashes. The exit
status is 1 if there was any. Everything random follows from the seed and the number of the
case, which a complaint names. The unit tests run short forms of the same parts.
"""

import argparse
import contextlib
import dis
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, namedtuple
from datetime import datetime, timedelta
from operator import attrgetter
from random import Random

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "src")]
import anomaly_detection as detector
import reference
from benchmark import DETECTOR, FLOOR
from random_logs import numbers, random_log, spaced

LOGS = "batch_log.json", "stream_log.json"
OLD = b"what an earlier run wrote\n"


# ------------------------------------------------------------ counting what is tried

class Trial:
    """One part's run: gives out numbered cases, keeps count of what goes wrong.

    It ends after some seconds or a number of cases, whichever is given.
    """

    def __init__(self, part, seed=1, seconds=None, cases=None):
        self.part, self.seed, self.seconds, self.limit = part, seed, seconds, cases
        self.cases = self.mismatches = self.crashes = 0
        self.case, self.rng = "", None
        self.complaints, self.figures = [], []

    def repeat(self, case):
        """Call case(trial) until it is enough; `rng` is another one each time."""
        started = time.monotonic()
        while self.cases != self.limit and (
                self.seconds is None or time.monotonic() < started + self.seconds):
            with self.one(self.cases):
                case(self)
        return self.cases / (time.monotonic() - started)

    @contextlib.contextmanager
    def one(self, name):
        """Count a case, give it a `folder`; an exception that leaves it is a crash."""
        self.case = "%s --seed %s, case %s" % (self.part, self.seed, name)
        self.rng = Random(self.case)
        self.cases += 1
        with scratch() as self.folder:
            try:
                yield
            except Exception:
                self.crash(traceback.format_exc())

    def expect(self, good, complaint):
        if not good:
            self.mismatches += 1
            self.complain(complaint)

    def crash(self, complaint):
        self.crashes += 1
        self.complain(complaint)

    def complain(self, complaint):
        complaint = "%s: %s" % (self.case, complaint)
        self.complaints.append(complaint)
        print(complaint[:2000], file=sys.stderr)

    def measured(self, text):
        self.figures.append(text)
        print("  " + text, flush=True)

    def closing(self):
        return "%d cases tried, %d mismatches, %d crashes" % (
            self.cases, self.mismatches, self.crashes)


@contextlib.contextmanager
def scratch():
    """A folder that anybody may enter, in memory where there is such a place."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="torture-", dir=memory) as folder:
        os.chmod(folder, 0o755)
        yield folder


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path


def read(path):
    """The bytes of a file; None if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


# -------------------------------------------------------------- running the program

Ran = namedtuple("Ran", "status flagged rejects said")


def program(trial, batch, stream, *options):
    """Run the program's main() on two logs (bytes); return what came of it, as Ran."""
    paths = [os.path.join(trial.folder, name) for name in (*LOGS, "flagged", "rejects")]
    for path, log in zip(paths, (batch, stream)):
        write(path, log)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = detector.main([*paths[:3], "--rejects", paths[3], "--jobs", "1", *options])
    return Ran(status, read(paths[2]), read(paths[3]), said.getvalue())


def child(*arguments, prepare=None, **streams):
    """Start the program's command line; `prepare` is called in the child first."""
    for name in "stdin", "stdout", "stderr":
        streams.setdefault(name, subprocess.DEVNULL if name == "stdin" else subprocess.PIPE)
    return subprocess.Popen([sys.executable, DETECTOR, *arguments], preexec_fn=prepare, **streams)


def ended(process, stdin=None):
    """Wait for a child; return (exit status, stdout, stderr)."""
    try:
        out, errors = process.communicate(stdin, timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError("it hangs")
    return process.returncode, out or b"", errors or b""


def limited(kind, value):
    """What a child has to do to live under a resource limit."""
    return lambda: resource.setrlimit(kind, (value, value))


# --------------------------------------------------------------------- 1 differential

KNOBS = {       # every short-cut's threshold, and values that make small logs cross it
    ("PurchaseHistory", "gather_limit"): (0, 2, 9, 400),
    ("RecentPurchases", "page_size"): (1, 2, 3, 7, 2048),
    ("RecentPurchases", "page_limit"): (4, 5, 8),
    ("Detector", "ball_effort"): (0, 1, 3, 200),
    ("Detector", "walk_width"): (0, 1, 6, 10 ** 6),
    (None, "CHUNK"): (1, 20, 300, 1 << 16),
    ("Memo.__init__", "__defaults__"): ((1,), (2,), (5,), (1 << 16,)),
}
PATHS = (       # what must be taken by some of the cases
    (None, "merge"), (None, "Reach"), (None, "TooFar"), (None, "Page"), (None, "read_event"),
    (None, "baseline"), ("RecentPurchases", "walk"), ("RecentPurchases", "look_up"),
    ("RecentPurchases", "insert"), ("RecentPurchases", "open_page"), ("Reach", "touches"),
    ("PurchaseHistory", "last"), ("SocialNetwork", "network"), ("Memo", "clear"))


def owner_of(name):
    """What a dotted name in the program stands for; None: the program."""
    return attrgetter(name)(detector) if name else detector


@contextlib.contextmanager
def changed(values):
    """Let {(class name or None, attribute): value} hold for a while."""
    before = {key: getattr(owner_of(key[0]), key[1]) for key in values}
    try:
        for (owner, name), value in values.items():
            setattr(owner_of(owner), name, value)
        yield
    finally:
        for (owner, name), value in before.items():
            setattr(owner_of(owner), name, value)


def counting(function, key, counts):
    """The function (or class), counting its calls."""
    if isinstance(function, type):
        def __init__(self, *arguments):
            counts[key] += 1
            function.__init__(self, *arguments)
        return type(function.__name__, (function,), {"__init__": __init__, "__slots__": ()})

    def counted(*arguments, **named):
        counts[key] += 1
        return function(*arguments, **named)
    return counted


def knobs(rng):
    """Random thresholds; often all of them as they are."""
    return {key: rng.choice(values) for key, values in KNOBS.items() if rng.random() < 0.6}


def differential(trial):
    """Random logs, thresholds of the short-cuts forced low: the bytes of the literal reference."""
    counts = Counter({path: 0 for path in PATHS})
    paths = {path: counting(getattr(owner_of(path[0]), path[1]), path, counts)
             for path in PATHS}
    with changed(paths):
        rate = trial.repeat(random_logs_agree)
    for (owner, name), count in counts.items():
        trial.expect(count, "the path %s %s was never taken" % (owner or "", name))
    trial.measured("%.0f logs/s; taken: %s" % (rate, ", ".join(
        "%s %d" % (name, count) for (_, name), count in sorted(counts.items(), key=str))))


def random_logs_agree(trial):
    batch, stream = random_log(trial.rng, trial.rng.choice((0, 0, 0, 0.05)))
    with changed(knobs(trial.rng)):
        jobs = trial.rng.choice("23456") if trial.cases % 8 == 0 else "1"
        ran = program(trial, batch, stream, "--quiet", "--jobs", jobs)
    agrees(trial, ran, reference.judge_logs(batch, stream))


def agrees(trial, ran, result):
    """Expect a run to have done what the reference's Result says."""
    skipped = b"".join(line + b"\n" for _, line in result.batch_skipped + result.stream_skipped)
    trial.expect(ran.status == 0, "exit status %s: %s" % (ran.status, ran.said))
    trial.expect(ran.flagged == result.flagged, "not the reference's flags")
    trial.expect(ran.rejects == skipped, "not the reference's rejects")


# ---------------------------------------------------------------------- 2 metamorphic

class Log(namedtuple("Log", "degree tracked events cut")):
    """A log as events (dicts), of which the first `cut` are the batch log's.

    Each has its number in the field "n", so that a flag tells whose it is.
    """

    __slots__ = ()

    @classmethod
    def random(cls, rng):
        batch, stream = (log.splitlines() for log in random_log(rng))
        header = json.loads(batch.pop(0))
        events = [dict(json.loads(line), n=n) for n, line in enumerate(batch + stream)]
        return cls(int(header["D"]), int(header["T"]), events, len(batch))

    def bytes(self, form=lambda event: json.dumps(event).encode()):
        lines = [form(event) + b"\n" for event in self.events]
        header = b'{"D": %d, "T": "%d"}\n' % (self.degree, self.tracked)
        return header + b"".join(lines[:self.cut]), b"".join(lines[self.cut:])

    def with_events(self, change):
        return self._replace(events=[change(dict(event)) for event in self.events])


def verdicts(flagged):
    """{n: (mean, sd)} of flagged lines (bytes)."""
    flags = map(json.loads, flagged.split(b"\n")[:-1])
    return {flag["n"]: (flag["mean"], flag["sd"]) for flag in flags}


def since(first, found):
    """Those of the verdicts that are of events from number `first` on."""
    return {n: verdict for n, verdict in found.items() if n >= first}


def users_of(event):
    return [name for name in ("id", "id1", "id2") if name in event]


def split_elsewhere(rng, log):
    return log._replace(cut=rng.randint(0, len(log.events))).bytes()


def users_renamed(rng, log):
    """New names in a new order: odd ones, empty of sense, alike at first sight."""
    ids = sorted({event[name] for event in log.events for name in users_of(event)})
    names = ["\u00e9", "e\u0301", "\U0001f600", " ", "1 ", "01", "1.0", "{", '"', "\\", "\ud800", "\u2028",
             "\x00", "\n", "A" * 500, "id", "null", *map("user %d".__mod__, range(len(ids)))]
    new = dict(zip(ids, rng.sample(names, len(ids))))
    return log.with_events(lambda event: dict(
        event, **{name: new[event[name]] for name in users_of(event)})).bytes()


def keys_shuffled(rng, log):
    def form(event):
        fields = list(event.items())
        rng.shuffle(fields)
        line = json.dumps(dict(fields), separators=rng.choice(
            ((",", ":"), (", ", ": "), (" ,\t", "\r:  ")))).encode()
        return rng.choice((b"", b" \t")) + rng.choice((line, spaced(rng, line))) + rng.choice((b"", b"\r"))
    return log.bytes(form)


def ids_as_numbers(rng, log):
    return log.bytes(lambda event: numbers(rng, json.dumps(event).encode()))


def outsiders_added(rng, log):
    """Users who know only each other buy and befriend in between, at any time."""
    times = ["0001-01-01 00:00:00", "9999-12-31 23:59:59", log.events[-1]["timestamp"]]
    events, cut = [], 0
    for event in log.events:
        while rng.random() < 0.4:
            one, other = rng.sample(["out %d" % k for k in range(6)], 2)
            events.append(rng.choice((
                {"event_type": rng.choice(("befriend", "unfriend")), "id1": one, "id2": other},
                {"event_type": "purchase", "id": one, "amount": "%d" % rng.randint(-9, 10 ** 6)})))
            events[-1].update(timestamp=rng.choice(times), n="outside")
        if event["n"] == log.cut:
            cut = len(events)
        events.append(event)
    return log._replace(events=events, cut=cut).bytes()


def outsider_appended(rng, log):
    last = {"event_type": "purchase", "timestamp": rng.choice(log.events)["timestamp"],
            "id": "nobody's friend", "amount": "123456789.01", "n": "outside"}
    return log._replace(events=log.events + [last]).bytes()


RELATIONS = (split_elsewhere, users_renamed, keys_shuffled, ids_as_numbers, outsiders_added,
             outsider_appended)
LIVE_EVERY = 25


def metamorphic(trial):
    """Logs that mean the same get the same verdicts."""
    rate = trial.repeat(relations_hold)
    trial.measured("%.0f logs/s, %d relations each; live mode with one in %d" % (
        rate, len(RELATIONS) + 1, LIVE_EVERY))


def relations_hold(trial):
    log = Log.random(trial.rng)
    with changed(knobs(trial.rng)):
        base = program(trial, *log.bytes()).flagged
        wanted = verdicts(base)
        for relation in RELATIONS:
            logs = relation(trial.rng, log)
            first = logs[0].count(b"\n") - 1 if relation is split_elsewhere else 0
            found = verdicts(program(trial, *logs).flagged)
            found.pop("outside", None)
            first = max(first, log.cut)
            trial.expect(since(first, found) == since(first, wanted), relation.__name__)
        wide, wider = (program(trial, *log._replace(degree=degree).bytes()).flagged
                       for degree in (60, 10 ** 18 - 1))
        trial.expect(wide == wider, "D past the diameter")
    if trial.cases % LIVE_EVERY == 1:
        batch, stream = log.bytes()
        batch = write(os.path.join(trial.folder, "batch"), batch)
        done = ended(child(batch, "-", "-", "--quiet", stdin=subprocess.PIPE), stream)
        trial.expect(done == (0, base, b""), "live mode: %s" % (done,))


# --------------------------------------------------------------------- 3 mutation fuzz

def place(rng, line):
    return rng.randint(0, len(line))


def flip(rng, line, other):
    k = rng.randrange(len(line))
    return line[:k] + bytes([line[k] ^ 1 << rng.randrange(8)]) + line[k + 1:]


def cut(rng, line, other):
    one, two = sorted((place(rng, line), place(rng, line)))
    return line[:one] + line[two:]


BYTES = [b"\0", b"\r", b"\n", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\\ud800", b"\\udc00", b"\xff", b"\xc0\xaf", b"\xc3",
         b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xc2\xa0", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xc2\x85", b"\x7f", b"\t",
         b" ", b'"', b"\\", b"\\u0031", b"\\u00", b"{", b"}", b"[", b"]", b",", b":", b"-", b"+", b".", b"e5", b"0", b"_",
         b"\xef\xbc\x91", b"/**/", b"#", b"'", b"null", b"}{", b"{}", b"9" * 400]


def insert(rng, line, other):
    k = place(rng, line)
    return line[:k] + rng.choice(BYTES) + line[k:]


def duplicate(rng, line, other):
    one, two = sorted((place(rng, line), place(rng, line)))
    return line[:two] + line[one:]


def splice(rng, line, other):
    return line[:place(rng, line)] + other[place(rng, other):]


VALUES = [b"0", b"-0", b"1", b"1.0", b"1e5", b"1E400", b"-1", b"01", b"+1", b"1.", b".5", b"9" * 5000, b"true", b"false", b"null",
          b"[]", b"{}", b'[1]', b'{"a": 1}', b'""', b'" "', b'"1"', b'"\\u0031"', b'"\\ud83d\\ude00"', b'"\\ud83d"', b'"\\n"',
          b'"1\\n"', b'"\\u0000"', b"NaN", b"-Infinity", b"Infinity", b'"NaN"', b'"1_000"', b'"1e3"', b'"-0.00"', b'"+5"', b'" 5"',
          b'"999999999999999.999999999999999"', b'"1000000000000000"', b'"1.0000000000000000"', b'"\xef\xbc\x91"',
          b'"purchase"', b'"Purchase"', b'"unfriend"', b'"befriend"', b'"2017-02-29 00:00:00"', b'"2016-02-29 23:59:59.999999"',
          b'"2017-06-13 24:00:00"', b'"2017-06-13 11:33:60"', b'"0000-01-01 00:00:00"', b'"0001-01-01 00:00:00"',
          b'"9999-12-31 23:59:59"', b'"2017-06-13T11:33:01"', b'"2017-06-13 11:33:01."', b'"2017-06-13 11:33:01.1234567"',
          b'"2017-06-13 11:33:01Z"', b'"2017-6-13 11:33:01"', b'"2017-06-13 11:33:01\\n"', b"20170613"]
VALUE = re.compile(rb': ?("[^"]*")')


def retyped(rng, line, other):
    """Another value in a field."""
    fields = list(VALUE.finditer(line))
    if not fields:
        return line
    start, end = rng.choice(fields).span(1)
    return line[:start] + rng.choice(VALUES) + line[end:]


def key_again(rng, line, other):
    """A field twice, first or last in the line."""
    field = b'"%s": %s' % (rng.choice((b"id", b"id1", b"id2", b"amount", b"timestamp", b"event_type", b"D")),
                           rng.choice(VALUES))
    return b"{" + field + b", " + line[1:] if rng.random() < 0.5 else line[:-1] + b", " + field + b"}"


def nested(rng, line, other):
    """An extra field nested a little, or without end."""
    depth = rng.choice((1, 10, 45, 100000, 100000))
    opened, closed = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    bomb = opened * depth + b"0" + closed * rng.choice((depth, depth, depth - 1, 0))
    return rng.choice((line[:-1] + b', "x": ' + bomb + b"}", bomb))


def huge(rng, line, other):
    """A line of 10 MB: text, a number, or blanks."""
    filling = rng.choice((b'"%s"' % (b"x" * 10 ** 7), b'"%s"' % (b"\xc3\xa9" * (5 * 10 ** 6)), b"7" * 10 ** 7, b" " * 10 ** 7 + b"0"))
    return rng.choice((line[:-1] + b', "x": ' + filling + b"}", retyped(rng, line, other)[:-1] + filling))


MUTATIONS = flip, cut, insert, insert, duplicate, splice, retyped, retyped, key_again


def mutated(rng, log, first):
    """A log (bytes) of which some lines from number `first` on are damaged."""
    lines = log.split(b"\n")[:-1]
    for number in range(first, len(lines)):
        if rng.random() < 0.15:
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                lines[number] = rng.choice(MUTATIONS)(rng, lines[number] or b"{}", rng.choice(lines))
    if len(lines) > first and rng.random() < 0.05:
        number = rng.randrange(first, len(lines))
        lines[number] = (huge if rng.random() < 0.1 else nested)(rng, lines[number], b"")
    bom = b"\xef\xbb\xbf" if rng.random() < 0.1 else b""
    return bom + b"\n".join(lines) + rng.choice((b"", b"\n", b"\n", b"\r\n", b"\n\n"))


def without(log, skipped):
    """A log without its skipped (number, line)s."""
    numbers_ = {number for number, _ in skipped}
    lines = log.split(b"\n")
    return b"\n".join(line for number, line in enumerate(lines, 1) if number not in numbers_)


def reported(said, path, skipped):
    """Does what was said name the first ten skipped lines of a log, and no other?"""
    named = re.findall("^%s:([0-9]+): skipped: .+$" % re.escape(path), said, re.MULTILINE)
    return list(map(int, named)) == [number for number, _ in skipped[:10]]


def mutation(trial):
    """Damaged lines are skipped, reported and kept; all others count."""
    skipped = []

    def case(trial):
        batch, stream = (mutated(trial.rng, log, first)
                         for log, first in zip(random_log(trial.rng, 0.02), (1, 0)))
        skipped.append(damage_is_skipped(trial, batch, stream))
        damaged_header(trial, batch, stream)

    rate = trial.repeat(case)
    trial.measured("%.0f logs/s, %d lines skipped" % (rate, sum(skipped)))


def damage_is_skipped(trial, batch, stream):
    """Hold a run over dirty logs against the reference; return how many lines it skipped."""
    result = reference.judge_logs(batch, stream)
    bad = result.batch_skipped, result.stream_skipped
    ran = program(trial, batch, stream)
    agrees(trial, ran, result)
    rest = reference.judge_logs(*map(without, (batch, stream), bad))
    trial.expect(ran.flagged == rest.flagged and not rest.batch_skipped + rest.stream_skipped,
                 "not the flags of the log without the skipped lines")
    for name, lines in zip(LOGS, bad):
        trial.expect(reported(ran.said, os.path.join(trial.folder, name), lines), "reports: " + ran.said)
    *reports, summary = ran.said.splitlines()
    trial.expect(re.findall(r"\(([0-9]+) skipped\)", summary) == [str(len(lines)) for lines in bad],
                 "summary: " + summary)
    trial.expect(all(len(line) < 500 for line in reports), "a report of endless length")
    return sum(map(len, bad))


def damaged_header(trial, batch, stream):
    """Damage the header: refused exactly when the reference refuses it."""
    header, newline, rest = batch.partition(b"\n")
    batch = trial.rng.choice(MUTATIONS)(trial.rng, header, header) + newline + rest
    try:
        wanted = reference.judge_logs(batch, stream)
    except ValueError:
        ran = program(trial, batch, stream)
        trial.expect(ran.status == 2 and ran.said.count("\n") == 1, "bad header: %s %s" % (ran.status, ran.said))
    else:
        agrees(trial, program(trial, batch, stream), wanted)


# ---------------------------------------------------------------------------- 4 faults

Signal = namedtuple("Signal", "number status")
SIGNALS = Signal(signal.SIGKILL, -9), Signal(signal.SIGTERM, 143), Signal(signal.SIGINT, 130)


class Stage:
    """Two logs in a folder, an old output, and what a good run makes of them."""

    def __init__(self, folder, events=1500, users=40):
        self.folder = folder
        self.logs = [self.path(name) for name in LOGS]
        batch, stream = busy_logs(Random(4), events, users)
        for path, log in zip(self.logs, (batch, stream)):
            write(path, log)
        self.output = write(self.path("flagged"), OLD)
        self.stream = stream
        status, _, errors = self.run()
        if status:
            raise RuntimeError(errors)
        self.new = read(self.output)
        self.before()

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def before(self):
        """Have the old output there again, and no other files than that and the logs."""
        write(self.output, OLD)
        self.files = sorted(os.listdir(self.folder))

    def run(self, *options, output=None, logs=None, stdin=None, **how):
        process = child("--quiet", *(logs or self.logs), output or self.output, *options, **how)
        return ended(process, stdin)


def busy_logs(rng, events, users):
    """Logs (bytes) of a network in which much is flagged and some lines are bad."""
    lines = [b'{"D":"2", "T":"20"}']
    for number in range(events):
        one, other = rng.sample(range(users), 2)
        when = "2017-06-13 %02d:%02d:%02d" % (number // 3600 % 24, number // 60 % 60, number % 60)
        if number < 60 or number % 50 == 0:
            line = '{"event_type":"befriend", "timestamp":"%s", "id1": "%d", "id2": "%d"}' % (when, one, other)
        else:
            line = '{"event_type":"purchase", "timestamp":"%s", "id": "%d", "amount": "%d.%02d"}' % (
                when, one, rng.choice((9, 9, 9, 9, 99999)), rng.randrange(100))
        lines.append(line.encode() if number % 200 else b"bad line")
    half = len(lines) // 2
    return tuple(b"".join(line + b"\n" for line in part) for part in (lines[:half], lines[half:]))


def refused(trial, stage, done, statuses=(1,), says=b""):
    """Expect a run to have ended with one clear line and to have left everything alone."""
    status, out, errors = done
    trial.expect(status in statuses, "exit status %s: %s" % (status, errors))
    trial.expect(errors.count(b"\n") == 1 and b"Traceback" not in errors and says in errors,
                 "not one clear line: %s" % errors)
    trial.expect(read(stage.output) == OLD, "the old output was touched")
    left_clean(trial, stage)


def succeeded(trial, stage, done, wanted=None):
    """Expect a run to have done its work silently, and to have left nothing else behind."""
    trial.expect(done == (0, b"", b""), "exit status %s: %s%s" % done)
    trial.expect(read(stage.output) == (stage.new if wanted is None else wanted), "wrong output")
    left_clean(trial, stage)


def left_clean(trial, stage):
    left = sorted(os.listdir(stage.folder))
    trial.expect(left == stage.files, "left behind: %s" % sorted(set(left) ^ set(stage.files)))


def file_size_limit(trial, stage):
    for jobs in "12":
        for size in (0, 1, 1000, len(stage.new) // 2, len(stage.new) - 1):
            refused(trial, stage, stage.run("--jobs", jobs, prepare=limited(resource.RLIMIT_FSIZE, size)))


def full_disk(trial, stage):
    refused(trial, stage, stage.run(output="/dev/full"), says=b"No space left")
    with open("/dev/full", "wb") as full:
        refused(trial, stage, stage.run(output="-", stdout=full), says=b"No space left")
        succeeded(trial, stage, stage.run(stderr=full))
    stage.before()
    refused(trial, stage, stage.run("--rejects", "/dev/full"), says=b"No space left")


def unreadable_inputs(trial, stage):
    for bad in (stage.path("none"), stage.folder, stage.path("flagged", "below"), "", "/proc/self/mem"):
        for logs in ((bad, stage.logs[1]), (stage.logs[0], bad)):
            refused(trial, stage, stage.run(logs=logs), (1, 2))


def as_nobody(trial, stage):
    """Without rights to the input, or to the output's folder."""
    copy = shutil.copy(DETECTOR, stage.folder)
    stage.before()

    def run(*arguments):
        how = {"preexec_fn": lambda: os.setuid(65534)} if os.getuid() == 0 else {}
        return ended(subprocess.Popen([python, copy, *arguments], stdout=-1, stderr=-1, **how))

    for python in sys.executable, "/usr/bin/python3":
        with contextlib.suppress(OSError):      # out of nobody's reach
            if run("--version")[0] == 0:
                break
    else:
        return
    os.chmod(stage.folder, 0o555)
    for output in stage.output, stage.path("new", "out"):
        refused(trial, stage, run(*stage.logs, output), (2,), b"Permission denied")
    os.chmod(stage.logs[1], 0)
    refused(trial, stage, run(*stage.logs, stage.output), (2,), b"Permission denied")
    os.chmod(stage.folder, 0o755)


def impossible_outputs(trial, stage):
    for bad in (stage.folder, stage.path("flagged", "below"), "/proc/none/out", "/proc/version/out",
                stage.path("x" * 300), "/", "."):
        stage.before()
        refused(trial, stage, stage.run(output=bad), (1, 2))
        refused(trial, stage, stage.run("--rejects", bad), (1, 2))


def output_is_an_input(trial, stage):
    os.symlink(stage.logs[0], stage.path("symlink"))
    os.link(stage.logs[1], stage.path("hardlink"))
    stage.before()
    before = list(map(read, stage.logs))
    for bad in (*stage.logs, stage.path("symlink"), stage.path("hardlink"), stage.path(".", LOGS[0])):
        refused(trial, stage, stage.run(output=bad), (2,))
        refused(trial, stage, stage.run("--rejects", bad), (2,))
    refused(trial, stage, stage.run("--rejects", stage.output), (2,))
    trial.expect(list(map(read, stage.logs)) == before, "a log was changed")


def closed_streams(trial, stage):
    def closing(*numbers_):
        return lambda: [os.close(number) for number in numbers_]

    for numbers_ in ((1,), (2,), (1, 2), (0,), (0, 1, 2)):
        for jobs in "12":
            stage.before()
            succeeded(trial, stage, stage.run("--jobs", jobs, prepare=closing(*numbers_)))
    stage.before()
    refused(trial, stage, stage.run(output="-", prepare=closing(1)), (1, 2))
    refused(trial, stage, stage.run(logs=(stage.logs[0], "-"), prepare=closing(0)), (1, 2))
    status, _, errors = stage.run(output="-", prepare=closing(1, 2))
    trial.expect(status in (1, 2) and not errors, "closed stdout and stderr: %s" % status)
    left_clean(trial, stage)
    done = stage.run("--jobs", "1", prepare=closing(2), output="-")
    trial.expect(done == (0, stage.new, b""), "output - with stderr closed")
    reading, writing = os.pipe()
    os.close(reading)
    trial.expect(stage.run(output="-", stdout=writing)[::2] == (0, b""), "a closed pipe does not end quietly")
    os.close(writing)
    left_clean(trial, stage)


def fifo_byte_by_byte(trial, stage):
    """Both logs, and the output, through FIFOs."""
    fifos = [stage.path("fifo" + name) for name in LOGS]
    for fifo in fifos:
        os.mkfifo(fifo)

    def feed(fifo, log, piece):
        with open(fifo, "wb", buffering=0) as file:
            for start in range(0, len(log), piece):
                file.write(log[start:start + piece])

    stage.before()
    feeders = [threading.Thread(target=feed, args=(fifo, read(log), 1 if log == stage.logs[1] else 777), daemon=True)
               for fifo, log in zip(fifos, stage.logs)]
    for feeder in feeders:
        feeder.start()
    succeeded(trial, stage, stage.run(logs=fifos))
    for feeder in feeders:
        feeder.join(10)


def truncated_input(trial, stage):
    """The stream log cut anywhere in its last line, or elsewhere."""
    batch, last = read(stage.logs[0]), stage.stream.rstrip(b"\n").rfind(b"\n") + 1
    for size in {last, last + 1, len(stage.stream) - 1, len(stage.stream) - 2,
                 trial.rng.randrange(last, len(stage.stream)), trial.rng.randrange(last)}:
        part = write(stage.path("part"), stage.stream[:size])
        stage.before()
        done = stage.run("--jobs", trial.rng.choice("12"), logs=(stage.logs[0], part))
        succeeded(trial, stage, done, wanted=reference.judge_logs(batch, stage.stream[:size]).flagged)


def two_at_once(trial, stage):
    """Two runs over different logs write the same output: it is either's."""
    other = write(stage.path("other"), stage.stream[:len(stage.stream) // 2])
    stage.before()
    outputs = {stage.new, reference.judge_logs(read(stage.logs[0]), read(other)).flagged}
    for _ in range(4):
        stage.before()
        runs = [child("--quiet", stage.logs[0], log, stage.output) for log in (stage.logs[1], other)]
        trial.expect([ended(run) for run in runs] == [(0, b"", b"")] * 2, "two runs at once")
        trial.expect(read(stage.output) in outputs, "a mixture of two runs")
        left_clean(trial, stage)


def left_over(trial, stage):
    """What a killed run left behind disturbs no later one."""
    write(stage.path(".flagged-0123456789ab.tmp"), b"half a li")
    stage.before()
    succeeded(trial, stage, stage.run())


def memory_limits(trial, stage):
    """RLIMIT_AS from what the start takes, upwards: it works, or says so and leaves all alone."""
    steps = trial.limit or 60
    stage = Stage(stage.folder, 20000, 10000)
    needed = next(size for size in range(8 << 20, 1 << 30, 1 << 20)
                  if not ended(child("--version", prepare=limited(resource.RLIMIT_AS, size)))[0])
    statuses = Counter()
    for step in range(steps):
        stage.before()
        size = needed + (step + 1) * (20 << 20) // steps + trial.rng.randrange(1 << 18)
        done = stage.run("--jobs", trial.rng.choice("12"), prepare=limited(resource.RLIMIT_AS, size))
        statuses[done[0]] += 1
        if done[0] == 0:
            succeeded(trial, stage, done)
        else:
            refused(trial, stage, done, says=b"emory")
    trial.measured("RLIMIT_AS from %d MB on: %s" % (needed >> 20, dict(statuses)))


def listens(process):
    """Wait until a child has its handler of SIGTERM, or has ended."""
    caught = 1 << signal.SIGTERM - 1
    while process.poll() is None:
        with open("/proc/%d/status" % process.pid) as file:
            if int(re.search("SigCgt:\\s*([0-9a-f]+)", file.read()).group(1), 16) & caught:
                return


def killed_worker(trial, stage):
    """A worker process that dies takes the run with it, and nothing else."""
    stage = Stage(stage.folder, 20000)
    for delay in 0, 0.02, 0.05, 0.1:
        stage.before()
        process = child("--quiet", *stage.logs, stage.output, "--jobs", "3")
        children = "/proc/%d/task/%d/children" % (process.pid, process.pid)
        wait_until(lambda: process.poll() is not None or readable(children), 5)
        time.sleep(delay)
        workers = (readable(children) or b"").split()
        for worker in workers[:1]:
            os.kill(int(worker), signal.SIGKILL)
        done = ended(process)
        if done[0] == 0:        # it came too late
            succeeded(trial, stage, done)
        else:
            refused(trial, stage, done, says=b"worker process died")


def died(trial, stage, seconds):
    """A signal at a random moment: old output or new, nothing left but after SIGKILL.

    One in eight comes while Python starts, which the program has no say in.
    """
    stage.before()
    sent, jobs, early = trial.rng.choice(SIGNALS), trial.rng.choice("12"), trial.rng.random() < 0.125
    process = child("--quiet", *stage.logs, stage.output, "--jobs", jobs)
    if early:
        time.sleep(trial.rng.uniform(0, 0.1))
    else:
        listens(process)
        time.sleep(trial.rng.uniform(0, seconds))
    process.send_signal(sent.number)
    status, _, errors = ended(process)
    output = read(stage.output)
    what = "%s, --jobs %s: exit status %s: %s" % (sent.number.name, jobs, status, errors)
    if not early:
        too_late = status == -sent.number and output == stage.new
        trial.expect(status in (0, sent.status) or too_late, what)
        trial.expect(errors.count(b"\n") == (status > 0) or too_late, what)
    trial.expect(output in (OLD, stage.new) and (status or output == stage.new), "a mixture; " + what)
    if sent.number == signal.SIGKILL:
        for name in set(os.listdir(stage.folder)) - set(stage.files):
            trial.expect(name.startswith(".flagged-"), "left behind: " + name)
            os.unlink(stage.path(name))
    left_clean(trial, stage)
    return (sent.number.name + " in start-up" * early, "new" if output == stage.new else "old", status)


def running(folder):
    """The processes that have a folder in their command line."""
    return [pid for pid in os.listdir("/proc") if pid.isdigit()
            and folder.encode() in (readable("/proc/%s/cmdline" % pid) or b"")]


def readable(path):
    with contextlib.suppress(OSError):
        return read(path)


FAULTS = (file_size_limit, full_disk, unreadable_inputs, as_nobody, impossible_outputs, output_is_an_input,
          closed_streams, fifo_byte_by_byte, truncated_input, two_at_once, left_over, killed_worker,
          memory_limits)


def faults(trial):
    """Signals at random moments, full disks, missing rights, closed streams, scarce memory."""
    for fault in FAULTS:
        with trial.one(fault.__name__):
            fault(trial, Stage(trial.folder))
    if trial.limit:
        trial.limit += len(FAULTS)
    with scratch() as folder:
        stage = Stage(folder, 20000)
        started = time.monotonic()
        stage.run("--jobs", "1")
        seconds = time.monotonic() - started
        ends = Counter()
        trial.repeat(lambda trial: ends.update([died(trial, stage, seconds)]))
        wait_until(lambda: not running(folder), 5)
        trial.expect(not running(folder), "worker processes outlive their parent")
    for end, count in sorted(ends.items()):
        trial.measured("%s: %s output, exit status %d: %d times" % (*end, count))


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


# ---------------------------------------------------------------------- 5 hostile load

HEADER = '{"D":"%d", "T":"%d"}\n'
PURCHASE = '{"event_type":"purchase", "timestamp":"%s", "id": "%s", "amount": "%s"}\n'
FRIENDS = '{"event_type":"%s", "timestamp":"2017-06-13 11:33:01", "id1": "%s", "id2": "%s"}\n'
BILLION = 10 ** 9


def befriend(one, other):
    return FRIENDS % ("befriend", one, other)


def moment(second, year=2017):
    return str(datetime(year, 1, 1) + timedelta(seconds=second))


def price(number):
    return "%d.%02d" % (number * 7919 % 9973, number % 100)


def purchase(number, user, year=2017):
    return PURCHASE % (moment(number, year), user, price(number))


def somebody(number, users):
    return number * 7919 % users


def star(friends, purchases, buyer, judged):
    """User 0 is the centre."""
    batch = [(befriend(0, leaf) for leaf in range(1, friends)),
             (purchase(k, somebody(k, friends)) for k in range(purchases))]
    return batch, (purchase(purchases + k, buyer(k)) for k in range(judged))


def clique(users, purchases, judged):
    batch = [(befriend(one, other) for one in range(users) for other in range(one)),
             (purchase(k, somebody(k, users)) for k in range(purchases))]
    return batch, (purchase(purchases + k, somebody(k, users)) for k in range(judged))


def path(users, judged):
    batch = [(befriend(k, k + 1) for k in range(users)),
             (purchase(k, somebody(k, users)) for k in range(users))]
    return batch, (purchase(users + k, somebody(k, users)) for k in range(judged))


def on_and_off(times):
    return [], (FRIENDS % (("befriend", "unfriend")[k % 2], 1 + k % 3 // 2, 2 - k % 3 // 2) for k in range(times))


def one_buyer(times, when=moment, judged=20):
    """User 1 buys, then friend 2 does."""
    batch = [[befriend(1, 2)], (PURCHASE % (when(k), 1, price(k)) for k in range(times))]
    return batch, (purchase(k, 2) for k in range(judged))


def town(users, purchases, judged, when=moment, amount=price):
    """Everybody has some ten friends."""
    def bought(k):
        return PURCHASE % (when(k), somebody(k, users), amount(k))
    batch = [(befriend(k % users, (k % users + 1 + k * 7919 % (users - 1)) % users) for k in range(5 * users)),
             map(bought, range(purchases))]
    return batch, map(bought, range(purchases, purchases + judged))


def crowded_future(friends, outsiders, judged):
    """Outsiders who buy in the year 9999 are the most recent buyers of all."""
    batch, stream = star(friends, friends, lambda k: k % 2 * k, judged)
    return [*batch, (purchase(k, "outsider %d" % k, 9999) for k in range(outsiders))], stream


def backwards(second):
    return moment(200000000 - second)


Load = namedtuple("Load", "degree tracked logs seconds memory")    # limits as multiples of the floor's
LOADS = {
    "star, D=1, the centre buys": Load(1, 50, lambda s: star(200000 * s, 200000 * s, lambda k: 0, 2000 * s), 6, 25),
    "star, D=2, the leaves buy": Load(2, 50, lambda s: star(200000 * s, 200000 * s, lambda k: k + 1, 2000 * s), 6, 25),
    "star, D=2, the centre buys": Load(2, 50, lambda s: star(200000 * s, 200000 * s, lambda k: 0, 2000 * s), 6, 25),
    "star, D=2, T=10**9": Load(2, BILLION, lambda s: star(200000 * s, 200000 * s, lambda k: k % 2, 20), 25, 30),
    "clique, D=1": Load(1, 50, lambda s: clique(2000 * s, 20000 * s, 2000 * s), 3, 40),
    "clique, D=3": Load(3, 50, lambda s: clique(2000 * s, 20000 * s, 2000 * s), 3, 40),
    "path, D=50": Load(50, 50, lambda s: path(200000 * s, 1000 * s), 6, 25),
    "path, D=10**9": Load(BILLION, 50, lambda s: path(200000 * s, 20), 20, 30),
    "one pair, on and off": Load(3, 50, lambda s: on_and_off(10 ** 6 * s), 3, 4),
    "one buyer": Load(2, 50, lambda s: one_buyer(10 ** 6 * s), 5, 6),
    "one buyer, T=10**9": Load(2, BILLION, lambda s: one_buyer(10 ** 6 * s), 9, 35),
    "one buyer, T=10**9, backwards": Load(2, BILLION, lambda s: one_buyer(200000 * s, backwards), 30, 12),
    "a town, D=10**9": Load(BILLION, 50, lambda s: town(10000 * s, 200000 * s, 2000 * s), 9, 12),
    "a town, T=10**9": Load(2, BILLION, lambda s: town(1000 * s, 200000 * s, 50), 9, 12),
    "a town, all amounts and times distinct": Load(2, 50, lambda s: town(
        1000 * s, 10 ** 6 * s, 2000 * s, lambda k: moment(k) + ".%06d" % (k % 10 ** 6), lambda k: "%d.%02d" % (k, k % 100)), 6, 7),
    "a town, backwards": Load(2, 50, lambda s: town(1000 * s, 100 * s, 200000 * s, backwards), 80, 8),
    "a crowded future": Load(2, 50, lambda s: crowded_future(200000 * s, 40000 * s, 50 * s), 40, 35),
}


class Scale(int):
    """What a load's numbers are multiplied by; a fraction 1/Scale."""

    def __rmul__(self, number):
        return max(10, number // int(self))


START_UP = 0.15     # seconds that are not the load's
MEASURE = """
import resource, subprocess, sys, time
started = time.perf_counter()
status = subprocess.call(sys.argv[1:])
print(status, time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def hostile(trial, shrink=1, slack=1):
    """Loads made to be slow: time and memory within stated multiples of a bare JSON loop's."""
    for name, load in LOADS.items():
        with trial.one(name):
            measure_load(trial, name, load, Scale(shrink), slack)


def measured(*command):
    """Run a command; return (exit status, seconds, peak KB, what it said).

    A small process in between starts it: Linux counts a child's peak from its parent's memory.
    """
    done = subprocess.run([sys.executable, "-c", MEASURE, *command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
    status, seconds, peak = done.stdout.split()
    return int(status), float(seconds), int(peak), done.stderr.decode("utf-8", "replace")


def measure_load(trial, name, load, scale, slack):
    batch, stream = load.logs(scale)
    logs = [os.path.join(trial.folder, log) for log in LOGS]
    for log, parts in zip(logs, ([[HEADER % (load.degree, load.tracked)], *batch], [stream])):
        with open(log, "w") as file:
            for part in parts:
                file.writelines(part)
    output = os.path.join(trial.folder, "flagged")
    _, floor, floor_peak, _ = measured(sys.executable, "-c", FLOOR, *logs)
    status, seconds, peak, said = measured(sys.executable, DETECTOR, "--jobs", "1", *logs, output)
    trial.expect(status == 0 and said.count("(0 skipped)") == 2 and said.count("\n") == 1, said)
    times, memory = max(0, seconds - START_UP) / floor, peak / floor_peak
    trial.expect(times <= load.seconds * slack, "%s: %.1f times the floor's time" % (name, times))
    trial.expect(memory <= load.memory, "%s: %.1f times the floor's memory" % (name, memory))
    trial.measured("%-40s floor %5.2f s; time x %5.1f (limit %2d), %4.0f MB, memory x %4.1f (limit %2d)" % (
        name, floor, times, load.seconds, peak / 1e3, memory, load.memory))


# ------------------------------------------------------------------------- 6 live mode

class Live:
    """The program as a live monitor, a pipe at each end."""

    def __init__(self, folder, distinct):
        self.distinct = distinct    # no two times are the same
        self.process = child(write(os.path.join(folder, "batch"), self.batch().encode()), "-", "-",
                             stdin=subprocess.PIPE, bufsize=0)
        self.out = io.BufferedReader(self.process.stdout)
        self.latencies = []

    users, probes = 300, 20

    def batch(self):
        """A town, and users who each have one friend there, no other's."""
        pairs = [(k, (k + 1 + j * j) % self.users) for k in range(self.users) for j in range(3)]
        pairs += [("probe %d" % k, k * 5) for k in range(self.probes)]
        return HEADER % (2, 20) + "".join(befriend(*pair) for pair in pairs) + PURCHASE % (
            "9999-12-31 23:59:59", "from the future", "1.00")

    def time(self, number):
        return moment(number // 1000) + (".%06d" % (number % 10 ** 6) if self.distinct else "")

    def events(self, rng, start, count):
        """Events as they come: purchases, also late ones and of loners, churn, bad lines."""
        for number in range(start, start + count):
            kind = rng.random()
            one, other = rng.sample(range(self.users), 2)
            if kind < 0.6:
                late = rng.randrange(60000) if kind < 0.03 else 0
                yield PURCHASE % (self.time(max(0, number - late)), one, "%d.%02d" % divmod(rng.randrange(900, 1100), 100))
            elif kind < 0.8:
                yield PURCHASE % (self.time(number), "loner %d" % one, "5.00")
            elif kind < 0.98:
                yield FRIENDS % (rng.choice(("befriend", "unfriend")), "churn %d" % one, "churn %d" % (one + 1))
            else:
                yield "bad line %d\n" % number

    def probe(self, number):
        """Send an outlier; return how long its verdict takes when nothing else is sent."""
        name = '"probe %d"' % (number % self.probes)
        line = PURCHASE % (self.time(number), name[1:-1], "99999.99")
        started = time.perf_counter()
        self.process.stdin.write(line.encode())
        while True:
            verdict = self.out.readline()
            if not verdict:
                raise RuntimeError("no verdict: " + repr(self.process.stderr.read()))
            if name.encode() in verdict:
                break
        return time.perf_counter() - started

    def memory(self):
        """The resident bytes of the process."""
        with open("/proc/%d/statm" % self.process.pid) as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def close(self):
        status, _, errors = ended(self.process)
        return status, errors


def live(trial, events=10 ** 6, every=200):
    """Events without end through a pipe: flat memory, and each verdict at once."""
    with trial.one("%d events" % events):
        monitor = Live(trial.folder, events > 500000)   # enough to fill the memos in the first half
        resident = []
        for start in range(0, events, every):
            monitor.process.stdin.write("".join(monitor.events(trial.rng, start, every - 1)).encode())
            monitor.probe(start)                    # all before it is done: it idles
            monitor.latencies.append(monitor.probe(start))
            resident.append(monitor.memory())
        status, errors = monitor.close()
        trial.expect(status == 0, "exit status %s: %s" % (status, errors))
        trial.expect(b"judged" in errors, "no summary: %s" % errors)
        warm, end = max(resident[:len(resident) // 2]), max(resident[len(resident) // 2:])
        trial.expect(end - warm <= 3 << 20, "memory grows after warm-up: %s" % resident[::len(resident) // 10])
        slow = sorted(monitor.latencies)
        trial.expect(slow[len(slow) // 2] < 0.005 and slow[-1] < 1, "verdicts are late: %s" % slow[-3:])
        trial.measured("%d events, %.1f MB in the first half, %.1f MB in the second" % (events, warm / 1e6, end / 1e6))
        trial.measured("latency of %d verdicts: p50 %.2f ms, p99 %.2f ms, max %.2f ms" % (
            len(slow), *(slow[int(share * (len(slow) - 1))] * 1e3 for share in (0.5, 0.99, 1))))


# -------------------------------------------------------------------------- 7 coverage

# What every Python that is started loads first, to note which lines of the program it runs.
HOOK = """
import atexit, dis, os, sys
missing = {}

def trace(frame, event, argument):
    code = frame.f_code
    if code.co_filename.endswith("anomaly_detection.py"):
        if id(code) not in missing:
            lines = {line for _, line in dis.findlinestarts(code)}
            missing[id(code)] = lines, set(lines)
        return trace_line if missing[id(code)][1] else None

def trace_line(frame, event, argument):
    missing[id(frame.f_code)][1].discard(frame.f_lineno)
    return trace_line

def note(status=None):
    with open(os.path.join(%(folder)r, "ran-%%d-%%s" %% (os.getpid(), os.urandom(4).hex())), "w") as file:
        file.write(" ".join(str(line) for lines, left in list(missing.values()) for line in lines - left))
    if status is not None:
        leave(status)

atexit.register(note)
leave, os._exit = os._exit, note
sys.settrace(trace)
"""
EXCUSED = {         # source line: why the suite may never run it
    "os.cpu_count() or 1)": "only where a process cannot be bound to processors, as on macOS",
    "os._exit(1)": "a worker whose parent was killed, just then: by chance, in the long form",
    "return 130": "a second Ctrl-C within the first one's microseconds",
}


def lines_run(*command):
    """The lines of the program that a command and the processes it starts run."""
    with scratch() as folder:
        os.chmod(folder, 0o777)
        write(os.path.join(folder, "sitecustomize.py"), (HOOK % {"folder": folder}).encode())
        subprocess.run(command, env=dict(os.environ, PYTHONPATH=folder), stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return {int(line) for name in os.listdir(folder) if name.startswith("ran-")
                for line in read(os.path.join(folder, name)).split()}


def lines_there():
    """The lines of the program that can be run."""
    codes, lines = [compile(read(DETECTOR), DETECTOR, "exec")], set()
    for code in codes:
        lines.update(line for _, line in dis.findlinestarts(code) if line)
        codes += [value for value in code.co_consts if hasattr(value, "co_code")]
    return lines


def coverage(trial):
    """The lines of the program that the suite never runs: none without a reason."""
    with trial.one("run_tests.sh"):
        there = lines_there()
        never = there - lines_run(os.path.join(HERE, "run_tests.sh"))
        source = read(DETECTOR).decode().split("\n")
        for line in sorted(never):
            text = source[line - 1].strip()
            trial.expect(text in EXCUSED, "line %d is never run: %s" % (line, text))
            trial.measured("%4d  %s  (%s)" % (line, text, EXCUSED.get(text, "no reason")))
        trial.measured("%d of %d lines run" % (len(there - never), len(there)))


# ------------------------------------------------------------------------ command line

PARTS = {part.__name__: part for part in (
    differential, metamorphic, mutation, faults, hostile, live, coverage)}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="which parts (default: all)")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--seconds", type=float, default=60, metavar="S",
                        help="how long each part of random cases goes on (default: 60)")
    parser.add_argument("--list", action="store_true", help="tell the parts and end")
    options = parser.parse_args(arguments)
    if options.list:
        for name, part in PARTS.items():
            print("%-13s %s" % (name, part.__doc__))
        return 0
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error("no such part: %s" % ", ".join(sorted(unknown)))
    trials = []
    for name in options.parts or PARTS:
        print(name, flush=True)
        trials.append(Trial(name, options.seed, options.seconds))
        PARTS[name](trials[-1])
        print("  " + trials[-1].closing(), flush=True)
    total = [sum(getattr(trial, figure) for trial in trials)
             for figure in ("cases", "mismatches", "crashes")]
    print("%d cases tried, %d mismatches, %d crashes" % tuple(total))
    return 1 if any(total[1:]) else 0


if __name__ == "__main__":
    sys.exit(main())
