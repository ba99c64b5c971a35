"""Damaged lines are skipped, reported and kept; all others count.

This protects the run from its logs: no line, whatever is in it, ends the run, changes the verdicts on
others, gets into a snapshot or onto a page, or disappears uncounted; the first ones of each kind are
told; and a damaged header is refused exactly when the reference refuses it.
"""

import os
import re
from collections import Counter

import reference
from random_logs import random_log

from .common import LOGS, MORE, agrees, detector, is_no_log, program, well_formed, without_place


def place(rng, line):
    return rng.randint(0, len(line))


def flip(rng, line, other):
    k = rng.randrange(len(line))
    return line[:k] + bytes([line[k] ^ 1 << rng.randrange(8)]) + line[k + 1:]


def cut(rng, line, other):
    one, two = sorted((place(rng, line), place(rng, line)))
    return line[:one] + line[two:]


BYTES = [b"\0", b"\r", b"\n", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\\ud800", b"\\udc00", b"\xff", b"\xc0\xaf", b"\xc3",
         b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xc2\xa0", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xc2\x85", b"\x7f",
         b"\t", b" ", b'"', b"\\", b"\\u0031", b"\\u00", b"{", b"}", b"[", b"]", b",", b":", b"-", b"+", b".", b"e5",
         b"0", b"_", b"\xef\xbc\x91", b"/**/", b"#", b"'", b"null", b"}{", b"{}", b"9" * 400]


def insert(rng, line, other):
    k = place(rng, line)
    return line[:k] + rng.choice(BYTES) + line[k:]


def duplicate(rng, line, other):
    one, two = sorted((place(rng, line), place(rng, line)))
    return line[:two] + line[one:]


def splice(rng, line, other):
    return line[:place(rng, line)] + other[place(rng, other):]


VALUES = [b"0", b"-0", b"1", b"1.0", b"1e5", b"1E400", b"-1", b"01", b"+1", b"1.", b".5", b"9" * 5000, b"true",
          b"false", b"null", b"[]", b"{}", b'[1]', b'{"a": 1}', b'""', b'" "', b'"1"', b"4111111111111111",
          b"4111111111111111.0", b"4.111111111111111e15", b"1e99", b"1E+100", b"1e-99", b"1e999", b"-1e-999", b"7e000",
          b"7." + b"0" * 99, b"7." + b"0" * 100, b'"\\u0031"',
          b'"\\ud83d\\ude00"', b'"\\ud83d"', b'"\\n"', b'"1\\n"', b'"\\u0000"', b"NaN", b"-Infinity", b"Infinity",
          b'"NaN"', b'"1_000"', b'"1e3"', b'"-0.00"', b'"+5"', b'" 5"', b'"999999999999999.999999999999999"',
          b'"1000000000000000"', b'"1.0000000000000000"', b'"\xef\xbc\x91"', b'"purchase"', b'"Purchase"',
          b'"unfriend"', b'"befriend"', b'"2017-02-29 00:00:00"', b'"2016-02-29 23:59:59.999999"',
          b'"2017-06-13 24:00:00"', b'"2017-06-13 11:33:60"', b'"0000-01-01 00:00:00"', b'"0001-01-01 00:00:00"',
          b'"9999-12-31 23:59:59"', b'"2017-06-13T11:33:01"', b'"2017-06-13 11:33:01."',
          b'"2017-06-13 11:33:01.1234567"', b'"2017-06-13 11:33:01Z"', b'"2017-6-13 11:33:01"',
          b'"2017-06-13 11:33:01\\n"', b"20170613"]
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
    filling = rng.choice((b'"%s"' % (b"x" * 10 ** 7), b'"%s"' % (b"\xc3\xa9" * (5 * 10 ** 6)),
                          b"7" * 10 ** 7, b" " * 10 ** 7 + b"0"))
    return rng.choice((line[:-1] + b', "x": ' + filling + b"}", retyped(rng, line, other)[:-1] + filling))


MUTATIONS = flip, cut, insert, insert, duplicate, splice, retyped, retyped, key_again


def mutated(rng, log, first):
    """A log (bytes) of which some lines, or most, from number `first` on are damaged."""
    share = rng.choice((0.15,) * 9 + (0.9,))
    lines = log.split(b"\n")[:-1]
    for number in range(first, len(lines)):
        if rng.random() < share:
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                lines[number] = rng.choice(MUTATIONS)(rng, lines[number] or b"{}", rng.choice(lines))
    if len(lines) > first and rng.random() < 0.05:
        number = rng.randrange(first, len(lines))
        lines[number] = (huge if rng.random() < 0.1 else nested)(rng, lines[number], b"")
    bom = b"\xef\xbb\xbf" if rng.random() < 0.1 else b""
    return bom + b"\n".join(lines) + rng.choice((b"", b"\n", b"\n", b"\r\n", b"\n\n"))


def without(log, skipped):
    """A log with blank lines in place of its skipped (number, line)s."""
    numbers_ = {number for number, _ in skipped}
    lines = log.split(b"\n")
    return b"\n".join(b"\r" if number in numbers_ else line for number, line in enumerate(lines, 1))


def kind_and_reason(line):
    """The kind of a malformed line (bytes) and what is said of it."""
    (findings,) = detector.replay([line + b"\n"], detector.Detector(1, 2))
    (malformed,) = findings.malformed
    return malformed.kind, malformed.reason


def reports_of(path, skipped):
    """What is said of the skipped lines of a log: the first 3 of each of the first 10 kinds, then the counts."""
    reports, kinds = [], Counter()
    for number, line in skipped:
        kind, reason = kind_and_reason(line)
        kinds[kind] += 1
        if kinds[kind] <= 3 and kind in [*kinds][:10]:
            reports.append("%s:%d: skipped: %s" % (path, number, reason))
    shown = kinds.most_common(10)
    others = len(skipped) - sum(number for _, number in shown)
    if skipped:
        reports.append("%s: skipped %d: %s" % (path, len(skipped), ", ".join(
            ["%d %s" % (number, kind) for kind, number in shown] + ["%d others" % others] * (others > 0))))
    return ["anomaly_detection: " + detector.printable(report) for report in reports]


def run(trial):
    skipped = []

    def case(trial):
        batch, stream = (mutated(trial.rng, log, first)
                         for log, first in zip(random_log(trial.rng, 0.02, trial.rng.choice((0, 0.1))), (1, 0)))
        skipped.append(damage_is_skipped(trial, batch, stream))
        damaged_header(trial, batch, stream)

    rate = trial.repeat(case)
    trial.measured("%.0f logs/s, %d lines skipped" % (rate, sum(skipped)))


def damage_is_skipped(trial, batch, stream):
    """Hold a run over dirty logs against the reference; return how many lines it skipped."""
    ran = program(trial, batch, stream, more=MORE)
    result = agrees(trial, ran, batch, stream)
    bad = result.batch_skipped, result.stream_skipped
    if not is_no_log(result, batch, stream):
        clean = program(trial, *map(without, (batch, stream), bad), more=MORE)
        trial.expect(clean.rejects == b"", "a clean log has rejects")
        for name in "flagged", "notify", "verdicts", "evidence", "snapshot":     # whose header tells damaged lines apart
            trial.expect(without_place(getattr(clean, name)) == without_place(getattr(ran, name)),
                         name + ": not that of the log without the skipped lines")
        clean, dirty = (re.sub(b"skipped: [0-9,]+", b"", page) for page in (clean.report, ran.report))
        trial.expect(clean == dirty and well_formed(dirty), "the page is not that of the log without the skipped lines")
        all_are_told(trial, ran.said, bad)
    return sum(map(len, bad))


def all_are_told(trial, said, bad):
    """Expect what a run said to be what its skipped lines are worth, and its summary."""
    *reports, summary = said.splitlines()
    wanted = [reports_of(os.path.join(trial.folder, name), lines) for name, lines in zip(LOGS, bad)]
    asked = [line for line in reports if re.search(r"was it judged before\?$|do the ids of both logs agree\?$", line)]
    told = [line for line in reports if line not in asked]
    trial.expect(len(asked) == len(set(asked)), "the same warning twice")
    trial.expect(told == [line for lines in wanted for line in lines[:-1]]
                 + [line for lines in wanted for line in lines[-1:]], "reports: %s, not %s" % (told, wanted))
    trial.expect(re.findall(r"\(([0-9]+) skipped\)", summary) == [str(len(lines)) for lines in bad],
                 "summary: " + summary)
    trial.expect(all(len(line) < 1500 for line in reports), "a report of endless length: %s" % reports)


def damaged_header(trial, batch, stream):
    """Damage the header: refused exactly when the reference refuses it."""
    header, newline, rest = batch.partition(b"\n")
    batch = trial.rng.choice(MUTATIONS)(trial.rng, header, header) + newline + rest
    ran = program(trial, batch, stream)
    try:
        reference.judge_logs(batch, stream)
    except ValueError:
        trial.expect(ran.status == 2 and ran.said.count("\n") == 1, "bad header: %s %s" % (ran.status, ran.said))
    else:
        agrees(trial, ran, batch, stream)
