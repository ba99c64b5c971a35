#!/usr/bin/env python3
"""Flag anomalous purchases within a social network.

The rule.  A purchase is anomalous if its amount is greater than mean + 3 * sd of
the last T purchases in the buyer's D-degree network: friends for D = 1, friends
of friends too for D = 2, and so on, never the buyer.  "Last" is by timestamp,
and by place in the logs for equal timestamps.  sd is the population standard
deviation.  With fewer than 2 purchases in the network nothing is flagged.

The algorithm.  Friendships are a dict of sets, purchases a bounded deque of
(timestamp, seq, amount) per user.  For each purchase a breadth-first search
lists the network (`SocialNetwork.network`), and a k-way merge of its deques
yields the last T amounts (`PurchaseHistory.last`).  The short-cuts beside this
general way stand in the algorithm notes before `Detector`.

All arithmetic is exact: amounts are int cents, or a Fraction of a cent where a
log has more than two decimals.  No float decides a flag or prints a digit.

One line's way from the log to the flag:

    Log.chunks    yields the bytes of whole lines, from a file or a pipe
    replay        applies their events to the Detector, and yields Findings
    judge         does the same, with each purchase judged before it is recorded
    Output.take   writes what it wants of the Findings
    Run           opens, loads, judges, writes and summarizes

The sections, each of which uses only those above it:

* values: amounts, timestamps and ids as the logs have them
* social network: who is whose friend, and who is within D degrees
* purchase history: the last purchases of every user, and of a network
* verdict: mean, sd and the rule; Detector, which is all of it as a library
* logs: JSON lines in, Findings out; a new event type is one row in EVENTS
* outputs: what a run writes; a new one is one class in the list OUTPUTS
* report: the page that --report writes
* signals: Ctrl-C, SIGTERM and SIGHUP
* workers: parts of a stream judged side by side, and joined in order
* run: what happens when, and what errors and signals do then
* command line: options and files
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # no traceback from the imports below

# What only some runs need is imported there: starting takes longer than a short log.
import contextlib
import errno
import gc
import json
import os
import re
import stat
import sys
import time
from bisect import bisect, insort
from collections import Counter, defaultdict, deque, namedtuple
from datetime import datetime, timedelta
from functools import partial
from heapq import merge, nlargest, nsmallest
from itertools import accumulate, chain, compress, groupby, islice, takewhile
from math import isqrt, log10
from operator import add, itemgetter, mul
from sys import intern
from types import SimpleNamespace

__all__ = ["SocialNetwork", "PurchaseHistory", "Detector", "Baseline", "Flag", "Malformed",
           "amount_in_cents", "normalized_timestamp", "dollars", "main"]
__version__ = "1.2.0"


# ---------------------------------------------------------------------- values

class Malformed(ValueError):
    """A value or a line that cannot be read.  Its text is `kind` + `rest`: malformed lines
    are counted by kind, and the rest says what is wrong with this one.
    """

    def __init__(self, kind, rest=""):
        super().__init__(kind + rest)
        self.kind = kind


_AMOUNT = re.compile(r"(-?[0-9]{1,15})(?:\.([0-9]{1,30}))?(?:[eE]([+-]?[0-9]{1,2}))?")
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,9}))?"
    r"(?: ?(?:Z|([+-](?:[01][0-9]|2[0-3]))(?::?([0-5][0-9]))?))?")


def amount_in_cents(text):
    """Return the exact cents of an amount: int, or Fraction if finer than a cent.

    Raises Malformed unless text is `-?` 1-15 digits, optionally `.` and 1-30 digits,
    optionally `e` or `E`, optionally a sign, and 1-2 digits.

    >>> amount_in_cents("16.83"), amount_in_cents("-2e1"), amount_in_cents("0.125")
    (1683, -2000, Fraction(25, 2))
    """
    match = _AMOUNT.fullmatch(text)
    if not match:
        raise Malformed("amount", f" {quoted(text)} is not a number like 16.83")
    whole, decimals, exponent = match.groups("")
    units, power = int(whole + decimals), int(exponent or 0) - len(decimals) + 2
    if power >= 0:
        return units * 10 ** power
    from fractions import Fraction
    cents = Fraction(units, 10 ** -power)
    return cents.numerator if cents.denominator == 1 else cents


def normalized_timestamp(text):
    """Return a timestamp in UTC as text: text order is time order, equal times are equal texts.

    The text is `YYYY-MM-DD HH:MM:SS`, with `.` and up to 9 digits if the second has a
    fraction.  Raises Malformed unless the argument is a time of the years 1 to 9999 in
    one of the forms that the message names.

    >>> normalized_timestamp("2017-06-13 11:33:01.50")
    '2017-06-13 11:33:01.5'
    >>> normalized_timestamp("2017-06-13T01:33:01,000+02:00")
    '2017-06-12 23:33:01'
    """
    match = _TIMESTAMP.fullmatch(text)
    try:
        *parts, fraction, hours, minutes = match.groups("")
        time = datetime(*map(int, parts))
        if hours:
            time -= timedelta(hours=int(hours), minutes=int(hours[0] + (minutes or "0")))
    except (AttributeError, ValueError, OverflowError):
        raise Malformed("timestamp", f" {quoted(text)} is not a real YYYY-MM-DD HH:MM:SS, "
                        "optionally with T, a fraction like .5 and a zone like Z or +02:00"
                        ) from None
    return f"{time}.{fraction}".rstrip("0").rstrip(".") if fraction else str(time)


def plain_number(text):
    """Return the id that a JSON number stands for: its shortest plain decimal text.

    A number that is too long for the grammar of amounts is its own text.

    >>> [plain_number(text) for text in ("7", "70e-1", "1.50", "-0.0", "1e3")]
    ['7', '7', '1.5', '0', '1000']
    """
    if not _AMOUNT.fullmatch(text):
        return str(text)
    return dollars(amount_in_cents(text)).rstrip("0").rstrip(".")


def dollars(cents):
    """Return exact cents as text: two decimals, or as many as a Fraction of a cent takes.

    >>> dollars(2910), dollars(-5), dollars(0), dollars(amount_in_cents("-0.1250"))
    ('29.10', '-0.05', '0.00', '-0.125')
    """
    decimals, scale = 2, 1
    while scale % cents.denominator:
        decimals, scale = decimals + 1, scale * 10
    digits = str(int(abs(cents) * scale)).rjust(decimals + 1, "0")
    return f"{'-' if cents < 0 else ''}{digits[:-decimals]}.{digits[-decimals:]}"


def amount_text(cents):
    """Return text that `amount_in_cents` reads as these cents: `dollars` where that fits its
    grammar, else with an exponent.

    >>> amount_text(2910), amount_text(10**20), amount_text(amount_in_cents("1.5e-45"))
    ('29.10', '100000000000000.00e4', '0.000000000000000000000000000015e-16')
    """
    text = dollars(cents)
    whole, decimals = text.lstrip("-").split(".")
    exponent = max(len(whole) - 15, 0) + min(30 - len(decimals), 0)
    if not exponent:
        return text
    from fractions import Fraction
    return f"{dollars(cents / Fraction(10) ** exponent)}e{exponent}"


# A text, or a list of texts, as JSON with nothing escaped that need not be.
as_json = json.JSONEncoder(ensure_ascii=False).encode


def quoted(text):
    """Return text in quotes, in ASCII, cut to a length fit for a message."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")


def printable(text):
    """Return text with what cannot be seen in it, or would move a cursor, escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Memo(dict):
    """Memo(function)[x] == function(x), remembering up to `limit` results.

    Most amounts and timestamps of a log recur; a hit costs half of an
    `lru_cache` hit.  A full memo starts afresh, so memory is bounded.
    """

    def __init__(self, function, limit=1 << 16):
        super().__init__()
        self.function, self.limit = function, limit

    def __missing__(self, key):
        if len(self) >= self.limit:
            self.clear()
        value = self[key] = self.function(key)
        return value


# -------------------------------------------------------------- social network

class SocialNetwork:
    """Two-way friendships between users, named by their ids (str).

    >>> social = SocialNetwork()
    >>> social.befriend("1", "2"); social.befriend("2", "3")
    >>> sorted(social.network("1", 1)), sorted(social.network("1", 2))
    (['2'], ['2', '3'])
    """

    def __init__(self):
        self.friends = defaultdict(set)     # user -> set of friends; users without are absent
        # Not a bound method: that would be a reference cycle, and the program runs without gc.
        self.neighbors = Memo(partial(self.compact, self.friends), sys.maxsize)

    @staticmethod
    def compact(friends, user):
        """Return `friends.get(user, ())`, a small set as a tuple.

        Tuples take one eighth of the memory and make searches 20 % faster.  `neighbors`
        remembers the result until the user's friendships change.
        """
        users = friends.get(user, ())
        return tuple(users) if len(users) < 256 else users

    def befriend(self, id1, id2):
        """Make two users friends.  Raises Malformed if they are the same."""
        if id1 == id2:
            raise Malformed("id1 and id2", f" are both {quoted(id1)}")
        id1, id2 = intern(id1), intern(id2)     # one object per user: faster sets
        self.friends[id1].add(id2)
        self.friends[id2].add(id1)
        self.neighbors.pop(id1, None)
        self.neighbors.pop(id2, None)

    def unfriend(self, id1, id2):
        """End a friendship, if there is one.  Raises Malformed like befriend."""
        if id1 == id2:
            raise Malformed("id1 and id2", f" are both {quoted(id1)}")
        for user, friend in (id1, id2), (id2, id1):
            friends = self.friends.get(user, set())
            friends.discard(friend)
            if not friends:
                self.friends.pop(user, None)
            self.neighbors.pop(user, None)

    def network(self, user, degree):
        """Return the set of users at distance 1..degree from the user."""
        return set().union(*self.rings(user, degree))

    def rings(self, user, degree):
        """Yield the set of users at distance 1, that at distance 2, ... up to degree.

        A breadth-first search, which ends before an empty ring.  Callers must not change the
        first set: it is the user's own set of friends.
        """
        seen, ring = {user}, self.friends.get(user)
        while ring and degree:
            yield ring
            degree -= 1
            if degree:
                seen |= ring
                ring = set().union(*map(self.neighbors.__getitem__, ring))
                ring -= seen

    def audience(self, user, degree):
        """Return (friends, recommend): the user's friends, sorted, and the other users of the
        network, the nearest first, then those with the most friends in common, then by id.
        """
        friends, *further = list(self.rings(user, degree)) or [()]
        common = Counter(chain.from_iterable(map(self.friends.__getitem__, friends)))
        recommend = []
        for ring in further:
            recommend += sorted(sorted(ring), key=common.__getitem__, reverse=True)
        return sorted(friends), recommend

    def ball(self, user, degree, budget=sys.maxsize):
        """Return (users at distance 1..degree - hops_left, hops_left).

        hops_left is 0, and the ball the whole network, unless the users of a ring have more
        than `budget` friendships, or are more than budget / 8, which is quicker to
        tell: with budget / 2, D = 3 takes 20-60 % longer.  Callers must not change the ball:
        it can be the user's own set of friends.
        """
        ball = ring = self.friends.get(user, set())
        hops_left, neighbors_of = degree - 1, self.neighbors.__getitem__
        while hops_left and 8 * len(ring) <= budget and (
                sum(map(len, map(neighbors_of, ring))) <= budget):
            inner, ball = ball, ball.union(*map(neighbors_of, ring))
            ball.discard(user)
            hops_left = hops_left - 1 if len(ball) > len(inner) else 0
            if hops_left:
                ring = ball - inner
        return ball, hops_left


class NetworkMembership(dict):
    """NetworkMembership(social, user, degree, ball, hops_left, budget)[v]: is v in the network?

    Equals `v in social.network(user, degree)` for the `ball, hops_left` that
    `social.ball(user, degree, ...)` returned: another user v is in the network exactly
    if in the ball or at most hops_left steps from it.  Answers are remembered.  After `budget`
    set look-ups the network is listed instead.
    """

    def __init__(self, social, user, degree, ball, hops_left, budget):
        super().__init__()
        self[user] = False
        self.social, self.user, self.degree = social, user, degree
        self.ball, self.hops_left, self.budget = ball, hops_left, budget

    def network(self):
        """Return the network as a set.  From then on every answer is a look-up in it."""
        if self.hops_left:
            self.ball, self.hops_left = self.social.network(self.user, self.degree), 0
        return self.ball

    def __missing__(self, v):
        self.budget -= 1
        if self.hops_left and self.budget < 0:
            self.network()
        self[v] = answer = v in self.ball or self.hops_left > 0 and (
            not self.ball.isdisjoint(self.social.neighbors[v])
            or self.hops_left > 1 and self.is_near(v))
        return answer

    def is_near(self, v):
        """Return whether v is 2..hops_left steps from the ball, by a search from v."""
        for ring in self.social.rings(v, self.hops_left - 1):
            if not all(map(self.ball.isdisjoint, map(self.social.neighbors.__getitem__, ring))):
                return True
            self.budget -= len(ring)
            if self.budget < 0:
                return v in self.network()
        return False


# ------------------------------------------------------------ purchase history

class PurchaseHistory:
    """The last `tracked` purchases of every user, by timestamp, then arrival.

    A purchase is a tuple (timestamp, seq, amount): the canonical text, the count of
    purchases recorded before it, exact cents.

    >>> history = PurchaseHistory(tracked=2)
    >>> for amount in "1.00", "2.00", "3.00":
    ...     history.record("1", "2017-06-13 11:33:01", amount)
    >>> list(history.last(["1"], 2))
    [('2017-06-13 11:33:01', 2, 300), ('2017-06-13 11:33:01', 1, 200)]
    """

    def __init__(self, tracked):
        self.tracked = tracked
        self.by_user = {}       # user -> purchases, oldest first
        self.recorded = 0       # the next purchase's seq
        self.newest = ""        # the latest timestamp recorded
        self._recent_purchases = None
        self.timestamps, self.amounts = Memo(normalized_timestamp), Memo(amount_in_cents)

    def record(self, user, timestamp, amount):
        """Add a purchase (all texts).  Raises Malformed, and adds nothing, if the timestamp
        or the amount is not valid.

        Purchases older than `tracked` others of the user are dropped.  Histories shorter than
        `tracked` are lists, which take one eighth of a deque's memory.
        """
        timestamp = self.timestamps[timestamp]
        seq = self.recorded
        purchase = (timestamp, seq, self.amounts[amount])
        self.recorded = seq + 1
        purchases = self.by_user.get(user)
        if purchases is None:
            purchases = self.by_user[intern(user)] = []
        elif len(purchases) == self.tracked and type(purchases) is list:
            purchases = self.by_user[user] = deque(purchases, self.tracked)
        if timestamp >= self.newest:
            self.newest = timestamp
            purchases.append(purchase)
        elif len(purchases) < self.tracked:
            insort(purchases, purchase)
        elif purchase > purchases[0]:
            purchases.popleft()
            insort(purchases, purchase)
        if self._recent_purchases is not None:
            self._recent_purchases.add(purchase, user)

    def last(self, users, count):
        """Return an iterator over the last `count` purchases of the users, newest first.

        Equals `nlargest(count, (p for user in users for p in by_user.get(user, ())))`, by a
        k-way merge.  Only the `count` histories with the newest ends can contribute; dropping
        the others, and sorting without a merge if `count` purchases or fewer are left, takes
        50-70 % less time for hundreds of thousands of users.
        """
        histories = list(filter(None, map(self.by_user.get, users)))
        if len(histories) > count:
            histories = nlargest(count, histories, key=itemgetter(-1))
        if sum(map(len, histories)) <= count:
            return iter(sorted(chain.from_iterable(histories), reverse=True))
        return islice(merge(*map(reversed, histories), reverse=True), count)

    def recent_purchases(self):
        """Return the RecentPurchases, which `record` keeps up to date from now on.

        Any cut-off is correct.  The one chosen, from a sample of about 1,000 users, roughly
        fills the pages.
        """
        if self._recent_purchases is None:
            step = len(self.by_user) // 1024 + 1
            *_, since = (), *self.last(islice(self.by_user, 0, None, step),
                                       -(-RecentPurchases.capacity // step))
            self._recent_purchases = RecentPurchases(self.by_user, since)
        return self._recent_purchases


class RecentPurchases:
    """The recent purchases of all users, on pages of a few thousand, the oldest page first.

    Invariant: the pages hold every purchase since the first page begins.  So the purchases of
    a network that are met going back from the newest are its last ones.
    """

    page_size, capacity = 2048, 2048 * 8        # purchases; pages hold up to twice their size

    def __init__(self, histories, since):
        """Take in all purchases of {user: purchases} that are not before `since`."""
        held = [(purchase, user) for user, purchases in histories.items()
                if purchases[-1] >= since       # few users bought recently; skip the others cheaply
                for purchase in takewhile(since.__le__, reversed(purchases))]
        held.sort(key=itemgetter(0))
        self.pages = [Page(since, [], [])]
        for start in range(0, len(held), self.page_size):
            purchases, buyers = map(list, zip(*held[start:start + self.page_size]))
            self.pages.append(Page(purchases[0], purchases, buyers))

    def add(self, purchase, user):
        """Take in a purchase on the page where it belongs, or not if it is before the first.

        A page with more than twice page_size is split, and the oldest pages beyond the
        capacity are dropped.
        """
        for place in range(len(self.pages) - 1, -1, -1):
            page = self.pages[place]
            if purchase >= page.since:
                page.add(purchase, intern(user))
                if len(page.purchases) > 2 * self.page_size:
                    self.pages[place:place + 1] = page.halves()
                    del self.pages[:-(self.capacity // self.page_size)]
                break

    def walk(self, belongs):
        """Return an iterator over the purchases of users that belong, newest first.

        Equals `(p for p in all purchases, newest first, if belongs(its buyer))`, but ends
        after three pages (1 to 8 differ by less than 10 %), since going further rarely pays.
        """
        return chain.from_iterable(
            compress(reversed(page.purchases), map(belongs, reversed(page.buyers)))
            for page in self.pages[:-4:-1])

    def look_up(self, network, count):
        """Yield the last `count` purchases of a network, or as many as the pages hold, those
        of each page before those of older pages, and on a page in any order.
        """
        for page in reversed(self.pages):
            found = list(filter(None, map(page.by_user.get, network)))
            there = sum(map(len, found))
            if there > 8 * count:       # a few users bought much: sort only what can count
                found = [purchases[-count:] for purchases in found]
            if there >= count:
                yield from sorted(chain.from_iterable(found))[-count:]
                break
            yield from chain.from_iterable(found)
            count -= there


class Page:
    """All purchases from `since` up to the next page, oldest first; `buyers`, the user of
    each; and `by_user`, a dict of each user's purchases, oldest first.
    """

    def __init__(self, since, purchases, buyers):
        self.since, self.purchases, self.buyers, self.by_user = since, purchases, buyers, {}
        for purchase, user in zip(purchases, buyers):
            self.by_user.setdefault(user, []).append(purchase)

    def add(self, purchase, user):
        """Put a purchase in its place."""
        place = len(self.purchases)
        if place and purchase < self.purchases[-1]:
            place = bisect(self.purchases, purchase)
        self.purchases.insert(place, purchase)
        self.buyers.insert(place, user)
        insort(self.by_user.setdefault(user, []), purchase)

    def halves(self):
        """Return two pages with the older and the newer half of the purchases."""
        half = len(self.purchases) // 2
        return (Page(self.since, self.purchases[:half], self.buyers[:half]),
                Page(self.purchases[half], self.purchases[half:], self.buyers[half:]))


# --------------------------------------------------------------------- verdict

Baseline = namedtuple("Baseline", "mean sd")
Baseline.__doc__ = "What purchases are judged by: mean and sd in int cents, truncated."
Flag = Baseline         # the public name: what a flagged purchase gets


def baseline(n, total, squares):
    """Return the Baseline of n amounts, from their sum and sum of squares.

    mean = total/n and sd = sqrt(n*squares - total**2)/n, truncated toward zero
    to whole cents: floor(sqrt(V)/n) == isqrt(floor(V)) // n.

    >>> baseline(3, 1683 + 5928 + 1120, 1683**2 + 5928**2 + 1120**2)
    Baseline(mean=2910, sd=2146)
    """
    mean = int(abs(total) // n)
    return Baseline(mean if total >= 0 else -mean, isqrt(int(n * squares - total * total)) // n)


def cannot_be_flagged(amount, n, total, squares, size, a=9, b=1):
    """Return whether amount <= mean + N sd, N^2 = a/b, for every window of up to `size`
    amounts of which n are known by their sum and sum of squares.

    With n == size that is the rule itself.  Let the known amounts have mean m and standard
    deviation s, and let there be u = size - n others.  Of all others with the same sum, equal
    ones make the sd least.  If each of them is m - x, the limit is
    m - x u/size + N sqrt(s^2 n/size + x^2 u n/size^2).  Over all x its least value is
    m + s sqrt((1 + N^2) n/size - 1), or there is none if the root is of less than 0.  The
    least value falls as size grows, so it holds for smaller windows too.

    >>> cannot_be_flagged(3100, 2, 2000 + 4000, 2000**2 + 4000**2, 20)
    False
    >>> cannot_be_flagged(3100, 5, 5 * 3000 + 0, 5 * 3000**2 + 10**6, 20)
    True
    """
    over = n * amount - total                       # n (amount - m)
    known = (a + b) * n - b * size                  # b size ((1 + N^2) n / size - 1)
    return known >= 0 and (
        over <= 0 or b * size * over * over <= known * (n * squares - total * total))


# Algorithm notes for finding the window, the last T purchases of a network of n users.
#
# The general way lists the network by breadth-first search and merges its users' histories:
# O(users and friendships within D degrees + T log n).  Three short-cuts replace parts of it.
# U users have bought in all.  If all buy alike, the last `span` = T U / n purchases of all
# users hold the window: 1,700 purchases if T = 50, U = 10,000 and n = 300.
#
# RecentPurchases keeps the last 16,000 or so purchases of all users in order, on 8 pages.
# `walk` goes back past `span` purchases and asks of each whether its buyer belongs to the
# network.  `look_up` asks each page for each of the n users.  Neither visits n histories.
# A purchase with an older timestamp than others is inserted where it belongs: in its user's
# history, moving up to T entries, and in a page, moving up to 4,096.  If it is older than all
# of its user's, it becomes the first of them, or is dropped if there are T already.  If it is
# older than the first page, no page takes it.  So the pages lack what is older than their
# first, and nothing else.  If they hold fewer than T purchases of the network, those are its
# newest, and the next source goes on with older ones (`window_sources`).
#
# The network is not listed if a ring of the search has more friendships than a budget.  The
# users found before that are the ball.  A buyer whom `walk` meets belongs to the network
# exactly if a search from the buyer meets the ball within the degrees that are left
# (NetworkMembership).  A few dozen buyers are met, so the cost hardly grows with D.  Where
# these searches exceed a budget of their own, as on long paths, the network is listed.
#
# A part of the window often settles that a purchase is normal.  Unknown amounts can pull the
# mean down only by pulling the sd up, so ten amounts of fifty with mean m and sd s prove that
# mean + 3 sd is at least m + s (`cannot_be_flagged`).  That acquits nine purchases in ten, so
# the window is taken in batches, T / 5 amounts first, from sources that are lazy.

class Detector:
    """Judges each purchase against the purchases before it in its network.

    degree and tracked are the challenge's D (>= 1) and T (>= 2).  A purchase is flagged above
    mean + deviations * sd; deviations is an int, a Fraction or whatever Fraction() takes, >= 0.
    Raises ValueError for other values.  Ids, timestamps and amounts are texts as in the logs.
    befriend, unfriend and record are those of its SocialNetwork and PurchaseHistory.

    >>> detector = Detector(degree=1, tracked=50)
    >>> detector.befriend("ann", "bob")
    >>> for amount in "16.83", "59.28", "11.20":
    ...     detector.purchase("ann", "2017-06-13 11:33:01", amount)
    >>> detector.purchase("bob", "2017-06-13 11:33:02", "1601.83")
    Baseline(mean=2910, sd=2146)
    """

    def __init__(self, degree, tracked, deviations=3):
        if degree < 1 or tracked < 2:
            raise ValueError("degree must be at least 1 and tracked at least 2")
        if type(deviations) is not int:
            from fractions import Fraction
            try:
                deviations = Fraction(deviations)
            except (TypeError, ArithmeticError):
                raise ValueError("deviations must be a number") from None
        if deviations < 0:
            raise ValueError("deviations must be at least 0")
        self.degree, self.tracked, self.deviations = degree, tracked, deviations
        self.deviations_squared = deviations.numerator ** 2, deviations.denominator ** 2
        self.social, self.history = SocialNetwork(), PurchaseHistory(tracked)
        self.befriend, self.unfriend = self.social.befriend, self.social.unfriend
        self.record = self.history.record

    @property
    def limit(self):
        """The limit as text: "mean + 2.5 sd"."""
        return f"mean + {dollars(100 * self.deviations).rstrip('0').rstrip('.')} sd"

    def purchase(self, user, timestamp, amount):
        """Judge a purchase, then record it; return its Flag, or None if normal.

        Raises Malformed, and changes nothing, for a timestamp or an amount that is not valid.
        """
        flag = self.judge(user, self.history.amounts[amount])
        self.record(user, timestamp, amount)
        return flag

    def judge(self, user, amount):
        """Return the Flag that a purchase of `amount` cents would get, or None.

        Equals `verdict(amount, *window_sums(user))`, but stops at the first batch of the
        window that acquits.
        """
        n = total = squares = 0
        for amounts in self.window(user):
            n += len(amounts)
            total += sum(amounts)
            squares += sum(map(mul, amounts, amounts))
            if cannot_be_flagged(amount, n, total, squares, self.tracked, *self.deviations_squared):
                return None
        return self.verdict(amount, n, total, squares)

    def verdict(self, amount, n, total, squares):
        """Return the Flag of a purchase of `amount` cents, or None, given the number, the sum
        and the sum of squares of the amounts in its whole window.
        """
        if n < 2 or cannot_be_flagged(amount, n, total, squares, n, *self.deviations_squared):
            return None
        return baseline(n, total, squares)

    def window_sums(self, user):
        """Return (n, total, squares) of the amounts in the user's whole window."""
        amounts = list(chain.from_iterable(self.window(user)))
        return len(amounts), sum(amounts), sum(map(mul, amounts, amounts))

    def window(self, user):
        """Yield the amounts of the user's window in lists, of T / 5 at first, then twice as
        many, and so on.

        Together they are, but for the order, those of `history.last(social.network(user,
        degree), tracked)`.
        """
        found, batch_size = 0, max(self.tracked // 5, 2)
        for source in self.window_sources(user):
            purchases = islice(source, found, self.tracked)
            while amounts := [purchase[2] for purchase in islice(purchases, batch_size)]:
                yield amounts
                found += len(amounts)
                batch_size *= 2
            if found == self.tracked:
                break

    # Ratios of costs, measured on random graphs with 10,000 users of mean degree 18, T = 50.
    # Searching from a buyer / listing a friendship; at 16, D = 3 takes 20-30 % longer:
    list_to_search = 4
    # Looking up a user / walking past a purchase; at 3, D = 2 takes 20-30 % longer:
    look_up_to_walk = 12

    def window_sources(self, user):
        """Yield iterators over the purchases of the user's network, cheapest first.

        Their contract: each yields the network's purchases newest first, in blocks, and those
        of a block in any order; a block is what one page of RecentPurchases has of them.  An
        iterator may give up at the end of a block; the last one never does.  So if one gives
        up after n purchases, the first n of the next are the same, and `window` skips them.
        """
        history, users_times_T = self.history, len(self.history.by_user) * self.tracked
        # Listing F friendships pays if F < list_to_search * span, where span is T U / F.
        budget = isqrt(self.list_to_search * users_times_T) + 1
        network, hops_left = self.social.ball(user, self.degree, budget)
        if not network:
            return
        recent_purchases = history.recent_purchases()
        span = users_times_T // len(network)
        if hops_left:
            # The more degrees are left, the more would listing cost.
            membership = NetworkMembership(self.social, user, self.degree, network, hops_left,
                                           budget * min(hops_left, 4) // 4)
            yield recent_purchases.walk(membership.__getitem__)
            network = membership.network()
        elif span < self.look_up_to_walk * len(network):
            yield recent_purchases.walk(network.__contains__)
        # Looking up pays if the pages hold a quarter of the window; without it, sparse graphs
        # at D = 3 take 70 % longer.
        elif span < min(history.recorded, 4 * recent_purchases.capacity):
            yield recent_purchases.look_up(network, self.tracked)
        yield history.last(network, self.tracked)


# ------------------------------------------------------------------------ logs

class Failure(Exception):
    """An error for the user: one line, and the exit status that it ends the run with."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


NO_MEMORY = MemoryError, SystemError        # what Python raises for lack of memory


def explained(error):
    """Return the text of an error for the user."""
    if isinstance(error, NO_MEMORY):
        return "out of memory"
    if isinstance(error, ImportError):
        return f"a part of Python cannot be loaded, perhaps for lack of memory: {error}"
    if isinstance(error, OSError):
        return f"{error.filename}: " * bool(error.filename) + (error.strerror or str(error))
    return str(error)


def ignore(*arguments):
    """Do nothing."""


CHUNK = 1 << 16
BLANKS = " \t\r\n"
MARKS = "\ufeff\0"      # byte-order marks of joined files, NULs of damaged ones: dropped

# event type -> (its fields, in the order of its method's arguments; the Detector's method)
EVENTS = {"purchase": (("id", "timestamp", "amount"), lambda detector: detector.record),
          "befriend": (("id1", "id2"), lambda detector: detector.befriend),
          "unfriend": (("id1", "id2"), lambda detector: detector.unfriend)}

# One regular expression takes the usual lines of a chunk apart, all at once.  `read_event`
# accepts every line that the expression accepts, and reads it alike.  So a value here is
# either text in quotes, without escapes, control characters and surrogates (which stand
# for bytes that are not UTF-8), or a number that is its own plain text.
_TEXT = r"[ !#-\[\]-\ud7ff\ue000-\U0010ffff]{1,80}"
_NUMBERS = {"id": "0|-?[1-9][0-9]{0,14}", "amount": r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,30})?"}
_UNQUOTED = re.compile('"(id|amount)[12]?": ?[-0-9]')


def usual_lines(style):
    """Return (regular expression of a line, {event type: function row -> its fields}).

    The style is (comma, colon, unquoted): ", " or ","; ": " or ":"; and a set with "id" if ids
    are numbers and "amount" if amounts are.  A usual line has the event type, the timestamp,
    then the other fields in the order of EVENTS.  A row of the expression's `findall` begins
    with the event type.  For any other line that is "", and the row ends with the line.
    """
    comma, colon, unquoted = style
    alike, shapes, getters, groups = defaultdict(list), [], {}, 1
    for event_type, (fields, _) in EVENTS.items():
        alike[fields].append(event_type)
    for fields, event_types in alike.items():
        shape = f'(?:{"|".join(f"(?<={name})" for name in event_types)})"{comma}"timestamp": ?"'
        shape += f'({_TEXT})"' if "timestamp" in fields else f'{_TEXT}"'
        names = sorted(fields, key="timestamp".__ne__)      # in the order of the groups
        for name in names[names[0] == "timestamp":]:
            kind = name.rstrip("12")
            value = f"({_NUMBERS[kind]})" if kind in unquoted else f'"({_TEXT})"'
            shape += f'{comma}"{name}"{colon}{value}'
        getter = itemgetter(*(groups + names.index(name) for name in fields))
        getters.update(dict.fromkeys(event_types, getter))
        shapes.append(shape)
        groups += len(fields)
    getters[""] = itemgetter(slice(groups, None))
    return re.compile(r'\{"event_type": ?"(%s)(?:%s)\}\r?\n|(.*)\n'
                      % ("|".join(EVENTS), "|".join(shapes))), getters


def style_of(text):
    """Return the style of the first lines of a text (see usual_lines)."""
    text = text[:500]
    return (", " if ', "' in text else ",", ": " if '": ' in text else ":",
            frozenset(_UNQUOTED.findall(text)))


LINES, NUMBER_IDS = Memo(usual_lines), Memo(plain_number)
NESTING = 100       # levels; Python's own limit differs between versions and processes


class Number(str):
    """The text of a JSON number, which is not a JSON string."""


def _no_constant(name):
    raise Malformed("not JSON", f": {name}")


_decode = json.JSONDecoder(parse_int=Number, parse_float=Number,
                           parse_constant=_no_constant).decode


def nesting(text):
    """Return how many levels deep the brackets outside the strings of a JSON text are nested."""
    outside = "".join(re.sub(r"\\.", "", text).split('"')[::2])
    return max(accumulate(1 if bracket in "[{" else -1
                          for bracket in re.findall(r"[][{}]", outside)), default=0)


def read_object(line):
    """Return the JSON object on a line, its numbers as Number.  Raises Malformed.

    Marks at the beginning of the line are dropped.
    """
    if not line.isascii() and any("\udc80" <= c <= "\udcff" for c in line):
        raise Malformed("not UTF-8")
    if line.count("[") + line.count("{") > NESTING and nesting(line) > NESTING:
        raise Malformed("nested too deeply", f": more than {NESTING} levels")
    try:
        value = _decode(line.lstrip(MARKS))
    except json.JSONDecodeError as error:
        problem = re.sub("( at|: )$", "", error.msg)
        raise Malformed("not JSON", f": {problem} at character {error.pos + 1}") from None
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def read_event(line):
    """Return (event type, its fields in the order of EVENTS) of a line.  Raises Malformed."""
    event = read_object(line)

    def field(name):
        value = event.get(name)
        if not value or not isinstance(value, str):
            raise Malformed(name, " is missing" if name not in event else
                            " is not a non-empty string or a number")
        is_id_number = type(value) is Number and name.startswith("id")
        return NUMBER_IDS[value] if is_id_number else value

    if "event_type" not in event and ("D" in event or "T" in event):
        raise Malformed("parameters", " (D and T) stand on the batch log's first line only")
    event_type = field("event_type")
    if event_type not in EVENTS:
        raise Malformed(f'event_type "{quoted(event_type)[1:-1]}"',
                        f" is none of {', '.join(EVENTS)}")
    return event_type, tuple(map(field, EVENTS[event_type][0]))


def whole_number(text, least):
    """Return the int that text, 1-18 digits, stands for.  Raises ValueError.

    >>> whole_number("50", least=2)
    50
    """
    if not (isinstance(text, str) and re.fullmatch("[0-9]{1,18}", text) and int(text) >= least):
        raise ValueError(f"{quoted(str(text))} is not a whole number from {least} to 10^18 - 1")
    return int(text)


# First bytes of a file -> what it is, and a command that turns it into JSON lines.
FORMATS = {b"\x1f\x8b": ("gzip", "gzip -dc"), b"BZh": ("bz2", "bzip2 -dc"),
           b"\xfd7zXZ\0": ("lzma", "xz -dc"), b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dc"),
           b"\xff\xfe": ("UTF-16", "iconv -f UTF-16 -t UTF-8"),
           b"\xfe\xff": ("UTF-16", "iconv -f UTF-16 -t UTF-8"),
           b"{\0": ("UTF-16", "iconv -f UTF-16LE -t UTF-8"),
           b"\0{\0": ("UTF-16", "iconv -f UTF-16BE -t UTF-8")}
FROM_CSV = ("python3 -c 'import csv, json, sys; [print(json.dumps(row)) for row in "
            "csv.DictReader(sys.stdin, delimiter=\"%s\")]' <")


def kind_of_file(head, reason):
    """Return what a log without any event is, and a command that turns it into JSON lines.

    `head` holds its first bytes, up to 64 KiB.  If the kind is not known, return `reason`.

    >>> kind_of_file(b'[\\n{"event_type": "purchase"}]', "not a JSON object")
    "this is a JSON array; jq -c '.[]' FILE turns it into JSON lines"
    """
    kinds = [kind for magic, kind in FORMATS.items() if head.startswith(magic)]
    text = head.decode(errors="replace").lstrip(MARKS + BLANKS)
    first, second = [*text.split("\n", 2), ""][:2]
    if text.startswith("["):
        kinds.append(("a JSON array", "jq -c '.[]'"))
    elif text.startswith("{"):
        if "\n" in text and not first.rstrip().endswith("}"):
            kinds.append(("JSON of several lines each", "jq -c ."))
    else:
        kinds += [("CSV", FROM_CSV % separator.replace("\t", r"\t")) for separator in ",;\t"
                  if min(first.count(separator), second.count(separator)) > 1]
    return "this is %s; %s FILE turns it into JSON lines" % kinds[0] if kinds else reason


def decompressed(file, name):
    """Return a file, or if it is compressed an unnamed temporary file with its content.

    Raises Failure if it cannot be unpacked.
    """
    head = os.pread(file.fileno(), 6, 0)
    modules = [kind for magic, (kind, _) in FORMATS.items()
               if head.startswith(magic) and kind in ("gzip", "bz2", "lzma")]
    if not modules:
        return file
    import importlib
    import tempfile
    try:
        unpacked = tempfile.TemporaryFile()
        with file, importlib.import_module(modules[0]).open(file) as packed:
            unpacked.writelines(iter(partial(packed.read, CHUNK), b""))
        unpacked.flush()
    except Exception as error:          # each of the modules raises some of its own
        raise Failure(f"{name}: cannot be unpacked ({modules[0]}): {explained(error)}", 2) from None
    return unpacked


class Log:
    """A JSON-lines log, opened once: a regular file, a pipe, or ("-") standard input.

    A regular file, which may be compressed, is read by position, from `start` up to the `size`
    that it had when it was opened, so that all processes of a run read the same bytes.
    Anything else is a pipe: it has size 0 and is read as it arrives, `piece` bytes at a time.

    A last line without a newline is read like any other, unless `growing` is set: then it is
    left for the next run.  Raises Failure if the log cannot be opened.
    """

    WAIT = 0.2                  # seconds between two calls of on_read while a pipe is empty
    JUDGE_TO_APPLY_RATIO = 16   # judging one event takes as long as applying 16

    def __init__(self, path, piece=CHUNK):
        self.name, self.piece, self.growing = "<stdin>" if path == "-" else path, piece, False
        self.start = self.size = 0
        self.head = self.unread = b""       # a pipe's first bytes, and those that skip put back
        try:
            if path == "-" and sys.stdin is None:
                raise Failure("standard input is closed", 2)
            self.file = open(0 if path == "-" else path, "rb", buffering=0, closefd=path != "-")
            self.status = os.fstat(self.file.fileno())
            self.is_file = stat.S_ISREG(self.status.st_mode)
            if self.is_file:
                self.start = os.lseek(self.file.fileno(), 0, os.SEEK_CUR)
                self.file = decompressed(self.file, self.name)
                self.size = os.fstat(self.file.fileno()).st_size
        except OSError as error:
            raise Failure(f"{path}: cannot be read: {error.strerror}", 2) from None

    def chunks(self, start=None, stop=None, on_read=ignore):
        """Yield the bytes of the lines from start to stop, some whole lines at a time.

        NULs at the beginning of a line are dropped.  `on_read` is called with all bytes that
        are read, and with none every WAIT seconds while a pipe is empty; if it then returns
        True, the log ends there, and an incomplete line is dropped.
        """
        position, pieces = self.start if start is None else start, []
        stop = self.size if stop is None else stop
        while True:
            data = self.read(position, stop, on_read)
            if data is None:
                return
            position += len(data)
            if not data:
                if pieces and not self.growing:
                    yield b"".join([*pieces, b"\n"])
                return
            whole, newline, rest = data.rpartition(b"\n")
            if newline:
                whole = b"".join([*pieces, whole, newline])
                yield re.sub(rb"(?m)^\0+", b"", whole) if b"\0" in whole else whole
                pieces = []
            rest = rest if pieces else rest.lstrip(b"\0")
            if rest:
                pieces.append(rest)

    def read(self, position, stop, on_read):
        """Return the next bytes, which on_read is told; none at the end of the log, and None
        if on_read ends it before."""
        try:
            data = (os.pread(self.file.fileno(), max(0, min(CHUNK, stop - position)), position)
                    if self.is_file else self.read_pipe(on_read))
        except OSError as error:
            error.filename = self.name
            raise
        if data:
            on_read(data)
        return data

    def read_pipe(self, on_read):
        """Return what arrives next on a pipe, none at its end, None if on_read ends it."""
        import select
        poll = select.poll()
        poll.register(self.file, select.POLLIN)
        while not on_read(b""):
            if self.unread:
                data, self.unread = self.unread, b""
                return data
            if poll.poll(1000 * self.WAIT):
                data = self.file.read(self.piece)
                if data is not None:            # None: another reader emptied the pipe
                    self.head = self.head or data
                    return data
        return None

    def skip(self, lines, on_read=ignore):
        """Begin after the first `lines` lines.  Raises Failure if there are fewer."""
        missing, rest = lines, b""
        while missing:
            data = self.read(self.start, self.size, on_read)
            if not data and not (missing == 1 and rest):    # its last line may lack a newline
                raise Failure(f"{self.name}: has fewer than the {lines} lines that were read "
                              "before: it was rotated, or is another log", 2)
            *whole, rest = data.split(b"\n", missing)
            missing -= len(whole) if data else 1
            self.start += len(data)
        self.start -= len(rest)
        self.unread = rest

    def boundaries(self, jobs, shard):
        """Return the jobs + 1 offsets at which the parts of shard (K, N) begin and end.

        A line belongs to the part that it starts in.  A process first applies the events
        before its part, which takes 1/JUDGE_TO_APPLY_RATIO of the time of judging them, so each
        part is by that much smaller than the one before.
        """
        k, shards = shard
        begin, end = (self.start + (self.size - self.start) * number // shards
                      for number in (k - 1, k))
        ends = [0, *accumulate((1 - 1 / self.JUDGE_TO_APPLY_RATIO) ** part for part in range(jobs))]
        return [self.line_start(begin + int((end - begin) * place / ends[-1])) for place in ends]

    def line_start(self, offset):
        """Return where the first line that starts at an offset or later does."""
        position = offset - 1
        while self.start <= position < self.size:
            data = os.pread(self.file.fileno(), CHUNK, position)
            newline = data.find(b"\n")
            if newline >= 0:
                return position + newline + 1
            position += len(data) or self.size
        return min(max(position, self.start), self.size)


def read_parameters(log, chunks, degree, tracked):
    """Return (D, T, the header's fields, the chunks of a batch log with the header left blank).

    The header is the first line that is not blank.  `degree` and `tracked`, where they are
    not None, override its D and T; with both given there may be no header.  Raises Failure.
    """
    before = []
    for data in chunks:
        before.append(data)
        if data.strip(BLANKS.encode()):
            break
    *before, data = before or [b""]
    line, _, rest = data.lstrip(BLANKS.encode()).partition(b"\n")
    lines = data.count(b"\n") - rest.count(b"\n")
    number = sum(blank.count(b"\n") for blank in before) + lines
    header, given = {}, degree and tracked
    try:
        header = read_object(line.decode(errors="surrogateescape").lstrip(MARKS))
        degree = degree or whole_number(header.get("D"), 1)
        tracked = tracked or whole_number(header.get("T"), 2)
    except ValueError as error:
        if not given:
            reason = kind_of_file(log.head or data, str(error)) if line else "it is empty"
            raise Failure(f"{log.name}:{number or 1}: is this the batch log? its first line has "
                          f"no D and T: {reason}", 2) from None
    if not given or "event_type" not in header and ("D" in header or "T" in header):
        data = b"\n" * lines + rest
    return degree, tracked, header, chain(before, [data], chunks)


Needs = namedtuple("Needs", "every audience window", defaults=(False, False, False))
Needs.__doc__ = "What outputs need beyond the flagged purchases (see Judged)."

Judged = namedtuple("Judged", "place line user timestamp amount flag window audience")
Judged.__doc__ = """A purchase that was judged: which line of its Findings it is, from 0; the line;
its user, canonical timestamp and exact cents; its Flag or None.  If needed: (size of its window,
Baseline or None), and for a flagged one (friends, users to recommend the buyer to)."""

MalformedLine = namedtuple("MalformedLine", "place line kind reason")

Findings = namedtuple("Findings", "before size lines events purchases first last judged malformed")
Findings.__doc__ = """What came of some lines of a log: how many lines of the log are before them
(set by Totals.add), their bytes, how many lines, events and purchases; the first and the last
timestamp judged; the purchases judged (Judged), only the flagged ones unless all are needed;
the malformed lines (MalformedLine)."""


def replay(chunks, detector, purchase=None, strict=False):
    """Yield the Findings of each chunk of a log, having applied its events in their order.

    purchase(user, timestamp, amount) applies a purchase, by default as `detector.record`,
    and returns None or the fields of a Judged after its line.  With `strict` the first
    malformed line is the last one read.
    """
    def other(line):
        event_type, fields = read_event(line)
        return actions[event_type][0](*fields)

    methods = {event_type: method(detector) for event_type, (_, method) in EVENTS.items()}
    methods.update({"": other, "purchase": purchase or detector.record})
    actions = {event_type: (methods[event_type], fields)
               for event_type, fields in LINES[style_of("")][1].items()}
    for data in chunks:
        text, recorded = data.decode(errors="surrogateescape"), detector.history.recorded
        lines, judged, malformed, blank, failure = None, [], [], 0, None
        rows = LINES[style_of(text)][0].findall(text)
        for place, row in enumerate(rows):
            try:
                action, fields = actions[row[0]]
                found = action(*fields(row))
                if found:
                    lines = lines or text.split("\n")
                    judged.append(Judged(place, lines[place].lstrip(MARKS), *found))
            except Malformed as error:
                lines = lines or text.split("\n")
                if not lines[place].lstrip(MARKS).strip(BLANKS):
                    blank += 1
                    continue
                malformed.append(MalformedLine(place, lines[place], error.kind, str(error)))
                if strict:
                    rows = rows[:place + 1]
                    break
            except NO_MEMORY as error:      # what was done before it counts
                failure, rows = error, rows[:place]
                break
        yield Findings(0, len(data), len(rows), len(rows) - len(malformed) - blank,
                       detector.history.recorded - recorded, "", "", judged, malformed)
        if failure:
            raise failure
        if strict and malformed:
            return


def judge(chunks, detector, needs, strict=False):
    """Yield Findings like `replay`, with each purchase judged before it is recorded."""
    timestamps = []

    def purchase(user, timestamp, amount):
        when, cents = detector.history.timestamps[timestamp], detector.history.amounts[amount]
        window = audience = None
        if needs.window:
            n, total, squares = detector.window_sums(user)
            flag = detector.verdict(cents, n, total, squares)
            window = n, baseline(n, total, squares) if n > 1 else None
        else:
            flag = detector.judge(user, cents)
        detector.record(user, timestamp, amount)
        timestamps.append(when)
        if flag and needs.audience:
            audience = detector.social.audience(user, detector.degree)
        if flag or needs.every:
            return user, when, cents, flag, window, audience
        return None

    for findings in replay(chunks, detector, purchase, strict):
        yield findings._replace(first=min(timestamps, default=""), last=max(timestamps, default=""))
        timestamps.clear()


# --------------------------------------------------------------------- outputs

class Console:
    """Standard error: messages, and on a terminal a progress line.  Failed writes are ignored."""

    def __init__(self):
        self.quiet, self.wipe = False, ""       # the wipe is what clears the progress line

    def warn(self, text):
        """Write a message on a line of its own."""
        self.write(printable(f"anomaly_detection: {text}") + "\n")

    def info(self, text):
        """Like warn, but silent if `quiet` is set."""
        if not self.quiet:
            self.warn(text)

    def write(self, text, wipe=""):
        """Write text in place of the progress line; `wipe` is what clears it again."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(self.wipe + text)
            sys.stderr.flush()
            self.wipe = wipe

    def progress(self, totals, size):
        """Return an on_read function for Log.chunks that shows progress up to 4 times a second:
        how much of `size` bytes is read, or for a pipe (size 0) what its Totals have counted.
        """
        if self.quiet or not (sys.stderr and sys.stderr.isatty()):
            return ignore
        start = arrived_at = time.monotonic()
        due, done = start + 1, 0

        def on_read(data):
            nonlocal due, done, arrived_at
            now = time.monotonic()
            if data:
                done, arrived_at = done + len(data), now
            if now < due or not done:
                return
            due = now + 0.25
            if size:
                text = f"{done / size:.0%}, {(now - start) * (size / done - 1):.0f} s left"
            else:
                text = (f"{totals.lines:,} lines, {totals.counts['flagged']:,} flagged, "
                        f"last line {now - arrived_at:.0f} s ago")
            self.write(f"\r{printable(os.path.basename(totals.name))}: {text}\x1b[K", "\r\x1b[K")

        return on_read


class Totals:
    """The sum of a log's Findings so far.

    tell(text) tells of malformed lines: the first `lines_told` of the first `kinds_told` kinds.
    """

    lines_told, kinds_told, kinds_counted = 3, 10, 1000

    def __init__(self, name, tell):
        self.name, self.tell = name, tell
        self.lines = 0                  # lines of the log before the next Findings
        self.counts = Counter()         # events, purchases, skipped, flagged
        self.kinds = Counter()          # malformed lines by kind
        self.reason = ""                # why the first malformed line is malformed
        self.first = self.last = ""     # earliest and latest timestamp judged

    def add(self, findings):
        """Count Findings; return them with the number of lines before them."""
        findings = findings._replace(before=self.lines)
        for place, _, kind, reason in findings.malformed:
            if kind not in self.kinds and len(self.kinds) >= self.kinds_counted:
                kind = "of other kinds"
            self.kinds[kind] += 1
            if self.kinds[kind] <= self.lines_told and kind in islice(self.kinds, self.kinds_told):
                self.tell(f"{self.name}:{self.lines + place + 1}: skipped: {reason}")
            self.reason = self.reason or reason
        self.lines += findings.lines
        self.counts.update(events=findings.events, purchases=findings.purchases,
                           skipped=len(findings.malformed),
                           flagged=sum(1 for _ in flagged(findings)))
        if findings.first:
            self.first = min(self.first or findings.first, findings.first)
            self.last = max(self.last, findings.last)
        return findings

    def skipped(self):
        """Return how many lines were skipped, by kind, most frequent first."""
        told = self.kinds.most_common(self.kinds_told)
        rest = self.counts["skipped"] - sum(number for _, number in told)
        kinds = [f"{number} {kind}" for kind, number in told] + [f"{rest} others"] * (rest > 0)
        return f"{self.name}: skipped {self.counts['skipped']}: {', '.join(kinds)}"


def flagged(findings):
    """Return an iterator over the purchases of Findings that are flagged."""
    return (purchase for purchase in findings.judged if purchase.flag)


Context = namedtuple("Context", "detector batch_log stream_log live earlier_lines console")
Context.__doc__ = """What an output may ask of its run: the Detector; the Totals of both logs;
whether the stream is a pipe; how many lines of the stream the batch log already stands for,
beyond those in the Totals; the Console."""


def descriptor(path):
    """Return the number of the open descriptor that an output's path names, or None.

    >>> descriptor("-"), descriptor("/dev/fd/2"), descriptor("flags.json")
    (1, 2, None)
    """
    for _ in range(40):             # symbolic links: /dev/stdout -> /proc/self/fd/1
        match = re.fullmatch(rf"/dev/fd/([0-9]+)|/proc/(?:self|{os.getpid()})/fd/([0-9]+)", path)
        if match or path == "-":
            return int(match[1] or match[2]) if match else 1
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            break
    return None


class Output:
    """A file that a run writes, and the option --`name` that asks for it.

    The new content is made in a temporary file beside the old file, and replaces it when the
    run ends; a run that ends early leaves the old file.  Where a file cannot be made there, or
    cannot be moved, the old file is written into at the end.  Only a `direct` output is written
    at once: "-" (standard output), another open descriptor, a pipe or a device.

    A new output is a subclass in the list OUTPUTS.  It has a `name`, a line of `help`, `needs`
    if the flags alone are not enough (see Judged), and any of these methods.  All are called in
    one process, in the order of the log, whatever --jobs is.

    * take(findings): write what it wants of the Findings of some lines;
    * tick(): called while a live stream goes on, and while it pauses;
    * complete(): write what is known only at the end, then call super().complete().

    A method that raises OSError costs the run this output only.
    """

    name = help = None
    needs = Needs()
    take = tick = staticmethod(ignore)

    def __init__(self, path, context):
        self.path, self.context = path, context
        self.file = self.temporary = None
        self.number = descriptor(path)
        self.direct = self.number is not None or os.path.exists(path) and not os.path.isfile(path)
        self.written = False        # whether the run has changed what a reader sees

    def open(self):
        """Begin to write.  Raises Failure if that is not possible."""
        try:
            if self.direct:
                self.file = open(self.path if self.number is None else os.dup(self.number),
                                 "wb", buffering=0)
            else:
                self.target = os.path.realpath(self.path)
                self.open_beside(os.path.dirname(self.target))
        except OSError as error:
            raise Failure(f"{self.path}: cannot be written: {error.strerror}", 2) from None

    def open_beside(self, folder):
        """Make a file with the target's permissions in its folder, or else one without a name."""
        temporary = os.path.join(folder, f".flagged-{os.urandom(6).hex()}.tmp")
        try:
            os.makedirs(folder, exist_ok=True)
            self.temporary = temporary      # first: a signal may come once there is a file
            self.file = open(temporary, "x+b")
        except OSError:
            self.temporary = None
            if not os.access(self.target, os.W_OK):
                raise
            import tempfile
            self.file = tempfile.SpooledTemporaryFile(1 << 24)   # small ones in memory
            return
        with contextlib.suppress(OSError, AttributeError):
            old = os.stat(self.target)
            os.chmod(temporary, stat.S_IMODE(old.st_mode))
            os.chown(temporary, old.st_uid, old.st_gid)

    def write(self, text, errors="backslashreplace"):
        """Write text; a direct output waits for its reader."""
        data = text.encode(errors=errors)
        if not self.direct:
            self.file.write(data)
            return
        self.written = True
        while data:
            written = self.file.write(data)
            if written is None:                 # non-blocking, and full
                import select
                poll = select.poll()
                poll.register(self.file, select.POLLOUT)
                poll.poll()
            data = data[written or 0:]

    def complete(self):
        """Make sure that what was written is on its disk, if it has one."""
        self.file.flush()
        if self.temporary or self.direct and stat.S_ISREG(os.fstat(self.file.fileno()).st_mode):
            os.fsync(self.file.fileno())

    def replace(self):
        """Let the new content replace the old file.  If it must be written into, say so."""
        self.file.flush()
        if self.temporary:
            try:
                os.replace(self.temporary, self.target)
                self.temporary = None
                return
            except OSError as error:        # EBUSY: a mount point, say a file in a container
                if error.errno not in (errno.EBUSY, errno.EPERM, errno.EACCES):
                    raise
        if not self.direct:
            self.file.seek(0)
            with open(self.target, "r+b") as target:
                target.writelines(iter(partial(self.file.read, CHUNK), b""))
                target.truncate()
                target.flush()
                os.fsync(target.fileno())
            self.context.console.warn(f"{self.path}: cannot be replaced, so it was written into")

    def discard(self):
        """Close the file, and remove it if it is still temporary."""
        with contextlib.suppress(OSError, AttributeError):
            self.file.close()
        if self.temporary:
            with contextlib.suppress(OSError):
                os.unlink(self.temporary)


def with_fields(line, fields):
    """Return a line, a JSON object, with fields (text) added before its last brace."""
    return f"{line.rstrip(BLANKS)[:-1]}, {fields}}}\n"


def mean_and_sd(baseline):
    """Return the fields mean and sd of a Baseline as text, null if it is None."""
    if baseline is None:
        return '"mean": null, "sd": null'
    return f'"mean": "{dollars(baseline.mean)}", "sd": "{dollars(baseline.sd)}"'


class FlaggedPurchases(Output):
    name, help = "output", 'the flagged purchases ("-": standard output)'

    def take(self, findings):
        for purchase in flagged(findings):
            self.write(with_fields(purchase.line, mean_and_sd(purchase.flag)))


class Rejects(Output):
    name, help = "rejects", "write every malformed line there, as it was"

    def take(self, findings):
        for malformed in findings.malformed:
            self.write(malformed.line + "\n", "surrogateescape")


class Notify(Output):
    name, help = "notify", "write each flagged purchase with the users to notify"
    needs = Needs(audience=True)

    def take(self, findings):
        for purchase in flagged(findings):
            feed, recommend = map(as_json, purchase.audience)
            self.write(with_fields(purchase.line, f'{mean_and_sd(purchase.flag)}, '
                                                  f'"feed": {feed}, "recommend": {recommend}'))


class Verdicts(Output):
    name, help = "verdicts", "write every purchase judged, with its window's size, mean and sd"
    needs = Needs(every=True, window=True)

    def take(self, findings):
        for purchase in findings.judged:
            size, baseline = purchase.window
            self.write(with_fields(purchase.line, f'"window": {size}, {mean_and_sd(baseline)}, '
                                                  f'"flagged": {as_json(bool(purchase.flag))}'))


class Snapshot(Output):
    """A batch log that stands for all that was read: D, T, the number of lines of the stream,
    the friendships, and every user's last T purchases.  It is sorted: the same state gives the
    same bytes."""

    name, help = "snapshot", "write a batch log that stands for all that was read"

    def complete(self):
        detector = self.context.detector
        ids, amounts = Memo(as_json, sys.maxsize), Memo(amount_text)
        rows = [(purchase, user) for user, purchases in detector.history.by_user.items()
                for purchase in purchases]
        # Two stable sorts by plain keys are quicker than one by (timestamp, seq).
        rows.sort(key=lambda row: row[0][1])
        rows.sort(key=lambda row: row[0][0])
        before = rows[0][0][0] if rows else "1970-01-01 00:00:00"
        lines = self.context.earlier_lines + self.context.stream_log.lines
        self.write(f'{{"D":"{detector.degree}", "T":"{detector.tracked}", '
                   f'"stream_lines":"{lines}"}}\n')
        for user, friends in sorted(detector.social.friends.items()):
            self.write("".join(f'{{"event_type":"befriend", "timestamp":"{before}", '
                               f'"id1": {ids[user]}, "id2": {ids[friend]}}}\n'
                               for friend in sorted(friends) if user < friend))
        for start in range(0, len(rows), 1000):
            self.write("".join(f'{{"event_type":"purchase", "timestamp":"{timestamp}", '
                               f'"id": {ids[user]}, "amount": "{amounts[amount]}"}}\n'
                               for (timestamp, seq, amount), user in rows[start:start + 1000]))
        super().complete()


# ---------------------------------------------------------------------- report

_STYLE = """
:root { color-scheme: light dark; background: Canvas;
  --data: #4493f8; --flag: #cf222e; --faint: #59636e }
@media (prefers-color-scheme: dark) {
  :root { --data: #1f6feb; --flag: #ff7b72; --faint: #9da7b1 } }
body { margin: 0 auto; padding: 8px 16px; max-width: 1100px; overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums }
h1 { font-size: 24px } p { max-width: 50em } h2 { font-size: 16px; margin: 32px 0 0 }
h2 + p, small, thead th { font-size: 14px; font-weight: 400; margin: 0; color: var(--faint) }
figure { margin: 0 36px 0 64px } svg { font-size: 12px; fill: var(--faint) }
line { stroke: var(--faint) } .data { fill: var(--data) }
.flag { fill: var(--flag); stroke: var(--flag) }
.tables { display: flex; flex-wrap: wrap; gap: 0 64px } section { max-width: 100% }
.tables div { overflow-x: auto; background: linear-gradient(90deg, Canvas 50%, #0000) local,
  linear-gradient(270deg, Canvas 50%, #0000) 100% 0 local, linear-gradient(90deg, #8888, #0000),
  linear-gradient(270deg, #8888, #0000) 100% 0; background-repeat: no-repeat;
  background-size: 48px 100%, 48px 100%, 16px 100%, 16px 100% }
table { border-collapse: collapse; font-size: 14px; width: max-content }
td, thead th, time, span { white-space: nowrap }
th, td { padding: 3px 0; text-align: right; border-bottom: 1px solid #8884 }
th + *, td + * { padding-left: 1.5em }
tbody th, .timestamp, .user { text-align: left; font-weight: 400; max-width: 20em }
@media (max-width: 600px) { figure { margin: 0 16px 0 56px }
  .x text:not(:nth-of-type(3n + 1)) { display: none } }
@media print { tr, svg { break-inside: avoid } h2, h2 + p { break-after: avoid }
  .tables { display: block } .tables div { overflow: visible; background: none }
  table { font-size: 11px } }
"""
# The colors of the light scheme as attributes, for a page whose style sheet is blocked.
_FAINT, _LAYERS = "#59636e", {
    "data": 'class="data" fill="#4493f8" shape-rendering="crispEdges"',
    "flag": 'class="flag" fill="#cf222e" fill-opacity=".4" stroke="#cf222e"'}
_DAY, _LAST_SECOND = 86400, 315537897599       # the last second of the year 9999
_ROUND = [n * 10 ** zeros for zeros in range(20) for n in (1, 2, 5)]
_INTERVALS = {n * size: f"{n} {unit}" for size, unit, numbers in (
    (1, "s", (1, 2, 5, 10, 15, 30)), (60, "min", (1, 2, 5, 10, 15, 30)),
    (3600, "h", (1, 2, 3, 6, 12)),
    (_DAY, "d", (1, 2, 7, 14, 30, 60, 91, 182, *(365 * n for n in _ROUND[:11])))) for n in numbers}
_WIDTHS = {19: "seconds", 16: "minutes", 13: "hours", 10: "days", 7: "months", 4: "years"}


class Tallies(dict):
    """{key: [purchases with the key, their total, flagged ones, their total, sum of squares]}."""

    def __missing__(self, key):
        tally = self[key] = [0] * 5
        return tally

    def joined(self, kind):
        """Return the Tallies by kind(key), each the sum of those of its keys."""
        larger = Tallies()
        for key, tally in self.items():
            sums = larger[kind(key)]
            sums[:] = map(add, sums, tally)
        return larger

    def most(self, column):
        """Return the 20 (key, tally) with the largest sums in a column, the least key first."""
        return nsmallest(20, ((key, tally) for key, tally in self.items() if tally[column]),
                         key=lambda item: (-item[1][column], item[0]))


def legible(value, length=60):
    """Return a text or int as HTML, cut to a length, all of whose characters can be seen."""
    from html import escape
    text = value if isinstance(value, str) else f"{value:,}"
    text = printable(text[:length + 1])
    return escape(text if len(text) <= length else text[:length] + "…", quote=False)


def money(cents):
    """Return cents as dollars with thousands separators: 1,601.83."""
    return re.sub(r"\B(?=(\d{3})+\.)", ",", dollars(cents))


def table(name, caption, count, heads, rows):
    """Return a heading and a <table> of rows of texts and ints, the first ones of `count`.

    A timestamp or user is the head of its row; both are left-aligned.
    """
    heads = heads.split(", ")
    columns = "".join(f'<th scope="col" class="{head}">{head}</th>' for head in heads)
    cells = {"timestamp": '<th scope="row"><time>%s</time></th>',
             "user": '<th scope="row">%s</th>'}
    row = "<tr>%s</tr>\n" % "".join(cells.get(head, "<td>%s</td>") for head in heads)
    body = "".join(row % tuple(map(legible, values)) for values in rows)
    part = "" if 0 < count == len(rows) else f"{len(rows)} of {count:,}" if count else "none"
    return (f'<section><h2 id="{name}-title">{caption} <small>{part}</small></h2>\n'
            f'<div tabindex="0"><table id="{name}" aria-labelledby="{name}-title">\n'
            f"<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}</tbody></table></div></section>\n")


def chart(name, title, words, x_ticks, y_ticks, **layers):
    """Return a heading, words and an <svg> of marks on a grid, 200 pixels high.

    The ticks are (position, label).  A layer is a list of (what a mark is, its shapes).
    Horizontal positions are in per cent of the plot and all else is in pixels, so text is
    as large on any screen.
    """
    grid = "".join([*(f'<line x1="{x:.2f}%" x2="{x:.2f}%" y2="200"/>' for x, label in x_ticks),
                    *(f'<line x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>' for y, label in y_ticks)])
    below = "".join(f'<text x="{x:.2f}%" y="220">{label}</text>' for x, label in x_ticks)
    left = "".join(f'<text x="-10" y="{y + 4:.1f}">{label}</text>' for y, label in y_ticks)
    plot = "\n".join(f"<g {_LAYERS[layer]}>\n%s</g>" % "\n".join(
        f"<g><title>{what}</title>{shapes}</g>" for what, shapes in marks)
        for layer, marks in layers.items())
    return (f'<h2>{title}</h2>\n<p>{words}</p>\n<figure><svg id="{name}" role="img" width="100%" '
            f'height="264" overflow="visible" font-size="12" fill="{_FAINT}">\n'
            f"<title>{title}</title><desc>{words}</desc>\n"
            f'<g transform="translate(0 36)"><g stroke="{_FAINT}" stroke-opacity=".2">{grid}</g>\n'
            f'<g class="x" text-anchor="middle">{below}</g>\n'
            f'<g class="y" text-anchor="end">{left}</g>\n{plot}</g></svg></figure>\n')


def seconds(timestamp):
    """Return the seconds from year 1 to a timestamp, or to its minute, hour, ... if it is cut."""
    text = timestamp[:19] + "0001-01-01 00:00:00"[len(timestamp):]
    return (datetime.fromisoformat(text) - datetime.min) // timedelta(seconds=1)


def timestamp_at(second):
    """Return the timestamp so many seconds after the year 1 began."""
    return str(datetime.min + timedelta(seconds=min(second, _LAST_SECOND)))


class Axis:
    """The horizontal axis of both charts: time, in `seconds`, or the lines of the stream.

    The position of a line is how many precede it.  Intervals begin at multiples of their size,
    the shortest round one that makes at most 240 intervals of time, or 60 of lines.
    """

    def __init__(self, over_time, first, last):
        self.over_time = over_time
        self.sizes, most = (_INTERVALS, 240) if over_time else (_ROUND, 60)
        self.size = size = next(
            size for size in self.sizes if last // size - first // size < most)
        self.begin = self.interval(first)
        self.end = max(self.interval(last) + size, self.begin + 10 * size)
        self.width = self.across(self.begin + size)     # of an interval

    def interval(self, position):
        """Return where the interval of a position begins."""
        return position // self.size * self.size

    def across(self, position):
        """Return a position in per cent of the axis."""
        return 100 * (position - self.begin) / (self.end - self.begin)

    def name(self, begin):
        """Return what the interval is called that begins at a position."""
        if self.over_time:
            return f"the {_INTERVALS[self.size]} from {timestamp_at(begin)}"
        return f"lines {begin + 1:,}–{begin + self.size:,}"

    def ticks(self):
        """Return up to nine (per cent, label); when 30 days apart, at months or years."""
        span = self.end - self.begin
        step = next(size for size in self.sizes if span <= 8 * size)
        positions = range(-(-self.begin // step) * step, self.end + 1, step)
        if not self.over_time:
            return [(self.across(position), f"{position:,}") for position in positions]
        part = slice(10) if step >= _DAY else slice(
            11 if span <= _DAY else 5, 16 if step >= 60 else 19)
        if step >= 30 * _DAY:
            part = slice(7 if step < 365 * _DAY else 4)
            months = sorted({timestamp_at(second)[part]
                             for second in range(self.begin, self.end, self.size)})
            positions = map(seconds, months[1::-(-len(months) // 8)])
        return [(self.across(second), timestamp_at(second)[part]) for second in positions]


Row = namedtuple("Row", "below_mean timestamp line user amount mean sd")    # a flagged purchase


class Report(Output):
    """A page to look at: what happened, where the flags are, how far they stand out.

    Memory is bounded: of more than `limit` timestamps all are cut to minutes, then to hours,
    and so on; of more than `limit` flagged lines all become blocks of 10 lines, then of 100.
    """

    name, help = "report", "write a page that shows what happened, live if STREAM is"
    needs = Needs(every=True)
    limit, dots = 100000, 500

    def __init__(self, path, context):
        super().__init__(path, context)
        self.by_timestamp, self.width = Tallies(), 19   # the width: characters that are kept
        self.by_line, self.block = Tallies(), 1     # by lines before the block of a flagged line
        self.users = {}                 # user -> (flags, largest amount, first timestamp and line)
        self.farthest = []              # Rows, those farthest above their mean
        self.judged = self.flagged = 0
        self.first = self.last = 0      # how many lines precede the first purchase, and the last
        self.begun = self.shown = None  # when the stream began; lines that the live page tells of
        self.due = self.stale = 0       # when a live page may be written; when it must be
        self.warned = False

    def take(self, findings):
        by_timestamp, width = self.by_timestamp, self.width
        for judged in findings.judged:
            tally = by_timestamp[judged.timestamp[:width]]
            tally[0] += 1
            tally[1] += judged.amount
            if judged.flag is not None:
                self.take_flagged(judged, findings.before + judged.place + 1, tally)
        if findings.judged:
            if not self.judged:
                self.first = findings.before + findings.judged[0].place
            self.last = findings.before + findings.judged[-1].place
        self.judged += len(findings.judged)
        while len(self.by_timestamp) > self.limit:
            self.shorten()
        while len(self.by_line) > self.limit:
            self.block *= 10
            self.by_line = self.by_line.joined(lambda position: position - position % self.block)

    def take_flagged(self, judged, line, of_timestamp):
        """Note a flagged purchase, its line in the stream, and the tally of its timestamp."""
        _, _, user, timestamp, amount, (mean, sd), *_ = judged
        self.flagged += 1
        for tally in of_timestamp, self.by_line[(line - 1) // self.block * self.block]:
            tally[2] += 1
            tally[3] += amount
            tally[4] += amount * amount
        number, largest, first = self.users.get(user, (0, amount, (timestamp, line)))
        self.users[user] = number + 1, max(largest, amount), min(first, (timestamp, line))
        self.farthest.append(Row(mean - amount, timestamp, line, user, amount, mean, sd))
        if len(self.farthest) > 2 * self.dots:
            self.rank()

    def rank(self):
        """Keep the farthest, in order; of equals the earlier stands first."""
        self.farthest.sort()
        del self.farthest[self.dots:]

    def shorten(self):
        """Keep less of every timestamp."""
        self.width = next(width for width in _WIDTHS if width < self.width)
        self.by_timestamp = self.by_timestamp.joined(lambda timestamp: timestamp[:self.width])

    def tick(self):
        """Show how a live stream goes on, when there are more lines or the page is stale.

        Pages take at most 2 % of the time, and are at least two seconds apart.  The run goes
        on without a page that cannot be written; the next one may succeed.
        """
        begin, lines = time.monotonic(), self.context.stream_log.lines
        if not self.context.live or self.direct or begin < self.due or (
                lines == self.shown and begin < self.stale):
            return
        self.begun = self.begun or begin
        # Browsers reload the page as often as purchases are flagged: after 30 seconds at least,
        # since a reload takes a text selection away, and after 300 at most.
        reload = round(min(max((begin - self.begun) / (self.flagged + 1), 30), 300))
        try:
            self.show(reload)
            self.shown, self.stale = lines, begin + reload
        except (OSError, Failure) as error:
            if not self.warned:
                self.context.console.warn(f"{self.path}: live page not written: "
                                          f"{getattr(error, 'strerror', error)}")
            self.warned = True
        end = time.monotonic()
        self.due = end + max(2, 50 * (end - begin))

    def show(self, reload=None):
        """Let the page so far take the place of the one before."""
        live = Output(self.path, self.context)
        try:
            live.open()
            live.write(self.page(reload))
            live.replace()
            self.written = True
        finally:
            live.discard()

    def complete(self):
        self.write(self.page())
        super().complete()

    def replace(self):
        super().replace()
        self.shown = None

    def discard(self):
        """If a live run fails, leave a last page that no longer reloads."""
        super().discard()
        if self.shown is not None:
            with contextlib.suppress(OSError, Failure):
                self.show()

    def page(self, reload=None):
        """Return the page.  If it is live, a browser reads it again every `reload` seconds."""
        self.rank()
        detector, batch, stream = (
            self.context.detector, self.context.batch_log, self.context.stream_log)
        refresh = f'<meta http-equiv="refresh" content="{reload}">' if reload else ""
        first, last = min(self.by_timestamp, default=""), max(self.by_timestamp, default="")
        span = f", from <time>{first}</time> to <time>{last}</time>" if first < last else (
            f", at <time>{first}</time>" if first else "")
        percent = money(10000 * self.flagged // max(self.judged, 1))
        logs = [legible(log.name, 4096).replace("/", "/<wbr/>") for log in (batch, stream)]
        return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}
<title>Anomalous purchases in {legible(stream.name)}</title>
<style>{_STYLE}</style></head>
<body><h1>Anomalous purchases</h1>
<p>Purchases judged: <b>{self.judged:,}</b>{span}. Flagged: <b>{self.flagged:,}</b> ({percent}%),
for being more than {self.deviations()} sd above the mean of the last T = {detector.tracked:,}
purchases in the buyer’s network, D = {detector.degree:,} degrees. The sd (standard deviation)
tells how far those amounts usually are from their mean.
Malformed lines skipped: {batch.counts["skipped"] + stream.counts["skipped"]:,}.
Logs: {", ".join(logs)}.
{"" if self.width == 19 else f"Timestamps, being so many, are cut to {_WIDTHS[self.width]}."}</p>
{self.as_of(reload) if reload else ""}
{self.charts(first, last) if first else ""}<div class="tables">
{self.tables()}</div></body></html>
"""

    def deviations(self):
        """Return as text how many sd the limit is above the mean."""
        return dollars(100 * self.context.detector.deviations).rstrip("0").rstrip(".")

    def as_of(self, reload):
        """Return a paragraph that tells how old a live page is."""
        stream, now = self.context.stream_log, time.strftime("%Y-%m-%d %H:%M:%S %z")
        last = f", with purchases up to <time>{stream.last}</time>" if stream.last else ""
        return (f"<p>This page is as of line {stream.lines:,} of the stream{last}. It was written "
                f"at <time>{now}</time> and is loaded again every {reload} s. If it is more than "
                f"{3 * reload} s old, the run has ended.</p>")

    def charts(self, first, last):
        """Return both charts, over time if that tells the purchases apart.

        It does if half of the purchases take at least 10 intervals of time, or more intervals
        than a third of the number of purchases.  If not, and if some purchases are flagged, the
        charts follow the lines.
        """
        axis, tallies = Axis(True, seconds(first), seconds(last)), self.by_timestamp
        if axis.size >= 60:             # a third of the time for 99,000 seconds
            tallies = tallies.joined(lambda timestamp: timestamp[:16])
        tallies = tallies.joined(lambda timestamp: axis.interval(seconds(timestamp)))
        fullest = sorted((tally[0] for tally in tallies.values()), reverse=True)
        half = 1 + sum(2 * number < self.judged for number in accumulate(fullest))
        if self.flagged and half < 10 and 3 * half <= self.judged:
            axis = Axis(False, self.first, self.last)
            tallies = self.by_line.joined(axis.interval)
        return self.intervals(axis, tallies) + self.amounts(axis)

    def intervals(self, axis, tallies):
        """Return the first chart, of Tallies by the positions where intervals begin.

        It shows purchases over time, or flagged purchases by lines.
        """
        column = 0 if axis.over_time else 2
        most = max(tally[column] for tally in tallies.values())
        step = next(n for n in _ROUND if 4 * n >= most)
        top = -(-most // step) * step
        ticks = [(200 - 200 * n / top, f"{n:,}") for n in range(0, top + 1, step)]
        bars, pins = [], []
        for begin, tally in sorted(tallies.items()):
            purchases = f"purchases {tally[0]:,}, " if axis.over_time else ""
            what = f"{axis.name(begin)}: {purchases}flagged {tally[2]:,}"
            x, height = axis.across(begin), 200 * tally[column] / top
            bars.append((what, f'<rect x="{x:.2f}%" y="{200 - height:.1f}" height="{height:.1f}" '
                               f'width="{axis.width + .05:.2f}%"/>'))
            if tally[2]:
                pins.append((what, f'<circle cx="{x + axis.width / 2:.2f}%" cy="-16" '
                                   f'r="{2 + 3.5 * log10(1 + tally[2]):.1f}"/>'))
        below = " ".join(f"{what}: <span>{axis.name(begin)}</span> ({name} {tally[at]:,})."
                         for what, name, at in (("Busiest", "purchases", 0),
                                                ("Most flags", "flagged", 2))
                         for begin, tally in tallies.most(at)[:1])
        if axis.over_time:
            title, layers = "Purchases over time", {"data": bars, "flag": pins}
            words = (f"Purchases per {_INTERVALS[axis.size]}. The dots above are for flagged ones, "
                     "larger for more.")
        else:
            title, layers = "Flagged purchases in the order of the stream", {"flag": bars}
            words = (f"Flagged purchases per {axis.size:,} lines. Time hardly tells the purchases "
                     "apart, so the charts follow the lines of the stream.")
        return chart("intervals", title, words, axis.ticks(), ticks, **layers) + f"<p>{below}</p>\n"

    def amounts(self, axis):
        """Return the chart of the flagged amounts, each with its mean and limit."""
        if not self.farthest:
            return "<h2>Flagged amounts</h2>\n<p>Nothing is flagged.</p>\n"
        least = max(1, min(row.mean for row in self.farthest))
        low = max(n for n in _ROUND if n <= least)
        high = next(n for n in _ROUND if n > max(low, *(row.amount for row in self.farthest)))

        def y(cents):
            return 200 - 200 * log10(max(cents, low) / low) / log10(high / low)

        grids = ([n for n in _ROUND[::every] if low <= n <= high] for every in (1, 3, 6, 9))
        grid = next(grid for grid in grids if len(grid) <= 8)
        marks = []
        for x, row in self.places(axis):
            limit = row.mean + self.context.detector.deviations * row.sd
            marks.append((
                f"line {row.line}, {row.timestamp}, user {legible(row.user)}: "
                f"{money(row.amount)}, mean {money(row.mean)}, limit {money(limit)}",
                f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="{y(row.mean):.1f}" y2="{y(limit):.1f}" '
                f'stroke="{_FAINT}" stroke-opacity=".6"/>'
                f'<circle cx="{x:.2f}%" cy="{y(row.amount):.1f}" r="3"/>'))
        words = f"The {len(marks)} farthest above their mean. " * (len(marks) < self.flagged) + (
            "On a logarithmic scale, each above a line from its mean to its limit, "
            f"mean + {self.deviations()} sd.")
        return chart("amounts", "Flagged amounts", words, axis.ticks(), [
            (y(n), "≤ " * (n == 1) + (f"{n // 100:,}" if n >= 100 else dollars(n)))
            for n in grid], flag=marks)

    def places(self, axis):
        """Yield (per cent of the axis, Row) of the farthest, in the order of the axis.

        Those of one second stand side by side, up to the end of its interval.
        """
        def position(row):
            return seconds(row.timestamp[:self.width]) if axis.over_time else row.line - 1

        rows = sorted(self.farthest, key=lambda row: (position(row), row.line))
        for begin, together in groupby(rows, position):
            together = list(together)
            room = axis.size - begin % axis.size
            for place, row in enumerate(together):
                yield axis.across(begin + (place * room + .5) / len(together)), row

    def tables(self):
        """Return the tables; of equals the earlier stands first."""
        times = self.by_timestamp
        users = nsmallest(20, self.users.items(), key=lambda item: (-item[1][0], item[1][2]))
        return "".join([
            table("busiest", "Busiest timestamps", len(times),
                  "rank, timestamp, purchases, total, flagged",
                  [(rank, timestamp, number, money(total), flagged)
                   for rank, (timestamp, (number, total, flagged, *_))
                   in enumerate(times.most(0), 1)]),
            table("flagged-times", "Timestamps with most flags",
                  sum(tally[2] > 0 for tally in times.values()),
                  "rank, timestamp, flagged, flagged mean, flagged sd",
                  [(rank, timestamp, tally[2], *map(money, baseline(*tally[2:])))
                   for rank, (timestamp, tally) in enumerate(times.most(2), 1)]),
            table("flagged", "Flagged purchases, farthest above their mean first", self.flagged,
                  "line, timestamp, user, amount, network mean, network sd, above mean, "
                  "sd above mean",
                  [(str(row.line), row.timestamp, row.user, money(row.amount), money(row.mean),
                    money(row.sd), money(-row.below_mean),
                    money(100 * -row.below_mean // row.sd)[:-1] if row.sd else "∞")
                   for row in self.farthest[:200]]),
            table("users", "Users flagged most often", len(self.users), "user, flagged, largest",
                  [(user, number, money(largest)) for user, (number, largest, _) in users])])


# They take their places in this order.
OUTPUTS = FlaggedPurchases, Rejects, Notify, Verdicts, Report, Snapshot


# --------------------------------------------------------------------- signals

class Signals:
    """SIGINT, SIGTERM and SIGHUP, from `catch` to `restore`.

    The first one is kept as `received`.  It raises KeyboardInterrupt, between any two
    bytecodes, unless `deferred` is set.  Later ones do nothing, except that the next one raises
    InterruptedError while `giving_up` is set, which ends a write that nobody reads.  A signal
    that was ignored before, as under nohup, stays ignored.
    """

    NUMBERS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP

    def __init__(self):
        self.received, self.deferred, self.giving_up, self.before = None, False, False, {}

    def catch(self):
        for number in self.NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                with contextlib.suppress(ValueError):       # not the main thread
                    self.before[number] = signal.signal(number, self.receive)

    def receive(self, number, frame):
        if self.received and self.giving_up:
            self.giving_up = False
            raise InterruptedError(errno.EINTR, "nobody reads it")
        self.received = self.received or signal.Signals(number)
        if not self.deferred:
            self.deferred = True
            raise KeyboardInterrupt

    def restore(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)


# --------------------------------------------------------------------- workers
#
# --jobs judges several parts of a stream side by side, and --shard K/N only one of N parts.  A
# process first applies every event before its part, so it judges in the state that a single
# process would be in.  The Findings of the parts are passed on in the order of the log.  That is
# why the outputs, joined, are those of a single process, byte for byte.

PART = 1 << 18      # bytes that are worth a process
CGROUP = "/sys/fs/cgroup"
QUOTAS = ("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")    # versions 2 and 1
EXPECTED_ERRORS = Failure, OSError, ImportError, *NO_MEMORY     # one line, no traceback


def processors():
    """Return how many processors this process can use: its affinity, within its cgroup's quota."""
    if hasattr(os, "sched_getaffinity"):
        number = len(os.sched_getaffinity(0))
    else:
        number = os.cpu_count() or 1
    for names in QUOTAS:
        with contextlib.suppress(OSError, ValueError):
            words = []
            for name in names:
                with open(os.path.join(CGROUP, name)) as file:
                    words += file.read().split()
            quota, period = map(int, words)         # "max" is no int: there is no quota
            if quota > 0:
                number = min(number, -(-quota // period))
    return number


def number_of_jobs(jobs, size, state):
    """Return in how many processes to judge `size` bytes: `jobs` if given, but at most 4 a
    processor; else at most the processors.

    Forking a state that was read from `state` bytes takes as long as judging state / 24 bytes.
    """
    if not size or not hasattr(os, "fork"):
        return 1
    if jobs:
        return min(jobs, 4 * processors())
    return max(1, min(processors(), size // max(PART, state // 24)))


def record(all_findings, file):
    """Write Findings into a file as they come, then a mark: None, or the text of the error that
    ended them."""
    import pickle
    mark = None
    try:
        for findings in all_findings:
            pickle.dump(findings, file, pickle.HIGHEST_PROTOCOL)
    except EXPECTED_ERRORS as error:
        mark = explained(error)
    pickle.dump(mark, file)
    file.flush()


def recorded(file):
    """Yield the Findings recorded in a file.  Raises Failure unless the mark is None.

    The file of a worker that was killed has no mark.  So the run fails, and the flags that the
    worker found are lost with the file, which has no name.
    """
    import pickle
    file.seek(0)
    try:
        for entry in iter(partial(pickle.load, file), None):
            if isinstance(entry, str):
                raise Failure(entry)
            yield entry
    except (EOFError, pickle.UnpicklingError):
        raise Failure("a worker process died, "
                      "perhaps for lack of memory or disk space") from None


def work(parent, judge_part, file):
    """Record the Findings of a part in a process forked for it, and end the process, without
    exit handlers and tracebacks.  It ends early if its parent does."""
    def on_read(data):
        if os.getppid() != parent:
            os._exit(1)

    try:
        # SIGINT and SIGHUP stay blocked: the parent ends its workers.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        record(judge_part(on_read), file)
    finally:
        os._exit(0)


def judge_side_by_side(judge_parts, stack):
    """Start a worker for each part but the last; return an iterator over the Findings of all
    parts in their order, which judges the last one itself.

    Each of `judge_parts` is a function on_read -> iterator over Findings.  The ExitStack ends
    the workers.  Raises OSError if a process or a temporary file is refused.
    """
    import multiprocessing
    import tempfile
    fork = multiprocessing.get_context("fork").Process
    files = [stack.enter_context(tempfile.TemporaryFile()) for _ in judge_parts]
    workers = [fork(target=work, args=(os.getpid(), judge_part, file))
               for judge_part, file in zip(judge_parts[:-1], files)]
    # No signal may come between the start of a process and its entry on the stack.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, Signals.NUMBERS)
    try:
        for worker in workers:
            worker.start()
            stack.callback(worker.join)
            stack.callback(worker.kill)             # the stack's last entry is called first
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def findings():
        record(judge_parts[-1](), files[-1])
        for worker, file in zip(workers, files):
            worker.join()
            yield from recorded(file)
        yield from recorded(files[-1])

    return findings()


# ------------------------------------------------------------------------- run

LIVE_PIECE = 1 << 10    # bytes of a live stream between two looks at the signals: ten lines


def check_files(args, logs):
    """Raise Failure if an output is also another file of the run, or closed standard output."""
    taken = {(log.status.st_dev, log.status.st_ino): name
             for log, name in zip(logs, ("BATCH", "STREAM"))}
    for kind, path in args.outputs:
        option = "OUTPUT" if kind is FlaggedPurchases else f"--{kind.name}"
        number = descriptor(path)
        if number == 1 and sys.stdout is None:
            raise Failure("standard output is closed", 2)
        try:
            status = os.stat(path) if number is None else os.fstat(number)
            # A device or a FIFO, unlike a descriptor, may be named twice.
            file = (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else number
        except OSError:
            file = os.path.realpath(path)
        other = taken.get(file) if file is not None else None
        if other and not (args.resume and kind is Snapshot and other == "BATCH"):
            name = "standard output" if number == 1 else path
            raise Failure(f"{name} is given to both {option} and {other}", 2)
        taken[file] = option


class Run:
    """One run of the command line.  An error or a signal may end it in any of these states:

    state                 at an error                    at a signal (status 128 + its number)
    open                  status 2, nothing is changed   nothing is changed
    load, judge a file    status 1, nothing is changed   nothing is changed
    judge a live stream   status 1, what was judged      the lines in hand are judged,
                          before is written              then all is written
    write                 status 1, costs one output     ignored

    A live stream is a pipe.  In every state an output that fails costs the run this output only
    (see `each`).  A log without an event is an error (see `require_events`).
    """

    def __init__(self, console, signals):
        self.console, self.signals = console, signals
        self.outputs, self.failures = [], {}    # those that go on; output -> error of the others

    def execute(self, args):
        """Do what the command line asks for; return the exit status."""
        with contextlib.ExitStack() as self.stack:
            try:
                self.args = args
                self.open()
                self.load()
                self.judge()
                self.write()
                return self.summarize()
            finally:
                self.signals.deferred = True        # no signal keeps a temporary file

    def open(self):
        """Open the logs, read D and T, open the outputs."""
        args, console = self.args, self.console
        self.logs = batch_log, stream_log = Log(args.batch_log), Log(args.stream_log, LIVE_PIECE)
        for log in self.logs:
            self.stack.enter_context(log.file)
        check_files(args, self.logs)
        live = not stream_log.is_file
        if args.shard[1] > 1 and live:
            raise Failure("--shard needs a STREAM that is a regular file", 2)
        batch, stream = (Totals(log.name, ignore if args.strict else console.info)
                         for log in self.logs)
        degree, tracked, header, self.batch_chunks = read_parameters(
            batch_log, batch_log.chunks(on_read=console.progress(batch, batch_log.size)),
            args.degree, args.tracked)
        earlier_lines = self.lines_before(header, tracked)
        if args.resume:
            stream_log.skip(earlier_lines)
            stream_log.growing = True
            stream.lines, earlier_lines = earlier_lines, 0
        self.context = Context(Detector(degree, tracked, args.sd), batch, stream, live,
                               earlier_lines, console)
        for kind, path in args.outputs:
            output = kind(path, self.context)
            self.outputs.append(output)
            self.stack.callback(output.discard)
            output.open()

    def lines_before(self, header, tracked):
        """Return how many lines of the stream the batch log stands for, if it is a snapshot."""
        if "stream_lines" not in header:
            return 0
        try:
            if tracked > whole_number(header.get("T"), 2):
                self.console.warn(
                    f"{self.args.batch_log}: holds only the last {header['T']} purchases "
                    f"of each user, so a window of {tracked} may lack some")
            return whole_number(header["stream_lines"], 0)
        except ValueError as error:
            raise Failure(f"{self.args.batch_log}: stream_lines or T: {error}", 2) from None

    def load(self):
        """Build the state from the batch log.  Only the first shard writes its malformed lines."""
        self.times = [time.perf_counter()]      # start of load; later its end, and that of judge
        detector, totals = self.context.detector, self.context.batch_log
        for findings in replay(self.batch_chunks, detector, strict=self.args.strict):
            self.receive(totals, findings, take=self.args.shard[0] == 1)
        self.require_events(totals, self.logs[0])
        self.newest = detector.history.newest
        self.times.append(time.perf_counter())

    def judge(self):
        """Judge the stream, and let the outputs take the Findings.

        A live stream that a signal or an error ends is followed by `write` all the same.
        """
        totals, log, live = self.context.stream_log, self.logs[1], self.context.live
        needs = Needs(*map(any, zip(*(output.needs for output in self.outputs))))
        judge_chunks = partial(judge, detector=self.context.detector, needs=needs,
                               strict=self.args.strict)
        self.signals.deferred, self.error = live, None
        try:
            if live:
                on_read = partial(self.on_read_live, self.console.progress(totals, 0))
                all_findings = judge_chunks(log.chunks(on_read=on_read))
            else:
                all_findings = self.judge_file(judge_chunks)
            for findings in all_findings:
                self.receive(totals, findings)
                if not self.outputs:
                    break
        except EXPECTED_ERRORS as error:
            if not live:
                raise
            self.error = error
        self.stopped = live and self.signals.received
        if not self.stopped:
            self.require_events(totals, log)
        self.times.append(time.perf_counter())

    def on_read_live(self, progress, data):
        """Show progress and tick the outputs; return whether the live stream ends here."""
        progress(data)
        self.each(lambda output: output.tick())
        return self.signals.received or not self.outputs

    def judge_file(self, judge_chunks):
        """Return an iterator over the Findings of a stream that is a file, or of this shard's part.

        If processes or temporary files are refused, and --jobs is not given, one process judges
        all.
        """
        args, (batch_log, log), totals = self.args, self.logs, self.context.stream_log
        detector = self.context.detector
        jobs = number_of_jobs(args.jobs, (log.size - log.start) // args.shard[1], batch_log.size)
        boundaries = log.boundaries(jobs, args.shard)
        for findings in replay(log.chunks(log.start, boundaries[0]), detector):
            totals.lines += findings.lines

        def judge_part(start, stop, on_read=None):
            on_read = on_read or self.console.progress(totals, stop - start)
            # Applying the events before the part is quick, and does not count as progress.
            earlier = log.chunks(boundaries[0], start, lambda data: on_read(b""))
            for _ in replay(earlier, detector):
                pass
            yield from judge_chunks(log.chunks(start, stop, on_read))

        if jobs > 1:
            detector.history.recent_purchases()     # or every process would collect them
            stack = self.stack.enter_context(contextlib.ExitStack())
            parts = [partial(judge_part, *part) for part in zip(boundaries, boundaries[1:])]
            try:
                return judge_side_by_side(parts, stack)
            except OSError:
                if args.jobs:
                    raise
                stack.close()
        return judge_part(boundaries[0], boundaries[-1])

    def receive(self, totals, findings, take=True):
        """Count Findings and let the outputs take them.

        Raises Failure if a line is malformed and --strict is given; that line is the last one.
        """
        findings = totals.add(findings)
        if take:
            self.each(lambda output: output.take(findings))
        if self.args.strict and findings.malformed:
            raise Failure(f"{totals.name}:{totals.lines}: {totals.reason} (--strict)")

    def each(self, act):
        """Call act(output) for every output.

        An output that raises OSError is reported and dropped.  The others go on, and the run
        ends with status 1.  If none is left, the last error is the failure of the run.
        """
        for output in self.outputs[:]:
            try:
                try:
                    self.signals.giving_up = output.direct
                    act(output)
                finally:
                    self.signals.giving_up = False
            except OSError as error:
                error.filename = output.path
                self.outputs.remove(output)
                self.failures[output] = error
                if self.outputs:
                    self.console.warn(f"{explained(error)}; it is given up, the others go on")

    def require_events(self, totals, log):
        """Raise Failure if a log has lines and not one event: it is another kind of file.

        If a shard's part has no event, the whole log may still have one.
        """
        if totals.counts["events"] or not totals.reason:
            return
        if self.args.shard[1] > 1 and log.is_file and any(
                findings.events for findings in replay(log.chunks(), Detector(1, 2))):
            return
        head = os.pread(log.file.fileno(), CHUNK, log.start) if log.is_file else log.head
        raise Failure(f"{log.name}: no line is an event: {kind_of_file(head, totals.reason)}")

    def write(self):
        """Let the outputs replace the old files, in the order of OUTPUTS.

        All are complete and on disk before the first one replaces its old file.  If the power
        fails between two, the first ones are new and the others old, and each is whole.  Then
        the same run can be repeated: the snapshot, which it may have begun with, comes last.
        """
        self.signals.deferred = True
        self.each(lambda output: output.complete())
        self.each(lambda output: output.replace())

    def summarize(self):
        """Tell what was done; return the exit status."""
        errors = list(self.failures.values())
        if not self.outputs:
            if all(isinstance(error, BrokenPipeError) for error in errors):
                return 0                # the readers have closed their pipes
            raise errors[-1]
        console, detector = self.console, self.context.detector
        batch, stream = logs = self.context.batch_log, self.context.stream_log
        for totals in logs:
            if totals.counts["skipped"]:
                console.warn(totals.skipped())
        k, shards = self.args.shard
        if k == shards and stream.last and stream.last < self.newest == detector.history.newest:
            console.warn(f"all of {stream.name} is older than the newest purchase of {batch.name}, "
                         f"{self.newest}: was it judged before?")
        events = [f"{totals.counts['events']} events ({totals.counts['skipped']} skipped)"
                  for totals in logs]
        start, loaded, judged = self.times
        span = f", {stream.first} to {stream.last}" if stream.first else ""
        console.info(
            f"batch {events[0]}, stream {events[1]}, {stream.counts['purchases']} judged, "
            f"{stream.counts['flagged']} flagged, {loaded - start:.2f} s batch + "
            f"{judged - loaded:.2f} s stream; above {detector.limit}{span}; "
            f"{', '.join(output.path for output in self.outputs)}")
        lines = f"after line {stream.lines} of {stream.name}; what was judged is written"
        if self.error:
            console.warn(f"{explained(self.error)}; ended {lines}")
        if self.stopped:
            console.warn(f"stopped by {self.stopped.name} {lines}")
        if self.error or errors:
            return 1
        return 128 + self.stopped if self.stopped else 0

    def unchanged(self):
        """Return what a run that ends before `write` has changed, for its message."""
        part = [output.path for output in (*self.failures, *self.outputs) if output.written]
        return "no output file is changed" + f", but {', '.join(part)} has a part" * bool(part)


# ---------------------------------------------------------------- command line

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
FILES = {"batch_log": os.path.join(ROOT, "log_input", "batch_log.json"),
         "stream_log": os.path.join(ROOT, "log_input", "stream_log.json"),
         "output": os.path.join(ROOT, "log_output", "flagged_purchases.json")}
EPILOG = """\
BATCH, STREAM and OUTPUT are by default the project's own
log_input/batch_log.json, log_input/stream_log.json and
log_output/flagged_purchases.json.

examples:
  %(prog)s batch_log.json stream_log.json flagged_purchases.json
  %(prog)s -D 3 -T 100 batch_log.json stream_log.json flagged.json
  tail -n +1 -F purchases.log | %(prog)s batch_log.json - -

The last is a live monitor: where STREAM is a pipe and OUTPUT "-", each flagged
purchase is written as soon as it has been read.

exit status: 0 done, 1 failed midway, 2 could not start, 129 SIGHUP, 130 Ctrl-C,
143 SIGTERM."""


def shard(text):
    """Return (K, N) of "K/N", 1 <= K <= N.  Raises ValueError."""
    k, _, n = text.partition("/")
    with contextlib.suppress(ValueError):
        k, n = whole_number(k, 1), whole_number(n, 1)
        if k <= n:
            return k, n
    raise ValueError(f"{quoted(text)} is not K/N with whole numbers K from 1 to N")


def deviations(text):
    """Return the Fraction that a decimal number from 0 up stands for.  Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text):
        raise ValueError(f"{quoted(text)} is not a decimal number from 0 up")
    from fractions import Fraction
    return Fraction(text)


positive, at_least_two = partial(whole_number, least=1), partial(whole_number, least=2)
# Option: (function that reads its value, or None; the value's name; help).  A new one is a row.
OPTIONS = {
    "--batch-log": (str, "FILE", "the log that builds the state"),
    "--stream-log": (str, "FILE", 'the log whose purchases are judged ("-": standard input)'),
    **{f"--{kind.name}": (str, "FILE", kind.help) for kind in OUTPUTS},
    "-D --degree": (positive, "N", "degrees of the network, instead of the batch log's D"),
    "-T --tracked": (at_least_two, "N", "purchases that decide, instead of the batch log's T"),
    "--sd": (deviations, "N", "flag above mean + N standard deviations (default: 3)"),
    "--resume": (None, "", "go on after the lines of STREAM that BATCH, a snapshot, stands for"),
    "--strict": (None, "", "end at the first malformed line"),
    "--jobs": (positive, "N", "processes that judge (default: the processors, if STREAM is large)"),
    "--shard": (shard, "K/N", "judge only the K-th of N parts of STREAM; outputs can be joined"),
    "-q --quiet": (None, "", "say only what went wrong"),
    "-V --version": (None, "", "show the version and end"),
    "-h --help": (None, "", "show this help and end")}
DEFAULTS = {**{names.rpartition("--")[2].replace("-", "_"): None for names in OPTIONS},
            "sd": 3, "shard": (1, 1), "text": None}


def usage_error(message):
    """Return the Failure of a command line that cannot be understood."""
    return Failure(f"{message} (--help tells the usage)", 2)


def make_parser():
    """Return the ArgumentParser of OPTIONS, which raises Failure."""
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message):
            raise usage_error(message)

    def checked(read, text):
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    parser = Parser(
        prog="anomaly_detection.py", usage="%(prog)s [options] [BATCH STREAM OUTPUT]",
        description="Flag the purchases of STREAM that are anomalous within the buyer's\n"
                    "social network.", epilog=EPILOG, allow_abbrev=False, add_help=False,
        # With a width of its own it need not look for that of the terminal.
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=80))
    parser.add_argument("files", nargs="*", help=argparse.SUPPRESS)
    for names, (read, metavar, text) in OPTIONS.items():
        value = {"type": partial(checked, read), "metavar": metavar}
        parser.add_argument(*names.split(), help=text,
                            **value if read else {"action": "store_true"})
    parser.set_defaults(**DEFAULTS)
    return parser


def parse_options(arguments):
    """Return what argparse makes of a command line; `text` is what to print.  Raises Failure."""
    parser = make_parser()
    args, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        from difflib import get_close_matches
        option = next((word for word in unknown if word.startswith("-")), unknown[0])
        similar = get_close_matches(option, re.findall("--[a-z-]+", parser.format_help()), 1)
        raise usage_error(f"there is no option {quoted(option)}"
                          + "".join(f", perhaps {name} is meant" for name in similar))
    args.text = (parser.format_help() if args.help else
                 f"{parser.prog} {__version__}\n" if args.version else None)
    return args


def parse(arguments):
    """Return the options; `outputs` lists (class, path) of those given.  Raises Failure."""
    if any(argument.startswith("-") and argument != "-" for argument in arguments):
        args = parse_options(arguments)
    else:                       # without argparse a short run takes 20 % less time
        args = SimpleNamespace(**DEFAULTS, files=arguments)
    options = vars(args)
    for name, path in zip(FILES, args.files):
        if options[name] is not None:
            raise usage_error(f"--{name.replace('_', '-')} is given twice, by place and by name")
        options[name] = path
    missing = [name for name in FILES if options[name] is None]
    if args.files and missing or len(args.files) > len(FILES):
        raise usage_error('give BATCH STREAM OUTPUT ("-": standard output), '
                          f"not {len(args.files)} file{'s' * (len(args.files) > 1)}")
    options.update((name, FILES[name]) for name in missing)
    if "" in options.values():
        raise usage_error("the name of a file is empty")
    if args.batch_log == "-":
        raise usage_error('BATCH cannot be "-", only STREAM can')
    if args.snapshot and args.shard[0] < args.shard[1]:
        raise usage_error("--snapshot needs the last --shard: only that reads all of STREAM")
    args.outputs = [(kind, options[kind.name]) for kind in OUTPUTS if options[kind.name]]
    return args


def main(arguments=None):
    """Run the command line; return the exit status."""
    console, signals = Console(), Signals()
    run = Run(console, signals)
    try:
        args = parse(sys.argv[1:] if arguments is None else arguments)
        if args.text:
            with contextlib.suppress(BrokenPipeError):      # the reader has closed the pipe
                sys.stdout.write(args.text)
                sys.stdout.flush()
            return 0
        console.quiet = args.quiet
        signals.catch()         # not before: argparse fails if it is interrupted
        return run.execute(args)
    except KeyboardInterrupt:
        if not signals.received:
            raise
        console.warn(f"stopped by {signals.received.name}; {run.unchanged()}")
        return 128 + signals.received
    except EXPECTED_ERRORS as error:
        status = getattr(error, "status", 1)
        console.warn(explained(error) + f"; {run.unchanged()}" * (status == 1))
        return status
    finally:
        console.write("")
        signals.restore()


if __name__ == "__main__":
    gc.disable()        # nothing cyclic is built, and the search for it takes 33 % more time
    # All is written: taking millions of objects apart would only cost time.
    os._exit(main())
