#!/usr/bin/env python3
"""The rule written as literally as possible: what the program is tested against.

It shares no code with the program and saves nothing on the way:

* every purchase is kept for ever, and no history is bounded;
* a network is found by a plain breadth-first search, anew for each verdict;
* a window is the last T of *all* the network's purchases, sorted anew by
  (timestamp, arrival), timestamps being real dates and times;
* statistics are exact fractions, squares are compared instead of roots, and a
  root is cut to cents by asking for the largest whole number of cents whose
  square does not exceed the variance.

    python3 reference.py BATCH STREAM OUTPUT
"""

import json
import re
import sys
from collections import defaultdict, deque, namedtuple
from datetime import datetime
from fractions import Fraction
from math import isqrt

Purchase = namedtuple("Purchase", "when seq user amount")
Event = namedtuple("Event", "type users when amount")
Result = namedtuple("Result", "flagged batch_skipped stream_skipped judged")


# --- the rule ----------------------------------------------------------------

class Rule:
    """What has been read so far, and what follows from it.

    >>> rule = Rule(degree=1, tracked=50)
    >>> rule.befriend("Ann", "Bob")
    >>> for amount in "16.83", "59.28", "11.20":
    ...     rule.purchase("Ann", datetime(2017, 6, 13), Fraction(amount))
    >>> verdict(Fraction("1601.83"), rule.window("Bob"))
    ('29.10', '21.46')
    """

    def __init__(self, degree, tracked):
        self.degree, self.tracked = degree, tracked
        self.friends = defaultdict(set)
        self.purchases = []

    def befriend(self, one, other):
        self.friends[one].add(other)
        self.friends[other].add(one)

    def unfriend(self, one, other):
        self.friends[one].discard(other)
        self.friends[other].discard(one)

    def purchase(self, user, when, amount):
        self.purchases.append(Purchase(when, len(self.purchases), user, amount))

    def distances(self, user):
        """{other: how far} of everyone at distance 0 .. degree from the user."""
        distance = {user: 0}
        queue = deque([user])
        while queue:
            nearer = queue.popleft()
            if distance[nearer] < self.degree:
                for friend in self.friends[nearer]:
                    if friend not in distance:
                        distance[friend] = distance[nearer] + 1
                        queue.append(friend)
        return distance

    def network(self, user):
        """Everyone at distance 1 .. degree from the user."""
        return set(self.distances(user)) - {user}

    def window(self, user):
        """The amounts of the last tracked purchases of the user's network."""
        network = self.network(user)
        theirs = sorted(p for p in self.purchases if p.user in network)
        return [p.amount for p in theirs[-self.tracked:]]

    def told(self, user):
        """Who is to be told of the user's purchase: (friends, those to recommend the user to)."""
        distance, friends = self.distances(user), self.friends[user]

        def order(other):
            return distance[other], -len(friends & self.friends[other]), other

        return sorted(friends), sorted({*distance} - {user} - friends, key=order)


def mean_and_variance(window):
    """Both exact, of a window that is not empty.

    >>> mean_and_variance([Fraction(1), Fraction(2)])
    (Fraction(3, 2), Fraction(1, 4))
    """
    mean = Fraction(sum(window), len(window))
    return mean, sum((x - mean) ** 2 for x in window) / len(window)


def verdict(amount, window):
    """The printed (mean, sd) when the amount is anomalous, or None."""
    if len(window) < 2:
        return None
    mean, variance = mean_and_variance(window)
    above = amount - mean
    if above > 0 and above ** 2 > 9 * variance:     # above > 3 * sqrt(variance)
        return truncated(mean), truncated_root(variance)
    return None


def truncated(value):
    """The value with its decimals after the second cut off.

    >>> [truncated(Fraction(v)) for v in ("28", "0.299", "-1.999", "-0.009")]
    ['28.00', '0.29', '-1.99', '0.00']
    """
    cents = abs(value) * 100 // 1
    return "%s%d.%02d" % ("-" if value < 0 and cents else "", cents // 100, cents % 100)


def truncated_root(variance):
    """The square root, cut: a whole k has k*k <= v exactly when k*k <= floor(v).

    >>> truncated_root(Fraction("678.0816")), truncated_root(Fraction("678.0815"))
    ('26.04', '26.03')
    """
    return truncated(Fraction(isqrt(variance * 100 ** 2 // 1), 100))


# --- which lines are events --------------------------------------------------

class Number(str):
    """The text of a JSON number, which is not a JSON string."""


def no_constant(name):
    raise ValueError("%s is not JSON" % name)


def json_object(line):
    """The JSON object that is all of a line (bytes), or ValueError."""
    try:
        value = json.loads(line.decode("utf-8"), parse_int=Number,
                           parse_float=Number, parse_constant=no_constant)
    except RecursionError:
        raise ValueError("nested too deeply")
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def text(fields, name, pattern, strings_only=False):
    """The text of a field, all of which must match the pattern, or ValueError."""
    value = fields.get(name)
    if type(value) is not str and (strings_only or type(value) is not Number):
        raise ValueError("%s: missing, or of a wrong type" % name)
    if not re.fullmatch(pattern, value, re.DOTALL):
        raise ValueError("%s: of a wrong shape" % name)
    return str(value)


def read_event(line):
    """The event of a line (bytes), or ValueError when the line is malformed."""
    fields = json_object(line)
    kind = text(fields, "event_type", "purchase|befriend|unfriend", strings_only=True)
    if kind == "purchase":
        user = text(fields, "id", ".+")
        amount = text(fields, "amount", r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
        when = text(fields, "timestamp", "[0-9]{4}-[0-9]{2}-[0-9]{2} "
                    r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?", strings_only=True)
        parts = [int(when[a:b]) for a, b in
                 ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))]
        return Event(kind, (user,), datetime(*parts, int(when[20:].ljust(6, "0"))),
                     Fraction(amount))
    one, other = text(fields, "id1", ".+"), text(fields, "id2", ".+")
    if one == other:
        raise ValueError("id1 and id2 are the same user")
    return Event(kind, (one, other), None, None)


def read_setting(fields, name, least):
    """D or T of the header, or ValueError."""
    value = int(text(fields, name, "[0-9]{1,18}"))
    if value < least:
        raise ValueError("%s must be at least %d" % (name, least))
    return value


def is_header_to_ignore(line):
    """Is this first line a header, when both D and T were given beside it?"""
    try:
        fields = json_object(line)
    except ValueError:
        return False
    return "event_type" not in fields and ("D" in fields or "T" in fields)


# --- logs in, flags out ------------------------------------------------------

def lines_of(log):
    """(number, line) of each line (bytes, no newline) of a log that is not blank."""
    if log.startswith(b"\xef\xbb\xbf"):
        log = log[3:]
    return [(number, line) for number, line in enumerate(log.split(b"\n"), 1)
            if line.strip(b" \t\r")]


def judge_logs(batch, stream, degree=None, tracked=None, notify=None):
    """The Result of two logs (bytes); ValueError when D or T cannot be had.

    To a list `notify` each flagged line is added with who is to be told.
    """
    batch_lines, stream_lines = lines_of(batch), lines_of(stream)
    if degree is None or tracked is None:
        if not batch_lines:
            raise ValueError("no header")
        header = json_object(batch_lines.pop(0)[1])
        degree = read_setting(header, "D", 1) if degree is None else degree
        tracked = read_setting(header, "T", 2) if tracked is None else tracked
    elif batch_lines and is_header_to_ignore(batch_lines[0][1]):
        del batch_lines[0]

    rule = Rule(degree, tracked)
    flagged, skipped, judged = [], ([], []), 0
    for streaming, lines in enumerate((batch_lines, stream_lines)):
        for number, line in lines:
            try:
                event = read_event(line)
            except ValueError:
                skipped[streaming].append((number, line))
                continue
            if event.type == "purchase":
                if streaming:
                    judged += 1
                    found = verdict(event.amount, rule.window(*event.users))
                    if found:
                        flagged.append(flagged_line(line, *found))
                        if notify is not None:
                            notify.append(notify_line(flagged[-1], *rule.told(*event.users)))
                rule.purchase(*event.users, event.when, event.amount)
            elif event.type == "befriend":
                rule.befriend(*event.users)
            else:
                rule.unfriend(*event.users)
    return Result(b"".join(flagged), skipped[0], skipped[1], judged)


def flagged_line(line, mean, sd):
    """The line as it was up to its closing brace, then mean and sd.

    >>> flagged_line(b' {"id": 7 } ', "1.00", "0.50")
    b' {"id": 7 , "mean": "1.00", "sd": "0.50"}\\n'
    """
    return line.rstrip(b" \t\r")[:-1] + b', "mean": "%s", "sd": "%s"}\n' % (
        mean.encode(), sd.encode())


def notify_line(flagged, feed, recommend):
    """A flagged line with who is to be told; what UTF-8 cannot hold of an id stays escaped.

    >>> notify_line(b'{"id": 7}\\n', ["1"], ["\\ud800", "\\xe9"])
    b'{"id": 7, "feed": ["1"], "recommend": ["\\\\ud800", "\\xc3\\xa9"]}\\n'
    """
    feed, recommend = (json.dumps(users, ensure_ascii=False).encode(errors="backslashreplace")
                       for users in (feed, recommend))
    return flagged[:-2] + b', "feed": %s, "recommend": %s}\n' % (feed, recommend)


def main(batch, stream, output):
    with open(batch, "rb") as batch_log, open(stream, "rb") as stream_log:
        result = judge_logs(batch_log.read(), stream_log.read())
    with open(output, "wb") as out:
        out.write(result.flagged)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: reference.py BATCH STREAM OUTPUT")
    main(*sys.argv[1:])
