"""Random logs, thresholds of the short-cuts forced low: the bytes of the literal reference.

This protects the verdicts: by whichever short-cut, in one process or in several, at once or through
snapshots, what is flagged and rejected and who is told are the reference's bytes, and the page is the
same. What is taken gets counted: no short-cut goes untried.
"""

import json
import re
from collections import Counter

import reference
from random_logs import random_log

from .common import MORE, agrees, changed, knobs, owner_of, program, well_formed
from .metamorphic import Log, users_renamed

PATHS = (       # what must be taken by some of the cases
    (None, "merge"), (None, "NetworkMembership"), (None, "Page"), (None, "read_event"),
    (None, "baseline"), ("RecentPurchases", "walk"), ("RecentPurchases", "look_up"),
    ("Page", "halves"), ("NetworkMembership", "is_near"), ("NetworkMembership", "network"),
    ("PurchaseHistory", "last"), ("SocialNetwork", "network"), ("Memo", "clear"),
    ("SocialNetwork", "rings"), ("Report", "shorten"))


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
    rng, notify = trial.rng, []
    batch, stream = random_log(rng, rng.choice((0, 0, 0, 0.05)))
    jobs, more = "1", ()
    if trial.cases % 8 == 0:
        jobs, more = rng.choice("23456"), MORE
        if rng.random() < 0.5:
            batch, stream = users_renamed(rng, Log.random(rng))
    with changed(knobs(rng)):
        ran = program(trial, batch, stream, "--quiet", "--jobs", jobs, more=more)
        if more:
            alone = program(trial, batch, stream, "--quiet", more=more)
            trial.expect(ran == alone, "--jobs %s: not what one process does" % jobs)
            trial.expect(well_formed(ran.report), "not a page: %s" % ran.report)
            through_snapshots(trial, batch, stream, ran)
    agrees(trial, ran, reference.judge_logs(batch, stream, notify=notify), notify)


def through_snapshots(trial, batch, stream, whole):
    """Cut the logs anywhere; each run starts from the snapshot of the one before."""
    header, *lines = re.findall(b".*\n", batch + stream)
    first = batch.count(b"\n") - 1
    places = sorted([first, *(trial.rng.randint(0, len(lines)) for _ in "12")])
    state, runs = header + b"".join(lines[:places[0]]), []
    for place, after in zip(places, [*places[1:], None]):
        before, part = state, b"".join(lines[place:after])
        runs.append(program(trial, before, part, "--quiet", more=["notify", "snapshot"]))
        state = runs[-1].snapshot
    trial.expect(state == whole.snapshot, "another snapshot through those at %s" % places)
    for name in "flagged", "notify":
        joined = b"".join(getattr(ran, name) for ran in runs[places.index(first):])
        trial.expect(joined == getattr(whole, name), "%s through snapshots at %s" % (name, places))
    tracked = int(json.loads(header)["T"])
    options = "-D", str(trial.rng.randint(1, 6)), "-T", str(trial.rng.randint(2, tracked))
    found, wanted = (program(trial, log, part, "--quiet", *options).flagged
                     for log in (before, header + b"".join(lines[:place])))
    trial.expect(found == wanted, "with %s from the snapshot at %d" % (options, place))
