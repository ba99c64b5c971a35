"""Small random logs for holding two implementations of the rule against each other.

    batch, stream = random_log(random.Random(7))

Each log draws its own D, T, shape of the network, way of the clock and kind of
amounts, so that a run of some hundred meets most of their combinations: hubs,
rings, stars, cliques, paths, two components; ties, disorder and late purchases;
churn; users without friends; sub-cent, 15-digit and negative amounts; sd = 0.
About a third of the stream's purchases are planted at the edge of being
flagged: at mean + 3 sd of the buyer's window or a last digit beside it.

The same seed gives the same log. As a command it writes one:

    python3 random_logs.py SEED DIRECTORY [DIRT [SPELLINGS]]
"""

import os
import re
import sys
from datetime import datetime, timedelta
from fractions import Fraction
from math import isqrt
from random import Random

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import reference

MAX_LINES = 100


def random_log(rng, dirt=0.0, spellings=0.0):
    """A random batch and stream log (bytes), of some hundred lines together.

    dirt is the share of lines written oddly (other order, spacing, numbers for
    strings, blank lines, \r\n) or damaged, so that they may be malformed.
    spellings is the share of lines that mean the same, written as other programs
    would: compact, with zones, exponents, ids like 7.0, or a mark at the beginning.

    >>> random_log(Random(1)) == random_log(Random(1))
    True
    """
    return Log(rng, dirt, spellings).written()


# --- what a log is drawn from ------------------------------------------------

def random_degree(rng):
    return rng.randint(1, 5) if rng.random() < 0.9 else rng.randint(6, 10)


def random_tracked(rng):
    kind = rng.random()
    if kind < 0.5:
        return rng.randint(2, 5)
    return rng.randint(2, 20) if kind < 0.9 else rng.randint(21, 100)


def nobody(rng, n):
    return []


def anyone(rng, n):
    return [rng.sample(range(n), 2) for _ in range(rng.randint(1, 2 * n))]


def hubs(rng, n):
    return [(rng.randrange(min(2, k)), k) for k in range(1, n)] + anyone(rng, n)[:n // 3]


def ring(rng, n):
    return [(k, (k + 1) % n) for k in range(n) if n > 2]


def components(rng, n):
    half = n // 2
    return [pair for pair in anyone(rng, n) if (pair[0] < half) == (pair[1] < half)]


def star(rng, n):
    return [(0, k) for k in range(1, n)]


def clique(rng, n):
    return [(j, k) for k in range(min(n, 8)) for j in range(k)]


def path(rng, n):
    return [(k, k + 1) for k in range(n - 1)]


SHAPES = nobody, anyone, anyone, hubs, ring, components, star, clique, path


def ticking(rng, now):
    return now + timedelta(seconds=rng.randint(0, 2))


def standing(rng, now):
    return now + timedelta(seconds=rng.random() < 0.03)


def late(rng, now):
    return now + timedelta(seconds=rng.randint(-90, 60) if rng.random() < 0.2 else 1)


def disorder(rng, now):
    return datetime(2017, 6, 13, 11, 33) + timedelta(seconds=rng.randint(0, 120))


def backwards(rng, now):
    return now - timedelta(seconds=rng.randint(0, 2))


def within_a_second(rng, now):
    return now.replace(microsecond=rng.choice((0, 0, 1, 500000, 500001, 250000, 999999)))


CLOCKS = ticking, ticking, standing, late, disorder, backwards, within_a_second


def decimal(units, places):
    """A number of units of 10**-places as text.

    >>> decimal(-5, 2), decimal(1234, 2), decimal(7, 0)
    ('-0.05', '12.34', '7')
    """
    digits = str(abs(units)).rjust(places + 1, "0")
    whole, part = digits[:len(digits) - places], digits[len(digits) - places:]
    return ("-" if units < 0 else "") + whole + ("." + part if part else "")


def cents(rng):
    return decimal(int(rng.lognormvariate(8, 0.5)), 2)


def close(rng):
    return decimal(rng.randint(995, 1005), 2)


def two_values(rng):
    return rng.choice(("9.00", "11.00"))


def one_value(rng):
    return "5.00"


def whole(rng):
    return decimal(rng.randint(0, 9), rng.choice((0, 1)))


def sub_cent(rng):
    places = rng.choice((3, 3, 4, 7, 15))
    return decimal(rng.randint(0, 30 * 10 ** places), places)


def negative(rng):
    return decimal(rng.randint(-3000, 1000), 2)


def large(rng):
    return decimal(rng.randint(10 ** 14, 10 ** 15 - 1), 0) + rng.choice(("", ".5", ".99", ".000000000000001"))


def mixed(rng):
    return rng.choice((cents, close, whole, sub_cent, negative, large))(rng)


AMOUNTS = cents, cents, close, two_values, one_value, whole, sub_cent, negative, large, mixed


def at_the_edge(rng, window):
    """The text of an amount at mean + 3 sd of the window or next to it, or None."""
    if not window:
        return None
    mean, variance = reference.mean_and_variance(window)
    places = rng.choice((0, 1, 2, 2, 2, 2, 3, 6, 15))
    unit = Fraction(1, 10 ** places)
    fine = 10 ** 12
    sd3 = Fraction(isqrt(9 * variance / unit ** 2 * fine ** 2 // 1), fine)
    units = mean / unit + sd3
    units = units // 1 + rng.choice((-1, 0, 0, 0, 1, 1, 2))
    return decimal(units, places) if abs(units * unit) < 10 ** 15 else None


# --- lines that look odd, or are damaged -------------------------------------

def trailing(rng, line):
    return line + rng.choice((b"\r", b" ", b"\t\r", b" x", b"}"))


def followed(rng, line):
    return line + b"\n" + rng.choice((b"", b"\r", b" \t", b"{}", b"[1]", b"\xff", b"x"))


def spaced(rng, line):
    return line.replace(b'":', b'" :\t').replace(b"{", b" { ")


def numbers(rng, line):
    return re.sub(rb'"(-?[0-9]+(\.[0-9]+)?)"', rb"\1", line)


def reordered(rng, line):
    fields = line.strip(b"{}").split(b", ")
    rng.shuffle(fields)
    return b"{" + b", ".join(fields) + b"}"


def extended(rng, line):
    return line[:-1] + b', "note": "na\xc3\xafve }"}'


def gap(rng, line):
    place = rng.randrange(len(line))
    return line[:place] + line[place + 1:]


def cut(rng, line):
    return line[:rng.randrange(len(line))]


def overwritten(rng, line):
    place = rng.randrange(len(line))
    return line[:place] + bytes([rng.choice(b'0019.-" {}[]\\,:\r\x00\x80\xe2')]) + line[place + 1:]


DIRT = trailing, followed, spaced, numbers, reordered, extended, gap, cut, overwritten


# --- lines that mean the same, in the spelling of other programs --------------

WRITTEN = re.compile(rb'"timestamp":"([0-9 :-]{19})(?:\.([0-9]*))?"')
ID = re.compile(rb'("id[12]?"): ?"(-?[0-9]+)"')
AMOUNT = re.compile(rb'"amount": ?"(-?)([0-9]+)(?:\.([0-9]+))?"')


def compact(rng, line):
    return line.replace(b'": ', b'":').replace(b'", "', b'","')


def timed(rng, line):
    """The timestamp with T, a comma, more digits, or the clock of another zone."""
    def other(match):
        when, fraction = datetime.strptime(match[1].decode(), "%Y-%m-%d %H:%M:%S"), (match[2] or b"").decode()
        zone = rng.choice(("", "", "Z", " Z", "+00", "-0000", "+05:30", " -11", "+2359", "-00:01", " UTC"))
        if zone[-1:].isdigit():
            ahead = int(zone.strip()[1:3]) * 60 + int(zone.strip()[3:].lstrip(":") or 0)
            when += timedelta(minutes=-ahead if "-" in zone else ahead)
        if rng.random() < 0.3:
            fraction = fraction.ljust(rng.randint(len(fraction), 9), "0")
        return ('"timestamp":"%s%s%s"' % (
            when.strftime(rng.choice(("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"))),
            fraction and rng.choice(".,") + fraction, zone)).encode()
    return WRITTEN.sub(other, line)


def number_ids(rng, line):
    """The ids as JSON numbers, some of them with many zeros."""
    def other(match):
        zeros = b"0" * rng.randint(1, 95)
        return match[1] + b": " + match[2] + rng.choice((
            b"", b"", b".0", b"e0", b"0E-1", b"." + zeros, b"e+000", zeros + b"e-%d" % len(zeros)))
    return ID.sub(other, line)


def powered(rng, line):
    """The amount with an exponent or with more zeros, as text or as a JSON number."""
    def other(match):
        sign, whole, decimals = match[1], match[2], match[3] or b""
        if rng.random() < 0.5 and len(decimals) < 15:
            decimals += b"0" * rng.randint(1, 15)
        digits, point = whole + decimals, len(whole)
        places = [place for place in range(1, 16) if 0 <= len(digits) - place <= 30]
        place = rng.choice(places)
        plain = digits[:place].lstrip(b"0").rjust(1, b"0") + (b"." + digits[place:] if digits[place:] else b"")
        text = sign + plain + (b"%s%d" % (rng.choice((b"e", b"E")), point - place) if point != place else b"")
        return b'"amount": ' + (b'"%s"' % text if rng.random() < 0.5 else text)
    return AMOUNT.sub(other, line)


def marked(rng, line):
    return b"".join(rng.choice((b"\xef\xbb\xbf", b"\0", b"\0\0\0")) for _ in range(rng.randint(1, 3))) + line


ADDED = ["mean", "sd", "window", "flagged", "feed", "recommend", "purchases", "m\\u0065an", "\\u0073d"]


def judged_before(rng, line):
    """The line with fields that an output of an earlier run may have added, here and there, also nested."""
    value = rng.choice(['"1.00"', "null", '{"mean": [1, "}, {"]}', '[{"sd" : "\\"", "id": "1"},[]]', "-0.0"])
    text = '"%s"%s%s' % (rng.choice(ADDED), rng.choice((": ", " :", ":\t")), value)
    if rng.random() < 0.5:
        return line[:-1] + (", " + text).encode() + b"}"
    begin = line.index(b"{") + 1
    return line[:begin] + (text + rng.choice((",", " ,\t"))).encode() + line[begin:]


SPELLINGS = compact, compact, timed, timed, number_ids, numbers, powered, powered, marked, judged_before


# --- one log -----------------------------------------------------------------

class Log:
    """Draws one log, following with the reference what its lines have done so far."""

    def __init__(self, rng, dirt, spellings=0.0):
        self.rng, self.dirt, self.spellings = rng, dirt, spellings
        degree, tracked = random_degree(rng), random_tracked(rng)
        self.rule = reference.Rule(degree, tracked)
        self.header = '{"D":"%d", "T":"%d"}' % (degree, tracked)
        self.users = rng.choice((2, 3, 4, 5, 6, 8, 12, 20))
        self.ids = [str(user) for user in rng.sample(range(1, 60), self.users)]
        self.shape, self.clock, self.amount = map(rng.choice, (SHAPES, CLOCKS, AMOUNTS))
        self.churn = rng.choice((0, 0.05, 0.2, 0.5))
        self.now = datetime(2017, 6, 13, 11, 33, 1)

    def written(self):
        rng = self.rng
        befriends = self.shape(rng, self.users)
        rng.shuffle(befriends)
        buying = rng.randint(0, 40)
        batch = [(self.befriend, pair) for pair in befriends] + [(self.purchase, ())] * buying
        if rng.random() < 0.5:
            rng.shuffle(batch)
        batch = batch[:MAX_LINES * 3 // 4]
        if rng.random() < 0.2:      # the network comes, or some of it, with the stream
            batch, early = batch[len(batch) // 2:], batch[:len(batch) // 2]
        else:
            early = []
        stream = early + [(self.event_of_stream, ())] * rng.randint(1, MAX_LINES - len(batch) - len(early))
        batch_lines = [self.header] + [make(*args) for make, args in batch]
        stream_lines = [make(*args) for make, args in stream]
        return self.joined(batch_lines), self.joined(stream_lines)

    def event_of_stream(self):
        if self.rng.random() >= self.churn:
            return self.purchase(streaming=True)
        one, other = self.rng.sample(range(self.users), 2)
        if self.rng.random() < 0.5:
            one, other = self.friends_of_now() or (one, other)
            return self.unfriend(one, other)
        return self.befriend(one, other)

    def friends_of_now(self):
        pairs = [(one, other) for one in range(self.users) for other in range(one)
                 if self.ids[other] in self.rule.friends[self.ids[one]]]
        return self.rng.choice(pairs) if pairs else None

    def befriend(self, one, other):
        self.rule.befriend(self.ids[one], self.ids[other])
        return self.friendship("befriend", one, other)

    def unfriend(self, one, other):
        self.rule.unfriend(self.ids[one], self.ids[other])
        return self.friendship("unfriend", one, other)

    def friendship(self, event_type, one, other):
        return '{"event_type":"%s", "timestamp":"%s", "id1": "%s", "id2": "%s"}' % (
            event_type, self.timestamp(), self.ids[one], self.ids[other])

    def purchase(self, streaming=False):
        rng = self.rng
        user = rng.choice(self.ids)
        self.now = self.clock(rng, self.now)
        amount = None
        if streaming and rng.random() < 0.3:
            amount = at_the_edge(rng, self.rule.window(user))
        if amount is None:
            amount = self.amount(rng)
            if rng.random() < 0.06 and len(amount.split(".")[0]) < 13:
                amount = "9" + amount.lstrip("-")
        self.rule.purchase(user, self.now, Fraction(amount))
        return '{"event_type":"purchase", "timestamp":"%s", "id": "%s", "amount": "%s"}' % (
            self.timestamp(), user, amount)

    def timestamp(self):
        """The time, in one of the ways it may be written."""
        micro = "%06d" % self.now.microsecond
        shown = [micro[:k] for k in range(7) if not micro[k:].strip("0")]
        part = shown[0] if self.rng.random() < 0.9 else self.rng.choice(shown)
        return self.now.strftime("%Y-%m-%d %H:%M:%S") + ("." + part if part else "")

    # The log is drawn as if every line were accepted; a damaged one only makes
    # what is planted at the edge miss it.

    def joined(self, lines):
        return b"".join(self.dirtied(line) + b"\n" for line in lines)

    def dirtied(self, line):
        rng, line, is_header = self.rng, line.encode(), line == self.header
        while self.spellings and not is_header and rng.random() < self.spellings:
            line = rng.choice(SPELLINGS)(rng, line)
        if is_header or rng.random() >= self.dirt:
            return line
        return rng.choice(DIRT)(rng, line)


def main(seed, directory, dirt="0", spellings="0"):
    os.makedirs(directory, exist_ok=True)
    log = random_log(Random(int(seed)), float(dirt), float(spellings))
    for name, lines in zip(("batch_log.json", "stream_log.json"), log):
        with open(os.path.join(directory, name), "wb") as out:
            out.write(lines)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4, 5):
        sys.exit("usage: random_logs.py SEED DIRECTORY [DIRT [SPELLINGS]]")
    main(*sys.argv[1:])
