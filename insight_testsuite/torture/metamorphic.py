"""Logs that mean the same get the same verdicts.

This protects the rule itself, also where the reference might be wrong in the same way as the program:
a log is only held against another form of it.
"""

import json
import os
import subprocess
from collections import namedtuple

from random_logs import SPELLINGS, numbers, random_log, spaced

from .common import changed, child, ended, knobs, program, without_place, write


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
             "\x00", "\n", "A" * 500, "id", "null", "<script>alert(1)</script>", "</table>", "&lt;",
             *map("user %d".__mod__, range(len(ids)))]
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


def respelled(rng, log):
    """Compact, in other zones, with exponents, numbers for text, or marks at the beginning."""
    def form(event):
        line = json.dumps(event).encode().replace(b'"timestamp": ', b'"timestamp":')
        for _ in range(rng.randint(0, 3)):
            line = rng.choice(SPELLINGS)(rng, line)
        return line
    return log.bytes(form)


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


RELATIONS = (split_elsewhere, users_renamed, keys_shuffled, ids_as_numbers, respelled, outsiders_added,
             outsider_appended)
SAME_STATE = split_elsewhere, keys_shuffled, ids_as_numbers, respelled
LIVE_EVERY = 25


def run(trial):
    rate = trial.repeat(relations_hold)
    trial.measured("%.0f logs/s, %d relations each; live mode with one in %d" % (
        rate, len(RELATIONS) + 1, LIVE_EVERY))


def relations_hold(trial):
    log = Log.random(trial.rng)
    with changed(knobs(trial.rng)):
        base = program(trial, *log.bytes(), more=["snapshot"])
        wanted = verdicts(base.flagged)
        for relation in RELATIONS:
            logs = relation(trial.rng, log)
            first = logs[0].count(b"\n") - 1 if relation is split_elsewhere else 0
            ran = program(trial, *logs, more=["snapshot"])
            found = verdicts(ran.flagged)
            found.pop("outside", None)
            first = max(first, log.cut)
            trial.expect(since(first, found) == since(first, wanted), relation.__name__)
            trial.expect(relation not in SAME_STATE
                         or without_place(ran.snapshot) == without_place(base.snapshot),
                         "the snapshot, " + relation.__name__)
        wide, wider = (program(trial, *log._replace(degree=degree).bytes()).flagged
                       for degree in (60, 10 ** 18 - 1))
        trial.expect(wide == wider, "D past the diameter")
    if trial.cases % LIVE_EVERY == 1:
        batch, stream = log.bytes()
        batch = write(os.path.join(trial.folder, "batch"), batch)
        status, flagged, said = ended(child(batch, "-", "-", "--quiet", stdin=subprocess.PIPE), stream)
        trial.expect((status, flagged) == (0, base.flagged), "live mode: %s %s" % (status, flagged))
        trial.expect(not said or said.count(b"\n") == 1 and b"was it judged before?" in said,
                     "live mode says: %s" % said)
