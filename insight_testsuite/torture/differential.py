"""Random logs in mixed spellings, thresholds of the short-cuts forced low: the bytes of the literal reference.

This protects the verdicts: by whichever short-cut, above any number of standard deviations, in one
process or in several, at once, through snapshots or by --resume over a growing file, what is judged,
flagged and rejected, by which purchases, and who is told are the reference's bytes, and the page is the same. What is
taken gets counted: no short-cut goes untried.
"""

import json
import os
import re
from collections import Counter
from fractions import Fraction

from random_logs import random_log

from .common import (
    LOGS, MORE, agrees, changed, knobs, owner_of, program, read, well_formed, without_place)
from .metamorphic import Log, users_renamed

PATHS = (       # what must be taken by some of the cases
    (None, "merge"), (None, "NetworkMembership"), (None, "Page"), (None, "read_event"),
    (None, "flag_of"), ("RecentPurchases", "walk"), ("RecentPurchases", "look_up"),
    ("Page", "halves"), ("NetworkMembership", "is_near"), ("NetworkMembership", "network"),
    ("PurchaseHistory", "last"), ("SocialNetwork", "network"), ("Memo", "clear"),
    ("SocialNetwork", "rings"), ("Intervals", "fit"), ("Detector", "plain_window"), (None, "shape_of"),
    ("SocialNetwork", "change"))

DEVIATIONS = "3", "3", "3", "0", "0.5", "1", "2.5", "2.999999999999999", "10", "999999999999999"


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


def run(trial):
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
    rng, deviations, jobs, more = trial.rng, trial.rng.choice(DEVIATIONS), "1", ()
    several = trial.cases % 8 == 0
    batch, stream = random_log(rng, 0 if several else rng.choice((0, 0, 0, 0.05)), rng.choice((0, 0.1, 0.5)))
    if rng.random() < 0.3:
        batch, stream = in_shapes(rng, *random_log(rng))
    if several:
        jobs, more = rng.choice("23456"), MORE
        if rng.random() < 0.3:
            batch, stream = users_renamed(rng, Log.random(rng))
    elif rng.random() < 0.3:
        more = "verdicts", "notify", "evidence"
    options = "--quiet", *(("--sd", deviations) if deviations != "3" else ())
    with changed(knobs(rng)):
        ran = program(trial, batch, stream, *options, "--jobs", jobs, more=more)
        if several:
            alone = program(trial, batch, stream, *options, more=more)
            trial.expect(ran == alone, "--jobs %s: not what one process does" % jobs)
            trial.expect(well_formed(ran.report), "not a page: %s" % ran.report)
            through_snapshots(trial, batch, stream, ran, options)
            by_resume(trial, batch, stream, ran, options)
    agrees(trial, ran, batch, stream, Fraction(deviations))


def in_shapes(rng, *logs):
    """The lines of logs as one to three programs write them: in an order and with fields of their own.

    The programs take turns, after 1 to 50 lines; a field may be there in half of a program's lines.
    """
    programs = []
    for _ in range(rng.randint(1, 3)):
        extra = rng.sample(("currency", "ID", "a.b*", "(c)+", "^|$", "\n", "D", "id3", "\u00e9"), rng.randint(0, 3))
        keys = ["event_type", "timestamp", "id", "amount", "id1", "id2", *extra]
        programs.append((rng.sample(keys, len(keys)), extra, rng.choice((0, 0, 0.5)),
                         dict(separators=rng.choice(((", ", ": "), (",", ":"))), ensure_ascii=rng.random() < 0.5)))
    turn, changed_logs = rng.choice((1, 10, 50)), []
    for log in logs:
        lines = log.splitlines()
        for number, line in enumerate(lines):
            keys, extra, absent, style = programs[number // turn % len(programs)]
            event = json.loads(line)
            if "event_type" in event:
                event.update((name, rng.choice(VALUES)) for name in extra if rng.random() >= absent)
                lines[number] = json.dumps({key: event[key] for key in keys if key in event}, **style).encode()
        changed_logs.append(b"".join(line + b"\n" for line in lines))
    return changed_logs


VALUES = None, True, 0, -1.5e-7, 10 ** 50, "", "US$", "\u00e9\u2028", '"}\\', "\0", "x" * 201, "purchase", [1], {"id": "9"}


def through_snapshots(trial, batch, stream, whole, options):
    """Cut the logs anywhere; each run starts from the snapshot of the one before."""
    header, *lines = re.findall(b".*\n", batch + stream)
    first = batch.count(b"\n") - 1
    places = sorted([first, *(trial.rng.randint(0, len(lines)) for _ in "12")])
    state, runs = header + b"".join(lines[:places[0]]), []
    for place, after in zip(places, [*places[1:], None]):
        before, part = state, b"".join(lines[place:after])
        runs.append(program(trial, before, part, *options, more=["notify", "verdicts", "evidence", "snapshot"]))
        state = runs[-1].snapshot
    trial.expect(without_place(state) == without_place(whole.snapshot),
                 "another snapshot through those at %s" % places)
    trial.expect(lines_judged(state) == len(lines) - places[-1], "lines of the last part, cut at %s" % places)
    for name in "flagged", "notify", "verdicts", "evidence":
        joined = b"".join(getattr(ran, name) for ran in runs[places.index(first):])
        trial.expect(joined == getattr(whole, name), "%s through snapshots at %s" % (name, places))
    tracked = int(json.loads(header)["T"])
    other = *options, "-D", str(trial.rng.randint(1, 6)), "-T", str(trial.rng.randint(2, tracked))
    found, wanted = (program(trial, log, part, *other).flagged
                     for log in (before, header + b"".join(lines[:place])))
    trial.expect(found == wanted, "with %s from the snapshot at %d" % (other, place))


def lines_judged(snapshot):
    """Return how many lines of the stream a snapshot says that it stands for."""
    return int(json.loads(snapshot.partition(b"\n")[0])["stream_lines"])


def by_resume(trial, batch, stream, whole, options):
    """Let the stream grow by any number of bytes; each run goes on after the lines of the last one.

    Every other time a snapshot takes the place of the batch log that it was made from.
    """
    sizes = sorted(trial.rng.randint(0, len(stream)) for _ in "12") + [len(stream)]
    state, runs, name = batch, [], trial.rng.choice(("snapshot", LOGS[0]))
    path = os.path.join(trial.folder, name)
    for size in sizes:
        runs.append(program(trial, state, stream[:size], *options, "--resume", "--snapshot", path,
                            "--jobs", trial.rng.choice("13"), more=["notify", "verdicts", "evidence"]))
        trial.expect(runs[-1].status == 0, "--resume at %s: %s" % (sizes, runs[-1]))
        state = read(path)
    trial.expect(state == whole.snapshot, "another snapshot by --resume at %s" % sizes)
    for name in "flagged", "notify", "verdicts", "evidence":
        joined = b"".join(getattr(ran, name) for ran in runs)
        trial.expect(joined == getattr(whole, name), "%s by --resume at %s" % (name, sizes))
    shorter = program(trial, state, stream[:stream.rstrip(b"\n").rfind(b"\n") + 1], *options, "--resume")
    trial.expect(shorter.status == 2 and shorter.flagged is None and shorter.said.count("\n") == 1,
                 "a stream that is shorter than before: %s" % (shorter,))
