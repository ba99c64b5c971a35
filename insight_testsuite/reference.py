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
from datetime import datetime, timedelta
from fractions import Fraction
from math import isqrt

Purchase = namedtuple("Purchase", "when seq user amount")
Event = namedtuple("Event", "type users when amount nanoseconds")      # those beyond the microseconds of when
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

    def last(self, user):
        """The last tracked purchases of the user's network, oldest first."""
        network = self.network(user)
        return sorted(p for p in self.purchases if p.user in network)[-self.tracked:]

    def window(self, user):
        """The amounts of the last tracked purchases of the user's network."""
        return [p.amount for p in self.last(user)]

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


def verdict(amount, window, deviations=3):
    """The printed (mean, sd) when the amount is anomalous, or None.

    It is when it is more than so many standard deviations (a number, not negative) above the mean.
    """
    if len(window) < 2:
        return None
    mean, variance = mean_and_variance(window)
    above = amount - mean
    if above > 0 and above ** 2 > Fraction(deviations) ** 2 * variance:     # above > deviations * sqrt(variance)
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


MARKS = b"\xef\xbb\xbf", b"\0"      # a byte-order mark, a NUL
DEEPEST = 100                       # levels of objects and arrays, the line's own object being the first


def without_marks(line):
    """A line without the marks at its beginning, however many there are.

    >>> without_marks(b"\\0\\xef\\xbb\\xbf\\0{}\\0")
    b'{}\\x00'
    """
    while line.startswith(MARKS):
        line = line[1:] if line.startswith(b"\0") else line[3:]
    return line


def depth(value):
    """How many levels deep a JSON value is nested: 0 when it is no object and no array.

    >>> depth(1), depth({}), depth([1, [], {"a": [2]}])
    (0, 1, 3)
    """
    levels, level = 0, [value]
    while True:
        level = [v for v in level if isinstance(v, (dict, list))]
        if not level:
            return levels
        levels += 1
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]


def json_object(line):
    """The JSON object that is all of a line (bytes) but for marks at its beginning, or ValueError."""
    try:
        value = json.loads(without_marks(line).decode("utf-8"), parse_int=Number,
                           parse_float=Number, parse_constant=no_constant)
    except RecursionError:
        raise ValueError("nested too deeply")
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if depth(value) > DEEPEST:
        raise ValueError("nested too deeply")
    return value


def text(fields, name, pattern, strings_only=False):
    """The text of a field, all of which must match the pattern, or ValueError."""
    value = fields.get(name)
    if type(value) is not str and (strings_only or type(value) is not Number):
        raise ValueError("%s: missing, or of a wrong type" % name)
    if not re.fullmatch(pattern, value, re.DOTALL):
        raise ValueError("%s: of a wrong shape" % name)
    return str(value)


AMOUNT = r"(-?)([0-9]{1,15})(?:\.([0-9]{1,30}))?(?:[eE]([+-]?[0-9]{1,2}))?"
WHEN = (r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,9}))?"
        r"(?: ?(?:(Z)|([+-])([0-9]{2})(?::?([0-9]{2}))?)|( UTC))?")


def amount_of(text):
    """The Fraction that is written as an amount, or ValueError.

    >>> amount_of("16.83"), amount_of("-5e-1"), amount_of("1E+3")
    (Fraction(1683, 100), Fraction(-1, 2), Fraction(1000, 1))
    """
    match = re.fullmatch(AMOUNT, text)
    if not match:
        raise ValueError("amount: of a wrong shape")
    sign, whole, decimals, exponent = match.groups()
    value = Fraction(int(whole))
    for place, digit in enumerate(decimals or "", 1):
        value += Fraction(int(digit), 10 ** place)
    value *= Fraction(10) ** int(exponent or 0)
    return -value if sign else value


def when_of(text):
    """The moment that is written as a timestamp: a datetime in UTC, and the nanoseconds beyond its microseconds.

    >>> when_of("2017-06-13T00:30:01,1234567 +01:00")
    (datetime.datetime(2017, 6, 12, 23, 30, 1, 123456), 700)
    """
    match = re.fullmatch(WHEN, text)
    if not match:
        raise ValueError("timestamp: of a wrong shape")
    *parts, fraction, _, sign, hours, minutes, _ = match.groups()      # Z and UTC add nothing
    fraction = (fraction or "").ljust(9, "0")
    when = datetime(*map(int, parts), int(fraction[:6]))
    if sign:
        hours, minutes = int(hours), int(minutes or 0)
        if hours > 23 or minutes > 59:
            raise ValueError("timestamp: no such zone")
        ahead = timedelta(hours=hours, minutes=minutes)
        try:
            when = when - ahead if sign == "+" else when + ahead
        except OverflowError:
            raise ValueError("timestamp: outside the years 1 to 9999 in UTC")
    return when, int(fraction[6:])


def id_of(fields, name):
    """The id in a field, or ValueError: text as it is, a number as its shortest plain decimal text.

    But a number stays as it is that has more than 100 digits, as it is or in that text, or more than
    3 digits in its exponent.

    >>> [id_of({"id": Number(text)}, "id") for text in ("70e-1", "-0.0", "1.50", "1e2", "1e100", "0.5e-2")]
    ['7', '0', '1.5', '100', '1e100', '0.005']
    """
    user = text(fields, name, ".+")
    if type(fields[name]) is not Number:
        return user
    number, _, exponent = user.lower().partition("e")
    if len(re.findall("[0-9]", number)) > 100 or len(re.findall("[0-9]", exponent)) > 3:
        return user
    value = Fraction(number) * Fraction(10) ** int(exponent or 0)
    places = 0
    while value * 10 ** places % 1:
        places += 1
    digits = str(abs(value) * 10 ** places).rjust(places + 1, "0")
    if len(digits) > 100:
        return user
    digits = digits[:len(digits) - places] + ("." + digits[len(digits) - places:] if places else "")
    return "-" + digits if value < 0 else digits


def read_event(line):
    """The event of a line (bytes), or ValueError when the line is malformed."""
    fields = json_object(line)
    kind = text(fields, "event_type", "purchase|befriend|unfriend", strings_only=True)
    if kind == "purchase":
        when, nanoseconds = when_of(text(fields, "timestamp", ".+", strings_only=True))
        return Event(kind, (id_of(fields, "id"),), when, amount_of(text(fields, "amount", ".+")), nanoseconds)
    one, other = id_of(fields, "id1"), id_of(fields, "id2")
    if one == other:
        raise ValueError("id1 and id2 are the same user")
    return Event(kind, (one, other), None, None, None)


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
    return [(number, line) for number, line in enumerate(log.split(b"\n"), 1)
            if without_marks(line).strip(b" \t\r")]


def judge_logs(batch, stream, degree=None, tracked=None, notify=None, deviations=3, verdicts=None, evidence=None):
    """The Result of two logs (bytes); ValueError when D or T cannot be had.

    To a list `notify` each flagged line is added with who is to be told, to a list `evidence` each
    flagged line with the purchases of its window, and to a list `verdicts` each purchase that was
    judged, with its verdict and what it was judged by.
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
                    window = rule.window(*event.users)
                    found = verdict(event.amount, window, deviations)
                    if verdicts is not None:
                        verdicts.append(verdict_line(line, window, found))
                    if found:
                        flagged.append(flagged_line(line, *found))
                        if notify is not None:
                            notify.append(notify_line(flagged[-1], *rule.told(*event.users)))
                        if evidence is not None:
                            evidence.append(evidence_line(flagged[-1], rule.last(*event.users)))
                rule.purchase(*event.users, (event.when, event.nanoseconds), event.amount)
            elif event.type == "befriend":
                rule.befriend(*event.users)
            else:
                rule.unfriend(*event.users)
    return Result(b"".join(flagged), skipped[0], skipped[1], judged)


def members(line):
    """[(name, text)] of what stands between the outer braces and commas of a JSON object.

    >>> members('{"a": [1, 2] ,"\\\\u0061":{"b": ","} }')
    [('a', '"a": [1, 2] '), ('a', '"\\\\u0061":{"b": ","} ')]
    """
    decode, blanks = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode, re.compile(r"[ \t\r]*")
    found, place = [], line.index("{")
    while line[place] != "}":
        begin = place + 1
        name, place = decode(line, blanks.match(line, begin).end())
        colon = blanks.match(line, place).end()
        _, place = decode(line, blanks.match(line, colon + 1).end())
        place = blanks.match(line, place).end()
        found.append((name, line[begin:place]))
    return found


def with_fields(line, fields):
    """The line as it was up to its closing brace, but for marks at its beginning, then more fields (bytes).

    It loses those of its own that have the same names.

    >>> with_fields(b' {"mean": 1, "of": {"mean": 2}, "sd" : 3 }', b'"mean": 4')
    b' { "of": {"mean": 2}, "sd" : 3 , "mean": 4}\\n'
    """
    text = without_marks(line).rstrip(b" \t\r").decode()
    kept = [member for name, member in members(text) if name not in json.loads(b"{%s}" % fields)]
    return (text[:text.index("{") + 1] + ",".join(kept)).encode() + b", " + fields + b"}\n"


def flagged_line(line, mean, sd):
    """The line with mean and sd.

    >>> flagged_line(b' {"id": 7 } ', "1.00", "0.50")
    b' {"id": 7 , "mean": "1.00", "sd": "0.50"}\\n'
    """
    return with_fields(line, b'"mean": "%s", "sd": "%s"' % (mean.encode(), sd.encode()))


def verdict_line(line, window, found):
    """The line of a purchase with the size of the window, its mean and sd if there are any, and the verdict.

    >>> verdict_line(b'{"id": 7}', [Fraction(1), Fraction(2)], None)
    b'{"id": 7, "window": 2, "mean": "1.50", "sd": "0.50", "flagged": false}\\n'
    >>> verdict_line(b'{"id": 7}', [Fraction(1)], None)
    b'{"id": 7, "window": 1, "mean": null, "sd": null, "flagged": false}\\n'
    """
    mean = sd = b"null"
    if len(window) >= 2:
        exact, variance = mean_and_variance(window)
        mean, sd = (b'"%s"' % text.encode() for text in (truncated(exact), truncated_root(variance)))
    return with_fields(line, b'"window": %d, "mean": %s, "sd": %s, "flagged": %s' % (
        len(window), mean, sd, b"true" if found else b"false"))


def evidence_line(flagged, window):
    """A flagged line with the purchases of its window (oldest first; `when` has nanoseconds), newest first.

    >>> evidence_line(b'{"id": 7}\\n', [Purchase((datetime(2017, 6, 13), 0), 0, "1", Fraction(5))])
    b'{"id": 7, "purchases": [{"id": "1", "timestamp": "2017-06-13 00:00:00", "amount": "5.00"}]}\\n'
    """
    purchases = [{"id": p.user, "timestamp": timestamp_text(*p.when), "amount": amount_text(p.amount)}
                 for p in reversed(window)]
    return with_fields(flagged[:-1], b'"purchases": ' + json.dumps(purchases, ensure_ascii=False).encode(
        errors="backslashreplace"))


def timestamp_text(when, nanoseconds):
    """A time in UTC with as many decimals as it needs.

    >>> timestamp_text(datetime(2017, 6, 13, 11, 33, 1, 20), 300)
    '2017-06-13 11:33:01.0000203'
    """
    fraction = ("%06d%03d" % (when.microsecond, nanoseconds)).rstrip("0")
    return when.replace(microsecond=0).isoformat(" ") + ("." + fraction if fraction else "")


def amount_text(amount):
    """An exact amount: two decimals or as many as it needs, and an exponent if 15 digits or 30 decimals do not do.

    >>> [amount_text(Fraction(text)) for text in ("5", "-0.125", "1e17", "1e-31")]
    ['5.00', '-0.125', '100000000000000.00e3', '0.000000000000000000000000000001e-1']
    """
    exponent = 0
    while abs(amount) >= 10 ** 15:
        amount, exponent = amount / 10, exponent + 1
    while amount * 10 ** 30 % 1:
        amount, exponent = amount * 10, exponent - 1
    places = next(places for places in range(2, 31) if amount * 10 ** places % 1 == 0)
    digits = str(int(abs(amount) * 10 ** places)).rjust(places + 1, "0")
    return "-" * (amount < 0) + digits[:-places] + "." + digits[-places:] + ("e%d" % exponent if exponent else "")


def notify_line(flagged, feed, recommend):
    """A flagged line with who is to be told; what UTF-8 cannot hold of an id stays escaped.

    >>> notify_line(b'{"id": 7}\\n', ["1"], ["\\ud800", "\\xe9"])
    b'{"id": 7, "feed": ["1"], "recommend": ["\\\\ud800", "\\xc3\\xa9"]}\\n'
    """
    feed, recommend = (json.dumps(users, ensure_ascii=False).encode(errors="backslashreplace")
                       for users in (feed, recommend))
    return with_fields(flagged[:-1], b'"feed": %s, "recommend": %s' % (feed, recommend))


def main(batch, stream, output):
    with open(batch, "rb") as batch_log, open(stream, "rb") as stream_log:
        result = judge_logs(batch_log.read(), stream_log.read())
    with open(output, "wb") as out:
        out.write(result.flagged)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: reference.py BATCH STREAM OUTPUT")
    main(*sys.argv[1:])
