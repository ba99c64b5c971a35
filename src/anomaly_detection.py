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
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # no traceback from the imports below

import argparse
import codecs
import contextlib
import gc
import io
import json
import marshal
import os
import pickle
import re
import select
import shutil
import stat
import sys
import tempfile
import threading
import time
from bisect import bisect, insort
from collections import defaultdict, deque, namedtuple
from datetime import date
from fractions import Fraction
from functools import partial
from heapq import merge, nlargest
from itertools import chain, compress, islice
from math import isqrt
from operator import itemgetter, length_hint, mul
from sys import intern

__all__ = ["SocialNetwork", "PurchaseHistory", "Detector", "Flag",
           "amount_in_cents", "moment", "dollars", "main"]
__version__ = "1.0.0"


# ---------------------------------------------------------------- the values

_AMOUNT = re.compile(r"(-?)([0-9]{1,15})(?:\.([0-9]{1,15}))?")
_MOMENT = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2}) "
                     r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?")


def amount_in_cents(text):
    """Return the exact cents of an amount: int, or Fraction if finer than a cent.

    Raises ValueError unless text is `-?` 1-15 digits, optionally `.` and 1-15.

    >>> amount_in_cents("16.83"), amount_in_cents("-2"), amount_in_cents("0.125")
    (1683, -200, Fraction(25, 2))
    """
    match = _AMOUNT.fullmatch(text)
    if not match:
        raise ValueError(f"amount {shown(text)} is not a number like 16.83")
    sign, whole, decimals = match.groups(default="")
    if len(decimals) <= 2:
        return int(sign + whole + decimals.ljust(2, "0"))
    cents = Fraction(int(sign + whole + decimals), 10 ** (len(decimals) - 2))
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
    """Return int cents as text with two decimals.

    >>> dollars(2910), dollars(-5), dollars(0)
    ('29.10', '-0.05', '0.00')
    """
    return "%s%d.%02d" % ("-" if cents < 0 else "", *divmod(abs(cents), 100))


def shown(text):
    """Return text quoted, in ASCII, cut to a length fit for a message."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")


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

class SocialNetwork:
    """Two-way friendships between users, named by their ids (str).

    >>> social = SocialNetwork()
    >>> social.befriend("1", "2"); social.befriend("2", "3")
    >>> sorted(social.network("1", 1)), sorted(social.network("1", 2))
    (['2'], ['2', '3'])
    """

    def __init__(self):
        self.friends = defaultdict(set)
        self.circles = Memo(self.circle, sys.maxsize)

    def circle(self, user):
        """Return the friends of a user in a form that is quick to walk over.

        A small set as a tuple, which takes an eighth of the memory, makes a
        search an eighth quicker.  `circles` remembers those that a search has
        met, until they change.
        """
        friends = self.friends[user]
        return tuple(friends) if len(friends) < 256 else friends

    def befriend(self, id1, id2):
        """Make two users friends.  Raises ValueError if they are the same."""
        two_users(id1, id2)
        id1, id2 = intern(id1), intern(id2)     # one object per user: faster sets
        self.friends[id1].add(id2)
        self.friends[id2].add(id1)
        if self.circles:
            self.circles.pop(id1, None)
            self.circles.pop(id2, None)

    def unfriend(self, id1, id2):
        """End a friendship, if there is one.  Raises ValueError as befriend."""
        two_users(id1, id2)
        for user, friend in (id1, id2), (id2, id1):
            if friend in self.friends.get(user, ()):
                self.friends[user].discard(friend)
                self.circles.pop(user, None)
                if not self.friends[user]:
                    del self.friends[user]

    def absorb(self, friends, parted):
        """Let a PartialNetwork's friends and parted have the last word."""
        for pair in parted:
            self.unfriend(*pair)
        for user, theirs in friends.items():
            self.friends[user].update(theirs)
            self.circles.pop(user, None)

    def network(self, user, degree):
        """Return the set of users at distance 1..degree from user.

        Breadth-first search, one ring after the other.
        """
        return set(self.ball(user, degree)[0])

    def ball(self, user, degree, effort=None):
        """Return (users at distance 1..degree - hops, hops), hops being small.

        hops is 0, and the ball the whole network, unless a ring of the search
        would touch more than `effort` friendships.  Its size is known before
        it is built, as the sum of the last ring's degrees: one celebrity is
        enough to make it large.
        """
        friends_of = self.circles.__getitem__
        ball = ring = self.friends.get(user, set())
        for hops in range(degree - 1, 0, -1):
            if effort is not None and (
                    len(ring) > effort or sum(map(len, map(friends_of, ring))) > effort):
                return ball, hops
            if hops == 1:
                ball = ball.union(*map(friends_of, ring))
                break
            reached = set().union(*map(friends_of, ring))
            if ball is ring:
                ball = set(ball)
            if effort is not None and 8 * len(reached) > effort:
                hops -= 1               # the next ring is sure to be too wide
                ball |= reached
                ball.discard(user)
                return ball, hops
            ring = reached - ball
            ring.discard(user)
            if not ring:
                break
            ball |= ring
        ball.discard(user)
        return ball, 0


class PartialNetwork(SocialNetwork):
    """The friendships that a part of a log has the last word on."""

    def __init__(self):
        super().__init__()
        self.parted = set()     # pairs of users, in order, that it unfriends

    def befriend(self, id1, id2):
        super().befriend(id1, id2)
        if self.parted:
            self.parted.discard((min(id1, id2), max(id1, id2)))

    def unfriend(self, id1, id2):
        super().unfriend(id1, id2)
        self.parted.add((min(id1, id2), max(id1, id2)))


def two_users(id1, id2):
    """Raise ValueError if the two ids are the same."""
    if id1 == id2:
        raise ValueError(f"id1 and id2 are both {shown(id1)}")


class TooFar(Exception):
    """The search from the recent buyers' side is not worth going on with."""


class Reach(dict):
    """Reach(social, user, ball, hops, effort)[v]: is v in the user's network?

    Equals `v in social.network(user, degree)` for the `ball, hops` that
    `social.ball(user, degree, ...)` returned, because v is in the network
    exactly if it is in the ball or at most `hops` from it.  Answers are
    remembered.  Wins when a few dozen answers are wanted of a network of
    thousands.  Raises TooFar when that takes more than `effort` set look-ups.
    """

    def __init__(self, social, user, ball, hops, effort):
        super().__init__()
        self[user] = False
        self.friends, self.ball, self.hops, self.effort = social.friends, ball, hops, effort

    def __missing__(self, v):
        self.effort -= 1
        if self.effort < 0:
            raise TooFar
        self[v] = answer = v in self.friends and (
            v in self.ball or not self.ball.isdisjoint(self.friends[v])
            or self.hops > 1 and self.touches(v))
        return answer

    def touches(self, v):
        """Return whether v is 2 to `hops` steps from the ball, by a search from v."""
        friends_of, apart = self.friends.__getitem__, self.ball.isdisjoint
        seen, ring = {v}, self.friends[v]
        for _ in range(1, self.hops):
            if not all(map(apart, map(friends_of, ring))):
                return True
            # Meeting nobody took a look at all of them, and the next ring has
            # to be joined, which is quicker by about 16.
            self.effort -= len(ring) + sum(map(len, map(friends_of, ring))) // 16
            if self.effort < 0:
                raise TooFar
            seen.update(ring)
            ring = set().union(*map(friends_of, ring)) - seen
            if not ring:
                break
        return False


# ---------------------------------------------------------- purchase history

class PurchaseHistory:
    """The last `tracked` purchases of every user, by timestamp, then arrival.

    A purchase is a tuple (timestamp, seq, amount): text of `moment`, the count
    of purchases recorded before it, exact cents.

    >>> history = PurchaseHistory(tracked=2)
    >>> for amount in "1.00", "2.00", "3.00":
    ...     history.record("1", "2017-06-13 11:33:01", amount)
    >>> list(history.last(["1"], 2))
    [('2017-06-13 11:33:01', 2, 300), ('2017-06-13 11:33:01', 1, 200)]
    """

    gather_limit = 400    # measured: from about here on the heap is quicker

    def __init__(self, tracked, first_seq=0):
        self.tracked = tracked
        self.of = {}         # user -> purchases, oldest first
        self.seq = first_seq # the next purchase's; grows, sometimes by leaps
        self.leaps = first_seq
        self.newest = ""     # their latest timestamp
        self.recent = None   # RecentPurchases, once asked for
        self.moments, self.amounts = Memo(moment), Memo(amount_in_cents)

    @property
    def recorded(self):
        """How many purchases were recorded so far."""
        return self.seq - self.leaps

    def record(self, user, timestamp, amount):
        """Add a purchase (all texts).  Raises ValueError, and adds nothing, if
        the timestamp or the amount is not valid.

        A user's purchases are a bounded deque; as long as they are fewer than
        `tracked` they are a list, which takes an eighth of the memory.
        """
        timestamp = self.moments[timestamp]
        seq = self.seq
        purchase = (timestamp, seq, self.amounts[amount])
        self.seq = seq + 1
        purchases = self.of.get(user)
        if purchases is None:
            purchases = self.of[intern(user)] = []
        elif len(purchases) == self.tracked and type(purchases) is list:
            purchases = self.of[user] = deque(purchases, self.tracked)
        if timestamp >= self.newest:
            self.newest = timestamp
            purchases.append(purchase)
        elif len(purchases) < self.tracked:
            insort(purchases, purchase)
        elif purchase > purchases[0]:
            purchases.popleft()
            insort(purchases, purchase)
        if self.recent is not None:
            self.recent.add(purchase, user)

    def last(self, users, count):
        """Return an iterator over the last `count` purchases of users, newest first.

        A k-way merge of their deques.  Few purchases in all are gathered and
        sorted instead, which is the same.
        """
        histories = list(filter(None, map(self.of.get, users)))
        if len(histories) > count:      # no others than these can have a say
            histories = nlargest(count, histories, key=itemgetter(-1))
        if sum(map(len, histories)) <= max(self.gather_limit, 4 * count):
            return iter(sorted(chain.from_iterable(histories), reverse=True)[:count])
        return islice(merge(*map(reversed, histories), reverse=True), count)

    def absorb(self, of, first_seq, next_seq, newest):
        """Take in the purchases of another history, all of which arrived later.

        Its numbers, from first_seq up to next_seq, must not be smaller than this one's.
        """
        for user, theirs in of.items():
            mine = self.of.get(user)
            if mine is None:
                mine = self.of[user] = []
            late = mine and theirs[0] < mine[-1]
            if late or len(mine) + len(theirs) > self.tracked:
                both = sorted(chain(mine, theirs))
                self.of[user] = deque(both, self.tracked)
            else:
                mine += theirs
        self.leaps += first_seq - self.seq
        self.seq = next_seq
        self.newest = max(self.newest, newest)

    def of_everybody(self):
        """Return the RecentPurchases, which `record` keeps up to date from now on."""
        if self.recent is None:
            self.recent = RecentPurchases(self.of, self.recorded)
        return self.recent


class RecentPurchases:
    """The recent purchases of all users: a short-cut to a network's last ones.

    Invariant: of all purchases not before `since` none is missing.  So the
    purchases of a network that are met going back from the newest are its last
    ones.  There are two ways to go back: `walk` meets every purchase, which
    suits wide networks; `look_up` asks for every user, on one page of some
    thousand purchases after the other, which suits narrow ones.
    """

    page_size, page_limit = 4096, 4

    def __init__(self, histories, recorded):
        """Take in the last ones of all purchases, {user: purchases}, `recorded` in number."""
        self.since = ()
        self.pages = deque()             # oldest first
        self.line, self.buyers = [], []  # purchases oldest first, and whose
        if recorded > self.capacity():
            # Any `since` would do; that of a sample holds about what is wanted.
            some = list(histories.values())[::recorded // 4096 + 1]
            sample = sorted(chain.from_iterable(some))
            self.since = sample[-(len(sample) * self.capacity() // recorded) - 1]
        held = []
        for user, purchases in histories.items():
            for purchase in reversed(purchases):
                if purchase < self.since:
                    break
                held.append((purchase, user))
        for purchase, user in sorted(held, key=itemgetter(0)):
            self.add(purchase, user)

    def capacity(self):
        """Return about how many purchases the pages hold at the most."""
        return self.page_size * self.page_limit

    def add(self, purchase, user):
        """Take in a purchase."""
        user = intern(user)
        if not self.line or purchase > self.line[-1]:
            if not self.pages or self.pages[-1].size >= self.page_size:
                self.open_page(purchase)
            self.pages[-1].add(purchase, user)
            self.line.append(purchase)
            self.buyers.append(user)
        elif purchase >= self.since:
            self.insert(purchase, user)

    def open_page(self, purchase):
        """Begin a page with a purchase later than all."""
        self.pages.append(Page(purchase if self.pages else self.since))
        self.let_go()

    def let_go(self):
        """Forget the oldest page and the oldest of the line, if there is too much."""
        if len(self.pages) > self.page_limit:
            self.pages.popleft()
            self.since = self.pages[0].since
        surplus = len(self.line) - self.capacity() // 4 - 1
        if surplus > 0:
            del self.line[:surplus], self.buyers[:surplus]

    def insert(self, purchase, user):
        """Put a late purchase in its place."""
        place = bisect(self.line, purchase)
        if place:                   # before the first, others may be missing
            self.line.insert(place, purchase)
            self.buyers.insert(place, user)
        place = next(i for i in range(len(self.pages) - 1, -1, -1)
                     if purchase >= self.pages[i].since)
        page = self.pages[place]
        page.add(purchase, user)
        if page.size > 2 * self.page_size:
            items = sorted(page.items())
            halves = Page(page.since), Page(items[len(items) // 2][0])
            for item in items:
                halves[item[0] >= halves[1].since].add(*item)
            self.pages[place] = halves[0]
            self.pages.insert(place + 1, halves[1])
            self.let_go()

    def walk(self, belongs):
        """Return an iterator over the purchases of users that belong, newest first.

        Equals `(p for p in everything, newest first, if belongs(p's buyer))`,
        but may end before its time.
        """
        return compress(reversed(self.line), map(belongs, reversed(self.buyers)))

    def look_up(self, network, count):
        """Yield the last `count` purchases of a network, or the last there are
        on the pages; each page's before those of older pages."""
        for page in reversed(self.pages):
            found = list(chain.from_iterable(filter(None, map(page.of.get, network))))
            if len(found) > count:
                found = sorted(found)[-count:]
            yield from found
            count -= len(found)
            if not count:
                break


class Page:
    """All purchases from `since` up to the next page's: {user: purchases}."""

    __slots__ = "since", "of", "size"

    def __init__(self, since):
        self.since, self.of, self.size = since, {}, 0

    def add(self, purchase, user):
        self.size += 1
        if user in self.of:
            self.of[user].append(purchase)
        else:
            self.of[user] = [purchase]

    def items(self):
        return ((purchase, user) for user, purchases in self.of.items()
                for purchase in purchases)


# --------------------------------------------------- baseline and the verdict

class Flag(namedtuple("Flag", "mean sd")):
    """What makes a purchase anomalous: mean and sd in int cents, truncated.

    >>> str(Flag(2910, 2146))
    '"mean": "29.10", "sd": "21.46"'
    """

    __slots__ = ()

    def __str__(self):
        return f'"mean": "{dollars(self.mean)}", "sd": "{dollars(self.sd)}"'


def baseline(n, total, squares):
    """Return Flag(mean, sd) of n amounts, from their sum and sum of squares.

    mean = total/n and sd = sqrt(n*squares - total**2)/n, truncated toward zero
    to whole cents: floor(sqrt(V)/n) == isqrt(floor(V)) // n.

    >>> baseline(3, 1683 + 5928 + 1120, 1683**2 + 5928**2 + 1120**2)
    Flag(mean=2910, sd=2146)
    """
    mean = int(abs(total) // n)
    return Flag(mean if total >= 0 else -mean, isqrt(int(n * squares - total * total)) // n)


def cannot_be_flagged(amount, n, total, squares, size):
    """Return whether amount <= mean + 3 sd for every window of `size` amounts of
    which n are known by their sum and sum of squares; with n == size that is
    the rule itself.

    Of all windows with n known amounts of mean m and standard deviation s,
    mean + 3 sd is least, by convexity, when the unknown ones are all equal;
    minimising over their value gives m + s * sqrt(10n/size - 1), while
    n >= size/10 (for less there is no bound).  This least value falls as size grows,
    so it holds for smaller windows too.

    >>> cannot_be_flagged(3100, 2, 2000 + 4000, 2000**2 + 4000**2, 20)
    False
    >>> cannot_be_flagged(3100, 5, 5 * 3000 + 0, 5 * 3000**2 + 10**6, 20)
    True
    """
    over = n * amount - total                        # n (amount - m)
    known = 10 * n - size
    return known >= 0 and (
        over <= 0 or over * over * size <= known * (n * squares - total * total))


class Detector:
    """Judges each purchase against the purchases before it in its network.

    degree and tracked are the challenge's D (>= 1) and T (>= 2).  Ids, times and
    amounts are texts as in the logs.  befriend, unfriend and record are those of its
    SocialNetwork and PurchaseHistory.

    >>> detector = Detector(degree=1, tracked=50)
    >>> detector.befriend("ann", "bob")
    >>> for amount in "16.83", "59.28", "11.20":
    ...     detector.purchase("ann", "2017-06-13 11:33:01", amount)
    >>> detector.purchase("bob", "2017-06-13 11:33:02", "1601.83")
    Flag(mean=2910, sd=2146)
    """

    def __init__(self, degree, tracked):
        if degree < 1 or tracked < 2:
            raise ValueError("degree must be at least 1 and tracked at least 2")
        self.degree, self.tracked = degree, tracked
        self.social, self.history = SocialNetwork(), PurchaseHistory(tracked)
        self.befriend, self.unfriend = self.social.befriend, self.social.unfriend
        self.record = self.history.record

    def purchase(self, user, timestamp, amount):
        """Judge a purchase, then record it; return its Flag, or None if normal.

        Raises ValueError, and changes nothing, for a timestamp or an amount
        that is not valid.
        """
        flag = self.judge(user, self.history.amounts[amount])
        self.record(user, timestamp, amount)
        return flag

    def judge(self, user, amount):
        """Return the Flag that a purchase of `amount` cents would get, or None."""
        n = total = squares = 0
        window, step = self.window(user), max(self.tracked // 5, 2)
        while True:
            amounts = [purchase[2] for purchase in islice(window, step)]
            if not amounts:
                break
            n += len(amounts)
            total += sum(amounts)
            squares += sum(map(mul, amounts, amounts))
            if cannot_be_flagged(amount, n, total, squares, self.tracked):
                return None
            step *= 2
        if n < 2 or cannot_be_flagged(amount, n, total, squares, n):
            return None
        return baseline(n, total, squares)

    def window(self, user):
        """Yield the last `tracked` purchases of the user's network.

        Equals, but for the order, `self.history.last(self.social.network(user,
        self.degree), self.tracked)`.  At any time the ones yielded so far are
        purchases of that window.
        """
        found = 0
        for search in self.searches(user):
            try:
                for purchase in islice(search, found, self.tracked):
                    yield purchase
                    found += 1
            except TooFar:
                pass
            if found >= self.tracked:
                break

    # Measured on random graphs, 10,000 users, mean degree 18:
    ball_effort = 200        # (friendships to touch)**2 per user, before `Reach` wins
    walk_width = 12           # (network size)**2 per user and tracked, before `walk` wins

    def searches(self, user):
        """Yield the ways to the window that suit the network, the surest one last."""
        history, users = self.history, len(self.history.of)
        effort = isqrt(self.ball_effort * users) + 1
        network, hops = self.social.ball(user, self.degree, effort)
        if not network:
            return
        recent = history.of_everybody()
        if hops:
            reach = Reach(self.social, user, network, hops, effort * min(hops, 4) // 4)
            yield recent.walk(reach.__getitem__)
            network = self.social.network(user, self.degree)
            yield recent.walk(network.__contains__)
        elif self.walk_width * len(network) ** 2 > users * self.tracked:
            yield recent.walk(network.__contains__)
        elif (len(network) * history.recorded > users * self.tracked
              and 4 * len(network) * recent.capacity() > users * self.tracked):
            yield recent.look_up(network, self.tracked)
        yield history.last(network, self.tracked)


# -------------------------------------------------------------- reading logs

class Failure(Exception):
    """An error for the user: one line, and the exit status it ends the run with."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


def ignore(*arguments):
    """Do nothing."""


CHUNK = 1 << 16
BLANKS = " \t\r\n"

# A line in the usual form, spaced as in the challenge or by json.dumps, is taken
# apart by one regular expression, for all lines of a chunk at once; any other line
# comes whole, in the last group, for `read_event`.  What this accepts, JSON and
# `read_event` accept, and read alike.
_TEXT = r'"([^"\\\x00-\x1f]{1,80})"'
_LINE = re.compile(
    rf'\{{"event_type": ?"(?:purchase", "timestamp": ?{_TEXT}, "id": {_TEXT}, "amount": {_TEXT}|'
    rf'(befriend|unfriend)", "timestamp": ?{_TEXT.replace("(", "(?:")}, '
    rf'"id1": {_TEXT}, "id2": {_TEXT})\}}\r?\n|(.*)\n')
_ANY_LINE = re.compile("()()()()()()(.*)\n")


def split_events(data):
    """Return (text, rows): data, the bytes of whole lines, as text, and a tuple
    (timestamp, user, amount, verb, id1, id2, other) for each line: a purchase
    fills the first three, a befriend or unfriend the next three, a line that needs
    a closer look only the last.  Bytes that are not UTF-8 become surrogates.
    """
    try:
        text = data.decode()
        return text, _LINE.findall(text)
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")
        return text, _ANY_LINE.findall(text)


def _no_constant(name):
    raise ValueError(f"not JSON: {name}")


_decode = json.JSONDecoder(parse_int=str, parse_float=str,
                           parse_constant=_no_constant).raw_decode


def read_object(line):
    """Return the JSON object on a line, its numbers as text.  Raises ValueError."""
    line = line.strip(BLANKS)
    if not line.isascii() and any("\udc80" <= c <= "\udcff" for c in line):
        raise ValueError("not UTF-8")
    try:
        value, end = _decode(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    if end != len(line):
        raise ValueError(f"text after the JSON value: {shown(line[end:].lstrip(BLANKS))}")
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def read_event(line):
    """Return (timestamp, user, amount, verb, id1, id2) of a line, as `split_events`.

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


def whole_lines(file, length=None, tick=ignore):
    """Yield the bytes of an unbuffered file, at most `length`, in whole lines.

    What has arrived is yielded at once, unless its line is not complete; the
    last line gets the newline that it may lack.
    """
    pieces = []
    while length is None or length > 0:
        try:
            data = file.read(CHUNK if length is None else min(CHUNK, length))
        except OSError as error:
            error.filename = file.name or "<stdin>"
            raise
        if data is None:                   # a non-blocking pipe, nothing in it
            select.select([file], [], [])
            continue
        if not data:
            break
        if length is not None:
            length -= len(data)
        tick(data)
        lines, newline, rest = data.rpartition(b"\n")
        if newline:
            yield b"".join([*pieces, lines, newline])
            pieces = []
        pieces.append(rest)
    if any(pieces):
        yield b"".join([*pieces, b"\n"])


def without_bom(chunks):
    """Yield the chunks of a log, without the byte-order mark it may begin with."""
    for data in chunks:
        yield data[len(codecs.BOM_UTF8):] if data.startswith(codecs.BOM_UTF8) else data
        break
    yield from chunks


def whole_number(text, least):
    """Return the int that text, 1-18 digits, stands for.  Raises ValueError.

    >>> whole_number("50", least=2)
    50
    """
    if not (isinstance(text, str) and re.fullmatch("[0-9]{1,18}", text) and int(text) >= least):
        raise ValueError(f"{shown(str(text))} is not a whole number from {least} up")
    return int(text)


def read_header(name, chunks, degree=None, tracked=None):
    """Return (degree, tracked, lines taken, chunks left) of a batch log.

    The first line that is not blank holds D and T; an argument that is given
    overrides it, and with both given the line may be absent.  Raises Failure.
    """
    optional = degree and tracked
    number, line, rest = 0, b"", b""
    for data in chunks:
        lines = io.BytesIO(data)
        for line in lines:
            number += 1
            if line.strip(b" \t\r\n"):
                break
        rest = lines.read()
        if line.strip(b" \t\r\n"):
            break
    header, problem = {}, "D or T is missing"
    try:
        header = read_object(line.decode(errors="surrogateescape"))
        if not degree and "D" in header:
            degree = whole_number(header["D"], 1)
        if not tracked and "T" in header:
            tracked = whole_number(header["T"], 2)
    except ValueError as error:
        problem = error
    if not (degree and tracked):
        raise Failure(f"{name}:{max(number, 1)}: no header with D and T: {problem}", 2)
    if not optional or "event_type" not in header and ("D" in header or "T" in header):
        return degree, tracked, number, chain([rest], chunks)
    return degree, tracked, number - 1, chain([line + rest], chunks)


class Counts:
    """What was met in a log, or in a part of it."""

    def __init__(self, lines=0):
        self.lines = lines      # read so far; the rest is of what came after them
        self.events = self.skipped = self.judged = self.flagged = 0

    def add(self, other):
        self.lines += other.lines
        self.events += other.events
        self.skipped += other.skipped
        self.judged += other.judged
        self.flagged += other.flagged


def replay(chunks, social, purchase, counts, flagged, skip):
    """Apply the events of a log in order: friendships to `social`, purchases by
    calling purchase(user, timestamp, amount).

    Calls flagged(line, flag) for each Flag that it returns, and
    skip(line number, line, reason) for each malformed line.
    """
    befriend, unfriend = social.befriend, social.unfriend
    for data in chunks:
        text, rows = split_events(data)
        lines = None
        rest = iter(rows)
        for timestamp, user, amount, verb, id1, id2, other in rest:
            try:
                if other.strip(BLANKS):
                    timestamp, user, amount, verb, id1, id2 = read_event(other)
                if user:
                    flag = purchase(user, timestamp, amount)
                    if flag is None:
                        continue
                elif verb == "befriend":
                    befriend(id1, id2)
                    continue
                elif verb:
                    unfriend(id1, id2)
                    continue
                else:
                    counts.events -= 1      # a blank line
                    continue
            except ValueError as error:
                flag, reason = None, error
            lines = lines or text.split("\n")
            place = len(rows) - length_hint(rest) - 1
            if flag is None:
                counts.skipped += 1
                counts.events -= 1
                skip(counts.lines + place + 1, lines[place], reason)
            else:
                counts.flagged += 1
                flagged(lines[place], flag)
        counts.lines += len(rows)
        counts.events += len(rows)


# ------------------------------------------------------ flags out, and errors

class Stopped(BaseException):
    """SIGINT or SIGTERM has come."""


@contextlib.contextmanager
def replacement(path):
    """Open a binary file to write; it takes the place of `path` when the block
    ends well, and leaves no trace when it does not.  The block has to `complete`
    it, so that of several files all are complete before the first is in place.

    What is not a regular file ("-" is standard output) is written directly.
    """
    if is_direct(path):
        file = open(1 if path in STDOUT else path, "wb", closefd=path not in STDOUT)
        try:
            yield file
        except OSError as error:
            error.filename = error.filename or path
            raise
        finally:
            with contextlib.suppress(OSError):
                file.close()
        return
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".flagged-{os.urandom(6).hex()}.tmp")
    try:
        os.makedirs(folder, exist_ok=True)
        with open(temporary, "xb") as file:
            with contextlib.suppress(FileNotFoundError):
                old = os.stat(target)
                with contextlib.suppress(OSError, AttributeError):
                    os.chown(temporary, old.st_uid, old.st_gid)
                os.chmod(temporary, stat.S_IMODE(old.st_mode))
            yield file
        os.replace(temporary, target)
    except OSError as error:
        if error.filename in (None, temporary):
            error.filename = path
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def complete(file, path):
    """Make sure that what was written to a file is on its disk, if it has one."""
    try:
        file.flush()
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = path
        raise


STDOUT = "-", "/dev/stdout"


def is_direct(path):
    """Return whether an output is written directly, not by replacing a file."""
    return (path in STDOUT or path.startswith(("/dev/fd/", "/proc/"))
            or os.path.exists(path) and not os.path.isfile(path))


class Sink:
    """Where the lines of one log go that are flagged, or skipped."""

    reports_shown = 10

    def __init__(self, name, report, flags=None, rejects=None, live=False, strict=False):
        self.name, self.report = name, report       # report: called with a text
        self.flags, self.rejects = flags, rejects   # binary files or None
        self.live, self.strict = live, strict
        self.reports = 0

    def flagged(self, line, flag):
        """Write a flagged line: as it was, with mean and sd before its last brace."""
        self.flags.write(f"{line.rstrip(BLANKS)[:-1]}, {flag}}}\n".encode())
        if self.live:
            self.flags.flush()

    def skipped(self, number, line, reason):
        """Keep and report a malformed line."""
        if self.rejects:
            try:
                self.rejects.write(line.encode(errors="surrogateescape") + b"\n")
            except OSError as error:
                error.filename = "the rejects"
                raise
        self.relay(number, reason)

    def relay(self, number, reason):
        """Report the first few malformed lines; with `strict`, raise Failure."""
        if self.strict:
            raise Failure(f"{self.name}:{number}: {reason} (--strict); no output file is changed")
        self.reports += 1
        if self.reports <= self.reports_shown:
            self.report(f"{self.name}:{number}: skipped: {reason}")


class WorkerSink(Sink):
    """A Sink in another process: keeps what `join` will pass on to the real one."""

    def __init__(self, sink):
        super().__init__(sink.name, None, sink.flags and tempfile.TemporaryFile(),
                         sink.rejects and tempfile.TemporaryFile(), strict=sink.strict)
        self.kept = []

    def relay(self, number, reason):
        if len(self.kept) < self.reports_shown:
            self.kept.append((number, reason))
        if self.strict:
            raise Failure("")       # the real sink will say it, with the right number


class Console:
    """Standard error: messages, and where it is a terminal a progress line."""

    def __init__(self):
        self.stream = sys.stderr
        self.quiet = False
        self.start = self.shown_at = time.monotonic()
        self.total = self.bytes = self.events = 0
        self.progress = ""

    def say(self, text):
        """Write a line, whatever names are in it; that nobody can read it is no error."""
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
        self.write(self.clear() + line + "\n")

    def report(self, text):
        """Write a line unless --quiet."""
        if not self.quiet:
            self.say(text)

    def write(self, text):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self.stream.write(text)
            self.stream.flush()

    def clear(self):
        """Return what wipes the progress line out."""
        wipe, self.progress = self.progress and "\r\x1b[K", ""
        return wipe

    def watch(self, total):
        """Show from now on how far the reading of `total` bytes (0: unknown) is."""
        self.total = total
        return self.tick if not self.quiet and self.stream and self.stream.isatty() else ignore

    def tick(self, data):
        """Count data that was read; show the progress a few times a second."""
        self.bytes += len(data)
        self.events += data.count(b"\n")
        now = time.monotonic()
        seconds = now - self.start
        if seconds < 1 or now - self.shown_at < 0.25:
            return
        self.shown_at = now
        share = min(self.bytes / self.total, 1) if self.total else 0
        self.progress = f"{self.events:,} events, {self.events / seconds:,.0f}/s"
        if share:
            left = seconds * (1 - share) / share
            self.progress = f"{share:.0%}, {self.progress}, {left:.0f} s left"
        self.write(f"\r{self.progress}\x1b[K")


# ------------------------------------------------- parts of a log, in processes

BATCH_PART, STREAM_PART = 1 << 22, 1 << 18      # bytes that are worth a process


def number_of_jobs(jobs, size, part):
    """Return in how many processes to work on `size` bytes; `jobs` if that is given."""
    if not size or not hasattr(os, "fork"):
        return 1
    if jobs:
        return jobs
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (
        os.cpu_count() or 1)
    return max(1, min(processors, size // part))


def line_start(path, offset):
    """Return where the first line of a file that starts at offset or later does."""
    if offset == 0:
        return 0
    with open(path, "rb") as file:
        file.seek(offset - 1)
        while not file.readline(CHUNK).endswith(b"\n"):
            if file.tell() >= os.path.getsize(path):
                break
        return file.tell()


def line_end(path, lines):
    """Return where the first `lines` lines of a file end."""
    with open(path, "rb") as file:
        return sum(map(len, islice(file, lines)))


def parts(path, jobs, shard=(1, 1), begin=0, lead=0):
    """Return (start, stop) bytes of `jobs` parts of shard K of N of a log, from begin.

    A line belongs to the part that it starts in.  The first part is larger by
    `lead` tenths of the others.  The last part of all stops at None: where the
    log ends.
    """
    k, shards = shard
    size = max(os.path.getsize(path) - begin, 0)
    tenths = [10 * piece + lead * (piece > 0) for piece in range((k - 1) * jobs, k * jobs + 1)]
    cuts = [line_start(path, begin + size * tenth // (10 * shards * jobs + lead))
            for tenth in tenths]
    if k == shards:
        cuts[-1] = None
    return list(zip(cuts, cuts[1:]))


class Worker:
    """A forked process that does task(sink, tick) for a part of a log.

    task returns something to pickle.  What it sends to its sink is kept until
    `join` passes it on.
    """

    def __init__(self, task, sink):
        self.sink = WorkerSink(sink)
        self.status = None
        answer, answer_to = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(answer)
                self.work(task, answer_to, parent)
            finally:
                os._exit(1)
        os.close(answer_to)
        self.answer = open(answer, "rb")

    def work(self, task, answer_to, parent):
        """In the new process: do the task, answer (result, reports, error), and end."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
        result, error = None, ""

        def tick(data):
            if os.getppid() != parent:
                os._exit(1)

        try:
            result = task(self.sink, tick)
            for file in filter(None, (self.sink.flags, self.sink.rejects)):
                file.flush()
        except (Failure, OSError, MemoryError) as problem:
            error = explained(problem)
        with open(answer_to, "wb") as file:
            pickle.dump((result, self.sink.kept, error), file, pickle.HIGHEST_PROTOCOL)
        os._exit(0)

    def check(self):
        """Raise Failure if the process has died."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        if self.status:
            raise Failure("a worker process died; no output file is changed")

    def join(self, sink, first_line=0):
        """Wait for the end of the task, pass on what it has sent, return its result.

        Raises Failure if the task failed or the process died.
        """
        try:
            result, reports, error = pickle.load(self.answer)
        except (EOFError, pickle.UnpicklingError):
            raise Failure("a worker process died; no output file is changed") from None
        if error:
            raise Failure(error)
        for number, reason in reports:
            sink.relay(first_line + number, reason)
        for mine, whole in (self.sink.flags, sink.flags), (self.sink.rejects, sink.rejects):
            if mine:
                mine.seek(0)
                shutil.copyfileobj(mine, whole)
        return result

    def end(self):
        """End the process, if it has not ended."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for file in filter(None, (self.answer, self.sink.flags, self.sink.rejects)):
            file.close()


@contextlib.contextmanager
def undisturbed():
    """Hold SIGINT and SIGTERM back: no process may be started and then lost."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def working(tasks, sink, tick):
    """Start a Worker for each task; yield them and a tick that watches over them."""
    workers = []

    def watch(data):
        tick(data)
        for worker in workers:
            worker.check()

    try:
        for task in tasks:
            with undisturbed():
                workers.append(Worker(task, sink))
        yield workers, watch
    finally:
        if workers:
            with undisturbed():
                for worker in workers:
                    worker.end()


def part_lines(file, start=0, stop=None, tick=ignore):
    """Return the `whole_lines` of a part of a log, without a byte-order mark."""
    if start:
        file.seek(start)
    chunks = whole_lines(file, None if stop is None else stop - start, tick)
    return chunks if start else without_bom(chunks)


def load_batch(path, chunks, lines, jobs, detector, sink, tick):
    """Apply the batch log, whose first `lines` are taken, in `jobs` processes.

    The first part is applied to the detector as it is read, by this process.
    Of each other part a worker learns what there is to know in the end: every
    user's last purchases and the last word on every friendship.  That takes it
    time at the end, so the first part is larger.  Returns Counts.
    """
    counts = Counts(lines)
    if jobs == 1:
        replay(chunks, detector, detector.record, counts, ignore, sink.skipped)
        return counts
    with open_log(path) as file:
        first, *others = parts(path, jobs, begin=line_end(path, lines), lead=3)
        tasks = [partial(learn_part, path, part, detector.tracked) for part in others]
        with working(tasks, sink, tick) as (workers, watch):
            replay(part_lines(file, *first, watch), detector, detector.record,
                   counts, ignore, sink.skipped)
            for worker in workers:
                more, loads, learnt = worker.join(sink, counts.lines)
                network, history = loads(learnt)
                detector.social.absorb(*network)
                detector.history.absorb(*history)
                counts.add(more)
    return counts


def learn_part(path, part, tracked, sink, tick):
    """Return what a part of a batch log says: (Counts, loads, data), where loads(data)
    gives the arguments of SocialNetwork.absorb and PurchaseHistory.absorb.
    """
    first_seq = part[0]       # later than all numbers before: a purchase takes many bytes
    counts, social, history = Counts(), PartialNetwork(), PurchaseHistory(tracked, first_seq)
    with open_log(path) as file:
        replay(part_lines(file, *part, tick), social, history.record, counts, ignore, sink.skipped)
    friends = {user: list(friends) for user, friends in social.friends.items()}
    for user, purchases in history.of.items():
        if type(purchases) is deque:
            history.of[user] = list(purchases)
    learnt = ((friends, social.parted), (history.of, first_seq, history.seq, history.newest))
    try:
        return counts, marshal.loads, marshal.dumps(learnt)     # thrice as quick as pickle
    except ValueError:
        return counts, pickle.loads, pickle.dumps(learnt)       # which knows Fractions


def judge_stream(file, path, shard, jobs, detector, sink, tick):
    """Judge the stream log, or a shard of it, in `jobs` processes; return Counts.

    Each process applies all events before its part but judges only its part, so
    the parts joined in order are what one process would have written.
    """
    if jobs == 1 and not shard:
        return judge_part(file, (0, None), detector, sink, tick)
    first, *others = parts(path, jobs, shard or (1, 1))
    if others:
        detector.history.of_everybody()     # or every worker would do this again
        gc.freeze()
    tasks = [partial(judge_part_of, path, part, detector) for part in others]
    with working(tasks, sink, tick) as (workers, watch):
        counts = judge_part(file, first, detector, sink, watch)
        for worker in workers:
            counts.add(worker.join(sink))
    return counts


def judge_part(file, part, detector, sink, tick):
    """Apply the events of a stream log before a part, judge the part; return Counts."""
    start, stop = part
    before = Counts()
    replay(part_lines(file, 0, start, tick), detector, detector.record, before, ignore, ignore)
    counts = Counts(before.lines)
    recorded = detector.history.recorded
    replay(part_lines(file, start, stop, tick), detector, detector.purchase,
           counts, sink.flagged, sink.skipped)
    counts.judged = detector.history.recorded - recorded
    return counts


def judge_part_of(path, part, detector, sink, tick):
    """Do judge_part in a process that has to open the log itself."""
    with open_log(path) as file:
        return judge_part(file, part, detector, sink, tick)


# -------------------------------------------------------------- command line

def open_log(path):
    """Open a log to read unbuffered; "-" is standard input.  Raises Failure."""
    try:
        if path != "-":
            return open(path, "rb", buffering=0)
        if sys.stdin is None:
            raise Failure("standard input is closed", 2)
        return open(0, "rb", buffering=0, closefd=False)
    except OSError as error:
        raise Failure(f"{path}: cannot be read: {error.strerror}", 2) from None


def explained(error):
    """Return the text of an error for the user."""
    if isinstance(error, MemoryError):
        return "out of memory; no output file is changed"
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror or error}; no output file is changed"
    return str(error)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message):
        raise Failure(f"{message} (--help tells the usage)", 2)


def option(function, *arguments):
    """Return the `type` of an argparse option: function(text, *arguments)."""
    def parse(text):
        try:
            return function(text, *arguments)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return parse


def shard(text):
    """Return (K, N) of "K/N", 1 <= K <= N.  Raises ValueError."""
    k, slash, n = text.partition("/")
    k, n = whole_number(k, 1), whole_number(n, 1)
    if k > n:
        raise ValueError(f"{shown(text)} is not K/N with K from 1 to N")
    return k, n


def parse(arguments):
    """Return the parsed command line.  Raises Failure."""
    parser = Parser(
        prog="anomaly_detection.py", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] [BATCH STREAM OUTPUT]",
        description="Flag the purchases of STREAM that are anomalous within the buyer's "
                    "social network.",
        epilog="""\
BATCH, STREAM and OUTPUT are by default the project's own log_input/batch_log.json,
log_input/stream_log.json and log_output/flagged_purchases.json.

examples:
  %(prog)s batch_log.json stream_log.json flagged_purchases.json
  %(prog)s -D 3 -T 100 batch_log.json stream_log.json flagged_purchases.json
  tail -f purchases.log | %(prog)s batch_log.json - -

The last is a live monitor: with STREAM "-" and OUTPUT "-" each flagged purchase is
written as soon as it has been read.

exit status: 0 done, 1 failed midway, 2 could not start, 130 Ctrl-C, 143 SIGTERM;
unless it is 0, an existing OUTPUT is left as it was.""")
    add = parser.add_argument
    names = "batch", "stream", "output"
    add("files", nargs="*", metavar="BATCH STREAM OUTPUT", help=argparse.SUPPRESS)
    add("--batch-log", dest="batch", metavar="FILE", help="the log that builds the state")
    add("--stream-log", dest="stream", metavar="FILE",
        help='the log whose purchases are judged ("-": standard input)')
    add("--output", metavar="FILE", help='the flagged purchases ("-": standard output)')
    add("-D", "--degree", type=option(whole_number, 1), metavar="N",
        help="degrees of the network, instead of the batch log's D")
    add("-T", "--tracked", type=option(whole_number, 2), metavar="N",
        help="purchases that decide, instead of the batch log's T")
    add("--rejects", metavar="FILE", help="write every malformed line there, as it was")
    add("--strict", action="store_true", help="end at the first malformed line")
    add("--jobs", type=option(whole_number, 1), metavar="N",
        help="processes to work in (default: the processors, if the logs are large)")
    add("--shard", type=option(shard), metavar="K/N",
        help="judge only the K-th of N parts of STREAM; the outputs, joined, are the whole")
    add("--quiet", action="store_true", help="write nothing but errors to standard error")
    add("--version", action="version", version=f"%(prog)s {__version__}")
    args = parser.parse_intermixed_args(arguments)
    if len(args.files) > len(names):
        parser.error(f"too many files: {' '.join(map(shown, args.files))}")
    for name, path in zip(names, args.files):
        if getattr(args, name) is not None:
            parser.error(f"the {name} file is given twice")
        setattr(args, name, path)
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for name, default in zip(names, ("log_input/batch_log.json", "log_input/stream_log.json",
                                     "log_output/flagged_purchases.json")):
        if getattr(args, name) is None:
            setattr(args, name, os.path.join(root, *default.split("/")))
    for name in (*names, "rejects"):
        if getattr(args, name) == "":
            parser.error(f"the name of the {name} file is empty")
    if args.batch == "-":
        parser.error('BATCH cannot be "-", only STREAM can')
    return args


def check_files(args, logs):
    """Raise Failure if a file to write is a folder, or also another file of the run."""
    def identity(path):
        try:
            status = os.fstat(1) if path in STDOUT else os.stat(path)
        except OSError:
            return os.path.realpath(path)
        return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None

    taken = {}
    for log in logs:
        status = os.fstat(log.fileno())
        if stat.S_ISREG(status.st_mode):
            taken[status.st_dev, status.st_ino] = log.name
    for path in filter(None, (args.output, args.rejects)):
        if os.path.isdir(path):
            raise Failure(f"{path}: is a folder; no output file is changed", 2)
        mine = identity(path)
        if mine in taken:
            raise Failure(f"{path}: is also an input or another output; no output file is changed", 2)
        if mine:
            taken[mine] = path


def run(args, console):
    """Do what the command line asks for.  Raises Failure, OSError, MemoryError, Stopped."""
    if args.output in STDOUT and sys.stdout is None:
        raise Failure("standard output is closed", 2)
    with contextlib.ExitStack() as stack:
        batch, stream = (stack.enter_context(open_log(path)) for path in (args.batch, args.stream))
        check_files(args, (batch, stream))
        sizes = [regular_size(log) for log in (batch, stream)]
        if args.shard and sizes[1] is None:
            raise Failure("--shard needs a STREAM that is a regular file", 2)
        sizes = [size or 0 for size in sizes]
        jobs = (number_of_jobs(args.jobs, sizes[0], BATCH_PART),
                # A fork of a large state costs what judging a part of its size does.
                number_of_jobs(args.jobs, sizes[1] // (args.shard or (1, 1))[1],
                               max(STREAM_PART, sizes[0] // 24)))
        tick = console.watch(sum(size // n for size, n in zip(sizes, jobs)))
        chunks = part_lines(batch, tick=tick)
        degree, tracked, lines, chunks = read_header(args.batch, chunks, args.degree, args.tracked)
        detector = Detector(degree, tracked)
        rejects, output = (path and enter_replacement(stack, path)
                           for path in (args.rejects, args.output))

        times = [time.perf_counter()]
        first_shard = not args.shard or args.shard[0] == 1
        batch_counts = load_batch(args.batch, chunks, lines, jobs[0], detector, Sink(
            args.batch, console.report, None, first_shard and rejects, strict=args.strict), tick)
        times.append(time.perf_counter())
        name = "<stdin>" if args.stream == "-" else args.stream
        counts = judge_stream(stream, args.stream, args.shard, jobs[1], detector, Sink(
            name, console.report, output, rejects, is_direct(args.output), args.strict), tick)
        times.append(time.perf_counter())
        for file, path in (rejects, args.rejects), (output, args.output):
            if file:
                complete(file, path)    # both, before either takes its place
    console.report(
        f"anomaly_detection: batch {batch_counts.events} events ({batch_counts.skipped} skipped), "
        f"stream {counts.events} events ({counts.skipped} skipped), {counts.judged} judged, "
        f"{counts.flagged} flagged, {times[1] - times[0]:.2f} s batch + "
        f"{times[2] - times[1]:.2f} s stream; {args.output}")


def enter_replacement(stack, path):
    """Enter a replacement into an ExitStack.  Raises Failure if it cannot begin."""
    try:
        return stack.enter_context(replacement(path))
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}", 2) from None


def regular_size(file):
    """Return the size of an open log, or None if it is not a regular file."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) and file.name != 0 else None


def main(arguments=None):
    """Run the command line; return the exit status."""
    console = Console()
    stopped_by = []
    old_handlers = {}

    def stop(signal_number, frame):
        for number in old_handlers:
            signal.signal(number, signal.SIG_IGN)     # let the cleaning up finish
        stopped_by.append(signal_number)
        raise Stopped

    collecting = gc.isenabled()
    try:
        args = parse(arguments)
        console.quiet = args.quiet
        if threading.current_thread() is threading.main_thread():
            for number in signal.SIGINT, signal.SIGTERM:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    old_handlers[number] = signal.getsignal(number)
            for number in old_handlers:
                signal.signal(number, stop)
        gc.disable()        # nothing cyclic is built, and looking for it takes a third more time
        run(args, console)
        return 0
    except Stopped:
        console.say(f"anomaly_detection: stopped by {signal.Signals(stopped_by[0]).name}; "
                    "nothing is written")
        return 128 + stopped_by[0]
    except KeyboardInterrupt:
        return 130
    except (Failure, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError) and error.filename == args.output:
            return 0        # who reads it has enough
        console.say(f"anomaly_detection: {explained(error)}")
        return getattr(error, "status", 1)
    finally:
        console.write(console.clear())
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
        gc.unfreeze()
        if collecting:
            gc.enable()


if __name__ == "__main__":
    # All is written: taking millions of objects apart would only cost time.
    os._exit(main())
