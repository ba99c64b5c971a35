#!/usr/bin/env python3
"""Flag anomalous purchases within a social network.

The rule.  A purchase is anomalous when its amount is greater than
mean + 3 * sd of the last T purchases made within the buyer's D-degree
network: friends for D = 1, friends of friends too for D = 2, and so on, never
the buyer.  "Last" is by timestamp, equal timestamps by their place in the
logs; sd is the population standard deviation; fewer than 2 purchases flag
nothing.

The algorithm.  Friendships are a dict of sets, purchases a bounded deque of
(timestamp, seq, amount) per user.  For each purchase a breadth-first search
collects the network and a k-way merge of its deques yields the last T amounts:
O(users and friendships within D degrees + T log users).  That is the general
way, `SocialNetwork.network` and `PurchaseHistory.last`.  Three short-cuts
stand beside it; each says in one line what it equals:

* `cannot_be_flagged`: some of the window's amounts often settle that the
  purchase is normal, whatever the others are;
* `RecentPurchases`: the recent purchases of everybody, in order, find the
  window of a wide network without visiting its deques;
* `SocialNetwork.ball` and `Reach`: a search from both ends tells whether a
  recent buyer belongs to a network too large to list.

All arithmetic is exact: amounts are int cents, or a Fraction of a cent where
the log has more than two decimals.  No float decides a flag or prints a digit.

The rooms, from top to bottom; each knows only those above it:

* values: amounts, timestamps and ids as the logs have them;
* social network: who is whose friend, and who is within D degrees;
* purchase history: everybody's last purchases, and those of a network;
* verdict: mean, sd and the rule; the Detector, which is all of it as a library;
* logs: JSON lines in, events applied in their order;
* outputs: all that a run says; a new one is one class, in the list OUTPUTS;
* report: a page to look at;
* processes: parts of a stream judged side by side, and joined in order;
* command line: options, files, signals, exit status.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # no traceback from the imports below

# What only some runs need is imported there: starting takes longer than a short log.
import contextlib
import gc
import json
import os
import re
import stat
import sys
import time
from bisect import bisect, insort
from collections import Counter, defaultdict, deque, namedtuple
from datetime import date, datetime, timedelta
from functools import partial
from heapq import merge, nlargest, nsmallest
from itertools import accumulate, chain, compress, islice, takewhile
from math import isqrt, log10
from operator import itemgetter, mul
from sys import intern
from types import SimpleNamespace

__all__ = ["SocialNetwork", "PurchaseHistory", "Detector", "Flag",
           "amount_in_cents", "moment", "dollars", "main"]
__version__ = "1.1.0"


# ---------------------------------------------------------------- the values

_AMOUNT = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")
_MOMENT = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2}) "
                     r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?")


def amount_in_cents(text):
    """Return the exact cents of an amount: int, or Fraction if finer than a cent.

    Raises ValueError unless text is `-?` 1-15 digits, optionally `.` and 1-15.

    >>> amount_in_cents("16.83"), amount_in_cents("-2"), amount_in_cents("0.125")
    (1683, -200, Fraction(25, 2))
    """
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"amount {shown(text)} is not a number like 16.83")
    whole, _, decimals = text.partition(".")
    if len(decimals) <= 2:
        return int(whole + decimals.ljust(2, "0"))
    from fractions import Fraction
    cents = 100 * Fraction(text)
    return cents.numerator if cents.denominator == 1 else cents


def moment(text):
    """Return a timestamp as text whose order is the order of time.

    Raises ValueError unless it is a real `YYYY-MM-DD HH:MM:SS[.ffffff]`.

    >>> moment("2017-06-13 11:33:01.50"), moment("2017-06-13 11:33:01.000")
    ('2017-06-13 11:33:01.5', '2017-06-13 11:33:01')
    """
    match = _MOMENT.fullmatch(text)
    try:
        date(*map(int, match.groups()))
    except (AttributeError, ValueError):
        raise ValueError(f"timestamp {shown(text)} is not a real "
                         "YYYY-MM-DD HH:MM:SS") from None
    return text.rstrip("0").rstrip(".") if "." in text else text


def dollars(cents):
    """Return exact cents as text: two decimals, or as many as a Fraction of a cent takes.

    >>> dollars(2910), dollars(-5), dollars(0), dollars(amount_in_cents("-0.1250"))
    ('29.10', '-0.05', '0.00', '-0.125')
    """
    whole, part = divmod(abs(cents), 1)
    text = "%s%d.%02d" % ("-" if cents < 0 else "", *divmod(whole, 100))
    return text + ("%013d" % int(part * 10 ** 13)).rstrip("0") if part else text


# A text, or a list of texts, as JSON with nothing escaped that need not be.
as_json = json.JSONEncoder(ensure_ascii=False).encode


def shown(text):
    """Return text quoted, in ASCII, cut to a length fit for a message."""
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


# ------------------------------------------------------------ social network

# Aliases that go when the new section of the values is merged.
normalized_timestamp, quoted = moment, shown


class Malformed(ValueError):
    def __init__(self, kind, rest):
        super().__init__(kind + rest)
        self.kind = kind


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
        self.check_two(id1, id2)
        id1, id2 = intern(id1), intern(id2)     # one object per user: faster sets
        self.friends[id1].add(id2)
        self.friends[id2].add(id1)
        self.neighbors.pop(id1, None)
        self.neighbors.pop(id2, None)

    def unfriend(self, id1, id2):
        """End a friendship, if there is one.  Raises Malformed like befriend."""
        self.check_two(id1, id2)
        for user, friend in (id1, id2), (id2, id1):
            friends = self.friends.get(user, set())
            friends.discard(friend)
            if not friends:
                self.friends.pop(user, None)
            self.neighbors.pop(user, None)

    @staticmethod
    def check_two(id1, id2):
        """Raise Malformed if the two ids are the same."""
        if id1 == id2:
            raise Malformed("id1 and id2", f" are both {quoted(id1)}")

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


# ---------------------------------------------------------- purchase history

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


# --------------------------------------------------------------- the verdict

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


# ------------------------------------------------------------------ the logs

class Failure(Exception):
    """An error for the user: one line, and the exit status it ends the run with."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


NO_MEMORY = MemoryError, ImportError, SystemError      # what Python raises for lack of it


def explained(error):
    """Return the text of an error for the user."""
    if isinstance(error, NO_MEMORY):
        return "out of memory; no output file is changed"
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror or error}; no output file is changed"
    return str(error)


def ignore(*arguments):
    """Do nothing."""


CHUNK = 1 << 16
BLANKS = " \t\r\n"

# A line in the usual form, spaced as in the challenge or by json.dumps, is taken
# apart by one regular expression, for all lines of a chunk at once, into (timestamp,
# user, amount, verb, id1, id2, other): a purchase fills the first three, a befriend
# or unfriend the next three, any other line only the last, for `read_event`.  What
# this accepts, JSON and `read_event` accept, and read alike.  Bytes that are not
# UTF-8 are surrogates here.
_TEXT = r'"([^"\\\x00-\x1f\ud800-\udfff]{1,80})"'
_LINE = re.compile(
    rf'\{{"event_type": ?"(?:purchase", "timestamp": ?{_TEXT}, "id": {_TEXT}, "amount": {_TEXT}|'
    rf'(befriend|unfriend)", "timestamp": ?{_TEXT.replace("(", "(?:")}, '
    rf'"id1": {_TEXT}, "id2": {_TEXT})\}}\r?\n|(.*)\n')


def _no_constant(name):
    raise ValueError(f"not JSON: {name}")


_decode = json.JSONDecoder(parse_int=str, parse_float=str,
                           parse_constant=_no_constant).decode


def read_object(line):
    """Return the JSON object on a line, its numbers as text.  Raises ValueError."""
    if not line.isascii() and any("\udc80" <= c <= "\udcff" for c in line):
        raise ValueError("not UTF-8")
    try:
        value = _decode(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def read_event(line):
    """Return (timestamp, user, amount, verb, id1, id2) of a line, as _LINE does.

    Raises ValueError for a line that is not a well-formed event.
    """
    event = read_object(line)

    def field(name):
        value = event.get(name)
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name} is missing" if name not in event else
                             f"{name} is not a non-empty string or a number")
        return value

    verb = field("event_type")
    if verb == "purchase":
        return field("timestamp"), field("id"), field("amount"), "", "", ""
    if verb in ("befriend", "unfriend"):
        return "", "", "", verb, field("id1"), field("id2")
    raise ValueError(f"event_type {shown(verb)} is none of purchase, befriend, unfriend")


def whole_number(text, least):
    """Return the int that text, 1-18 digits, stands for.  Raises ValueError.

    >>> whole_number("50", least=2)
    50
    """
    if not (isinstance(text, str) and re.fullmatch("[0-9]{1,18}", text) and int(text) >= least):
        raise ValueError(f"{shown(str(text))} is not a whole number from {least} up")
    return int(text)


class Log:
    """A JSON-lines log, open to be read: a regular file, a pipe, or ("-") standard input.

    `size` is 0 unless it is a regular file: only such a log has parts.
    Raises Failure if it cannot be opened.
    """

    WAIT = 0.2          # seconds between two beats while a pipe is empty
    REPLAY = 16         # how many events are applied in the time that one is judged in

    def __init__(self, path):
        self.path, self.name = path, "<stdin>" if path == "-" else path
        try:
            if path == "-" and sys.stdin is None:
                raise Failure("standard input is closed", 2)
            self.file = open(0 if path == "-" else path, "rb", buffering=0, closefd=path != "-")
        except OSError as error:
            raise Failure(f"{path}: cannot be read: {error.strerror}", 2) from None
        status = os.fstat(self.file.fileno())
        self.is_file = path != "-" and stat.S_ISREG(status.st_mode)
        self.size = status.st_size if self.is_file else 0

    def chunks(self, start=0, stop=None, beat=ignore):
        """Yield the bytes of the lines from start to stop: what has arrived at once, unless
        its line is not complete.  A byte-order mark at the log's beginning is left out, and
        its last line given the newline that it may lack.

        `beat` is called with all bytes that are read, and with none now and then
        while a pipe is empty; if it then returns True, this is where the log ends.
        """
        mark, pieces = b"" if start else b"\xef\xbb\xbf", []
        if self.is_file:
            self.file.seek(start)
        while stop is None or start < stop or any(pieces):
            if not self.is_file and not self.has_more(beat):
                return                          # and a line that was begun is not one
            try:
                data = self.file.read(CHUNK if stop is None else min(CHUNK, stop - start))
            except OSError as error:
                error.filename = self.name
                raise
            if data is None:                    # who else reads this pipe was faster
                continue
            if not data:
                if not any(pieces):
                    return
                data = b"\n"
            start += len(data)
            beat(data)
            lines, newline, rest = data.rpartition(b"\n")
            if newline:
                whole = b"".join([*pieces, lines, newline])
                yield whole[len(mark):] if whole.startswith(mark) else whole
                mark, pieces = b"", []
            pieces.append(rest)

    def has_more(self, beat):
        """Wait until a pipe can be read; return False if the beat ends it before that."""
        import select
        while not beat(b""):
            if select.select([self.file], [], [], self.WAIT)[0]:
                return True
        return False

    def header(self, chunks, degree=None, tracked=None):
        """Return (degree, tracked, chunks with the header as a blank line) of a batch log.

        The first line that is not blank holds D and T; an argument that is given
        overrides it, and with both given the line may be absent.  Raises Failure.
        """
        optional = degree and tracked
        before, content = [b""], b""
        for data in chunks:
            before.append(data)
            content = data.lstrip(BLANKS.encode())
            if content:
                break
        data = before.pop()
        line, _, rest = content.partition(b"\n")
        lines = data.count(b"\n") - rest.count(b"\n")
        number = sum(blank.count(b"\n") for blank in before) + lines or 1
        header, problem = {}, "D or T is missing"
        try:
            header = read_object(line.decode(errors="surrogateescape"))
            degree = degree or "D" in header and whole_number(header["D"], 1)
            tracked = tracked or "T" in header and whole_number(header["T"], 2)
        except ValueError as error:
            problem = error
        if not (degree and tracked):
            raise Failure(f"{self.name}:{number}: no header with D and T: {problem}", 2)
        if not optional or "event_type" not in header and ("D" in header or "T" in header):
            data = b"\n" * lines + rest
        return degree, tracked, chain(before, [data], chunks)

    def cuts(self, jobs, shard):
        """Return the jobs + 1 places where `jobs` parts of shard K of N begin and end.

        A line belongs to the part that it starts in.  Who judges a part has to
        apply the parts before it, which costs 1/REPLAY of judging them, so each part
        is by that much smaller than the one before.  The last of all ends at None.
        """
        k, shards = shard
        begin, end = (self.size * number // shards for number in (k - 1, k))
        ends = list(accumulate((1 - 1 / self.REPLAY) ** part for part in range(jobs)))
        places = [begin + int((end - begin) * part / ends[-1]) for part in [0, *ends[:-1]]]
        return [*map(self.line_start, places), None if k == shards else self.line_start(end)]

    def line_start(self, place):
        """Return where the first line that starts at a place or later does."""
        if place == 0:
            return 0
        with open(self.path, "rb") as file:
            file.seek(place - 1)
            file.readline()
            return file.tell()


def replay(chunks, detector, purchase, tell):
    """Apply the events of a log in order: friendships to the detector, purchases by
    calling purchase(user, timestamp, amount).  tell(method, ...) of Findings says what
    comes of them.
    """
    befriend, unfriend, history = detector.befriend, detector.unfriend, detector.history
    for data in chunks:
        text = data.decode(errors="surrogateescape")
        rows, recorded = _LINE.findall(text), history.recorded
        lines, events = None, len(rows)
        for place, (timestamp, user, amount, verb, id1, id2, other) in enumerate(rows):
            flag = reason = None
            try:
                if other.strip(BLANKS):
                    timestamp, user, amount, verb, id1, id2 = read_event(other)
                if user:
                    flag = purchase(user, timestamp, amount)
                elif verb == "befriend":
                    befriend(id1, id2)
                elif verb:
                    unfriend(id1, id2)
                else:
                    events -= 1             # a blank line
            except ValueError as error:
                events -= 1
                reason = str(error)
            if flag or reason:
                lines = lines or text.split("\n")
                if flag:
                    tell("flagged", lines[place], flag)
                else:
                    tell("skipped", place, lines[place], reason)
        tell("read", len(rows), events, history.recorded - recorded)


# --------------------------------------------------------------- the outputs

class Console:
    """Standard error: messages, and where it is a terminal a progress line."""

    def __init__(self):
        self.stream = sys.stderr
        if not (self.stream and self.stream.isatty()):
            self.progress = ignore
        self.start = self.shown_at = time.monotonic()
        self.total = self.bytes = self.events = 0       # the total is of bytes; 0: unknown
        self.wipe = ""          # what clears the progress line

    def say(self, text):
        """Write a line, whatever names are in it; that nobody can read it is no error."""
        self.write(printable(text) + "\n")

    report = say        # what --quiet silences, as it does `progress`

    def write(self, text, wipe=""):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self.stream.write(self.wipe + text)
            self.stream.flush()
            self.wipe = wipe

    def progress(self, data):
        """Count data that was read; show a few times a second how far that is."""
        self.bytes += len(data)
        self.events += data.count(b"\n")
        now = time.monotonic()
        seconds = now - self.start
        if seconds < 1 or now - self.shown_at < 0.25:
            return
        self.shown_at = now
        text = f"{self.events:,} events, {self.events / seconds:,.0f}/s"
        if self.total and self.bytes:
            share = min(self.bytes / self.total, 1)
            text = f"{share:.0%}, {text}, {seconds / share - seconds:.0f} s left"
        self.write(f"\r{text}\x1b[K", "\r\x1b[K")


class Findings:
    """What comes of a log, told in its order: counts, the first malformed lines for the
    console, and everything for the outputs.  With `strict` the first one raises Failure.
    """

    reports_shown = 10

    def __init__(self, log, console, strict):
        self.name, self.console, self.strict = log.name, console, strict
        self.lines = 0                  # those that are counted so far
        self.counts = Counter()         # events, purchases, skipped, flagged
        self.outputs = []

    def tell(self, method, *arguments):
        """Call a method."""
        getattr(self, method)(*arguments)

    def read(self, lines, events, purchases):
        """So many more lines are read, of which so many are events, and purchases."""
        self.lines += lines
        self.counts["events"] += events
        self.counts["purchases"] += purchases

    def skipped(self, place, line, reason):
        """The line `place` lines after those counted is malformed, and changes nothing."""
        self.counts["skipped"] += 1
        where = f"{self.name}:{self.lines + place + 1}"
        if self.strict:
            raise Failure(f"{where}: {reason} (--strict); no output file is changed")
        if self.counts["skipped"] <= self.reports_shown:
            self.console.report(f"{where}: skipped: {reason}")
        for output in self.outputs:
            output.skipped(line)

    def flagged(self, line, flag):
        """The purchase of a line is anomalous."""
        self.counts["flagged"] += 1
        for output in self.outputs:
            output.flagged(line, flag)

    def saw(self, place, seen):
        """The output at a place has looked at the detector, in whatever process."""
        self.outputs[place].saw(seen)

    def failed(self, text):
        """Another process could not go on."""
        raise Failure(text)


STDOUT = "-", "/dev/stdout"


def is_direct(path):
    """Return whether an output is written directly, not by replacing a file."""
    return (path in STDOUT or path.startswith(("/dev/fd/", "/proc/"))
            or os.path.exists(path) and not os.path.isfile(path))


class Output:
    """A file that a run writes.  It is complete or not there: it is made beside its
    place, and takes it in the end, once all files of the run are complete.  What is
    not a regular file ("-": standard output) is written directly.

    A subclass is the option --`name`, with a line of `help`, and has any of the methods

    * skipped(line), flagged(line, flag): called for such lines, in the log's order;
    * look(detector, user, timestamp, amount, flag): called for each purchase just judged,
      in the process which does that; what it returns is told to saw(seen), in this process;
    * beat(): called while the stream goes on, and while it pauses.

    `run` is the Run; at the end, its detector is in the state that the logs lead to.
    """

    name = help = look = None
    skipped = flagged = beat = staticmethod(ignore)

    def __init__(self, path, run):
        self.path, self.run = path, run
        self.file = self.temporary = None
        self.direct = is_direct(path)

    def open(self):
        """Begin to write.  Raises Failure if that is not possible."""
        try:
            if self.direct:
                standard = self.path in STDOUT
                self.file = open(1 if standard else self.path, "wb", closefd=not standard)
                return
            self.target = os.path.realpath(self.path)
            folder = os.path.dirname(self.target)
            os.makedirs(folder, exist_ok=True)
            self.temporary = os.path.join(folder, f".flagged-{os.urandom(6).hex()}.tmp")
            self.file = open(self.temporary, "xb")
            with contextlib.suppress(FileNotFoundError):
                old = os.stat(self.target)
                with contextlib.suppress(OSError, AttributeError):
                    os.chown(self.temporary, old.st_uid, old.st_gid)
                os.chmod(self.temporary, stat.S_IMODE(old.st_mode))
        except OSError as error:
            raise Failure(f"{self.path}: cannot be written: {error.strerror}", 2) from None

    @contextlib.contextmanager
    def named(self):
        """Let an OSError tell which file it is about."""
        try:
            yield
        except OSError as error:
            error.filename = self.path
            raise

    def write(self, text, errors="backslashreplace"):
        """Write text, at once if somebody may be waiting for it."""
        with self.named():
            self.file.write(text.encode(errors=errors))
            if self.direct:
                self.file.flush()

    def complete(self):
        """Make sure that what was written is on its disk, if it has one."""
        with self.named():
            self.file.flush()
            if stat.S_ISREG(os.fstat(self.file.fileno()).st_mode):
                os.fsync(self.file.fileno())

    def replace(self):
        """Let the new file take its place."""
        with self.named():
            self.file.close()
            if self.temporary:
                os.replace(self.temporary, self.target)

    def discard(self):
        """Leave no trace, but for what has taken its place.

        What is written directly is not closed: that could wait for a reader for ever.
        """
        if self.temporary:
            with contextlib.suppress(OSError, AttributeError):
                self.file.close()
            with contextlib.suppress(OSError):
                os.unlink(self.temporary)


def with_fields(line, flag, more=""):
    """Return a flagged line as it was, with mean and sd, and more, before its last brace."""
    return (f'{line.rstrip(BLANKS)[:-1]}, "mean": "{dollars(flag.mean)}", '
            f'"sd": "{dollars(flag.sd)}"{more}}}\n')


class Flags(Output):
    """The flagged lines as they were, with mean and sd."""

    name, help = "output", 'the flagged purchases ("-": standard output)'

    def flagged(self, line, flag):
        self.write(with_fields(line, flag))


class Rejects(Output):
    """The malformed lines, byte for byte."""

    name, help = "rejects", "write every malformed line there, as it was"

    def skipped(self, line):
        self.write(line + "\n", "surrogateescape")


class Notify(Output):
    """The flagged lines, with whom to tell: the friends, and those to recommend the
    buyer to, at distance 2..D: nearest first, then with most friends in common, then by id."""

    name, help = "notify", "write each flagged purchase with the users who are to be told"

    @staticmethod
    def look(detector, user, timestamp, amount, flag):
        if flag:
            friends, *further = detector.social.rings(user, detector.degree)
            common = Counter(chain.from_iterable(map(detector.social.friends.get, friends)))
            recommend = []
            for ring in further:
                recommend += sorted(sorted(ring), key=common.__getitem__, reverse=True)
            return sorted(friends), recommend

    def saw(self, seen):
        self.told = ', "feed": %s, "recommend": %s' % tuple(map(as_json, seen))

    def flagged(self, line, flag):
        self.write(with_fields(line, flag, self.told))


class Snapshot(Output):
    """A batch log that stands for all that was read: D, T, the friendships and every
    user's last T purchases, sorted, so that the same state gives the same bytes."""

    name, help = "snapshot", "write a batch log that stands for all that was read"

    def open(self):
        if not self.run.to_the_end:
            raise Failure("--snapshot needs the last --shard: only that reads all of STREAM", 2)
        super().open()

    def complete(self):
        detector, ids, amounts = self.run.detector, Memo(as_json, sys.maxsize), Memo(dollars)
        rows = [(purchase, user) for user, purchases in detector.history.by_user.items()
                for purchase in purchases]
        # Two stable sorts by plain keys are quicker than one by (timestamp, seq).
        rows.sort(key=lambda row: row[0][1])
        rows.sort(key=lambda row: row[0][0])
        before = rows[0][0][0] if rows else "1970-01-01 00:00:00"
        self.write(f'{{"D":"{detector.degree}", "T":"{detector.tracked}"}}\n')
        for user, friends in sorted(detector.social.friends.items()):
            self.write("".join(f'{{"event_type":"befriend", "timestamp":"{before}", '
                               f'"id1": {ids[user]}, "id2": {ids[friend]}}}\n'
                               for friend in sorted(friends) if user < friend))
        for start in range(0, len(rows), 1000):
            self.write("".join(f'{{"event_type":"purchase", "timestamp":"{timestamp}", '
                               f'"id": {ids[user]}, "amount": "{amounts[amount]}"}}\n'
                               for (timestamp, seq, amount), user in rows[start:start + 1000]))
        super().complete()


# ---------------------------------------------------------------- a page to look at

_STYLE = """
:root { color-scheme: light dark; background: Canvas;
  --faint: #59636e; --data: #0969da; --flag: #cf222e }
@media (prefers-color-scheme: dark) {
  :root { --faint: #9da7b1; --data: #58a6ff; --flag: #ff7b72 } }
body { margin: 0 auto; padding: 8px 16px; max-width: 1100px; overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums }
h1 { font-size: 24px } h1 + p { max-width: 50em }
h2, caption { font-size: 16px; font-weight: 600; margin: 32px 0 0; text-align: left }
h2 + p, small, thead th { font-size: 14px; font-weight: 400; margin: 0; color: var(--faint) }
svg { box-sizing: border-box; width: 100%; height: 264px; padding: 36px 36px 28px 64px;
  overflow: visible; font-size: 12px; text-anchor: middle; fill: var(--faint) }
svg svg { padding: 0; height: 100% } svg[role]:not(:has(line)) { display: none }
.y { text-anchor: end }
path { stroke: var(--data); stroke-width: 1.5px; vector-effect: non-scaling-stroke;
  fill: var(--data); fill-opacity: .12 }
circle { fill: var(--flag); fill-opacity: .5; stroke: var(--flag) }
line { stroke: var(--faint); stroke-opacity: .6 } .x line, .y line { stroke-opacity: .2 }
.tables { display: flex; flex-wrap: wrap; gap: 0 64px } .tables div { overflow-x: auto }
table { border-collapse: collapse; font-size: 14px } table, time { white-space: nowrap }
th, td { padding: 3px 0; text-align: right; border-bottom: 1px solid #8884 }
th + *, td + * { padding-left: 1.5em }
tbody th, .timestamp, .user { text-align: left; font-weight: 400 }
@media (max-width: 600px) { .x text:nth-of-type(even) { display: none } }
@media print { tr, svg { break-inside: avoid } .tables { display: block } }
"""
_DAY, _YEAR = 86400, 365 * 86400
_ROUND = [n * 10 ** zeros for zeros in range(20) for n in (1, 2, 5)]
_INTERVALS = {n * size: f"{n} {unit}" for size, unit, numbers in (
    (1, "s", (1, 2, 5, 10, 15, 30)), (60, "min", (1, 2, 5, 10, 15, 30)),
    (3600, "h", (1, 2, 3, 6, 12)),
    (_DAY, "d", (1, 2, 7, 14, 30, 60, 91, 182, *(365 * n for n in _ROUND[:11])))) for n in numbers}
_WIDTHS = {19: "seconds", 16: "minutes", 13: "hours", 10: "days", 7: "months", 4: "years"}


def gather(tallies, more):
    """Add (key, tally) pairs to a dict of tallies; return it.

    A tally is (number, total, sum of squares, largest, first timestamp) of some purchases.
    If the pairs are in the order of the log, the keys are in that of their first ones in it.
    """
    for key, (number, total, squares, largest, first) in more:
        if key in tallies:
            old = tallies[key]
            if first < old[4]:
                del tallies[key]
            number, total, squares = number + old[0], total + old[1], squares + old[2]
            largest, first = max(largest, old[3]), min(first, old[4])
        tallies[key] = number, total, squares, largest, first
    return tallies


def legible(value):
    """Return a text or int as HTML, cut to 60 characters, all of which can be seen."""
    from html import escape
    text = value if isinstance(value, str) else f"{value:,}"
    text = printable(text[:61])
    return escape(text if len(text) <= 60 else text[:60] + "…", quote=False)


def money(cents):
    """Return cents as dollars with thousands separators: 1,601.83."""
    return re.sub(r"\B(?=(\d{3})+\.)", ",", dollars(cents))


def table(name, caption, count, heads, rows):
    """Return a <table> of rows of texts and of whole numbers, the first ones of `count`.

    Timestamps and users are what a row is about: its heads, and left-aligned.
    """
    heads = heads.split(", ")
    columns = "".join(f'<th scope="col" class="{head}">{head}</th>' for head in heads)
    row = "<tr>%s</tr>\n" % "".join('<th scope="row">%s</th>' if head in ("timestamp", "user")
                                    else "<td>%s</td>" for head in heads)
    body = "".join(row % tuple(map(legible, cells)) for cells in rows)
    part = "" if 0 < count == len(rows) else f"{len(rows)} of {count:,}" if count else "none"
    return (f'<div tabindex="0"><table id="{name}">\n<caption>{caption} <small>{part}</small>'
            f"</caption>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}</tbody></table></div>")


def chart(name, title, words, x_ticks=(), y_ticks=(), marks=()):
    """Return an <svg> of (what it is, shapes) marks on a grid, with a title and words.

    Positions are in per cent of the plot and sizes in pixels, so text is as large on
    any screen; the labels of the (position, label) ticks stand in the padding.
    """
    x_axis = "".join(f'<line x1="{x:.2f}%" x2="{x:.2f}%" y2="100%"/>'
                     f'<text x="{x:.2f}%" y="100%" dy="20">{label}</text>' for x, label in x_ticks)
    y_axis = "".join(f'<line x2="100%" y1="{y:.2f}%" y2="{y:.2f}%"/>'
                     f'<text x="-10" y="{y:.2f}%" dy="4">{label}</text>' for y, label in y_ticks)
    plot = "\n".join(f"<g><title>{what}</title>{shapes}</g>" for what, shapes in marks)
    return (f'<h2>{title}</h2>\n<p>{words}</p>\n<svg id="{name}" role="img">\n'
            f"<title>{title}</title><desc>{words}</desc>\n"
            f'<g class="x">{x_axis}</g>\n<g class="y">{y_axis}</g>\n{plot}\n</svg>')


class Period:
    """The time of a stream in at most 240 intervals, of the shortest round length that does.

    A time is in seconds since the year 1 began; intervals begin at multiples of their length.
    """

    def __init__(self, first, last):
        first, last = self.seconds(first), self.seconds(last)
        size = next(size for size in _INTERVALS if last // size - first // size < 240)
        self.times = range(first // size * size, (last // size + 1) * size, size)

    @staticmethod
    def seconds(timestamp):
        """Return the time when a second, or minute, ... or year, begins."""
        text = timestamp[:19] + "0001-01-01 00:00:00"[len(timestamp):]
        return (datetime.fromisoformat(text) - datetime.min) // timedelta(seconds=1)

    @staticmethod
    def timestamp(time):
        """Return the timestamp of a time."""
        return str(datetime.min + timedelta(seconds=time))

    def across(self, time):
        """Return where a time is, in per cent of the period."""
        return 100 * (time - self.times.start) / (self.times.stop - self.times.start)

    def ticks(self):
        """Return up to nine (position, label); when 30 days apart, at months or years."""
        step = next(size for size in _INTERVALS if len(self.times) * self.times.step <= 8 * size)
        times = range(-(-self.times.start // step) * step, self.times[-1] + 1, step)
        part = slice(10) if step >= _DAY else slice(5, 16) if step >= 60 else slice(11, 19)
        if step >= 30 * _DAY:
            part = slice(4 if step >= _YEAR else 7)
            labels = sorted({self.timestamp(time)[part] for time in self.times})
            times = map(self.seconds, labels[::-(-len(labels) // 8)])
        return [(self.across(time), self.timestamp(time)[part])
                for time in times if time >= self.times.start]


class Report(Output):
    """A page to look at: what happened, where the flags are, how far they stand out.

    It is made of tallies (see `gather`) by timestamp and by user.  Memory is bounded:
    of more than `limit` timestamps all are cut to minutes, then to hours, and so on.
    """

    name, help = "report", "write a page that shows what happened, live if STREAM is"
    limit, dots = 100000, 500

    def __init__(self, path, run):
        super().__init__(path, run)
        self.width = 19         # characters of a timestamp that are kept
        self.moments = {}       # timestamp -> tally of its purchases
        self.flagged_at = {}    # timestamp -> tally of its flagged purchases
        self.users = {}         # user -> tally of the flagged purchases
        self.farthest = []      # (mean - amount, timestamp, user, amount, flag)
        self.shown, self.due = None, 0      # lines on the live page; when there may be another

    @staticmethod
    def look(detector, user, timestamp, amount, flag):
        history = detector.history
        return history.timestamps[timestamp], user, history.amounts[amount], flag

    def saw(self, seen):
        timestamp, user, amount, flag = seen
        moment = timestamp[:self.width]
        tally = 1, amount, amount * amount, amount, timestamp
        gather(self.moments, ((moment, tally),))
        if flag is not None:
            gather(self.flagged_at, ((moment, tally),))
            gather(self.users, ((user, tally),))
            self.farthest.append((flag.mean - amount, timestamp, user, amount, flag))
            if len(self.farthest) > 2 * self.dots:
                self.rank()
        while len(self.moments) > self.limit:
            self.shorten()

    def beat(self):
        """Show how a live stream goes on, at most every two seconds."""
        lines, now = self.run.stream.lines, time.monotonic()
        if self.run.live and not self.direct and lines != self.shown and now > self.due:
            self.shown, self.due = lines, now + 2
            self.show(refresh=True)

    def show(self, refresh=False):
        """Let the page so far take the place of the one before."""
        live = Output(self.path, self.run)
        try:
            live.open()
            live.write(self.page(refresh))
            live.replace()
        finally:
            live.discard()

    def complete(self):
        self.write(self.page())
        super().complete()

    def replace(self):
        super().replace()
        self.shown = None

    def discard(self):
        """Of a live run that ends midway a last page stays, which is not live."""
        super().discard()
        if self.shown is not None:
            with contextlib.suppress(OSError, Failure):
                self.show()

    def rank(self):
        """Keep the farthest, in order.  Sorting is stable: ties stay in the order of the log."""
        self.farthest.sort(key=itemgetter(0, 1))
        del self.farthest[self.dots:]

    def shorten(self):
        """Keep less of every timestamp."""
        self.width = next(width for width in _WIDTHS if width < self.width)
        self.moments, self.flagged_at = (
            gather({}, ((moment[:self.width], tally) for moment, tally in tallies.items()))
            for tallies in (self.moments, self.flagged_at))

    def page(self, refresh=False):
        """Return the page.  With `refresh` a browser reads it again and again."""
        self.rank()
        detector, batch, stream = self.run.detector, self.run.batch, self.run.stream
        first, last = min(self.moments, default=""), max(self.moments, default="")
        period = Period(first, last) if first else None
        span = f", from <time>{first}</time> to <time>{last}</time>" if first else ""
        judged, flagged = (sum(tally[0] for tally in tallies.values())
                           for tallies in (self.moments, self.flagged_at))
        return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{'<meta http-equiv="refresh" content="2">' if refresh else ""}
<title>Anomalous purchases in {legible(stream.name)}</title>
<style>{_STYLE}</style></head>
<body><h1>Anomalous purchases</h1>
<p>Purchases judged: <b>{judged:,}</b>{span}. Flagged:
<b>{flagged:,}</b> ({money(10000 * flagged // max(judged, 1))}%), for being more than 3 sd above
the mean of the last T = {detector.tracked:,} purchases in the buyer’s network,
D = {detector.degree:,} degrees.
Malformed lines skipped: {batch.counts["skipped"] + stream.counts["skipped"]:,}.
Logs: {legible(batch.name)}, {legible(stream.name)}.
{"" if self.width == 19 else f"Timestamps, being so many, are cut to {_WIDTHS[self.width]}."}</p>
{self.over_time(period)}
{self.amounts(period)}
<div class="tables">
{self.tables()}
</div></body></html>
"""

    def over_time(self, period):
        """Return the chart of the purchases per interval, with a pin where some are flagged."""
        if not period:
            return chart("over-time", "Purchases over time", "There are no purchases.")
        times, size = period.times, period.times.step
        purchases, flagged = (
            gather({}, ((period.seconds(moment) // size * size, tally)
                        for moment, tally in tallies.items()))
            for tallies in (self.moments, self.flagged_at))
        numbers = [purchases[time][0] if time in purchases else 0 for time in times]
        step = next(n for n in _ROUND if 4 * n >= max(numbers))
        top = -(-max(numbers) // step) * step
        unit = _INTERVALS[size]
        words = f"Purchases per {unit}. The dots above are for flagged ones, larger for more."
        line = "".join(f"V{-number}H{i}" for i, number in enumerate(numbers, 1))
        marks = [(words, f'<svg viewBox="0 {-top} {len(times)} {top}" preserveAspectRatio="none">'
                         f'<path d="M0 0{line}V0"/></svg>')]
        for time, (number, _, _, largest, _) in sorted(flagged.items()):
            marks.append((
                f"{period.timestamp(time)}, {unit}: purchases {purchases[time][0]:,}, "
                f"flagged {number:,}, the largest {money(largest)}",
                f'<circle cx="{period.across(time + size / 2):.2f}%" cy="-16" '
                f'r="{2 + 3.5 * log10(1 + number):.1f}"/>'))
        return chart("over-time", "Purchases over time", words, period.ticks(), [
            (100 - 100 * n / top, f"{n:,}") for n in range(0, top + 1, step)], marks)

    def amounts(self, period):
        """Return the chart of the flagged amounts, each with its mean and limit."""
        if not self.farthest:
            return chart("amounts", "Flagged amounts", "Nothing is flagged.")
        least = max(1, min(flag.mean for *_, flag in self.farthest))
        low = max(n for n in _ROUND if n <= least)
        high = next(n for n in _ROUND if n > max(low, *(row[3] for row in self.farthest)))

        def y(cents):
            return 100 - 100 * log10(max(cents, low) / low) / log10(high / low)

        grids = ([n for n in _ROUND[::every] if low <= n <= high] for every in (1, 3, 6, 9))
        grid = next(grid for grid in grids if len(grid) <= 8)
        marks = []
        for _, timestamp, user, amount, (mean, sd) in self.farthest:
            x, limit = period.across(period.seconds(timestamp) + .5), mean + 3 * sd
            marks.append((
                f"{timestamp}, user {legible(user)}: {money(amount)}, "
                f"mean {money(mean)}, limit {money(limit)}",
                f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="{y(mean):.2f}%" y2="{y(limit):.2f}%"/>'
                f'<circle cx="{x:.2f}%" cy="{y(amount):.2f}%" r="3"/>'))
        words = "On a logarithmic scale, each above a line from its mean to its limit, mean + 3 sd."
        return chart("amounts", "Flagged amounts", words, period.ticks(), [
            (y(n), "≤ " * (n == 1) + (f"{n // 100:,}" if n >= 100 else dollars(n)))
            for n in grid], marks)

    def tables(self):
        """Return the tables; of equals the earlier stands first."""
        def most(tallies):
            return nsmallest(20, tallies.items(), key=lambda item: (-item[1][0], item[1][4]))

        flagged = {moment: tally[0] for moment, tally in self.flagged_at.items()}
        return "\n".join([
            table("busiest", "Busiest timestamps", len(self.moments),
                  "rank, timestamp, purchases, total, flagged",
                  [(rank, moment, number, money(total), flagged.get(moment, 0))
                   for rank, (moment, (number, total, *_)) in enumerate(most(self.moments), 1)]),
            table("flagged-times", "Timestamps with most flags", len(flagged),
                  "rank, timestamp, flagged, mean, sd",
                  [(rank, moment, tally[0], *map(money, baseline(*tally[:3])))
                   for rank, (moment, tally) in enumerate(most(self.flagged_at), 1)]),
            table("flagged", "Flagged purchases, farthest above their mean first",
                  sum(flagged.values()), "timestamp, user, amount, mean, sd, sd above",
                  [(timestamp, user, money(amount), money(mean), money(sd),
                    money(100 * (amount - mean) // sd)[:-1] if sd else "∞")
                   for _, timestamp, user, amount, (mean, sd) in self.farthest[:200]]),
            table("users", "Users flagged most often", len(self.users), "user, flagged, largest",
                  [(user, tally[0], money(tally[3])) for user, tally in most(self.users)])])


OUTPUTS = Flags, Rejects, Notify, Report, Snapshot      # they take their places in this order


# ------------------------------------------------- parts of a stream, in processes

PART = 1 << 18      # bytes that are worth a process


def number_of_jobs(jobs, size, state):
    """Return in how many processes to judge `size` bytes; `jobs` if that is given.

    A fork of a large state costs what judging a part of its size does: `state` is
    how many bytes it was read from.
    """
    if not size or not hasattr(os, "fork"):
        return 1
    if jobs:
        return jobs
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (
        os.cpu_count() or 1)
    return max(1, min(processors, size // max(PART, state // 24)))


class Kept:
    """Calls of tell(method, ...), kept in a file to be made by another process, or later."""

    def __init__(self, stack):
        import pickle
        import tempfile
        self.file, self.pickle = stack.enter_context(tempfile.TemporaryFile()), pickle

    def tell(self, *call):
        self.pickle.dump(call, self.file, self.pickle.HIGHEST_PROTOCOL)

    def again(self, tell):
        """Make the calls."""
        self.file.seek(0)
        with contextlib.suppress(EOFError):
            while True:
                tell(*self.pickle.load(self.file))


def work(parent, task, kept):
    """Do task(tell, beat) in a process forked for it, and end that."""
    def beat(data):
        if os.getppid() != parent:
            os._exit(1)

    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)    # the parent will see to it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            task(kept.tell, beat)
        except (Failure, OSError, *NO_MEMORY) as error:
            kept.tell("failed", explained(error))
        kept.file.flush()
        os._exit(0)
    finally:
        os._exit(1)     # without what a process does at its end, or says of an error


def set_to_work(tasks, kept, stack):
    """Return processes at `work`, each with a task and its Kept.  The ExitStack ends them."""
    import multiprocessing
    fork = multiprocessing.get_context("fork").Process
    # No signal may come between the start of a process and its being noted.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
    workers = []
    for task, calls in zip(tasks, kept):
        worker = fork(target=work, args=(os.getpid(), task, calls))
        worker.start()
        stack.callback(worker.join)
        stack.callback(worker.kill)             # the last one put there comes first
        workers.append(worker)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return workers


def judge_stream(log, cuts, run, beat, stack):
    """Judge the parts of the stream log that lie between its cuts, each in a process;
    what ends the processes goes on the ExitStack.

    Each process applies all events before its part but judges only its part, so
    the parts joined in order are what one process would have written.  The last
    part is judged here.
    """
    def passed(method, lines, *more):
        if method == "read":
            run.stream.lines += lines

    def judge(part, tell, beat):
        own = Log(log.path)             # with a place of its own
        with own.file:
            replay(own.chunks(cuts[0], part[0], beat), detector, detector.record, ignore)
            judge_part(own.chunks(*part, beat), run, tell)

    detector, parts = run.detector, list(zip(cuts, cuts[1:]))
    replay(log.chunks(0, cuts[0], beat), detector, detector.record, passed)
    if len(parts) == 1:
        return judge_part(log.chunks(*cuts, beat), run, run.stream.tell)
    detector.history.recent_purchases()     # or every process would do this again
    kept = [Kept(stack) for part in parts]
    workers = set_to_work([partial(judge, part) for part in parts[:-1]], kept, stack)
    judge(parts[-1], kept[-1].tell, beat)
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise Failure("a worker process died, maybe for lack of memory or disk space; "
                          "no output file is changed")
    for calls in kept:
        calls.again(run.stream.tell)


def judge_part(chunks, run, tell):
    """Judge the purchases of a part of the stream, and tell what comes of it."""
    detector = run.detector
    looks = [(place, output.look) for place, output in enumerate(run.stream.outputs)
             if output.look]

    def purchase(user, timestamp, amount):
        flag = detector.purchase(user, timestamp, amount)
        for place, look in looks:
            seen = look(detector, user, timestamp, amount, flag)
            if seen:
                tell("saw", place, seen)
        return flag

    replay(chunks, detector, purchase if looks else detector.purchase, tell)


# -------------------------------------------------------------- command line

Run = namedtuple("Run", "detector batch stream live to_the_end")
Run.__doc__ = """What an output may ask about its run: the Detector, the Findings of both
logs, whether the stream comes from standard input, and whether all of it is read."""

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
FILES = {"batch": os.path.join(ROOT, "log_input", "batch_log.json"),
         "stream": os.path.join(ROOT, "log_input", "stream_log.json"),
         "output": os.path.join(ROOT, "log_output", "flagged_purchases.json")}
DEFAULTS = {**dict.fromkeys(kind.name for kind in OUTPUTS), **FILES, "degree": None,
            "tracked": None, "strict": False, "jobs": None, "shard": (1, 1), "quiet": False}
EPILOG = """\
BATCH, STREAM and OUTPUT are by default the project's own log_input/batch_log.json,
log_input/stream_log.json and log_output/flagged_purchases.json.

examples:
  %(prog)s batch_log.json stream_log.json flagged_purchases.json
  %(prog)s -D 3 -T 100 batch_log.json stream_log.json flagged_purchases.json
  tail -f purchases.log | %(prog)s batch_log.json - -

The last is a live monitor: with STREAM "-" and OUTPUT "-" each flagged purchase is
written as soon as it has been read.

exit status: 0 done, 1 failed midway, 2 could not start, 130 Ctrl-C, 143 SIGTERM;
unless it is 0, an existing OUTPUT is left as it was."""


def shard(text):
    """Return (K, N) of "K/N", 1 <= K <= N.  Raises ValueError."""
    k, slash, n = text.partition("/")
    k, n = whole_number(k, 1), whole_number(n, 1)
    if k > n:
        raise ValueError(f"{shown(text)} is not K/N with K from 1 to N")
    return k, n


def parser():
    """Return the ArgumentParser; its errors are one line, a Failure."""
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message):
            raise Failure(f"{message} (--help tells the usage)", 2)

    def checked(function, *arguments):
        def parse(text):
            try:
                return function(text, *arguments)
            except ValueError as error:
                raise argparse.ArgumentTypeError(str(error)) from None
        return parse

    parser = Parser(
        prog="anomaly_detection.py", usage="%(prog)s [options] [BATCH STREAM OUTPUT]",
        description="Flag the purchases of STREAM that are anomalous within the buyer's "
                    "social network.", epilog=EPILOG, allow_abbrev=False,
        # With a width of its own it need not look for that of the terminal.
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=88))
    parser.set_defaults(**DEFAULTS)
    add = parser.add_argument
    for name in FILES:
        add(name.upper(), nargs="?", help=argparse.SUPPRESS)
    add("--batch-log", dest="batch", metavar="FILE", help="the log that builds the state")
    add("--stream-log", dest="stream", metavar="FILE",
        help='the log whose purchases are judged ("-": standard input)')
    for kind in OUTPUTS:
        add("--" + kind.name, metavar="FILE", help=kind.help)
    add("-D", "--degree", type=checked(whole_number, 1), metavar="N",
        help="degrees of the network, instead of the batch log's D")
    add("-T", "--tracked", type=checked(whole_number, 2), metavar="N",
        help="purchases that decide, instead of the batch log's T")
    add("--strict", action="store_true", help="end at the first malformed line")
    add("--jobs", type=checked(whole_number, 1), metavar="N",
        help="processes to judge in (default: the processors, if STREAM is large)")
    add("--shard", type=checked(shard), metavar="K/N",
        help="judge only the K-th of N parts of STREAM; the outputs, joined, are the whole")
    add("--quiet", action="store_true", help="write nothing but errors to standard error")
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def parse(arguments):
    """Return the parsed command line; its `outputs` are those that it asks for, as
    (class, path).  Raises Failure.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) > len(FILES) or any(
            argument.startswith("-") and argument != "-" for argument in arguments):
        args = parser().parse_intermixed_args(arguments)
    else:                               # a fifth of a short run's time less
        args = SimpleNamespace(**{**DEFAULTS, **dict(zip(FILES, arguments))})
    for name, default in FILES.items():
        placed = vars(args).get(name.upper())
        if placed is not None:
            if vars(args)[name] is not default:
                parser().error(f"the {name} file is given twice")
            setattr(args, name, placed)
    for name, value in vars(args).items():
        if value == "":
            parser().error(f"the name of the {name} file is empty")
    if args.batch == "-":
        parser().error('BATCH cannot be "-", only STREAM can')
    args.outputs = [(kind, vars(args)[kind.name]) for kind in OUTPUTS if vars(args)[kind.name]]
    return args


def check_files(args, logs):
    """Raise Failure if a file to write is also another file of the run, or is closed."""
    taken = [(status.st_dev, status.st_ino)
             for status in (os.fstat(log.file.fileno()) for log in logs)]
    for kind, path in args.outputs:
        if path in STDOUT and sys.stdout is None:
            raise Failure("standard output is closed", 2)
        try:
            status = os.fstat(1) if path in STDOUT else os.stat(path)
            file = (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else (
                path in STDOUT and STDOUT)      # any other may be written by many
        except OSError:
            file = os.path.realpath(path)
        if file and file in taken:
            raise Failure(f"{path}: is also an input or another output; "
                          "no output file is changed", 2)
        taken.append(file)


def run(args, console, signals):
    """Do what the command line asks for.  Raises Failure, OSError, MemoryError and, if
    there comes a signal, KeyboardInterrupt; what is to be undone then is on `signals`.
    """
    batch, stream = Log(args.batch), Log(args.stream)
    for log in batch, stream:
        signals.enter_context(log.file)
    check_files(args, (batch, stream))
    k, shards = args.shard
    if shards > 1 and not stream.is_file:
        raise Failure("--shard needs a STREAM that is a regular file", 2)
    jobs = number_of_jobs(args.jobs, stream.size // shards, batch.size)
    console.total = batch.size + stream.size * k // shards
    degree, tracked, chunks = batch.header(
        batch.chunks(beat=console.progress), args.degree, args.tracked)
    detector = Detector(degree, tracked)
    this = Run(detector, Findings(batch, console, args.strict),
               Findings(stream, console, args.strict), args.stream == "-", k == shards)
    for kind, path in args.outputs:
        output = kind(path, this)
        signals.callback(output.discard)
        output.open()
        this.stream.outputs.append(output)
    if k == 1:
        this.batch.outputs = this.stream.outputs

    def beat(data):
        console.progress(data)
        for output in this.stream.outputs:
            output.beat()
        return signals.received

    times = [time.perf_counter()]
    replay(chunks, detector, detector.record, this.batch.tell)
    times.append(time.perf_counter())
    signals.patient = bool(args.snapshot) and this.live
    judge_stream(stream, stream.cuts(jobs, args.shard), this, beat, signals)
    times.append(time.perf_counter())
    put_in_place(this.stream.outputs, signals)
    say_what_was_done(this, times, args, console, signals)


def put_in_place(outputs, signals):
    """Let all outputs take their places, once all are complete.  Raises OSError, Failure."""
    for output in outputs:
        output.complete()
    signals.ignore()
    for done, output in enumerate(outputs):
        try:
            output.replace()
        except OSError as error:
            if not done:
                raise
            raise Failure(f"{output.path}: {error.strerror}; only what precedes it is written")


def say_what_was_done(this, times, args, console, signals):
    """Say it in a line; another, if a signal was waited for and came."""
    batch, stream = this.batch.counts, this.stream.counts
    console.report(
        f"anomaly_detection: batch {batch['events']} events ({batch['skipped']} skipped), "
        f"stream {stream['events']} events ({stream['skipped']} skipped), "
        f"{stream['purchases']} judged, {stream['flagged']} flagged, "
        f"{times[1] - times[0]:.2f} s batch + {times[2] - times[1]:.2f} s stream; {args.output}")
    if signals.received:
        console.say(f"anomaly_detection: stopped by {signals.received.name} after line "
                    f"{this.stream.lines} of {this.stream.name}; everything is written")


SIGNALS = signal.SIGINT, signal.SIGTERM


class Signals(contextlib.ExitStack):
    """SIGINT and SIGTERM in a `with` block: they raise KeyboardInterrupt.  As every
    ExitStack it undoes, at the end of the block, what was put on it; that nothing stops.

    Once `patient` is set they do not, and it is for the block to look at `received`.
    """

    received, patient = None, False

    def __enter__(self):
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                with contextlib.suppress(ValueError):       # not the main thread
                    self.callback(signal.signal, number, signal.signal(number, self.stop))
        return super().__enter__()

    def stop(self, number, frame):
        self.ignore()
        self.received = signal.Signals(number)
        if not self.patient:
            raise KeyboardInterrupt

    def ignore(self):
        """Let nothing more be stopped."""
        for number in SIGNALS:
            if signal.getsignal(number) == self.stop:
                signal.signal(number, signal.SIG_IGN)

    def __exit__(self, *error):
        self.ignore()
        return super().__exit__(*error)


def main(arguments=None):
    """Run the command line; return the exit status."""
    console, signals = Console(), Signals()
    try:
        args = parse(arguments)         # argparse fails if it is interrupted
        if args.quiet:
            console.report = console.progress = ignore
        # A short block at the beginning: without memory CPython 3.11 can loop for ever on its
        # way out of a `with` at a bytecode offset above 256.
        with signals:
            run(args, console, signals)
        return 128 + signals.received if signals.received else 0
    except KeyboardInterrupt:
        if not signals.received:
            raise
        console.say(f"anomaly_detection: stopped by {signals.received.name}; nothing is written")
        return 128 + signals.received
    except (Failure, OSError, *NO_MEMORY) as error:
        if isinstance(error, BrokenPipeError) and all(
                is_direct(path) for kind, path in args.outputs):
            return 0        # who reads it has enough
        console.say(f"anomaly_detection: {explained(error)}")
        return getattr(error, "status", 1)
    finally:
        console.write("")


if __name__ == "__main__":
    gc.disable()        # nothing cyclic is built, and looking for it takes a third more time
    # All is written: taking millions of objects apart would only cost time.
    os._exit(main())
