#!/usr/bin/env python3
"""Flag anomalous purchases within a social network.

The rule.  A purchase is anomalous if its amount is greater than mean + 3 * sd of
the last T purchases in the buyer's D-degree network: friends for D = 1, friends
of friends too for D = 2, and so on, never the buyer.  "Last" is by timestamp,
and for equal timestamps by position in the logs.  Only purchases on earlier lines
count.  sd is the population standard deviation.  With fewer than 2 purchases in
the network nothing is flagged.

The algorithm.  Friendships are a dict of sets, and each user's purchases a sorted
list or deque of at most T tuples (timestamp, seq, amount).  For each purchase a
breadth-first search lists the network (`SocialNetwork.network`), and a k-way
merge of the users' histories yields the last T amounts (`PurchaseHistory.last`).
This takes O(F + U + T log U) for the U users and F friendships within D degrees.
`Detector.plain_flag` is the rule, and the notes before `Detector` describe its
short-cuts.  Amounts are exact cents: int, or Fraction if finer than a cent.  No
float decides a flag or prints an amount.

The path of a line from the log to the outputs:

    Log.chunks    yields the bytes of whole lines, from a file or a pipe
    replay        applies their events to the Detector, and yields Findings
    judge         does the same for STREAM, judging each purchase before it is recorded
    Output.take   writes those Findings that belong in the output
    Run           opens, loads, judges, writes and summarizes

The sections of this file, each of which uses only those above it:

* values: amounts, timestamps and ids as the logs have them
* social network: who is whose friend, and who is within D degrees
* purchase history: the last purchases of every user, and of a network
* verdict: mean, sd and the rule, and Detector, the library's main class
* files: what a path names, waiting for it, and how new content takes an old file's place
* logs: JSON lines in, Findings out; a new event type is a row in EVENTS and a method
* outputs: what a run writes; a new one is one class in the list OUTPUTS
* report: the page that --report writes
* signals: Ctrl-C, SIGTERM and SIGHUP
* workers: parts of a stream judged side by side, their results joined in order
* run: the steps of a run, and the one table that says how it ends
* command line: options and files
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # no traceback from the imports below

# Modules for some runs only are imported where used: start-up takes longer than a short log.
import argparse
import contextlib
import errno
import gc
import io
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
from heapq import merge, nlargest
from itertools import (
    accumulate, chain, combinations, compress, count, islice, repeat, starmap, takewhile)
from math import isqrt, log10
from operator import add, eq, itemgetter, mul

__all__ = ["Detector", "load", "save", "read_event", "Flag", "Malformed", "Failure", "main",
           "SocialNetwork", "PurchaseHistory",
           "amount_in_cents", "normalized_timestamp", "dollars"]
__version__ = "1.3.0"


# ---------------------------------------------------------------------- values

class Malformed(ValueError):
    """A value or a line that cannot be read.  Malformed lines are counted by their `kind`."""

    def __init__(self, kind, rest=""):
        super().__init__(kind + rest)
        self.kind = kind


_USUAL_AMOUNT = re.compile(r"[0-9]{1,15}\.[0-9]{2}")
_AMOUNT = re.compile(r"(-?[0-9]{1,15})(?:\.([0-9]{1,30}))?(?:[eE]([+-]?[0-9]{1,2}))?")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T](?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(?:[.,]([0-9]{1,9}))?"
    r"(?: UTC| ?(?:Z|([+-](?:[01][0-9]|2[0-3]))(?::?([0-5][0-9]))?))?")
_ID_NUMBER = re.compile(r"-?([0-9]{1,100})(?:\.([0-9]{1,99}))?(?:[eE][+-]?[0-9]{1,3})?")


def amount_in_cents(text):
    """Return an amount in exact cents: an int, or a Fraction if it is finer than a cent.

    Raises Malformed unless text is `-?` and 1-15 digits, then optionally `.` and 1-30 digits,
    then optionally an exponent: `[eE][+-]?` and 1-2 digits.

    >>> amount_in_cents("16.83"), amount_in_cents("-2e1"), amount_in_cents("0.125")
    (1683, -2000, Fraction(25, 2))
    """
    if _USUAL_AMOUNT.fullmatch(text):
        return int(text.replace(".", ""))
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
    """Return a timestamp in UTC as text that sorts by time.  Equal times give equal texts.

    It is `YYYY-MM-DD HH:MM:SS`, then `.` and the fraction of the second unless that is 0.
    Raises Malformed unless text is a time of the years 1 to 9999 in that form, optionally with
    T for the blank, a fraction after `.` or `,` and a zone: Z, UTC, +02:00, +0200 or +02.

    >>> normalized_timestamp("2017-06-13T01:33:01,50+02:00")
    '2017-06-12 23:33:01.5'
    """
    match = _TIMESTAMP.fullmatch(text)
    try:
        fraction, hours, minutes = match.groups("0")
        second = datetime.fromisoformat(text[:19])
        if hours != "0":
            second -= timedelta(hours=int(hours), minutes=int(hours[0] + minutes))
    except (AttributeError, ValueError, OverflowError):
        raise Malformed("timestamp", f" {quoted(text)} is not a real YYYY-MM-DD HH:MM:SS, "
                        "optionally with T, a fraction like .5 and a zone like Z or +02:00"
                        ) from None
    return f"{second}.{fraction}".rstrip("0").rstrip(".")


def plain_number(text):
    """Return the id that a JSON number stands for: its shortest plain decimal text.

    A number of more than 100 digits, written or plain, or of more than 3 in its exponent is
    returned unchanged.

    >>> [plain_number(text) for text in ("7", "70e-1", "1.50", "-0.0", "1e3", "1e999")]
    ['7', '7', '1.5', '0', '1000', '1e999']
    """
    match = _ID_NUMBER.fullmatch(text)
    if not match or len("".join(match.groups(""))) > 100:
        return str(text)
    from decimal import Decimal
    plain = f"{Decimal(text) or Decimal(0):f}"      # exact, and "0" for "-0.0"
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return plain if sum(map(str.isdigit, plain)) <= 100 else str(text)


def dollars(cents):
    """Return exact cents as dollars: text with two decimals, or as many as a Fraction needs.

    Raises ValueError if no finite decimal equals the amount.

    >>> dollars(2910), dollars(-5), dollars(0), dollars(amount_in_cents("-0.1250"))
    ('29.10', '-0.05', '0.00', '-0.125')
    """
    if pow(10, 999, cents.denominator):     # not 0 if a prime other than 2 and 5 divides it
        raise ValueError(f"{cents} has no finite decimals")
    decimals, scale = 2, 1
    while scale % cents.denominator:
        decimals, scale = decimals + 1, scale * 10
    digits = str(int(abs(cents) * scale)).rjust(decimals + 1, "0")
    return f"{'-' if cents < 0 else ''}{digits[:-decimals]}.{digits[-decimals:]}"


def amount_text(cents):
    """Return `dollars(cents)`, but with an exponent if it is too long for `amount_in_cents`."""
    text = dollars(cents)
    whole, decimals = text.lstrip("-").split(".")
    # One of these terms is 0, since an amount has at most 45 significant digits.
    exponent = max(len(whole) - 15, 0) + min(30 - len(decimals), 0)
    if not exponent:
        return text
    from fractions import Fraction
    return f"{dollars(cents / Fraction(10) ** exponent)}e{exponent}"


# as_json(text, list of texts or bool) returns JSON, with only the escapes that JSON requires.
as_json = json.JSONEncoder(ensure_ascii=False).encode


def quoted(text):
    """Return text in quotes, cut to 60 characters, with all but printable ASCII escaped."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")


def printable(text):
    """Return text with unprintable characters escaped, such as those that move the cursor."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Memo(dict):
    """A dict with Memo(function)[x] == function(x), which is cleared after `limit` results.

    A hit takes half the time of an `lru_cache` hit.
    """

    def __init__(self, function, limit=1 << 16):
        super().__init__()
        self.function, self.limit = function, limit

    def __missing__(self, key):
        if len(self) >= self.limit:
            self.clear()
        value = self[key] = self.function(key)
        return value


# Frequent equal texts become one object, to save memory.  (sys.intern keeps them for ever.)
same_text = Memo(str)


# -------------------------------------------------------------- social network

class SocialNetwork:
    """The mutual friendships of users.  A user is an id (str).

    >>> social = SocialNetwork()
    >>> social.befriend("1", "2"); social.befriend("2", "3")
    >>> sorted(social.network("1", 1)), sorted(social.network("1", 2))
    (['2'], ['2', '3'])
    """

    def __init__(self):
        self.friends = defaultdict(set)     # user -> set of friends, never an empty one
        self.neighbors = Neighbors(self.friends)

    def befriend(self, id1, id2):
        """Make two users friends.  Raises Malformed if they are the same user."""
        if id1 == id2:
            raise Malformed("id1 and id2", f" are both {quoted(id1)}")
        id1, id2 = same_text[id1], same_text[id2]
        self.friends[id1].add(id2)
        self.friends[id2].add(id1)
        self.neighbors.pop(id1, None)
        self.neighbors.pop(id2, None)

    def unfriend(self, id1, id2):
        """End a friendship, if there is one.  Raises Malformed if the ids are equal."""
        self.befriend(id1, id2)     # checks the ids, and ensures that there is one to end
        for user, friend in (id1, id2), (id2, id1):
            self.friends[user].remove(friend)
            if not self.friends[user]:
                del self.friends[user]
            elif sys.getsizeof(self.friends[user], 0) > 256 * len(self.friends[user]):
                self.friends[user] = set(self.friends[user])    # a set itself never shrinks

    def change(self, event_types, ids1, ids2):
        """Apply "befriend" and "unfriend" events of different users, given as columns.

        Equals `for name, *ids in zip(event_types, ids1, ids2): getattr(self, name)(*ids)`.
        """
        ids1, ids2 = (map(same_text.__getitem__, ids) for ids in (ids1, ids2))
        for event_type, id1, id2 in zip(event_types, ids1, ids2):
            if event_type == "befriend":
                self.friends[id1].add(id2)
                self.friends[id2].add(id1)
            else:
                self.unfriend(id1, id2)
        self.neighbors.clear()

    def network(self, user, degree):
        """Return the set of users at distance 1..degree from the user."""
        return set().union(*self.rings(user, degree))

    def rings(self, user, degree):
        """Yield the sets of users at distance 1, 2, ..., degree from the user.

        Stops before the first empty set.  Callers must not change the first set, which is the
        user's own set of friends.
        """
        seen, ring = {user}, self.friends.get(user)
        while ring and degree:
            yield ring
            degree -= 1
            if degree:
                seen |= ring
                ring = set().union(*map(self.neighbors.__getitem__, ring)) - seen

    def audience(self, user, degree):
        """Return (friends, recommend): the user's friends, sorted by id, and the other users of
        the network, sorted by distance, then by friends in common (most first), then by id.
        """
        friends, *further = list(self.rings(user, degree)) or [()]
        common = Counter(chain.from_iterable(map(self.friends.__getitem__, friends)))
        recommend = []
        for ring in further:
            recommend += sorted(sorted(ring), key=common.__getitem__, reverse=True)
        return sorted(friends), recommend

    def ball(self, user, degree, budget=sys.maxsize):
        """Return (ball, hops_left).  The ball is the users at distance 1..degree - hops_left.

        The search stops early, with hops_left > 0, at a distance with more than budget / 8
        users or more than `budget` friendships.  (With budget / 2, D = 3 takes 20-60 % longer.)
        Callers must not change the ball, which can be the user's own set of friends.
        """
        ball = ring = self.friends.get(user, set())
        hops_left, neighbors_of = degree - 1, self.neighbors.__getitem__
        while hops_left and 8 * len(ring) <= budget and (
                sum(map(len, map(neighbors_of, ring))) <= budget):
            if ball is ring or hops_left == 1:
                inner, ball = ball, ball.union(*map(neighbors_of, ring))
                ball.discard(user)
                ring = ball - inner if hops_left > 1 else ()
            else:       # the same in place: a copy at each distance would take quadratic time
                ring = set().union(*map(neighbors_of, ring)) - ball
                ring.discard(user)
                ball |= ring
            hops_left = hops_left - 1 if ring else 0
        return ball, hops_left


class Neighbors(dict):
    """A dict of user -> `friends.get(user, ())`, as a tuple if these are fewer than 256.

    With sets instead of tuples, judging takes 15 % longer if D = 3.
    """

    def __init__(self, friends):
        super().__init__()
        self.friends = friends

    def __missing__(self, user):
        users = self.friends.get(user, ())
        self[user] = users = tuple(users) if len(users) < 256 else users
        return users


class NetworkMembership(dict):
    """A dict of v -> `v in social.network(user, degree)`, which avoids listing the network.

    ball and hops_left are what social.ball(user, degree, ...) returned: the network is the
    users at most hops_left steps from the ball, except `user`.  After `budget` users have been
    tested or met in searches, as in long chains of users, the network is listed.
    """

    def __init__(self, social, user, degree, ball, hops_left, budget):
        super().__init__()
        self[user] = False
        self.social, self.user, self.degree = social, user, degree
        self.ball, self.hops_left, self.budget = ball, hops_left, budget

    def network(self):
        """Return the network as a set.  Later answers are look-ups in that set."""
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
        """Search from v, and return whether it is 2..hops_left steps from the ball."""
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

    A purchase is a tuple (timestamp, seq, amount): the normalized timestamp, the
    number of purchases recorded before it, and exact cents.

    Columns of purchases wait until a history is needed, which is never in most short streams.

    >>> history = PurchaseHistory(tracked=2)
    >>> for amount in "1.00", "2.00", "3.00":
    ...     history.record("1", "2017-06-13 11:33:01", amount)
    >>> list(history.last(["1"], 2))
    [('2017-06-13 11:33:01', 2, 300), ('2017-06-13 11:33:01', 1, 200)]
    """

    max_waiting = 1 << 19       # purchases in columns, which take about 80 bytes each
    usual_amounts = re.compile("{0}(?:\n{0})*".format(_USUAL_AMOUNT.pattern))

    def __init__(self, tracked):
        self.tracked = tracked
        self.histories = {}     # `by_user` without the purchases that wait
        self.waiting = deque()  # columns: (newest before, first seq, users, timestamps, lines)
        self.later = deque()    # (user, purchase) of those recorded since columns wait
        self.recorded = 0       # the next purchase's seq
        self.newest = ""        # the latest timestamp recorded
        self.buyers = 0         # how many have bought or, while columns wait, bought recently
        self._recent_purchases = None
        self.timestamps, self.amounts = Memo(normalized_timestamp), Memo(amount_in_cents)

    def record(self, user, timestamp, amount):
        """Add a purchase, given as texts, and drop the user's oldest above `tracked`.

        Raises Malformed, and adds nothing, if the timestamp or the amount is not valid.
        """
        timestamp = self.timestamps[timestamp]
        purchase = (timestamp, self.recorded, self.amounts[amount])
        self.recorded += 1
        self.newest = max(self.newest, timestamp)
        if self.waiting and 4 * len(self.later) < self.max_waiting:
            self.later.append((same_text[user], purchase))
        else:
            self.take_in()
            self.put(user, purchase)
        if self._recent_purchases is not None:
            self._recent_purchases.add(purchase, user)

    def record_all(self, users, timestamps, amounts):
        """Add purchases, given as columns of texts, or none if a value is not valid.

        Equals `for purchase in zip(users, timestamps, amounts): record(*purchase)` otherwise.
        """
        if self.later or self.waiting and self.recorded > self.waiting[0][1] + self.max_waiting:
            self.take_in()
        timestamps, lines = [self.timestamps[text] for text in timestamps], "\n".join(amounts)
        if not self.usual_amounts.fullmatch(lines) or lines.count("\n") != len(amounts) - 1:
            list(map(self.amounts.__getitem__, amounts))        # raises Malformed for others
        self.waiting.append((self.newest, self.recorded, users, timestamps, lines))
        self.recorded += len(users)
        self.newest = max([self.newest, *timestamps])
        self._recent_purchases = None       # building pages again is faster than feeding them

    def rows(self, newest, seq, users, timestamps, lines):
        """Return an iterator over (user, purchase) of columns that wait."""
        amounts = map(self.amounts.__getitem__, lines.split("\n"))
        return zip(users, zip(timestamps, count(seq), amounts))

    def take_in(self):
        """Put all purchases that wait into the histories."""
        while self.waiting:
            for user, purchase in self.rows(*self.waiting.popleft()):
                self.put(user, purchase)
        while self.later:
            self.put(*self.later.popleft())

    def put(self, user, purchase):
        """Put a purchase into its user's history."""
        purchases = self.histories.get(user)
        if purchases is None:
            purchases = self.histories[same_text[user]] = []
            self.buyers = len(self.histories)
        if purchases and purchase < purchases[-1]:
            insort(purchases, purchase)
        else:
            purchases.append(purchase)
        if len(purchases) > self.tracked:
            if type(purchases) is list:     # short lists take one eighth of a deque's memory
                purchases = self.histories[user] = deque(purchases)
            purchases.popleft()

    @property
    def by_user(self):
        """The histories of all users: a dict of user -> purchases, oldest first."""
        self.take_in()
        return self.histories

    def last(self, users, count):
        """Return an iterator over the last `count` purchases of the users, newest first.

        Equals `iter(nlargest(count, (p for user in users for p in by_user.get(user, ()))))`.
        Only the `count` histories with the newest last purchases can contribute.  Dropping the
        others, and sorting short ones instead of merging, takes 50-70 % less time for 100,000s
        of users.
        """
        histories = list(filter(None, map(self.by_user.get, users)))
        if len(histories) > count:
            histories = nlargest(count, histories, key=itemgetter(-1))
        if sum(map(len, histories)) <= count:
            return iter(sorted(chain.from_iterable(histories), reverse=True))
        return islice(merge(*map(reversed, histories), reverse=True), count)

    def recent_purchases(self):
        """Return the RecentPurchases, which `record` keeps up to date after the first call.

        Any cut-off `since` is correct.  The one chosen roughly fills the pages: the first of
        the last columns or, if these are too few, one from a sample of up to 1,024 users.
        """
        if self._recent_purchases is None:
            recent, since = self.last_waiting(), ()
            self.buyers, size = max(self.buyers, len(recent)), sum(map(len, recent.values()))
            if 2 * size <= min(self.recorded, RecentPurchases.capacity):
                step, recent = len(self.by_user) // 1024 + 1, self.by_user
                *_, since = (), *self.last(islice(recent, 0, None, step),
                                           -(-RecentPurchases.capacity // step))
            self._recent_purchases = RecentPurchases(recent, since)
        return self._recent_purchases

    def last_waiting(self):
        """Return {user: purchases} of the last columns, and of what was recorded later.
        Purchases older than one that was recorded before these columns are left out."""
        since, recent = self.recorded - RecentPurchases.capacity, defaultdict(list)
        last = [columns for columns in self.waiting if columns[1] >= since]
        for user, purchase in chain(*starmap(self.rows, last), self.later if last else ()):
            if purchase[0] >= last[0][0]:
                recent[same_text[user]].append(purchase)
        return recent


class RecentPurchases:
    """The recent purchases of all users, on pages of a few thousand, the oldest page first.

    Invariant: of the purchases in the histories, the pages lack only those older than the first
    page.  So the last T purchases of a network on the pages are its newest ones.  (A page can
    hold a purchase that its user's history has dropped.  T newer ones of that user are on the
    pages.)
    """

    page_size, capacity = 2048, 2048 * 8    # in purchases; a page holds up to twice page_size

    def __init__(self, histories, since):
        """Take in {user: purchases} from `since`, a purchase or (), onwards."""
        held = [(purchase, user) for user, purchases in histories.items()
                if purchases[-1] >= since       # skip the many users who bought long ago
                for purchase in takewhile(since.__le__, reversed(purchases))]
        held.sort(key=itemgetter(0))
        self.pages = [Page(*map(list, zip(*held[start:start + self.page_size])))
                      for start in range(0, len(held), self.page_size)] or [Page([], [])]

    def add(self, purchase, user):
        """Add a purchase to its page, unless it is older than the first page.

        A page above twice page_size is split, and the oldest pages beyond the capacity are
        dropped.
        """
        for place in range(len(self.pages) - 1, -1, -1):
            page = self.pages[place]
            if purchase >= page.since:
                page.add(purchase, same_text[user])
                if len(page.purchases) > 2 * self.page_size:
                    self.pages[place:place + 1] = page.halves()
                    del self.pages[:-(self.capacity // self.page_size)]
                break

    def walk(self, belongs):
        """Return an iterator over the purchases with belongs(buyer), newest first.

        It ends after three pages, since going further rarely pays: the time of a run differs by
        less than 10 % between 1 and 8 pages.
        """
        return chain.from_iterable(
            compress(reversed(page.purchases), map(belongs, reversed(page.buyers)))
            for page in self.pages[:-4:-1])

    def look_up(self, network, count):
        """Yield the last `count` purchases of a network, or all those on the pages if these are
        fewer.  The newest page comes first, and the purchases of a page come in any order.
        """
        for page in reversed(self.pages):
            found = list(filter(None, map(page.by_user.get, network)))
            there = sum(map(len, found))
            if there > 8 * count:       # sort at most the last `count` purchases of each user
                found = [purchases[-count:] for purchases in found]
            if there >= count:
                yield from sorted(chain.from_iterable(found))[-count:]
                break
            yield from chain.from_iterable(found)
            count -= there


class Page:
    """The purchases from `since` up to the next page, oldest first.  `buyers` holds the user of
    each purchase, and `by_user` is a dict of user -> purchases, oldest first.
    """

    def __init__(self, purchases, buyers):
        self.purchases, self.buyers, self.by_user = purchases, buyers, {}
        self.since = purchases[0] if purchases else ()
        for purchase, user in zip(purchases, buyers):
            self.by_user.setdefault(user, []).append(purchase)

    def add(self, purchase, user):
        """Insert a purchase in order."""
        place = bisect(self.purchases, purchase)
        self.purchases.insert(place, purchase)
        self.buyers.insert(place, user)
        insort(self.by_user.setdefault(user, []), purchase)

    def halves(self):
        """Return two pages with the older and the newer half of the purchases."""
        half = len(self.purchases) // 2
        return (Page(self.purchases[:half], self.buyers[:half]),
                Page(self.purchases[half:], self.buyers[half:]))


# --------------------------------------------------------------------- verdict

# The mean and sd of a window in int cents, truncated.
Flag = namedtuple("Flag", "mean sd")


def flag_of(n, total, squares):
    """Return the Flag of n amounts, given by their sum and sum of squares.

    mean = total/n and sd = sqrt(V)/n, where V = n*squares - total**2, both truncated toward
    zero to whole cents.  floor(sqrt(V)/n) == isqrt(floor(V)) // n.

    >>> flag_of(3, 1683 + 5928 + 1120, 1683**2 + 5928**2 + 1120**2)
    Flag(mean=2910, sd=2146)
    """
    mean = int(abs(total) // n)
    return Flag(mean if total >= 0 else -mean, isqrt(int(n * squares - total * total)) // n)


def cannot_be_flagged(amount, n, total, squares, size, a=9, b=1):
    """Return whether amount <= mean + N sd in every window of up to `size` amounts that holds
    n known ones.  These are given by their sum and sum of squares, and N by N^2 = a/b.

    With n == size this is the rule itself.  Let the known amounts have mean m and standard
    deviation s, and let there be u = size - n unknown ones.  Among unknown amounts with a given
    sum, equal ones give the least sd.  If each of them is m - x, the limit mean + N sd is
    m - x u/size + N sqrt(s^2 n/size + x^2 u n/size^2).  Over all x its least value is
    m + s sqrt((1 + N^2) n/size - 1), or there is none if the radicand is negative.  The
    least value falls as size grows, so it is a lower bound for smaller windows too.
    """
    over = n * amount - total                       # n (amount - m)
    known = (a + b) * n - b * size                  # b size ((1 + N^2) n / size - 1)
    return known >= 0 and (
        over <= 0 or b * size * over * over <= known * (n * squares - total * total))


# Algorithm notes.  Three short-cuts avoid listing the network, of n users, and merging their
# histories to find the window, its last T purchases.
#
# RecentPurchases keeps about the last 16,000 purchases of all users in order, on 8 pages.  If U
# users have bought, all equally often, the window lies in the last `span` = T U / n purchases:
# 1,700 if T = 50, U = 10,000 and n = 300.  `walk` goes back through these purchases and tests
# whether each buyer belongs to the network.  `look_up` looks up each of the n users on each
# page.  Neither visits n histories.  A purchase with an older timestamp than others is inserted
# in order, moving up to T entries of its user's history, and up to 4,096 of a page.
#
# If a distance has too many users or friendships, the network is not listed (`ball`).  The
# users found until then are the ball.  A buyer whom `walk` meets belongs to the network if
# and only if a search from the buyer meets the ball within the remaining degrees
# (NetworkMembership).  `walk` meets a few dozen buyers, so the cost hardly grows with D.
#
# A part of the window often proves that a purchase is normal.  Unknown amounts cannot lower the
# mean far without raising the sd: if 10 of 50 amounts have mean m and sd s, then mean + 3 sd
# of all 50 is at least m + s (`cannot_be_flagged`).  This settles 9 of 10 purchases.  Therefore
# `window` takes the amounts in batches from lazy sources, T / 5 amounts first.

def check_texts(**arguments):
    """Raise TypeError or ValueError that names the first argument that is no text, or empty."""
    for name, value in arguments.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}, not a str")
        if not value:
            raise Malformed(name, " is empty")


class Detector:
    """Judges each purchase against the earlier purchases in its buyer's network.

    degree and tracked, ints, are D (>= 1) and T (>= 2) of the rule.  A purchase is flagged
    above mean + deviations * sd, where deviations (>= 0) is anything that Fraction() accepts.
    Raises ValueError for other values.

    Ids, timestamps and amounts are texts as in the logs.  The methods that take them raise
    TypeError for another type, and ValueError (Malformed) for a text that is not valid, before
    anything is changed.

    >>> detector = Detector(degree=1, tracked=50)
    >>> detector.befriend("ann", "bob")
    >>> for amount in "16.83", "59.28", "11.20":
    ...     detector.purchase("ann", "2017-06-13 11:33:01", amount)
    >>> detector.purchase("bob", "2017-06-13 11:33:02", "1601.83")
    Flag(mean=2910, sd=2146)
    """

    # Ratios of costs, measured on random graphs with 10,000 users of mean degree 18, T = 50.
    # With 16 in place of 4, D = 3 takes 20-30 % longer.  So does D = 2 with 3 in place of 12.
    search_to_list = 4      # cost of searching from a buyer / cost of listing a friendship
    look_up_to_walk = 12    # cost of looking up a user / cost of walking past a purchase

    def __init__(self, degree, tracked, deviations=3):
        self.limit = f"mean + {deviations} sd"      # for messages
        if type(deviations) is not int:
            from fractions import Fraction
            try:
                deviations = Fraction(deviations)
            except (TypeError, ValueError, ArithmeticError):
                raise ValueError(f"deviations is {deviations!r}, not a number") from None
        for name, value, least in (("degree", degree, 1), ("tracked", tracked, 2)):
            if type(value) is not int or value < least:
                raise ValueError(f"{name} is {value!r}, not an int from {least} up")
        if deviations < 0:
            raise ValueError(f"deviations is {deviations}, not a number from 0 up")
        self.degree, self.tracked, self.deviations = degree, tracked, deviations
        self.least_tracked = tracked    # of this Detector and of snapshots that it comes from
        self.skipped, self.reason = 0, ""           # see `load`
        self.deviations_squared = deviations.numerator ** 2, deviations.denominator ** 2
        self.social, self.history = SocialNetwork(), PurchaseHistory(tracked)

    def befriend(self, id1, id2):
        """Make two users friends.  Raises ValueError if they are the same user."""
        check_texts(id1=id1, id2=id2)
        self.social.befriend(id1, id2)

    def unfriend(self, id1, id2):
        """End a friendship, if there is one.  Raises ValueError if the ids are equal."""
        check_texts(id1=id1, id2=id2)
        self.social.unfriend(id1, id2)

    def record(self, user, timestamp, amount):
        """Record a purchase without judging it."""
        check_texts(user=user, timestamp=timestamp, amount=amount)
        self.history.record(user, timestamp, amount)

    def purchase(self, user, timestamp, amount):
        """Judge a purchase, then record it.  Return its `plain_flag`."""
        check_texts(user=user, timestamp=timestamp, amount=amount)
        flag, *_ = self.verdict(user, self.history.amounts[amount])
        self.record(user, timestamp, amount)
        return flag

    def plain_window(self, user):
        """Return the user's window, the last T purchases in the network, newest first.  Each is
        given as (purchase, buyer).
        """
        by_user, network = self.history.by_user, self.social.network(user, self.degree)
        buyers = [buyer for buyer in network if buyer in by_user]
        # Only the T users who bought last can contribute.
        buyers = nlargest(self.tracked, buyers, key=lambda buyer: by_user[buyer][-1])
        purchases = [(purchase, buyer) for buyer in buyers for purchase in by_user[buyer]]
        return nlargest(self.tracked, purchases)

    def plain_flag(self, user, amount):
        """Return the Flag of the user's window if `amount` cents are anomalous, else None.

        This is the rule as it is defined.  `verdict` takes short-cuts to the same Flag.
        """
        from fractions import Fraction
        from statistics import mean, pvariance
        window = self.plain_window(user)
        amounts = [Fraction(cents) for (timestamp, seq, cents), buyer in window]
        if len(amounts) < 2:
            return None
        above, variance = amount - mean(amounts), pvariance(amounts)
        if above <= 0 or above ** 2 <= self.deviations ** 2 * variance:
            return None
        return Flag(int(mean(amounts)), isqrt(int(variance)))

    def verdict(self, user, amount, whole=False):
        """Return (plain_flag(user, amount), n, total, squares), the last three of which are the
        number, the sum and the sum of squares of the amounts in the user's window.

        Unless `whole`, they may be those of 2 or more amounts that prove `amount` normal.
        """
        n = total = squares = 0
        for amounts in self.window(user):
            n += len(amounts)
            total += sum(amounts)
            squares += sum(map(mul, amounts, amounts))
            if n > 1 and not whole and cannot_be_flagged(
                    amount, n, total, squares, self.tracked, *self.deviations_squared):
                return None, n, total, squares
        if n < 2 or cannot_be_flagged(amount, n, total, squares, n, *self.deviations_squared):
            return None, n, total, squares
        return flag_of(n, total, squares), n, total, squares

    def window(self, user):
        """Yield the amounts of `plain_window(user)` in batches, not always in that order: lists
        of T / 5 amounts, then 2 T / 5, and so on.
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

    def window_sources(self, user):
        """Yield iterators over the purchases of the user's network, cheapest first.

        A block is the purchases of the network on one page of RecentPurchases.  Each iterator
        yields newer blocks before older ones, and the purchases of a block in any order.  All
        but the last iterator may stop at the end of a block.  If one stops after n purchases,
        they are, in some order, also the first n of the next one, and `window` skips these.
        """
        history, users_times_tracked = self.history, self.history.buyers * self.tracked
        # Listing F friendships pays if F < search_to_list * span, where span is about T U / F.
        budget = isqrt(self.search_to_list * users_times_tracked) + 1
        ball, hops_left = self.social.ball(user, self.degree, budget)
        if not ball:
            return
        recent_purchases, network = history.recent_purchases(), ball    # a part, if hops_left
        span = users_times_tracked // len(ball)
        if hops_left:
            membership = NetworkMembership(
                self.social, user, self.degree, ball, hops_left, budget)
            yield recent_purchases.walk(membership.__getitem__)
            network = membership.network()
        elif span < self.look_up_to_walk * len(network):
            yield recent_purchases.walk(network.__contains__)
        # Looking up pays if the pages hold at least a quarter of the window.  Without
        # look_up, D = 3 takes 70 % longer on sparse graphs.
        elif span < min(history.recorded, 4 * recent_purchases.capacity):
            yield recent_purchases.look_up(network, self.tracked)
        yield history.last(network, self.tracked)


# ----------------------------------------------------------------------- files

class Failure(Exception):
    """An error to report to the user: a message of one line, and the run's exit status."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


NO_MEMORY = MemoryError, SystemError        # what Python raises for lack of memory


def explained(error):
    """Return the message that reports an error to the user."""
    name = getattr(error, "filename", None)
    if isinstance(error, NO_MEMORY):
        reason = "out of memory"
    elif isinstance(error, ImportError):
        reason = f"a part of Python cannot be loaded, perhaps for lack of memory: {error}"
    else:
        reason = getattr(error, "strerror", None) or str(error)
    return f"{name}: {reason}" if name else reason


def ignore(*arguments):
    """Do nothing."""


def close(file):
    """Close a file unless it is None.  Ignore errors: outputs are flushed before closing."""
    with contextlib.suppress(OSError, AttributeError):
        file.close()


def sync(number):
    """Write what a descriptor has received to disk, where the file system offers that."""
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise


def sync_folder(path):
    """Write the names in a folder to disk, like `sync`, unless the folder cannot be read."""
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        sync(number)
    finally:
        os.close(number)


CHUNK = 1 << 16     # bytes read at once
WAIT = 200      # milliseconds at most that a run waits for a file without a look for a signal


def wait_for(file, writing=False, milliseconds=WAIT):
    """Wait until a file can be read, or written.  Return the events that poll reports, or 0 if
    the time runs out first."""
    import select
    poll = select.poll()
    poll.register(file, select.POLLOUT if writing else select.POLLIN)
    return sum(events for _, events in poll.poll(milliseconds))


STANDARD = {0: "standard input", 1: "standard output", 2: "standard error"}


def descriptor(path, standard=1):
    """Return the number of the open descriptor that a path names, or None.  "-" is `standard`.

    >>> descriptor("-"), descriptor("/dev/fd/2"), descriptor("flags.json")
    (1, 2, None)
    """
    for _ in range(40):             # symbolic links: /dev/stdout -> /proc/self/fd/1
        match = re.fullmatch(rf"/(?:dev|proc/(?:self|{os.getpid()}))/fd/([0-9]+)", path)
        if match or path == "-":
            return int(match[1]) if match else standard
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            break
    return None


class Place:
    """What a path on the command line names, found out before anything is opened.

    option: "BATCH", "STREAM", "OUTPUT" or an option such as "--report"
    number: the descriptor that the path names, or None
    called: what messages call it
    target: the path without symbolic links
    status: its os.stat_result, or None if there is no such file

    Raises Failure if the descriptor is not open, and if no file can be there, as below a file.
    """

    def __init__(self, option, path, standard=0):
        self.option, self.path = option, os.fspath(path)
        self.target = path = self.path
        self.number, self.status = descriptor(path, standard), None
        self.called = STANDARD.get(self.number, path)
        try:
            if self.number is None:
                self.target = os.path.realpath(path)
            self.status = os.stat(self.target if self.number is None else self.number)
        except FileNotFoundError:
            if self.target == path and not os.path.isabs(path):
                raise Failure(f"{path}: the working folder has been deleted", 2) from None
        except (OSError, OverflowError) as error:
            if self.number is not None:
                raise Failure(f"{self.called} is closed", 2) from None
            verb = "written" if standard else "read"
            raise Failure(f"{path}: cannot be {verb}: {error.strerror}", 2) from None

    def has_mode(self, test):
        """Return whether there is a file, and test(its mode), a function of the module stat."""
        return self.status is not None and test(self.status.st_mode)

    def is_same(self, earlier):
        """Return whether two places collide, because they are the same.

        Two options may name one device, and two outputs may name one FIFO.
        """
        if self.number is not None and self.number == earlier.number:
            return True
        if self.status is None or earlier.status is None:
            return self.target == earlier.target
        is_pipe = earlier.option in ("BATCH", "STREAM") and self.has_mode(stat.S_ISFIFO)
        return ((is_pipe or self.has_mode(stat.S_ISREG))
                and os.path.samestat(self.status, earlier.status))


class OutputFile(Place):
    """A place that a run writes to.

    New content goes to a temporary file beside the old file, and `replace` puts it in the old
    file's place.  Where no file can be made, the temporary file is in the system's folder for
    such files (TMPDIR), or in memory.  Only a `direct` place is written at once: standard
    output, another open descriptor, a pipe or a device.

    waiting() is called every WAIT milliseconds while a direct place waits for its reader, and
    raises what ends the wait.  warn(text) tells the user.
    """

    def __init__(self, option, path, waiting=ignore, warn=ignore):
        super().__init__(option, path, 1)
        self.waiting, self.warn = waiting, warn
        self.direct = self.number is not None or self.status and not self.has_mode(stat.S_ISREG)
        self.old = self.file = self.temporary = None
        self.old_head = b""         # the old file's first bytes
        self.written = False        # whether a reader may already see new content

    def open(self):
        """Open the old file, if there is one, and the new one.  Raises Failure."""
        try:
            if os.path.basename(self.path) in ("", ".", "..") or self.has_mode(stat.S_ISDIR):
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            if self.direct:
                self.file = self.open_direct()
            else:
                if self.status:
                    self.old = open(self.target, "r+b", buffering=0)
                    self.old_head = os.pread(self.old.fileno(), CHUNK, 0)
                self.open_temporary()
        except OSError as error:
            raise Failure(f"{self.called}: cannot be written: {error.strerror}", 2) from None

    def lock(self):
        """Lock the old file until `discard`.  Raises Failure if another run has done so, or has
        replaced it since it was opened."""
        import fcntl
        locked = True
        if not self.old:
            return
        with contextlib.suppress(OSError):          # a file system without locks
            try:
                fcntl.flock(self.old, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = os.path.samestat(os.stat(self.target), os.fstat(self.old.fileno()))
            except BlockingIOError:
                locked = False
        if not locked:
            raise Failure(f"{self.called}: another run is using it", 2)

    def open_direct(self):
        """Return the opened file.  Wait until a FIFO has a reader."""
        if self.number is not None:
            import fcntl
            if not fcntl.fcntl(self.number, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR):
                raise OSError(errno.EBADF, "it is open for reading only")
            return open(os.dup(self.number), "wb", buffering=0)
        while True:
            try:
                return open(self.path, "wb", buffering=0, opener=without_waiting)
            except OSError as error:
                if error.errno != errno.ENXIO or not self.has_mode(stat.S_ISFIFO):
                    raise
            self.waiting()
            time.sleep(WAIT / 1000)

    def open_temporary(self):
        """Open a temporary file with the old file's permissions, as far as possible."""
        folder, status = os.path.dirname(self.target), self.old and os.fstat(self.old.fileno())
        mode = stat.S_IMODE(status.st_mode) if status else 0o666
        os.makedirs(folder, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.stat(self.target)        # again: too long a name shows only in a folder
        try:
            self.open_in(folder, mode)
        except OSError:
            if not status:
                raise
            import tempfile
            try:
                self.open_in(tempfile.gettempdir(), mode)
            except OSError:
                self.file = io.BytesIO()
        if status:
            group, owner = (-1, status.st_gid), (status.st_uid, -1)
            for change, *values in (os.fchown, *group), (os.fchown, *owner), (os.fchmod, mode):
                with contextlib.suppress(OSError):
                    change(self.file.fileno(), *values)

    def open_in(self, folder, mode):
        """Open a temporary file in a folder."""
        path = os.path.join(folder, f".flagged-{os.urandom(6).hex()}.tmp")
        self.file = open(path, "x+b", opener=partial(os.open, mode=mode))
        self.temporary = path

    def write(self, text, errors="backslashreplace"):
        """Write text.  Wait for the reader of a direct place.

        A lone surrogate, which only a JSON escape can bring, becomes that escape again.
        """
        data = text.encode(errors=errors)
        if not self.direct:
            self.file.write(data)
            return
        from select import PIPE_BUF         # a pipe that is ready takes as many bytes at once
        data, done = memoryview(data), 0
        try:
            while done < len(data):
                while not wait_for(self.file, writing=True):
                    self.waiting()
                # None: another process has filled the pipe.
                done += self.file.write(data[done:done + PIPE_BUF]) or 0
                self.written = self.written or done > 0
        except OSError:
            self.take_back(done)
            raise

    def take_back(self, count):
        """Cut the last `count` bytes off a direct regular file, so that no torn line spoils the
        next one, unless another process has written more since."""
        if count and self.has_mode(stat.S_ISREG):
            with contextlib.suppress(OSError):
                end = os.lseek(self.file.fileno(), 0, os.SEEK_CUR)
                if end == os.fstat(self.file.fileno()).st_size:
                    os.ftruncate(self.file.fileno(), end - count)

    def check_reader(self):
        """Raise BrokenPipeError if the reader of a direct place has gone."""
        import select
        if self.direct and wait_for(self.file, True, 0) & (select.POLLERR | select.POLLHUP):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def complete(self):
        """Flush the file, and sync a temporary file or a direct regular file to disk."""
        self.file.flush()
        if self.temporary or self.direct and self.has_mode(stat.S_ISREG):
            sync(self.file.fileno())

    def replace(self):
        """Put the new content in the old file's place, and sync the folder.

        If the temporary file cannot be renamed, for whatever reason, the content is copied from
        the file that is still open, so it does not matter if the temporary name has gone.
        """
        if self.direct:
            return
        try:
            if not self.temporary:
                raise FileNotFoundError
            os.replace(self.temporary, self.target)
            self.temporary, self.written = None, True
        except OSError:
            self.copy()
        try:
            sync_folder(os.path.dirname(self.target))
        except OSError as error:
            reason = f"{error.strerror}, so a power failure may undo its replacement"
            raise OSError(error.errno, reason) from None

    def copy(self):
        """Copy the new content into the old file, or into a new one.

        The part beyond the old length is written first.  If the disk is full, it is cut off
        again, and the old content is unharmed.  If anything fails, the temporary file is kept
        and named.
        """
        import shutil
        create = 0 if os.path.exists(self.target) else os.O_CREAT
        size = None                 # of the old content, while that is unharmed
        try:
            with open(os.open(self.target, os.O_WRONLY | create, 0o666), "wb") as target:
                size = os.fstat(target.fileno()).st_size
                for start in size, 0:
                    self.file.seek(start)
                    target.seek(start)
                    shutil.copyfileobj(self.file, target)
                    target.flush()
                    size, self.written = None, True
                target.truncate()
                target.flush()
                sync(target.fileno())
        except (OSError, *NO_MEMORY) as error:
            with contextlib.suppress(OSError):
                if create and size is not None:
                    os.unlink(self.target)
                elif size is not None:
                    os.truncate(self.target, size)
            if self.temporary and os.path.exists(self.temporary):
                reason = getattr(error, "strerror", None) or "out of memory"
                kept, self.temporary = self.temporary, None
                raise OSError(getattr(error, "errno", errno.ENOMEM),
                              f"{reason}; {kept} holds the new content") from None
            raise
        self.warn(f"{self.called}: cannot be replaced, so it was written into")

    def discard(self):
        """Close the files, and remove a file that is still temporary."""
        close(self.file)
        close(self.old)
        if self.temporary:
            with contextlib.suppress(OSError):
                os.unlink(self.temporary)
            self.temporary = None


def without_waiting(path, flags):
    """An opener for open() that does not wait for the other end of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


# ------------------------------------------------------------------------ logs

BLANKS = " \t\r\n"
MARKS = "\ufeff\0"      # dropped at the start of a line: byte-order marks, NULs after a crash

# Event type -> (its fields, in the order of the method's arguments; the method of a Detector's
# social network or history, which returns None).  The names of fields with ids begin with "id".
# What the method of a new type changes, `write_snapshot` must write, or --resume forgets it.
EVENTS = {"purchase": (("id", "timestamp", "amount"), lambda detector: detector.history.record),
          "befriend": (("id1", "id2"), lambda detector: detector.social.befriend),
          "unfriend": (("id1", "id2"), lambda detector: detector.social.unfriend)}


class Number(str):
    """The text of a JSON number, to tell it from a JSON string, which is a str."""


def _no_constant(name):
    raise Malformed("not JSON", f": {name}")


_decode = json.JSONDecoder(parse_int=Number, parse_float=Number,
                           parse_constant=_no_constant).decode
NUMBER_IDS = Memo(plain_number)
NESTING = 100       # levels; Python's own limit differs between versions and processes


def nesting(text):
    """Return how deeply a JSON text is nested, not counting brackets inside its strings."""
    outside = "".join(re.sub(r"\\.", "", text).split('"')[::2])
    return max(accumulate(1 if bracket in "[{" else -1
                          for bracket in re.findall(r"[][{}]", outside)), default=0)


def read_object(line):
    """Return the JSON object on a line, with each number as a Number.  Raises Malformed."""
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
    """Return (event type, list of fields in the order of EVENTS) of a line, which is a str or
    bytes.  Raises Malformed."""
    if isinstance(line, bytes):
        line = line.decode(errors="surrogateescape")
    event = read_object(line)

    def field(name):
        value = event.get(name)
        if not value or not isinstance(value, str):
            raise Malformed(name, " is missing" if name not in event else
                            " is not a non-empty string or a number")
        return NUMBER_IDS[value] if type(value) is Number and name.startswith("id") else value

    if "event_type" not in event and ("D" in event or "T" in event):
        raise Malformed("parameters", " (D and T) stand on the batch log's first line only")
    event_type = field("event_type")
    if event_type not in EVENTS:
        raise Malformed(f'event_type "{quoted(event_type)[1:-1]}"',
                        f" is none of {', '.join(EVENTS)}")
    return event_type, [field(name) for name in EVENTS[event_type][0]]


# Parts of shapes.  Surrogates are bytes that are not UTF-8; _VALUE is no array and no object.
_CHARACTER, _ASCII = r'[^"\\\x00-\x1f\ud800-\udfff]', r"[ !#-\[\]-\x7f]"
_TEXT, _ID = f'"({_CHARACTER}{{1,80}})"', "(0|-?[1-9][0-9]{0,14})"
_NUMBER = r"(-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,30})?)"
_ESCAPE = r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})'
_VALUE = (rf'(?:"{_CHARACTER}{{0,200}}(?:{_ESCAPE}{_CHARACTER}{{0,200}}){{0,60}}"'
          r'|-?(?:0|[1-9][0-9]{0,40})(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,9})?'
          r"|true|false|null)")
_FIELD = re.compile(rf'([{{,][ \t]{{0,4}}")({_CHARACTER}{{1,80}})("[ \t]{{0,4}}:[ \t]{{0,4}})'
                    rf"({_VALUE})([ \t]{{0,4}})")
COLUMNS = "timestamp", "id", "amount", "event_type", "id1", "id2", "other"
_EVENT_TYPES = {'"purchase"': '"purchase"', '"befriend"': '"(befriend|unfriend)"',
                '"unfriend"': '"(befriend|unfriend)"'}


def shape_of(line):
    """Return (expression, columns): a regular expression for lines like that of an event, and
    the COLUMNS that its groups fill.  Returns None if such lines are left to `read_event`.

    The expression is the line, blanks included, with a group for each value of the event, and
    _VALUE for the others.  Fields whose names are not in COLUMNS may be absent, except a first
    one.  A line has at most 20 fields, whose names differ and have no escapes.  `read_event`
    reads lines that match with the same result, but takes seven times as long.
    """
    fields = _FIELD.findall(line)
    values = {name: value for _, name, _, value, _ in fields}
    event_type, whole = values.get("event_type"), "".join(map("".join, fields)) + "}"
    if event_type not in _EVENT_TYPES or line not in (whole, whole + "\r") or (
            not len(values) == len(fields) <= 20):
        return None
    expression, columns = "", []
    for before, name, colon, value, after in fields:
        group = _EVENT_TYPES[event_type] if name == "event_type" else _VALUE
        if name in EVENTS[event_type[1:-1]][0]:
            group = _TEXT if value[0] == '"' else _NUMBER if name == "amount" else _ID
        if not re.fullmatch(group, value):
            return None
        columns += [name] * re.compile(group).groups
        field = re.escape(before + name + colon) + group + re.escape(after)
        expression += f"(?:{field})?" if expression and name not in COLUMNS else field
    return expression + "}\r?\n", tuple(columns)


class Shapes:
    """The last 8 shapes learned from the lines of a log.

    After 8, 16, 32, ... readable lines without a known shape, those shapes are learned that
    make up a quarter of the last 16.  So few expressions are compiled, whatever the lines are.
    """

    def __init__(self):
        self.known, self.last = [], deque(maxlen=16)
        self.unknown = 0        # readable lines without a known shape so far

    def read(self, text):
        """Return the COLUMNS of whole lines: lists with a text, or None, for each line.

        "other" is (event type, list of fields) of a line without a known shape, (None, [kind,
        rest of the message]) of a malformed one, and None of the others and of blank lines.
        """
        if not self.unknown:            # learn from the first lines before all are read
            self.read_others(text[:text.find("\n", 4096) + 1].split("\n"))
        expressions, names = zip(*self.known, ("(.*)\n", ("other",)))
        expression, names = "|".join(expressions), list(chain.from_iterable(names))
        if text.isascii():              # the same for this text, but 10 % faster
            expression = expression.replace(_CHARACTER, _ASCII)
        parts = re.split(expression, text)
        columns = dict.fromkeys(COLUMNS, [None] * (len(parts) // (len(names) + 1)))
        for place, name in enumerate(names, 1):
            column = parts[place::len(names) + 1]
            if any(columns[name]):
                for row in compress(count(), column):
                    columns[name][row] = column[row]
            else:
                columns[name] = column
        if any(columns["other"]):
            columns["other"] = self.read_others(columns["other"])
        return list(columns.values())

    def read_others(self, lines):
        """Return what the column "other" has for lines without a known shape."""
        events, due = [], 1 << max(self.unknown, 7).bit_length()
        for line in lines:
            event = None
            if line and line.lstrip(MARKS).strip(BLANKS):
                try:
                    event = read_event(line)
                    self.last.append(line)
                    self.unknown += 1
                except Malformed as error:      # kept as texts: an exception keeps its frames
                    event = None, [error.kind, str(error)[len(error.kind):]]
            events.append(event)
        if self.unknown >= due:
            new = [shape for shape, number in Counter(map(shape_of, self.last)).items()
                   if shape and shape not in self.known and 4 * number >= len(self.last)]
            self.known = [*new, *self.known][:8]
        return events


def whole_number(text, least, name=""):
    """Return the int, at least `least`, of a text of 1-18 digits.  Otherwise raises ValueError,
    whose message begins with `name`."""
    if not (isinstance(text, str) and re.fullmatch("[0-9]{1,18}", text) and int(text) >= least):
        raise ValueError(
            f"{name}{quoted(str(text))} is not a whole number from {least} to 10^18 - 1")
    return int(text)


# Commands that turn FILE into JSON lines, and parts of patterns.
_OBJECTS = "sed 's/^[^{]*//; s/}[^}]*$/}/' FILE"
_CSV = ("python3 -c 'import csv, json; [print(json.dumps(row)) for row in csv.DictReader("
        "open(0, encoding=\"utf-8-sig\", newline=\"\"), delimiter=\"%s\")]' < FILE")
_EPOCH = ("jq -c '(.timestamp | select(tonumber?)) |= (tonumber | if . < 1e11 then . * 1e6 "
          r'else . * 1e3 end | round | "\(. / 1e6 | floor | todate[:19]).\(. % 1e6 + 1e6 | '
          """tostring[1:])Z")' FILE""")
_START, _COLUMN = rb"\A(?:\xef\xbb\xbf|[\0\s])*", rb'"?(?!purchase|befriend)[A-Za-z_][\w .-]*"?'
_JSON_ARRAY = _START + rb"\[\s*(?:\{|\]\s*\Z)"

# What a log can be instead of JSON lines: a pattern, what this is, and a command.  The first
# pattern found counts.  One that begins with \A is searched for in the log's first bytes.  Any
# other one must be found in a quarter of its first 20 unreadable lines.  NAME in a command
# stands for the pattern's group.
KINDS = [
    (rb"\A\x1f\x8b", "gzip", "gzip -dc FILE"),
    (rb"\ABZh[1-9]", "bzip2", "bzip2 -dc FILE"),
    (rb"\A\xfd7zXZ\0", "xz", "xz -dc FILE"),
    (rb"\A\x28\xb5\x2f\xfd", "zstd", "zstd -dc FILE"),
    (rb"\APK\x03\x04[\s\S]{26}(?!\[Content|_rels|xl/)", "a zip file", "unzip -p FILE"),
    (rb"\A[\s\S]{257}ustar", "a tar file", "tar -xOf FILE"),
    (rb"\A(?:\xfe\xff|\xff\xfe(?!\0\0))", "UTF-16", "iconv -f UTF-16 -t UTF-8 FILE"),
    (rb"\A(?:[^\0]\0){2}", "UTF-16", "iconv -f UTF-16LE -t UTF-8 FILE"),
    (rb"\A(?:\0[^\0]){2}", "UTF-16", "iconv -f UTF-16BE -t UTF-8 FILE"),
    (_JSON_ARRAY, "a JSON array", "jq -c '.[]' FILE"),
    (rb"\A(?=[^\n]*\Z)[^\r]+\r+[^\r]", "lines that end in CR", r"tr '\r' '\n' < FILE"),
    *((_START + _COLUMN + rb"(?:%b%b){2,}\r?\n(?:[^\n{]*%b){2}" % (comma, _COLUMN, comma),
       "CSV", _CSV % comma.decode()) for comma in (b",", b";", rb"\t")),
    (_START + rb'\{(?:.*[,{\[])?[ \t\r]*\n\s*"', "JSON of several lines each", "jq -c . FILE"),
    (_START + rb"\x1e\s*\{", "JSON with record separators", r"tr -d '\036' < FILE | jq -c ."),
    (rb'^\{.*"([A-Za-z_]\w*)"\s*:\s*"\s*\{(?:[^"\\]|\\.)*\\"(?:event_type|D)\\"',
     "JSON with events as text in a field",
     "jq -rc '.. | select(.event_type? // .D?) // .NAME? // empty' FILE"),
    (rb'^"\s*\{\s*\\"', "JSON with events as text", "jq -r . FILE"),
    (rb'^\{ *".*\}[ \t\r]*\{ *"', "JSON without newlines between the objects", "jq -c . FILE"),
    (rb'^\{ *"[^][\n]*\} *, *\{ *"', "JSON with commas between the objects",
     "sed '1s/^[^{]*/[/; $s/[^}]*$/]/' FILE | jq -c '.[]'"),
    (rb'^(?:\s*,\s*\{\s*"|\{\s*".*\}\s*,\s*$)', "JSON with commas between the lines", _OBJECTS),
    (rb'^(?!\s*["{])[^{\w\n]*\w[^{\n]*\{\s*"(?:.*")?(?:event_type|D)"\s*:',
     "JSON with text before the objects", _OBJECTS),
    (rb'^\{.*[\[:,] *\{(?:[^{}"\n]|"(?:[^"\\\n]|\\.)*")*?"(?:event_type|D)"\s*:',
     "JSON with events nested in a field", "jq -c '.. | select(.event_type? // .D?)' FILE"),
    (rb'^\{.*[^\\]\\\\"[^\s,:}\]]', "JSON with doubled backslashes, as of Postgres COPY",
     r"sed 's/\\\\/\\/g' FILE"),
    (rb'^\{.*"timestamp"\s*:\s*"?[0-9]{9,10}(?:\.[0-9]+|[0-9]{3})?"?\s*[,}]',
     "JSON with timestamps in seconds or milliseconds since 1970", _EPOCH)]


def kind_of_file(head, reason, lines=b""):
    """Return what a log is instead of JSON lines, and a command that makes it JSON lines.

    `head` holds its first bytes, up to 64 KiB, and `lines` its first unreadable lines.  Returns
    `reason`, the error in one of these lines, if nothing is certain.

    >>> kind_of_file(b'[\\n{"event_type": "purchase"}]', "not a JSON object")
    "this is a JSON array; jq -c '.[]' FILE turns it into JSON lines"
    """
    for pattern, kind, command in KINDS:
        at_start = pattern.startswith(rb"\A")
        found = re.findall(pattern, head if at_start else lines, re.MULTILINE)
        if found and (at_start or 4 * len(found) > lines.count(b"\n")):
            command = command.replace("NAME", found[0].decode(errors="replace"))
            return f"this is {kind}; {command} turns it into JSON lines"
    return reason


def unpacked(file, name, look):
    """Return a regular file or, if it is gzip, an unnamed one with its unpacked content.

    A file with content whose size the system gives as 0, as in /proc, is copied into an unnamed
    one.  look() is called for each piece.  Raises Failure if the file cannot be unpacked.
    """
    magic = os.pread(file.fileno(), 2, 0)
    is_gzip = magic == b"\x1f\x8b"
    if not is_gzip and (os.fstat(file.fileno()).st_size or not magic):
        return file
    import gzip
    import tempfile
    import zlib
    try:
        copy = tempfile.TemporaryFile()
        with file, (gzip.open(file) if is_gzip else file) as source:
            while data := source.read(CHUNK):
                look()
                copy.write(data)
        copy.flush()
    except (OSError, EOFError, zlib.error) as error:
        action = "unpacked (gzip)" if is_gzip else "copied"
        raise Failure(f"{name}: cannot be {action}: {explained(error)}", 2) from None
    return copy


ANOTHER_LOG = ("%s, so this is not the log that was read before (was it rotated? does `tail` "
               "lack `-n +1`?); after a rotation, run once with --resume over the rest of the "
               "old log, then without --resume over this one")


class Position:
    """How far a log has been read: the number of its lines, and the first and the last of them.

    Each of the two lines is kept as text "checksum/length": its CRC-32 in hex and its number of
    bytes.  Only so many bytes are compared, because a last line without newline may grow.
    """

    def __init__(self, lines=0, first="", last=""):
        self.lines, self.first, self.last = lines, first, last

    @classmethod
    def from_header(cls, header):
        """Return the Position that a snapshot's header holds, or that of a log's start.

        Raises ValueError.
        """
        ends = [str(header.get(name, "")) for name in ("stream_first", "stream_last")]
        if not all(re.fullmatch("([0-9a-f]{8}/[0-9]{1,18})?", end) for end in ends):
            raise ValueError(f"stream_first or stream_last is not checksum/length: {ends}")
        return cls(whole_number(header.get("stream_lines", "0"), 0), *ends)

    @staticmethod
    def summary(line, length=None):
        """Return the checksum and the length of a line's first `length` bytes."""
        from zlib import crc32
        line = line.lstrip(b"\0")[:length]
        return f"{crc32(line):08x}/{len(line)}"

    def add(self, findings):
        """Move on by the lines of some Findings."""
        if findings.ends:
            first, last = findings.ends
            self.first, self.last = self.first or self.summary(first), self.summary(last)
        self.lines += findings.lines

    def has_grown(self, line):
        """Return whether the last line was unfinished when it was read, and is longer now."""
        length = int(self.last.partition("/")[2] or len(line))
        return len(line.lstrip(b"\0").rstrip()) > length

    def check(self, name, before, lines):
        """Raise Failure if the lines after line `before` are not those read before."""
        for place, expected in (0, self.first), (self.lines - 1, self.last):
            if expected and before <= place < before + len(lines):
                length = int(expected.partition("/")[2])
                if self.summary(lines[place - before], length) != expected:
                    reason = f"line {place + 1} is not the one read before, of {length} bytes"
                    raise Failure(f"{name}: {ANOTHER_LOG % reason}", 2)


class Log:
    """A JSON-lines log, opened once: a regular file, a pipe, or ("-") standard input.

    A regular file, which may be gzip, is read by position, from `start` up to the `size`
    that it had when it was opened, so that all processes of a run read the same bytes.
    Anything else counts as a pipe: its size is 0, and it is read as it arrives, up to `piece`
    bytes at once.

    A last line without a newline is read like any other, but after `skip` it is left for the
    next run.  look() is called before each read, and raises what is to end the run.  Raises
    Failure if the log cannot be opened.
    """

    JUDGE_TO_APPLY_RATIO = 30   # judging one event takes as long as applying 30, for D = 2

    def __init__(self, place, piece=CHUNK, look=ignore):
        self.name, self.piece, self.growing, self.look = place.called, piece, False, look
        self.start = self.size = 0
        self.head = b""         # the first bytes, up to CHUNK or a little more
        self.unread = b""       # bytes of a pipe that `skip` put back
        try:
            if place.path == "-":
                self.file = open(0, "rb", buffering=0, closefd=False)
            else:
                self.file = open(place.path, "rb", buffering=0, opener=without_waiting)
            self.is_file = stat.S_ISREG(os.fstat(self.file.fileno()).st_mode)
            if self.is_file:
                self.start = os.lseek(self.file.fileno(), 0, os.SEEK_CUR)
                if not self.start:
                    self.file = unpacked(self.file, self.name, look)
                self.size = os.fstat(self.file.fileno()).st_size
        except OSError as error:
            raise Failure(f"{self.name}: cannot be read: {error.strerror}", 2) from None

    def chunks(self, start=None, stop=None, on_read=ignore):
        """Yield the bytes of whole lines from offset start (default: self.start) to offset stop
        (default: self.size), some lines at a time.  A pipe has no offsets.

        Yields b"" if none has become whole, as while a pipe is empty.  NULs at the beginning of
        a line are dropped.  on_read(data) is called for each read.
        """
        position, incomplete = self.start if start is None else start, bytearray()
        stop = self.size if stop is None else stop
        while (data := self.read(position, stop, on_read)) != b"":
            position += len(data or b"")
            whole, newline, rest = (data or b"").rpartition(b"\n")
            if newline:
                whole = b"".join([incomplete, whole, newline])
                incomplete = bytearray()
            incomplete += rest if incomplete else rest.lstrip(b"\0")
            yield re.sub(rb"(?m)^\0+", b"", whole) if b"\0" in whole else whole
        if incomplete and not self.growing:
            yield bytes(incomplete) + b"\n"

    def read(self, position, stop, on_read):
        """Return the next bytes, b"" at the log's end, or None if a pipe stays empty.

        These are the bytes from a position up to `stop` of a regular file.  Raises OSError, and
        Failure if it was truncated.
        """
        self.look()
        try:
            if self.is_file:
                size = max(0, min(CHUNK, stop - position))
                data = os.pread(self.file.fileno(), size, position)
                self.head = self.head or os.pread(self.file.fileno(), CHUNK, self.start)
            elif self.unread:
                data, self.unread = self.unread, b""
            else:
                data = self.file.read(self.piece) if wait_for(self.file) else None
                if data and len(self.head) < CHUNK:
                    self.head += data
        except OSError as error:
            error.filename = self.name
            raise
        if data == b"" and position < stop:
            raise Failure(f"{self.name}: was truncated while it was read")
        on_read(data or b"")
        return data

    def skip(self, position):
        """Skip the lines that were read before.  Raises Failure if this is another log."""
        self.growing, line, number, rest = True, bytearray(), 0, b""
        while number < position.lines:
            data = self.read(self.start, self.size, ignore)
            self.start += len(data or b"")
            if data == b"":
                if not line:
                    reason = f"it ends after line {number}"
                    raise Failure(f"{self.name}: {ANOTHER_LOG % reason}", 2)
                data = b"\n"                    # the last line lacks its newline
            *whole, rest = (data or b"").split(b"\n", position.lines - number)
            if whole:
                whole[0] = bytes(line) + whole[0]
                position.first = position.first or position.summary(whole[0])   # of version 1.2
                position.check(self.name, number, whole)
                number += len(whole)
                line.clear()
                if number == position.lines and position.has_grown(whole[-1]):
                    position.lines -= 1
                    rest = whole[-1] + b"\n" + rest
            line += rest
        self.start -= len(rest)
        self.unread = rest

    def boundaries(self, jobs, shard):
        """Return the jobs + 1 offsets at which the parts of shard (K, N) begin and end.

        A line belongs to the part in which it starts.  A process first applies all events
        before its part.  So each part is smaller than the one before, and all take the same
        time.
        """
        k, shards = shard
        begin, end = (self.start + (self.size - self.start) * number // shards
                      for number in (k - 1, k))
        *sums, total = 0, *accumulate((1 - 1 / self.JUDGE_TO_APPLY_RATIO) ** part
                                      for part in range(jobs))
        offsets = [begin + int((end - begin) * earlier / total) for earlier in sums]
        return [*map(self.line_start, offsets), self.line_start(end)]

    def line_start(self, offset):
        """Return the first offset >= `offset` at which a line starts, or the log's end."""
        if offset <= self.start:
            return self.start
        position = offset - 1
        while data := self.read(position, self.size, ignore):
            length = data.find(b"\n") + 1
            if length:
                return position + length
            position += len(data)
        return self.size


def line_kind(line):
    """Return "event", "header", or "snapshot" for the header of a snapshot.  Return "" for any
    other line (bytes), such as one that a run has written, which has a field "mean"."""
    text = line.decode(errors="surrogateescape")
    try:
        fields = read_object(text)
        if "mean" in fields:
            return ""
        event_type, values = read_event(text)
        EVENTS[event_type][1](Detector(1, 2))(*values)
    except Malformed as error:
        if error.kind != "parameters":
            return ""
        return "snapshot" if "stream_lines" in fields else "header"
    return "event"


def first_line(chunks):
    """Return (number, line, rest): the number and the bytes of a log's first line that is not
    blank, and the lines after it in its chunk.  If all are blank, number counts them."""
    not_blank, number = re.compile(rb"(?m)^(?!(\0|\xef\xbb\xbf)*[ \t\r]*$)"), 0
    for data in chunks:
        match = not_blank.search(data)
        number += data.count(b"\n", 0, match and match.start())
        if match:
            line, _, rest = data[match.start():].partition(b"\n")
            return number + 1, line, rest
    return number, b"", b""


def read_state(log, chunks, degree, tracked, deviations):
    """Return (an empty Detector, the Position in the stream, the chunks to replay).

    The header, its first line that is not blank, is blanked out.  `degree` and `tracked`
    override its D and T unless they are None.  If both are given, the header may be missing.  A
    Detector with a larger T than the snapshot that it is loaded from has that snapshot's T as
    its `least_tracked`.  Raises Failure.
    """
    header, (number, line, rest), both_given = {}, first_line(chunks), degree and tracked
    try:
        header = read_object(line.decode(errors="surrogateescape"))
        missing = [name for name, value in (("D", degree), ("T", tracked))
                   if not value and name not in header]
        if missing:
            raise ValueError(f"it lacks {' and '.join(missing)}")
        degree = degree or whole_number(header.get("D"), 1, "D ")
        tracked = tracked or whole_number(header.get("T"), 2, "T ")
    except ValueError as error:
        if not both_given:
            reason = kind_of_file(log.head, str(error), line) if line else "it is empty"
            raise Failure(f"{log.name}:{number or 1}: is this the batch log? its first line "
                          f"has no valid D and T: {reason}", 2) from None
    detector = Detector(degree, tracked, deviations)
    try:
        position = Position.from_header(header)
        if "stream_lines" in header:
            detector.least_tracked = min(tracked, whole_number(header.get("T"), 2))
    except ValueError as error:
        raise Failure(f"{log.name}: {error}", 2) from None
    if both_given and line and ("event_type" in header or not ("D" in header or "T" in header)):
        number, rest = number - 1, line + b"\n" + rest      # it is no header
    blank_lines = repeat(b"\n" * CHUNK, number // CHUNK)
    return detector, position, chain(blank_lines, [b"\n" * (number % CHUNK) + rest], chunks)


Judged = namedtuple("Judged", "place line user timestamp amount flag window audience evidence")
Judged.__doc__ = """A purchase that was judged.  The last three fields are None if not needed.

place: number of lines before its line in the same Findings
line: text of its line, without leading MARKS and without the newline
user, timestamp, amount: the buyer; the normalized timestamp; exact cents
flag: the Flag of its window if it is flagged, else None
window: (number of purchases in it, their Flag or None if fewer than 2)
audience, evidence: what SocialNetwork.audience and Detector.plain_window return for the buyer
of a flagged purchase, else None
"""

MalformedLine = namedtuple("MalformedLine", "place line kind reason")
MalformedLine.__doc__ = """A line that is not an event: its place as in Judged, its text, with
surrogates for bytes that are not UTF-8, and the kind and message of the Malformed raised."""

Findings = namedtuple(
    "Findings", "lines events purchases judged malformed first last too_few ends",
    defaults=("", "", 0, None))
Findings.__doc__ = """The results of reading some consecutive lines of a log.

lines: number of these lines, including blank and malformed ones
events, purchases: number of events that were applied, and of purchases among them
judged: list of Judged, in order: the flagged purchases, or all if `every` is needed
malformed: list of MalformedLine, in order
first, last: earliest and latest normalized timestamp of the purchases judged, "" if none were
too_few: number of purchases judged whose window held fewer than 2
ends: the first and the last of these lines (bytes), or None if there are none
"""


def replay(chunks, detector, purchase=None, strict=False):
    """Apply the events of a log to a Detector in order, and yield the Findings of each chunk.

    purchase(user, timestamp, amount), by default `detector.history.record`, applies a purchase,
    and returns None or the fields of Judged after `line`.  If `strict`, the first Malformed is
    raised, after Findings that hold the malformed line, but do not count it.
    """
    shapes = Shapes()
    for data in chunks:
        text, recorded = data.decode(errors="surrogateescape"), detector.history.recorded
        columns = shapes.read(text)
        results = None if purchase or strict else apply_by_kind(columns, detector)
        number, events, judged, malformed, failure = results or apply_in_order(
            columns, detector, purchase, strict)
        lines = text.split("\n") if judged or malformed else ()
        yield Findings(
            number, events, detector.history.recorded - recorded,
            [Judged(place, lines[place].lstrip(MARKS), *found) for place, found in judged],
            [MalformedLine(place, lines[place], *reason) for place, *reason in malformed],
            ends=itemgetter(0, -2)(data.split(b"\n", number)) if number else None)
        if failure:             # after the Findings of the lines up to it
            raise failure


def apply_in_order(columns, detector, purchase=None, strict=False):
    """Apply the events in the COLUMNS of some lines.  Return (number of lines, number of
    events, [(place, what `purchase` returned)], [(place, kind, reason)] of malformed lines, the
    error that ended it or None).
    """
    methods = {event_type: method(detector) for event_type, (_, method) in EVENTS.items()}
    purchase = methods["purchase"] = purchase or detector.history.record
    number, events, judged, malformed, failure = len(columns[0]), 0, [], [], None
    for place, (when, user, amount, event_type, id1, id2, other) in enumerate(zip(*columns)):
        try:
            if user:
                found = purchase(user, when, amount)
            elif event_type:
                found = methods[event_type](id1, id2)
            elif other:
                event_type, fields = other
                if not event_type:
                    raise Malformed(*fields)
                found = methods[event_type](*fields)
            else:
                continue        # a blank line
            events += 1
            if found:
                judged.append((place, found))
        except Malformed as error:
            malformed.append((place, error.kind, str(error)))
            if strict:
                number, failure = place, error
                break
        except NO_MEMORY as error:
            number, failure = place, error
            break
    return number, events, judged, malformed, failure


def apply_by_kind(columns, detector):
    """Apply all purchases in the COLUMNS of some lines, then all changes of friendships.

    Equals `apply_in_order(columns, detector)`, since neither depends on the other, but takes
    15 % less time.  Returns None, and changes nothing, unless all lines are valid and of known
    shapes.  A MemoryError may leave a part of the events applied.
    """
    if any(columns[-1]):
        return None
    timestamps, users, amounts, event_types, ids1, ids2 = (
        list(filter(None, column)) for column in columns[:-1])
    try:
        if any(map(eq, ids1, ids2)):
            return None
        detector.history.record_all(users, timestamps, amounts)
    except Malformed:
        return None
    detector.social.change(event_types, ids1, ids2)
    return len(columns[0]), len(users) + len(ids1), [], [], None


def judge(chunks, detector, needs, strict=False, look=ignore):
    """Yield Findings like `replay`, but judge each purchase before it is recorded.

    `needs` is the union of the outputs' `needs`.  look() is called before each purchase.
    """
    timestamps, too_few = [], 0

    def purchase(user, timestamp, amount):
        nonlocal too_few
        look()
        when, cents = detector.history.timestamps[timestamp], detector.history.amounts[amount]
        window = audience = None
        flag, n, total, squares = detector.verdict(user, cents, "window" in needs)
        too_few += n < 2
        if "window" in needs:
            window = n, flag_of(n, total, squares) if n > 1 else None
        if flag and "audience" in needs:
            audience = detector.social.audience(user, detector.degree)
        evidence = detector.plain_window(user) if flag and "evidence" in needs else None
        detector.history.record(user, timestamp, amount)
        timestamps.append(when)
        if flag or "every" in needs:
            return user, when, cents, flag, window, audience, evidence
        return None

    for findings in replay(chunks, detector, purchase, strict):
        yield findings._replace(first=min(timestamps, default=""),
                                last=max(timestamps, default=""), too_few=too_few)
        timestamps.clear()
        too_few = 0


# --------------------------------------------------------------------- outputs

class Console:
    """Standard error: messages, and on a terminal a progress line.  Ignores failed writes."""

    def __init__(self):
        self.quiet, self.wipe = False, ""       # wipe: the text that clears the progress line
        self.outputs = ()                       # paths of the run's outputs
        self.warned = ""                        # the last message

    def warn(self, text):
        """Write a message on a line of its own, unless it repeats the last one."""
        if text != self.warned:
            self.write(printable(f"anomaly_detection: {text}") + "\n")
        self.warned = text

    def info(self, text):
        """Write a message like `warn`, unless `quiet` is set."""
        if not self.quiet:
            self.warn(text)

    def write(self, text, wipe=""):
        """Write text in place of the progress line.  `wipe` is the text that clears it."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(self.wipe + text)
            sys.stderr.flush()
            self.wipe = wipe

    def has_progress_line(self):
        """Return whether standard error is a terminal that knows escape sequences and that no
        output is written to, so that each line of an output begins a line of the screen."""
        dumb = os.environ.get("TERM", "dumb") == "dumb"
        if self.quiet or dumb or not (sys.stderr and sys.stderr.isatty()):
            return False
        files = [1 if path == "-" else path for path in self.outputs]
        return not any(file == "/dev/tty" or os.path.exists(file) and os.path.samefile(file, 2)
                       for file in files)

    def progress(self, totals, size):
        """Return an on_read function for Log.chunks that shows progress up to 4 times a second:
        how much of `size` bytes has been read or, for a pipe (size 0), the counts in its
        Totals.
        """
        if not self.has_progress_line():
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
                text = (f"{totals.position.lines:,} lines, {totals.counts['flagged']:,} "
                        f"flagged, last line {now - arrived_at:.0f} s ago")
            line, width = f"{printable(os.path.basename(totals.name))}: {text}", 80
            with contextlib.suppress(OSError):      # asked each time: it can be resized
                width = os.get_terminal_size(2).columns or width
            self.write(f"\r{line[:width - 1]}\x1b[K", "\r\x1b[K")

        return on_read


class Totals:
    """The sums of a log's Findings so far.

    tell(text) is called for the first `lines_told` malformed lines of each of the first
    `kinds_told` kinds.  For a file it is not called before the first event, because a log
    without an event ends the run with an error that says more.
    """

    lines_told, kinds_told, kinds_counted = 3, 10, 1000

    def __init__(self, log, tell):
        self.log, self.name, self.tell = log, log.name, tell
        self.position = Position()      # after the last Findings
        self.lines_before = 0           # number of lines before the last Findings
        self.counts = Counter()     # events, purchases, flagged, too_few, skipped, unreadable
        self.kinds = Counter()          # malformed lines by kind
        self.reason = ""                # why the first malformed line is malformed
        self.unreadable = []            # (text, reason) of the first unreadable lines
        self.held = []                  # messages that wait for the first event
        self.first = self.last = ""     # earliest and latest timestamp judged

    def add(self, findings):
        """Count Findings, and tell of malformed lines among them."""
        self.lines_before = self.position.lines
        for place, text, kind, reason in findings.malformed:
            if not kind.startswith('event_type "'):     # such a line is read, but is no event
                self.counts["unreadable"] += 1
                if len(self.unreadable) < 20:
                    self.unreadable.append((text[:2000], reason))
            if kind not in self.kinds and len(self.kinds) >= self.kinds_counted:
                kind = "of other kinds"
            self.kinds[kind] += 1
            shown = kind in islice(self.kinds, self.kinds_told)
            if self.kinds[kind] <= self.lines_told and shown:
                line = self.lines_before + place + 1
                self.held.append(f"{self.name}:{line}: skipped: {reason}")
            self.reason = self.reason or reason
        self.position.add(findings)
        self.counts.update(events=findings.events, purchases=findings.purchases,
                           skipped=len(findings.malformed), too_few=findings.too_few,
                           flagged=sum(1 for purchase in findings.judged if purchase.flag))
        if self.counts["events"] or not self.log.is_file:
            self.tell_held()
        if findings.first:
            self.first = min(self.first or findings.first, findings.first)
            self.last = max(self.last, findings.last)

    def tell_held(self):
        """Tell the messages about malformed lines that were held back."""
        for text in self.held:
            self.tell(text)
        self.held.clear()

    def skipped(self):
        """Return a message with the number of skipped lines, by kind, most frequent first."""
        kinds = self.kinds.most_common()
        told = [f"{number} {kind}" for kind, number in kinds[:self.kinds_told]]
        if rest := sum(number for _, number in kinds[self.kinds_told:]):
            told.append(f"{rest} others")
        return f"{self.name}: skipped {self.counts['skipped']}: {', '.join(told)}"


def unreadable(totals, ended=True, part=False):
    """Return a message if a log is no log of events, which says what it is instead, else None.

    It is none if more lines are unreadable than are events, and they are 20 or it begins like a
    JSON array.  A line with another event type is readable.  It is none, too, if it has `ended`
    with malformed lines and no event, or if it is a tar file.  If it is read from an offset, as
    with --resume, only the 20 count.  If the Totals are those of a `part` of a file, the whole
    file decides.
    """
    log, bad, events = totals.log, totals.counts["unreadable"], totals.counts["events"]
    array = not log.start and re.match(_JSON_ARRAY, log.head)
    tar = bad and not log.start and log.head[257:262] == b"ustar"
    none = ended and totals.reason and not log.start and not events
    if not (none or tar or bad > events and (bad >= 20 or array or part)):
        return None
    if part:            # at least one part of such a file comes here
        whole = Totals(log, ignore)
        for findings in replay(log.chunks(), Detector(1, 2)):
            whole.add(findings)
        return unreadable(whole)
    lines, reasons = zip(*totals.unreadable or [("", totals.reason)])
    kind = kind_of_file(log.head, reasons[0], "\n".join(lines).encode(errors="surrogateescape"))
    some = f"only {events} of {events + totals.counts['skipped']} lines are events"
    return f"{log.name}: {some if events else 'no line is an event'}: {kind}"


# What an output can use of its run.
Context = namedtuple("Context", "detector batch_totals stream_totals")


class Output(OutputFile):
    """A file that a run writes, and the option --`name` that asks for it.

    A new output is a subclass in the list OUTPUTS.  It has a `name` of one word, a line of
    `help` and any of the methods below.  One process calls these, in the order of the log.  If
    it needs more than the flagged purchases, its set `needs` holds "every" (every purchase
    judged), or "audience", "window" or "evidence" (those fields of Judged).

    * take(findings): write from the Findings of some lines, first of the batch log, which have
      nothing judged, then of the stream.  The Totals in `context` already count these lines.
    * tick(): called after each `take` for a live stream, and while it pauses.
    * complete(): write what is known only at the end, then call super().complete().

    An output has failed if a method raises OSError, ImportError or MemoryError (see `decide`).
    """

    name = help = context = None
    needs = frozenset()
    take, tick = staticmethod(ignore), OutputFile.check_reader

    def __init__(self, path, waiting=ignore, warn=ignore):
        option = "OUTPUT" if self.name == "output" else f"--{self.name}"
        super().__init__(option, path, waiting, warn)


def with_fields(line, fields):
    """Return a line, a JSON object, with fields, a dict of name -> JSON text, at its end.

    Members of the object that have one of these names are removed.  Nested objects keep theirs.
    """
    blanks, brace, text = line.rstrip(BLANKS)[:-1].partition("{")
    if "\\" in text or any(f'"{name}"' in text for name in fields):
        depth, commas = 0, [-1]
        for piece in re.finditer(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{},]', text):
            depth += (piece[0] in "[{") - (piece[0] in "]}")
            if piece[0] == "," and not depth:
                commas.append(piece.start())
        members = [text[begin + 1:end] for begin, end in zip(commas, [*commas[1:], len(text)])]
        text = ",".join(member for member in members if json.decoder.scanstring(
            member, member.index('"') + 1)[0] not in fields)
    added = "".join(f', "{name}": {value}' for name, value in fields.items())
    return f"{blanks}{brace}{text}{added}}}\n"


def flag_fields(flag):
    """Return the fields mean and sd of a Flag, which are null if it is None."""
    mean, sd = [f'"{dollars(cents)}"' for cents in flag] if flag else ["null", "null"]
    return {"mean": mean, "sd": sd}


class JudgedLines(Output):
    """The lines of purchases that were judged, each with the `fields` of this output."""

    def take(self, findings):
        for purchase in findings.judged:
            if purchase.flag or "every" in self.needs:
                self.write(with_fields(purchase.line, self.fields(purchase)))

    def fields(self, purchase):
        return flag_fields(purchase.flag)


class FlaggedPurchases(JudgedLines):
    name, help = "output", 'the flagged purchases ("-": standard output)'


class Rejects(Output):
    name, help = "rejects", "write every malformed line"

    def take(self, findings):
        for malformed in findings.malformed:
            self.write(malformed.line + "\n", "surrogateescape")


class Notify(JudgedLines):
    name, help = "notify", "write each flagged purchase with the users to notify"
    needs = {"audience"}

    def fields(self, purchase):
        feed, recommend = map(as_json, purchase.audience)
        return {**flag_fields(purchase.flag), "feed": feed, "recommend": recommend}


class Verdicts(JudgedLines):
    name, help = "verdicts", "write every purchase judged, with its window's size, mean and sd"
    needs = {"every", "window"}

    def fields(self, purchase):
        n, flag = purchase.window
        return {"window": n, **flag_fields(flag), "flagged": as_json(bool(purchase.flag))}


class Evidence(JudgedLines):
    name, help = "evidence", "write each flagged purchase with the purchases of its window"
    needs = {"evidence"}
    ids, amounts = Memo(as_json), Memo(amount_text)

    def fields(self, purchase):
        window = ", ".join([f'{{"id": {self.ids[buyer]}, "timestamp": "{timestamp}", '
                            f'"amount": "{self.amounts[amount]}"}}'
                            for (timestamp, seq, amount), buyer in purchase.evidence])
        return {**flag_fields(purchase.flag), "purchases": f"[{window}]"}


class Snapshot(Output):
    """A batch log that stands for all that was read: D, the least T that was in force, the
    Position in the stream, the friendships, and every user's last purchases.  It is sorted, so
    that equal states give equal bytes."""

    name, help = "snapshot", "write a batch log that stands for all that was read"

    def complete(self):
        write_snapshot(self, self.context.detector, self.context.stream_totals.position)
        super().complete()


def write_snapshot(file, detector, position):
    """Write a snapshot to an OutputFile, some lines at a time."""
    ids, amounts = Memo(as_json, sys.maxsize), Memo(amount_text)
    rows = [(purchase, user) for user, purchases in detector.history.by_user.items()
            for purchase in purchases]
    # Two stable sorts by plain keys are faster than one by (timestamp, seq).
    rows.sort(key=lambda row: row[0][1])
    rows.sort(key=lambda row: row[0][0])
    earliest = rows[0][0][0] if rows else "1970-01-01 00:00:00"
    file.write(f'{{"D":"{detector.degree}", "T":"{detector.least_tracked}", '
               f'"stream_lines":"{position.lines}", "stream_first":"{position.first}", '
               f'"stream_last":"{position.last}"}}\n')
    for user, friends in sorted(detector.social.friends.items()):
        file.write("".join(f'{{"event_type":"befriend", "timestamp":"{earliest}", '
                           f'"id1": {ids[user]}, "id2": {ids[friend]}}}\n'
                           for friend in sorted(friends) if user < friend))
    for start in range(0, len(rows), 1000):
        file.write("".join(f'{{"event_type":"purchase", "timestamp":"{timestamp}", '
                           f'"id": {ids[user]}, "amount": "{amounts[amount]}"}}\n'
                           for (timestamp, seq, amount), user in rows[start:start + 1000]))


@contextlib.contextmanager
def replacing(file):
    """Open an OutputFile, and replace the old content after the `with` statement's body."""
    try:
        file.open()
        yield file
        file.complete()
        file.replace()
    finally:
        file.discard()


def first_kinds(head):
    """Return what `line_kind` calls the first and the second line of a file, which may be gzip,
    from its first bytes."""
    if head.startswith(b"\x1f\x8b"):
        import zlib
        with contextlib.suppress(zlib.error):
            head = zlib.decompressobj(wbits=31).decompress(head, CHUNK)
    return [*map(line_kind, head.split(b"\n")[:2]), ""][:2]


def refuse_log(file):
    """Raise Failure if an OutputFile would replace a log, judging by its first two lines.

    A snapshot replaces snapshots.  Rejected lines can begin with a header, but hold no event.
    """
    first, second = first_kinds(file.old_head)
    harmless = (file.option == "--snapshot" and first == "snapshot"
                or file.option == "--rejects" and "event" not in (first, second))
    if first and not harmless:
        raise Failure(f"{file.called}: is a log, which {file.option} would replace", 2)


def save(detector, path):
    """Write the snapshot of a Detector, which replaces an old file once it is complete.

    Raises Failure if the file cannot be opened, is in use or is a log but no snapshot, and
    OSError if writing fails.
    """
    with replacing(OutputFile("--snapshot", path)) as file:
        file.lock()
        refuse_log(file)
        write_snapshot(file, detector, Position())


def load(path, degree=None, tracked=None, deviations=3):
    """Return a Detector with the state that a batch log or a snapshot describes.

    degree and tracked, ints, are used instead of the log's D and T.  The Detector's `skipped`
    is the number of malformed lines.  Its `reason` tells why the first one is malformed, or is
    "".  Raises Failure if the log cannot be read, has no D and T, or is no log of events.
    """
    log = Log(Place("BATCH", path))
    with log.file:
        detector, _, chunks = read_state(log, log.chunks(), degree, tracked, deviations)
        totals = Totals(log, ignore)
        for findings in replay(chunks, detector):
            totals.add(findings)
    if message := unreadable(totals):
        raise Failure(message)
    detector.skipped, detector.reason = totals.counts["skipped"], totals.reason
    return detector


# ---------------------------------------------------------------------- report

# Colors are attributes of the shapes, so that they show even if the style sheet is blocked.
# Red and blue have a contrast of at least 3 : 1 with light and dark backgrounds.
_GRID = 'stroke="currentColor" stroke-opacity=".15"'
_FLAG = 'fill="#ef4444" fill-opacity=".4" stroke="#ef4444"'
_BAR = ' fill="#3b82f6" fill-opacity="1" stroke="none" shape-rendering="crispEdges"'
_STYLE = """
:root { color-scheme: light dark }
body { margin: 0 auto; padding: 8px 16px; max-width: 1160px; overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums }
h1 { font-size: 24px } h2 { font-size: 16px; margin: 32px 0 0 } p { max-width: 50em }
h2 + p, small { font-size: 14px; font-weight: 400; margin: 0; opacity: .7 }
figure { margin: 0 36px 0 64px } section { max-width: 100% }
.tables { display: flex; flex-wrap: wrap; gap: 0 64px }
.tables div { overflow: auto; max-height: 630px; background: no-repeat local 100% 0 / 48px 100%
  linear-gradient(270deg, Canvas 50%, #0000), no-repeat 100% 0 / 16px 100%
  linear-gradient(270deg, #8888, #0000) }
table { border-collapse: collapse; font-size: 14px; width: max-content }
td, thead th, time { white-space: nowrap }
th, td { padding: 3px 0; text-align: right; font-weight: 400; border-bottom: 1px solid #8884 }
th + *, td + * { padding-left: 1.5em }
thead th { position: sticky; top: 0; background: Canvas }
tr :first-child { text-align: left; max-width: 20em }
@media (max-width: 600px) { figure { margin: 0 16px 0 56px }
  .x text:not(:nth-of-type(3n + 1)) { display: none } }
@media print { tr, svg { break-inside: avoid } h2, h2 + p { break-after: avoid }
  .tables div { overflow: visible; max-height: none; background: none }
  .tables { display: block } table { font-size: 11px } }
"""
_ROUND = [n * 10 ** zeros for zeros in range(120) for n in (1, 2, 5)]
# Length of an interval, in seconds or lines -> (its name, which slice of a position's text
# labels ticks at this distance).
_TIMES = {n * unit: (f"{n:,} {name}s" if n > 1 else name, cut) for unit, name, cut, numbers in (
    (1, "second", slice(11, 19), (1, 2, 5, 10, 15, 30)),
    (60, "minute", slice(11, 16), (1, 2, 5, 10, 15, 30)),
    (3600, "hour", slice(11, 16), (1, 2, 3)), (3600, "hour", slice(5, 16), (6, 12)),
    (86400, "day", slice(10), (1, 2, 7, *_ROUND[3:18])))
    for n in numbers}
_LINES = {n: (f"{n:,} lines" if n > 1 else "line", slice(None)) for n in _ROUND}
Row = namedtuple("Row", "below_mean line timestamp user amount mean sd")


def legible(value, length=60):
    """Return a text or int as HTML, cut to a length, with unprintable characters escaped."""
    from html import escape
    text = value if isinstance(value, str) else f"{value:,}"
    text = printable(text[:length + 1])
    return escape(text if len(text) <= length else text[:length] + "…", quote=False)


def money(cents):
    """Return cents as dollars with thousands separators: 1,601.83."""
    return re.sub(r"\B(?=(\d{3})+\.)", ",", dollars(cents))


def table(name, caption, count, heads, rows):
    """Return a heading and a <table> of rows (texts and ints), which are the first of `count`.

    `heads` names the columns, of which the first one holds the row headings.  Columns of zeros
    or empty texts are left out, and so is a table without rows.
    """
    if not rows:
        return ""
    columns = [column for column in zip(heads.split(", "), *rows) if any(column[1:])]
    heads, *rows = zip(*columns)
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    row = '<tr><th scope="row">%s</th>' + "<td>%s</td>" * (len(heads) - 1) + "</tr>\n"
    body = "".join(row % tuple(map(legible, values)) for values in rows)
    part = f"{len(rows)} of {count:,}" if len(rows) < count else ""
    return f"""<section><h2>{caption} <small>{part}</small></h2>
<div tabindex="0"><table id="{name}" aria-label="{caption}"><thead><tr>{head}</tr></thead>
<tbody>
{body}</tbody></table></div></section>
"""


def chart(name, title, words, x_ticks, y_ticks, marks):
    """Return a heading, words and an <svg> of marks on a grid, 200 pixels high.

    Ticks are (position, label), and marks are (tooltip, SVG shapes).  Horizontal positions are
    in per cent of the plot, all else in pixels, so that text has the same size on any screen.
    """
    x_axis = "".join(f'<line x1="{x:.2f}%" x2="{x:.2f}%" y2="200" {_GRID}/>'
                     f'<text x="{x:.2f}%" y="220">{label}</text>' for x, label in x_ticks)
    y_axis = "".join(f'<line x2="100%" y1="{y:.1f}" y2="{y:.1f}" {_GRID}/>'
                     f'<text x="-10" y="{y + 4:.1f}">{label}</text>' for y, label in y_ticks)
    plot = "\n".join(f"<g><title>{what}</title>{shapes}</g>" for what, shapes in marks)
    return f"""<h2>{title}</h2>
<p>{words}</p>
<figure><svg id="{name}" role="img" width="100%" height="264" overflow="visible"
font-size="12" fill="currentColor" fill-opacity=".7">
<title>{title}</title><desc>{words}</desc>
<g transform="translate(0 36)"><g class="x" text-anchor="middle">{x_axis}</g>
<g class="y" text-anchor="end">{y_axis}</g>
<g {_FLAG}>
{plot}</g></g></svg></figure>
"""


def seconds(timestamp):
    """Return the whole seconds from the beginning of year 1 to a normalized timestamp."""
    return (datetime.fromisoformat(timestamp[:19]) - datetime.min) // timedelta(seconds=1)


class Intervals(dict):
    """The sums of purchases in intervals of equal length: of time, or of lines of the stream.

    Positions are `seconds`, or numbers of lines before a line.  The dict maps the position at
    which an interval begins, a multiple of `size`, to a list: the number of purchases, their
    total in cents, the number of flagged ones, their total, and the sum of their squares.
    """

    def __init__(self, over_time):
        self.over_time, self.size, self.length = over_time, 1, ""   # length: the size's name
        self.begin = self.end = 0       # positions where the axis begins and ends
        self.sizes, self.limit, self.since = (
            (_TIMES, 240, "from") if over_time else (_LINES, 120, "after line"))

    def add(self, position, sums):
        """Add sums to those of the interval of a position."""
        begin = position // self.size * self.size
        self[begin] = list(map(add, self.get(begin, repeat(0)), sums))

    def fit(self):
        """Join intervals until at most `limit` of them cover all purchases, and set the axis.

        Each size is a multiple of the one before, so the order of purchases does not matter.
        """
        while max(self) - min(self) >= self.size * self.limit:
            self.size = next(n for n in self.sizes if n > self.size and n % self.size == 0)
            smaller = list(self.items())
            self.clear()
            for position, sums in smaller:
                self.add(position, sums)
        self.length, _ = self.sizes[self.size]
        self.begin = min(self)
        self.end = max(max(self) + self.size, self.begin + 10 * self.size)

    def across(self, position):
        """Return a position as a percentage of the axis."""
        return 100 * (position - self.begin) / (self.end - self.begin)

    def text(self, position):
        """Return a position as text: a timestamp, up to the year 9999, or a number."""
        if not self.over_time:
            return f"{position:,}"
        since = min(timedelta(seconds=position), datetime.max - datetime.min)
        return str(datetime.min + since)[:19]

    def ticks(self):
        """Return a list of up to nine ticks (per cent, label)."""
        step = next(size for size in self.sizes if self.end - self.begin <= 8 * size)
        return [(self.across(position), self.text(position)[self.sizes[step][1]])
                for position in range(-(-self.begin // step) * step, self.end + 1, step)]

    def chart(self):
        """Return a chart of the intervals: purchases over time, or flagged ones over lines."""
        column, what, style = 0, "Purchases", _BAR
        words = "The dots above are for flagged ones. Larger dots stand for more."
        if not self.over_time:
            column, what, style = 2, "Flagged purchases", ""
            words = "Time hardly tells the purchases apart, so the charts follow the lines."
        elif not any(sums[2] for sums in self.values()):
            words = "None is flagged."
        most = max(sums[column] for sums in self.values())
        step = next(n for n in _ROUND if 4 * n >= most)
        y_ticks = [(200 - 200 * n / most, f"{n:,}") for n in range(0, most + 1, step)]
        width, marks = self.across(self.begin + self.size), []
        for begin, sums in sorted(self.items()):
            purchases, _, flagged, *_ = sums
            x, height = self.across(begin), 200 * sums[column] / most
            shapes = (f'<rect x="{x:.2f}%" y="{200 - height:.1f}" height="{height:.1f}" '
                      f'width="{width + .05:.2f}%"{style}/>')
            if self.over_time and flagged:
                radius = 2 + 3.5 * log10(1 + flagged)
                shapes += f'<circle cx="{x + width / 2:.2f}%" cy="-16" r="{radius:.1f}"/>'
            marks.append((f"the {self.length} {self.since} {self.text(begin)}: "
                          f"purchases {purchases:,}, flagged {flagged:,}", shapes))
        title = f"{what} per {self.length}"
        return chart("intervals", title, words, self.ticks(), y_ticks, marks)

    def ranking(self, name, what, column):
        """Return a table of the 20 intervals with the largest numbers above 1 in a column.  Of
        equal numbers the one with the larger total comes first, then the earlier interval.
        """
        several = [item for item in sorted(self.items()) if item[1][column] > 1]
        several.sort(key=lambda item: item[1][column:column + 2], reverse=True)
        rows = []
        for begin, (purchases, total, *flags) in several[:20]:
            mean, sd = map(money, flag_of(*flags)) if flags[0] else ("", "")
            rows.append((self.text(begin), purchases, money(total), flags[0], mean,
                         sd if flags[0] > 1 else ""))
        return table(name, f"Most {what} per {self.length}", len(several),
                     f"{self.since}, purchases, total, flagged, flagged mean, flagged sd", rows)


class Report(Output):
    """An HTML page that shows what was flagged, who bought it and when."""

    name, help = "report", "write an HTML page that shows what happened; rewritten while live"
    needs = {"every"}
    dots = 500

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.times, self.lines = Intervals(True), Intervals(False)
        self.seconds = Memo(seconds)
        self.users, self.largest = Counter(), {}    # user -> number flagged; largest amount
        self.farthest = []      # the `dots` Rows farthest above their mean, the farthest first
        self.live_pages = self.write_live_pages()
        self.lines_shown = None         # number of lines that the live page in place covers

    def take(self, findings):
        for place, _, user, timestamp, amount, flag, *_ in findings.judged:
            before = self.context.stream_totals.lines_before + place
            sums = (1, amount, 1, amount, amount * amount) if flag else (1, amount, 0, 0, 0)
            self.times.add(self.seconds[timestamp[:19]], sums)
            self.lines.add(before, sums)
            if flag:
                self.users[user] += 1
                self.largest[user] = max(amount, self.largest.get(user, amount))
                insort(self.farthest,
                       Row(flag.mean - amount, before + 1, timestamp, user, amount, *flag))
                del self.farthest[self.dots:]
        if findings.judged:
            self.times.fit()
            self.lines.fit()

    def tick(self):
        super().tick()
        if not self.direct:
            next(self.live_pages)

    def write_live_pages(self):
        """Write a page, and yield until the next one is due, 2 seconds later or, if no lines
        are new, 32.  Writing takes at most 2 % of the time.  If a page cannot be written, only
        warn.
        """
        first, pause, stream = time.monotonic(), 0, self.context.stream_totals
        while True:
            begin = time.monotonic()
            # Browsers reload the page about as often as purchases are flagged, but only every
            # 30 to 300 s, because a reload clears any text that the reader has selected.
            between_flags = (begin - first) / (stream.counts["flagged"] + 1)
            try:
                self.show(round(min(max(between_flags, pause, 30), 300)))
                self.lines_shown = stream.position.lines
            except (OSError, Failure) as error:
                reason = getattr(error, "strerror", error)
                self.warn(f"{self.called}: live page not written: {reason}")
            end = time.monotonic()
            pause = max(2, 50 * (end - begin))
            while time.monotonic() < end + pause + (
                    30 if stream.position.lines == self.lines_shown else 0):
                yield

    def show(self, reload=None):
        """Replace the live page with the page so far."""
        with replacing(OutputFile(self.option, self.path, warn=self.warn)) as live:
            live.write(self.page(reload))
        self.written = True

    def complete(self):
        self.write(self.page())
        super().complete()
        self.lines_shown = None

    def discard(self):
        """If a live run fails, leave a last page that no longer reloads."""
        super().discard()
        if self.lines_shown is not None:
            self.lines_shown = None
            with contextlib.suppress(OSError, Failure, *NO_MEMORY):
                self.show()

    def page(self, reload=None):
        """Return the page as HTML.  Browsers reload a live page every `reload` seconds."""
        detector, batch, stream = self.context
        judged, flags, few = (stream.counts[key] for key in ("purchases", "flagged", "too_few"))
        times = " to ".join(f"<time>{t}</time>" for t in sorted({stream.first, stream.last}))
        period = f" ({times})" if judged else ""
        too_few = f", {few:,} with fewer than 2 purchases to judge by" if few else ""
        logs = [legible(log.name, 4096).replace("/", "/<wbr/>") for log in (batch, stream)]
        refresh = as_of = ""
        if reload:
            refresh = f'<meta http-equiv="refresh" content="{reload}">'
            now = time.strftime("%Y-%m-%d %H:%M:%S %z")
            as_of = (f"<p>This page is as of line {stream.position.lines:,} of the stream. "
                     f"It was written at <time>{now}</time> and is loaded again every "
                     f"{reload} s. If it is more than {3 * reload} s old, the run has ended."
                     "</p>")
        return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>Anomalous purchases in {legible(stream.name)}</title>
<style>{_STYLE}</style></head>
<body><h1>Anomalous purchases</h1>
<p>Purchases judged: <b>{judged:,}</b>{period}{too_few}.
Flagged: <b>{flags:,}</b> ({money(10000 * flags // max(judged, 1))}%). The limit is
{detector.limit} of the last T = {detector.tracked:,} purchases in the buyer’s network,
D = {detector.degree:,} degrees. The sd (standard deviation) tells how far those amounts
usually are from their mean.
Malformed lines skipped: {batch.counts["skipped"] + stream.counts["skipped"]:,}.
Logs: {", ".join(logs)}.</p>
{as_of}
<div class="tables">
{self.tables()}</div>
{self.charts() if judged else ""}</body></html>
"""

    def tables(self):
        """Return the tables of flagged purchases, and of the users flagged more than once."""
        figures = "amount, above mean, sd above mean, network mean, network sd"
        rows = [(row.user, row.timestamp, money(row.amount), money(-row.below_mean),
                 money(100 * -row.below_mean // row.sd)[:-1] if row.sd else "∞",
                 money(row.mean), money(row.sd), str(row.line)) for row in self.farthest[:200]]
        users = [(user, number, money(self.largest[user]))
                 for user, number in self.users.most_common() if number > 1]
        return table("flagged", "Flagged purchases, farthest above their mean first",
                     self.context.stream_totals.counts["flagged"],
                     f"user, timestamp, {figures}, line", rows) + table(
            "users", "Users flagged more than once", len(users),
            "user, flagged, largest", users[:20])

    def charts(self):
        """Return charts and rankings of intervals: of lines if any purchase is flagged and one
        interval of time has more than two purchases and more than a quarter, else of time.
        """
        intervals, most = self.times, max(sums[0] for sums in self.times.values())
        if self.farthest and most > max(2, self.context.stream_totals.counts["purchases"] / 4):
            intervals = self.lines
        busiest = intervals.ranking("busiest", "purchases", 0) if intervals.over_time else ""
        amounts = self.amounts(intervals) if self.farthest else ""
        return f"""{intervals.chart()}{amounts}<div class="tables">
{busiest}{intervals.ranking("most-flags", "flags", 2)}</div>
"""

    def amounts(self, axis):
        """Return the chart of the flagged amounts, each with its mean and limit."""
        def y(cents):
            return 200 - 200 * log10(max(cents, low) / low) / log10(high / low)

        rows, detector, marks = self.farthest, self.context.detector, []
        least = max(1, min(row.mean for row in rows))
        low = max(n for n in _ROUND if n <= least)
        high = next(n for n in _ROUND if n > max(low, *(row.amount for row in rows)))
        grid = [n for n in _ROUND if low <= n <= high]
        y_ticks = [(y(n), ("≤ " if n == 1 else "") + money(n).replace(".00", ""))
                   for n in grid[::-(-len(grid) // 8)]]
        positions = [seconds(row.timestamp) if axis.over_time else row.line - 1 for row in rows]
        together, placed = Counter(positions), Counter()
        for row, begin in zip(rows, positions):
            # Spread the purchases at one position evenly over the rest of its interval.
            room = axis.size - begin % axis.size
            x = axis.across(begin + room * placed[begin] / together[begin])
            placed[begin] += 1
            limit = row.mean + detector.deviations * row.sd
            marks.append((
                f"line {row.line}, {row.timestamp}, user {legible(row.user)}: "
                f"{money(row.amount)}, mean {money(row.mean)}, limit {money(limit)}",
                f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="{y(row.mean):.1f}" '
                f'y2="{y(limit):.1f}" stroke="currentColor" stroke-opacity=".4"/>'
                f'<circle cx="{x:.2f}%" cy="{y(row.amount):.1f}" r="3"/>'))
        words = ("On a logarithmic scale, each above a line from its mean to its limit, "
                 f"{detector.limit}.")
        if len(rows) < self.context.stream_totals.counts["flagged"]:
            words = f"The {len(rows)} farthest above their mean. {words}"
        return chart("amounts", "Flagged amounts", words, axis.ticks(), y_ticks, marks)


# The outputs of a run are opened, written and replaced in this order.  Snapshot must be last.
OUTPUTS = FlaggedPurchases, Rejects, Notify, Verdicts, Evidence, Report, Snapshot


# --------------------------------------------------------------------- signals

class Stopped(Exception):
    """A signal has ended the run."""

    def __init__(self, number):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class Signals:
    """Notes SIGINT, SIGTERM and SIGHUP, from `catch` to `restore`.

    A handler raises nothing, since Python discards what is raised inside some callbacks.
    Instead a run calls `look` before each read and each purchase of a file, and WAIT
    milliseconds after it began to wait.  A signal that was ignored before, as under nohup,
    stays ignored.
    """

    def __init__(self):
        self.received, self.before = [], {}
        self.parent = None              # of a worker: the process to work for

    def catch(self):
        for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
            if signal.getsignal(number) is not signal.SIG_IGN:
                with contextlib.suppress(ValueError):       # not the main thread
                    self.before[number] = signal.signal(
                        number, lambda number, frame: self.received.append(number))

    def look(self):
        """Raise Stopped if a signal has come.  End a worker if its parent has ended."""
        if self.parent:
            if os.getppid() != self.parent:
                os._exit(1)
        elif self.received:
            raise Stopped(self.received[0])

    def restore(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)


# --------------------------------------------------------------------- workers
#
# --jobs judges several parts of a stream side by side, and --shard K/N judges only one of N
# parts.  A process first applies every event before its part, so it judges in the state that a
# single process would be in.  The outputs take the Findings of all parts in the order of the
# log.  So --jobs changes no byte of any output, and the line-by-line outputs of all shards,
# joined, equal those of a single process.  A report covers one shard.  Only the last writes a
# snapshot.

PART = 1 << 18      # the least number of bytes for which a process pays off
CGROUP = "/sys/fs/cgroup"
QUOTAS = ("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")    # versions 2 and 1
EXPECTED_ERRORS = Failure, Malformed, OSError, ImportError, *NO_MEMORY  # one line, no traceback


def processors():
    """Return how many processors this process can use, given its affinity and cgroup quota."""
    if hasattr(os, "process_cpu_count"):        # Python 3.13
        number = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        number = len(os.sched_getaffinity(0))
    else:
        number = os.cpu_count() or 1
    for names in QUOTAS:
        with contextlib.suppress(OSError, ValueError):
            words = []
            for name in names:
                with open(os.path.join(CGROUP, name)) as file:
                    words += file.read().split()
            quota, period = map(int, words)         # ValueError for "max", which means no quota
            if quota > 0:
                number = min(number, -(-quota // period))
    return number


def number_of_jobs(jobs, size, state):
    """Return the number of processes that judge `size` bytes: `jobs` if given, up to 4 per
    processor.  By default up to one per processor, each with enough bytes to pay off.

    Forking a state that was read from `state` bytes takes as long as judging state / 24 bytes.
    """
    if not size:
        return 1
    if jobs:
        return min(jobs, 4 * processors())
    return max(1, min(processors(), size // max(PART, state // 24)))


def save_findings(all_findings, file):
    """Write Findings to a file as they come, then an end mark: None, or a Failure that tells of
    the error that ended them."""
    import pickle
    mark = None
    try:
        for findings in all_findings:
            pickle.dump(findings, file, pickle.HIGHEST_PROTOCOL)
    except EXPECTED_ERRORS as error:
        if isinstance(error, OSError):
            error.filename = error.filename or "a temporary file"
        mark = Failure(explained(error))
    pickle.dump(mark, file)
    file.flush()


def saved_findings(file):
    """Yield the Findings saved in a file.  Raise its end mark unless that is None.

    If a worker was killed, its file has no end mark: the Findings that were saved are yielded,
    the rest are lost, and the run fails.
    """
    import pickle
    file.seek(0)
    try:
        for entry in iter(partial(pickle.load, file), None):
            if isinstance(entry, Exception):
                raise entry
            yield entry
    except (EOFError, pickle.UnpicklingError):
        raise Failure("a worker process died, "
                      "perhaps for lack of memory or disk space") from None


def run_worker(signals, parent, part_findings, file):
    """Save the Findings of a part, then end this forked process, skipping exit handlers.

    The worker notes signals and ignores them: its parent ends it.
    """
    signals.parent = parent
    try:
        save_findings(part_findings(), file)
    except NO_MEMORY:
        pass                    # the file has no end mark
    except Exception:           # a programming error
        import pickle
        import traceback
        pickle.dump(RuntimeError("in a worker process: " + traceback.format_exc()), file)
        file.flush()
    finally:
        os._exit(0)


def side_by_side(parts, stack, signals):
    """Start a worker for each part but the last.  Return an iterator over the Findings of all
    parts in order, which first judges the last part in this process.

    That leaves the Detector of this process in the state that a snapshot needs.  Each of
    `parts` is a function that returns an iterator over Findings.  The ExitStack ends the
    workers.  Raises OSError if the system refuses a process or a temporary file.
    """
    import multiprocessing
    import pickle       # these two are for the workers: an import without memory may never end
    import tempfile
    import traceback
    fork, parent = multiprocessing.get_context("fork").Process, os.getpid()
    files = [tempfile.TemporaryFile() for _ in parts]
    for file in files:
        stack.callback(close, file)
    workers = [fork(target=run_worker, args=(signals, parent, part_findings, file))
               for part_findings, file in zip(parts[:-1], files)]
    for worker in workers:
        worker.start()
        stack.callback(worker.join)
        stack.callback(worker.kill)             # the stack's last entry is called first

    def findings():
        save_findings(parts[-1](), files[-1])
        for worker, file in zip(workers, files):
            while not wait_for(worker.sentinel):
                signals.look()
            yield from saved_findings(file)
        yield from saved_findings(files[-1])

    return findings()


# ------------------------------------------------------------------------- run

LIVE_PIECE = 1 << 10    # bytes of a live stream between looks for a signal, about ten lines


class Abandoned(Failure):
    """Every output but the snapshot has failed."""


Ending = namedtuple("Ending", "files snapshot status")


def decide(error, live, failures, snapshot):
    """Return the Ending of a run: whether its outputs take their places, whether its snapshot
    does, and the exit status.

    error is what ended the run, or None if all was read.  live tells whether it was judging a
    live stream, which is a pipe.  failures are the errors of the outputs that failed.  snapshot
    tells whether the run has one.

    what ended it                         outputs    snapshot    status
    nothing: all was read                 placed     placed      0
    a signal, a live stream               placed     placed      128 + its number
    an error, a live stream               placed     placed      1
    out of memory, a live stream          placed     stays       1
    a signal, files or still loading      stay       stays       128 + its number
    an error, files or still loading      stay       stays       1, or 2: could not start
    no output is left but the snapshot    stay       stays       1, or 0: all readers have gone,
                                                                 and there is no snapshot

    If an output failed in one of the first four rows, it is not placed, the snapshot stays, and
    the status is 1.  A direct output keeps what was written to it.  When memory runs out, an
    event may be half applied.

    A snapshot records which lines need not be judged again, as a consumer's offset does in
    Kafka.  So it is placed last, and only if everything that it covers has been delivered.
    Otherwise the next run judges these lines again: each flag is written at least once.
    """
    if isinstance(error, Abandoned):
        readers_gone = all(isinstance(failure, BrokenPipeError) for failure in failures)
        return Ending(False, False, 0 if readers_gone and not snapshot else 1)
    status = getattr(error, "status", 1) if error else 0
    if error and not live:
        return Ending(False, False, status)
    commits = snapshot and not failures and not isinstance(error, NO_MEMORY)
    return Ending(True, commits, 1 if failures else status)


def check_places(places):
    """Raise Failure if two places are the same.  Only --snapshot may be BATCH, by one name."""
    for earlier, place in combinations(places, 2):
        replaces_batch = (place.option, earlier.option) == ("--snapshot", "BATCH")
        if place.is_same(earlier) and not (replaces_batch and place.target == earlier.target):
            both = f"{place.option} and {earlier.option}"
            raise Failure(f"{place.called} is given to both {both}", 2)


class Run:
    """One run of the command line: open, load, judge, and the ending that `decide` returns.

    Over files, an output that fails is given up, and the others go on.  A live run with a
    snapshot ends at its first failed output, because its snapshot can no longer take its place.

    The first signal ends the judging.  Over files it does so at once.  Live, the lines already
    read are judged first, and a second signal gives up a direct output that nobody reads.  Over
    files, a signal that comes while results are written gives up such an output.
    """

    def __init__(self, args, console, signals):
        self.args, self.console, self.signals = args, console, signals
        self.outputs, self.snapshot = [], None  # all outputs but the snapshot; the snapshot
        self.failures = {}                      # failed output -> its error
        self.live = self.ended = False          # whether a live stream is judged; judging ended
        self.lines_before, self.first_covered = 0, ""   # of STREAM: lines skipped; see Position
        self.times = []                         # when each step ended
        self.reserve = bytes(1 << 20)           # freed so that a lack of memory can be reported

    def execute(self):
        """Do what the command line asks for, and return the exit status."""
        with contextlib.ExitStack() as self.stack:
            error = None
            try:
                self.open()
                self.load()
                self.judge()
            except (Stopped, *EXPECTED_ERRORS) as caught:
                self.reserve = None
                error = caught.with_traceback(None)
            self.ended = True
            self.times.append(time.perf_counter())
            return self.end(error)

    def open(self):
        """Open the outputs and the logs, and read D and T."""
        args, console, look = self.args, self.console, self.signals.look
        places = Place("BATCH", args.batch_log), Place("STREAM", args.stream_log)
        outputs = self.open_outputs(*places)
        batch_log, stream_log = Log(places[0], CHUNK, look), Log(places[1], LIVE_PIECE, look)
        for log in batch_log, stream_log:
            self.stack.enter_context(log.file)
        if args.shard[1] > 1 and not stream_log.is_file:
            raise Failure("--shard needs a STREAM that is a regular file", 2)
        batch, stream = (Totals(log, ignore if args.strict else console.info)
                         for log in (batch_log, stream_log))
        chunks = batch_log.chunks(on_read=console.progress(batch, batch_log.size))
        try:
            detector, position, self.batch_chunks = read_state(
                batch_log, chunks, args.degree, args.tracked, args.sd)
        except Failure as error:
            head = os.pread(stream_log.file.fileno(), CHUNK, 0) if stream_log.is_file else b""
            if first_kinds(head)[0] == "header":
                swapped = f"{stream.name} has them: were the logs swapped?"
                raise Failure(f"{error}; {swapped}", 2) from None
            raise
        if detector.least_tracked < detector.tracked:
            held = detector.least_tracked
            console.warn(f"{batch.name}: holds only the last {held} purchases of each user, so "
                         f"a window of {detector.tracked} may lack some")
        self.first_covered = position.first
        if args.resume:
            stream_log.skip(position)
            stream.position, self.lines_before = position, position.lines
        self.context = Context(detector, batch, stream)
        for output in outputs:
            output.context = self.context
        if args.snapshot:
            self.snapshot = outputs.pop()
        self.outputs = outputs

    def open_outputs(self, batch_place, stream_place):
        """Return the outputs, opened.  What cannot work is refused before a log is read."""
        outputs = [kind(path, self.wait, self.console.warn) for kind, path in self.args.outputs]
        check_places([batch_place, stream_place, *outputs])
        for output in outputs:
            self.stack.callback(output.discard)
            output.open()
            if isinstance(output, Snapshot):
                output.lock()
            if not (self.args.resume and output.is_same(batch_place)):
                refuse_log(output)
        return outputs

    def load(self):
        """Build the state from the batch log.

        Every shard reads the whole batch log, but only the outputs of the first shard take its
        malformed lines, so that joined --rejects files contain each line once.
        """
        self.times.append(time.perf_counter())
        detector, totals = self.context.detector, self.context.batch_totals
        for findings in replay(self.batch_chunks, detector, strict=self.args.strict):
            self.receive(totals, findings, take=self.args.shard[0] == 1)
        self.require_events(totals)
        self.newest = detector.history.newest       # of the batch log
        self.times.append(time.perf_counter())

    def judge(self):
        """Judge the stream, and let the outputs take the Findings."""
        totals, log = self.context.stream_totals, self.context.stream_totals.log
        judge_chunks = partial(judge, detector=self.context.detector, strict=self.args.strict,
                               needs=set().union(*(output.needs for output in self.outputs)))
        self.live = not log.is_file
        if self.live:
            all_findings = judge_chunks(log.chunks(on_read=self.console.progress(totals, 0)))
        else:
            all_findings = self.file_findings(partial(judge_chunks, look=self.signals.look))
        warned = not self.live
        for findings in all_findings:
            self.receive(totals, findings)
            if self.live:
                warned = warned or self.require_events(totals, ended=False)
                self.each(lambda output: output.tick(), self.outputs)
            self.signals.look()
        self.signals.look()
        self.require_events(totals)

    def file_findings(self, judge_chunks):
        """Return an iterator over the Findings of this shard of a stream that is a file.

        If the system refuses processes or temporary files, and --jobs is not given, this
        process judges the whole shard.
        """
        args, (detector, batch, totals) = self.args, self.context
        log = totals.log
        size = (log.size - log.start) // args.shard[1]
        jobs = number_of_jobs(args.jobs, size, batch.log.size)
        boundaries = log.boundaries(jobs, args.shard)
        for findings in replay(log.chunks(log.start, boundaries[0]), detector):
            totals.position.add(findings)       # so that line numbers are the log's

        def part_findings(start, stop):
            for _ in replay(log.chunks(boundaries[0], start), detector):
                pass
            is_worker = self.signals.parent is not None
            on_read = ignore if is_worker else self.console.progress(totals, stop - start)
            yield from judge_chunks(log.chunks(start, stop, on_read))

        if jobs > 1:
            detector.history.recent_purchases()     # for the first part; others build theirs
            stack = self.stack.enter_context(contextlib.ExitStack())
            parts = [partial(part_findings, *part) for part in zip(boundaries, boundaries[1:])]
            try:
                return side_by_side(parts, stack, self.signals)
            except OSError:
                if args.jobs:
                    raise
                stack.close()
        return part_findings(boundaries[0], boundaries[-1])

    def receive(self, totals, findings, take=True):
        """Count Findings and let the outputs take them.

        With --strict, raises Failure if a line is malformed.  That line is the last one.
        """
        totals.add(findings)
        if take:
            self.each(lambda output: output.take(findings), self.outputs)
        if self.args.strict and findings.malformed:
            line = totals.lines_before + findings.malformed[-1].place + 1
            raise Failure(f"{totals.name}:{line}: {totals.reason} (--strict)")

    def each(self, act, outputs):
        """Call act(output) for some outputs.  Give up those that fail, and tell their errors.

        Until the judging has ended, raise Abandoned if no output is left but the snapshot, and
        raise the last error if the run is live and has a snapshot.
        """
        failed, end = [], None
        for output in outputs:
            if output not in self.failures:
                try:
                    act(output)
                except (OSError, ImportError, *NO_MEMORY) as error:
                    error.filename = output.called
                    self.failures[output] = error.with_traceback(None)
                    failed.append(error)
                    output.discard()
        if failed and not self.ended:
            if all(output in self.failures for output in self.outputs):
                end = Abandoned(explained(failed.pop()))
            elif self.snapshot and not self.context.stream_totals.log.is_file:
                end = failed.pop()
        for error in failed:
            self.console.warn(f"{explained(error)}; this output is given up")
        if end:
            raise end

    def require_events(self, totals, ended=True):
        """Raise Failure if a log is no log of events (see `unreadable`).

        Of a live stream that goes on, was stopped or has events, warn and return the message.
        """
        part = self.args.shard[1] > 1 and totals is self.context.stream_totals
        message = unreadable(totals, ended, part)
        if message and (totals.log.is_file or ended and not totals.counts["events"]):
            self.live = False       # another kind of file is no live stream
            raise Failure(message)
        if message:
            self.console.warn(message)
        return message

    def wait(self):
        """Raise what ends the wait for an output's reader: Stopped, or the output's error."""
        outlasted = 1 if self.live else 0       # number of signals
        if not self.live and not self.ended:
            self.signals.look()
        elif len(self.signals.received) > outlasted:
            raise InterruptedError(errno.EINTR, "nobody reads it")

    def end(self, error):
        """Do what `decide` says, tell how the run ended, and return the exit status.

        All outputs but the snapshot are complete, and temporary files on disk, before the first
        one takes its place, and each is in its place on disk before the next one.  Only then is
        the snapshot, which may replace BATCH, even written.
        """
        def ending():
            return decide(error, self.live, list(self.failures.values()), bool(self.snapshot))

        if ending().files:
            self.place(self.outputs)
        if ending().snapshot:       # a signal to all processes may have ended the readers, too
            self.each(lambda output: output.check_reader(), self.outputs)
        if ending().snapshot:
            self.place([self.snapshot])
        final = ending()
        placed = [output.called for output in self.outputs if output not in self.failures]
        if final.snapshot:
            placed.append(self.snapshot.called)
        if final.files:
            self.summarize(placed)
        self.tell_ending(error, final, placed)
        return final.status

    def place(self, outputs):
        """Complete some outputs, then replace the old files."""
        self.each(lambda output: output.complete(), outputs)
        self.each(lambda output: output.replace(), outputs)

    def summarize(self, placed):
        """Tell what the logs held, and where the results are."""
        console, detector = self.console, self.context.detector
        batch, stream = logs = self.context.batch_totals, self.context.stream_totals
        if self.live:
            self.require_events(stream, ended=False)
        for totals in logs:
            totals.tell_held()
            if totals.counts["skipped"]:
                console.warn(totals.skipped())
        k, shards = self.args.shard
        if k == shards and stream.last and stream.last < self.newest == detector.history.newest:
            console.warn(f"all of {stream.name} is older than the newest purchase of "
                         f"{batch.name}, {self.newest}: was it judged before?")
        if not self.args.resume and self.first_covered and (
                self.first_covered == stream.position.first):
            console.warn(f"{stream.name} begins like the log that {batch.name} covers: was it "
                         "judged before, without --resume?")
        judged, few = stream.counts["purchases"], stream.counts["too_few"]
        too_few = f" ({few} with fewer than 2 purchases to judge by)" if few else ""
        if few == judged >= 20:
            console.warn(f"{stream.name}: nothing to judge by: do the ids of both logs agree?")
        events = [f"{totals.counts['events']} events ({totals.counts['skipped']} skipped)"
                  for totals in logs]
        start, loaded, end = self.times
        before = f" after {self.lines_before} lines read before" if self.lines_before else ""
        span = f", {stream.first} to {stream.last}" if stream.first else ""
        written = ", ".join(placed) or "nothing is written"
        console.info(
            f"batch {events[0]}, stream {events[1]}{before}, {judged} judged{too_few}, "
            f"{stream.counts['flagged']} flagged, {loaded - start:.2f} s batch + "
            f"{end - loaded:.2f} s stream; above {detector.limit}{span}; {written}")

    def tell_ending(self, error, ending, placed):
        """Tell what ended the run, if it was not the end of the logs, and what that means."""
        parts = []
        written = [output.called for output in self.outputs if output.written]
        if error and ending.files:
            totals = self.context.stream_totals
            ended = "" if isinstance(error, Stopped) else "; ended"
            parts.append(f"{explained(error)}{ended} after line {totals.position.lines} "
                         f"of {totals.name}")
            to = f" to {', '.join(placed)}" if self.failures else ""
            if placed:
                parts.append(f"what was judged is written{to}")
        elif error and ending.status:
            parts.append(explained(error))
            if ending.status != 2:
                parts.append("no output file is changed")
                if written:
                    parts[-1] += f", but {', '.join(written)} may hold part of the results"
        # A snapshot that is in its place fails, too, if its folder cannot be synced.
        old_stays = self.snapshot and (self.snapshot.direct or not self.snapshot.written)
        delivered = (ending.files or self.live or written) and not ending.snapshot
        if old_stays and delivered and self.context.stream_totals.counts["purchases"]:
            parts.append("no snapshot is written, so the next run judges these lines again")
        if parts:
            self.console.warn("; ".join(parts))


# ---------------------------------------------------------------- command line

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
FILES = {"batch_log": os.path.join(ROOT, "log_input", "batch_log.json"),
         "stream_log": os.path.join(ROOT, "log_input", "stream_log.json"),
         "output": os.path.join(ROOT, "log_output", "flagged_purchases.json")}
EPILOG = """\
BATCH, STREAM and OUTPUT are by default the project's log_input/batch_log.json,
log_input/stream_log.json and log_output/flagged_purchases.json.

two examples, of which the second is live and writes each flag at once:
  %(prog)s -D 3 -T 100 batch_log.json stream_log.json flagged.json
  tail -n +1 -F purchases.log | %(prog)s batch_log.json - -

exit status: 0 done, 1 failed midway, 2 could not start, 128 + N signal N"""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        """Raise a Failure, with the most frequent messages of argparse in plainer words."""
        for theirs, ours in (
                ("^argument ", ""), (": expected one argument$", " needs a value"),
                (": ignored explicit argument .*", " takes no value"),
                ("^unrecognized arguments:", "there is no option"),
                (r"option -([dt]).*", r"option -\1: D and T are capitals")):
            message = re.sub(theirs, ours, message)
        raise Failure(f"{message} (see --help)", 2)


def number_from(least, text):
    """Return a whole number, at least `least`.  Raises ArgumentTypeError."""
    try:
        return whole_number(text, least)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from None


def k_of_n(text):
    """Return (K, N) of "K/N", 1 <= K <= N.  Raises ArgumentTypeError."""
    match = re.fullmatch("([0-9]{1,18})/([0-9]{1,18})", text)
    if not (match and 1 <= int(match[1]) <= int(match[2])):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not K/N with K from 1 to N")
    return int(match[1]), int(match[2])


def decimal(text):
    """Return a decimal number from 0 up in its shortest form.  Raises ArgumentTypeError."""
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a decimal number from 0 up")
    return plain_number(text)


def make_parser():
    """Return an ArgumentParser with the program's options."""
    parser = Parser(
        prog="anomaly_detection.py", usage="%(prog)s [options] [BATCH STREAM OUTPUT]",
        description="Flag the purchases of STREAM that are anomalous within a social network.",
        # A fixed width saves the time to look up that of the terminal.
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=80),
        epilog=EPILOG, allow_abbrev=False)
    add, from_1, from_2 = parser.add_argument, partial(number_from, 1), partial(number_from, 2)
    add("files", nargs="*", help=argparse.SUPPRESS)
    add("--batch-log", metavar="FILE", help="the log that builds the state")
    add("--stream-log", metavar="FILE", help='the log that is judged ("-": standard input)')
    for kind in OUTPUTS:
        add(f"--{kind.name}", metavar="FILE", help=kind.help)
    add("-D", "--degree", type=from_1, metavar="N", help="network degree, instead of BATCH's D")
    add("-T", "--tracked", type=from_2, metavar="N", help="window size, instead of BATCH's T")
    add("--sd", type=decimal, default=3, metavar="N", help="flag above mean + N sd (default 3)")
    add("--resume", action="store_true", help="skip the lines that BATCH, a snapshot, covers")
    add("--strict", action="store_true", help="end at the first malformed line")
    add("--jobs", type=from_1, metavar="N", help="processes (default: up to one per processor)")
    add("--shard", type=k_of_n, default=(1, 1), metavar="K/N", help="judge only part K of N")
    add("-q", "--quiet", action="store_true", help="say only what went wrong or was skipped")
    add("-V", "--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def parse(arguments):
    """Return the options, with `outputs` as (class, path).  SystemExit: help has been shown."""
    parser, end = make_parser(), [*arguments, "--"].index("--")     # where only names follow
    args = parser.parse_intermixed_args(arguments[:end])
    options = vars(args)
    files = [*args.files, *arguments[end + 1:]]     # argparse itself can lose those after "--"
    unnamed = [name for name in FILES if options[name] is None]
    if files and len(files) != len(unnamed):
        parser.error('give BATCH STREAM OUTPUT ("-": standard output), not '
                     f"{len(files)} of them by place and {len(FILES) - len(unnamed)} by name")
    options.update(zip(unnamed, files or map(FILES.get, unnamed)))
    if "" in options.values():
        parser.error("the name of a file is empty")
    if args.batch_log == "-":
        parser.error('BATCH cannot be "-", only STREAM can')
    if args.snapshot and args.shard[0] < args.shard[1]:
        parser.error("--snapshot needs the last --shard: only that reads all of STREAM")
    args.outputs = [(kind, options[kind.name]) for kind in OUTPUTS if options[kind.name]]
    return args


def main(arguments=None):
    """Run the command line, and return the exit status."""
    console, signals = Console(), Signals()
    try:
        try:
            args = parse(sys.argv[1:] if arguments is None else arguments)
        except SystemExit:
            with contextlib.suppress(BrokenPipeError):      # the reader has closed the pipe
                print(end="", flush=True)
            return 0
        console.quiet, console.outputs = args.quiet, [path for _, path in args.outputs]
        signals.catch()
        return Run(args, console, signals).execute()
    except EXPECTED_ERRORS as error:
        console.warn(explained(error))
        return getattr(error, "status", 1)
    finally:
        console.write("")
        signals.restore()


if __name__ == "__main__":
    gc.disable()        # few cycles are built, and a run with the collector takes 33 % longer
    sys.unraisablehook = ignore     # so that only main reports a lack of memory
    # Everything is written, so do not spend time on freeing millions of objects.
    os._exit(main())
