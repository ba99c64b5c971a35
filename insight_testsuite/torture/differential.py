"""Random logs, thresholds of the short-cuts forced low: the bytes of the literal reference.

This protects the verdicts: by whichever short-cut, in one process or in several, what is flagged and
what is rejected are the reference's bytes. What is taken gets counted: no short-cut goes untried.
"""

from collections import Counter

import reference
from random_logs import random_log

from .common import agrees, changed, knobs, owner_of, program

PATHS = (       # what must be taken by some of the cases
    (None, "merge"), (None, "Reach"), (None, "Page"), (None, "read_event"),
    (None, "baseline"), ("RecentPurchases", "walk"), ("RecentPurchases", "look_up"),
    ("Page", "halves"), ("Reach", "is_near"), ("Reach", "network"),
    ("PurchaseHistory", "last"), ("SocialNetwork", "network"), ("Memo", "clear"))


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
    batch, stream = random_log(trial.rng, trial.rng.choice((0, 0, 0, 0.05)))
    with changed(knobs(trial.rng)):
        jobs = trial.rng.choice("23456") if trial.cases % 8 == 0 else "1"
        ran = program(trial, batch, stream, "--quiet", "--jobs", jobs)
    agrees(trial, ran, reference.judge_logs(batch, stream))
