"""A purchase history and its short-cut, against sorted lists of everything.

The tests of RecentPurchases bind to its pages: only there does it show that the pages are bounded
and lack nothing; by its results alone, a page that is lost would look like a short-cut not taken.
"""

import unittest
from collections import defaultdict
from contextlib import contextmanager
from itertools import islice
from random import Random
from unittest.mock import patch

import support      # first: it finds the modules below
from anomaly_detection import PurchaseHistory, RecentPurchases, normalized_timestamp

NOON = "2017-06-13 12:00:%02d"


@contextmanager
def small_pages(page_size, page_limit):
    """RecentPurchases with pages that a short test fills."""
    with patch.multiple(RecentPurchases, page_size=page_size, capacity=page_size * page_limit):
        yield


class Literal:
    """A PurchaseHistory beside the list of all purchases ever recorded in it."""

    def __init__(self, tracked):
        self.history, self.tracked = PurchaseHistory(tracked), tracked
        self.all = []       # (time, number, user, cents)

    def record(self, user, second, cents):
        """Record a purchase at some second, that may have a fraction, of the hour."""
        whole, part = divmod(round(second * 10), 10)
        text = "2017-06-13 12:%02d:%02d" % divmod(whole, 60) + (".%d" % part if part else "")
        self.history.record(user, text, "%d.%02d" % divmod(cents, 100))
        self.all.append((normalized_timestamp(text), len(self.all), user, cents))

    def last(self, users, count=None):
        """(timestamp, amount) of the last purchases of users, newest first, the literal way."""
        theirs = sorted((p for p in self.all if p[2] in users), reverse=True)
        return [(p[0], p[3]) for p in theirs[:count or self.tracked]]


def seen(purchases):
    """(timestamp, amount) of purchases as the program yields them."""
    return [(timestamp, amount) for timestamp, seq, amount in purchases]


def clocks(rng):
    """Ways for time to go on, late and disordered ones among them."""
    return rng.choice((
        lambda k: k, lambda k: k // 7, lambda k: 5,
        lambda k: max(k - (rng.random() < 0.1) * rng.randint(0, 40), 0),
        lambda k: 1000 - k, lambda k: rng.randint(0, 300) / 10, lambda k: rng.randint(0, 3000),
        lambda k: k if k % 50 else 3000))           # every 50th from the future


class Recording(unittest.TestCase):

    def amounts(self, history, users, count):
        return [amount for timestamp, seq, amount in history.last(users, count)]

    def recorded(self, *purchases, tracked=3):
        history = PurchaseHistory(tracked)
        for second, amount in purchases:
            history.record("u", NOON % second, str(amount))
        return self.amounts(history, ["u"], tracked)

    def test_newest_first_and_bounded(self):
        self.assertEqual(self.recorded((1, 1), (2, 2)), [200, 100])
        self.assertEqual(self.recorded((1, 1), (2, 2), (3, 3), (4, 4), (5, 5)), [500, 400, 300])

    def test_equal_timestamps_are_in_the_order_of_arrival(self):
        self.assertEqual(self.recorded((1, 1), (1, 2), (1, 3), (1, 4)), [400, 300, 200])

    def test_a_late_purchase_takes_its_place(self):
        self.assertEqual(self.recorded((1, 1), (5, 2), (3, 3)), [200, 300, 100])

    def test_bounded_by_timestamp_not_by_arrival(self):
        """A late purchase drops the oldest, or nothing if it is the oldest itself."""
        self.assertEqual(self.recorded((1, 1), (5, 2), (6, 3), (3, 4)), [300, 200, 400])
        self.assertEqual(self.recorded((4, 1), (5, 2), (6, 3), (3, 4)), [300, 200, 100])
        self.assertEqual(self.recorded((4, 1), (5, 2), (6, 3), (3, 4), (2, 5), (4, 6), (9, 7)), [700, 300, 200])

    def test_a_late_tie_comes_after_those_it_equals(self):
        self.assertEqual(self.recorded((4, 1), (5, 2), (6, 3), (4, 4)), [300, 200, 400])

    def test_late_for_the_log_but_not_for_the_user(self):
        """Another user's later purchase makes no difference."""
        history = PurchaseHistory(2)
        for user, second, amount in ("a", 9, "1"), ("b", 3, "2"), ("b", 2, "3"), ("b", 4, "4"), ("a", 1, "5"):
            history.record(user, NOON % second, amount)
        self.assertEqual(self.amounts(history, ["b"], 2), [400, 200])
        self.assertEqual(self.amounts(history, ["a", "b"], 9), [100, 400, 200, 500])

    def test_an_invalid_purchase_adds_nothing(self):
        history = PurchaseHistory(2)
        for timestamp, amount in ("x", "1"), (NOON % 1, "x"), (NOON % 61, "1"), (NOON % 1, "1e100"):
            self.assertRaises(ValueError, history.record, "u", timestamp, amount)
        history.record("u", NOON % 1, "1")
        self.assertEqual(seen(history.last(["u", "v"], 2)), [(NOON % 1, 100)])

    def test_strangers_have_no_purchases(self):
        history = PurchaseHistory(2)
        self.assertEqual(list(history.last(["nobody"], 2)), [])
        self.assertEqual(list(history.last([], 2)), [])

    def test_enormous_bound(self):
        """Nothing is set aside for purchases that have not come."""
        for tracked in 10 ** 9, 10 ** 18 - 1:
            literal = Literal(tracked)
            for k in range(300):
                literal.record("ab"[k % 2], k % 60, k)
            self.assertEqual(seen(literal.history.last("ab", tracked)), literal.last("ab"))

    def test_random_histories(self):
        """Any users' last purchases at any time, be they more or fewer than are asked for."""
        rng = Random(1)
        for _ in range(180):
            literal, clock = Literal(rng.choice((2, 3, 5, 12, 40))), clocks(rng)
            for k in range(rng.randint(1, 200)):
                literal.record(rng.choice("abcdefgh"), clock(k), rng.randint(0, 9999))
                if not k % 20:
                    users = rng.sample("abcdefgh?", rng.randint(0, 9))
                    self.assertEqual(seen(literal.history.last(users, literal.tracked)), literal.last(users))
            self.assertEqual(literal.history.recorded, len(literal.all))


class Recent(unittest.TestCase):
    """RecentPurchases: what it yields are the newest ones, however few."""

    def check(self, literal, users):
        recent, count = literal.history.recent_purchases(), literal.tracked
        self.check_pages(recent.pages)
        expected = literal.last(users)
        walked = seen(islice(recent.walk(set(users).__contains__), count))
        self.assertEqual(walked, expected[:len(walked)])
        looked = seen(recent.look_up(set(users), count))
        self.assertEqual(sorted(looked), sorted(expected[:len(looked)]))
        return len(walked), len(looked), len(expected)

    def check_pages(self, pages):
        """Each page holds its purchases twice, in order and by user, and the pages follow one another."""
        for page, following in zip(pages, pages[1:] + [None]):
            purchases = sorted(page.purchases)
            self.assertEqual(page.purchases, purchases)
            self.assertEqual(len(page.buyers), len(purchases))
            by_user = defaultdict(list)
            for purchase, user in zip(purchases, page.buyers):
                by_user[user].append(purchase)
            self.assertEqual(page.by_user, by_user)
            self.assertTrue(not purchases or page.since <= purchases[0])
            self.assertTrue(not purchases or not following or purchases[-1] < following.since)

    def test_invariant(self):
        """Pages of a few purchases, begun at any time, through ties, late purchases and disorder."""
        rng = Random(2)
        found = [0, 0, 0]
        for _ in range(200):
            with small_pages(rng.choice((2, 4, 16)), rng.choice((2, 3, 8))):
                literal, clock = Literal(rng.choice((2, 3, 5, 12))), clocks(rng)
                begin = rng.randint(0, 150)
                for k in range(rng.randint(1, 250)):
                    literal.record(rng.choice("abcdefgh"), clock(k), rng.randint(0, 9999))
                    if k >= begin and rng.random() < 0.2:
                        users = rng.sample("abcdefgh?", rng.randint(1, 9))
                        found = list(map(sum, zip(found, self.check(literal, users))))
        walked, looked, expected = found
        self.assertTrue(expected / 4 < walked < expected, found)    # that it is short of some is wanted, too
        self.assertTrue(expected / 4 < looked < expected, found)

    def test_what_fits_is_all_there(self):
        """With room for everything nothing is short."""
        rng = Random(3)
        literal = Literal(5)
        for k in range(300):
            literal.record(rng.choice("abc"), k, k)
            walked, looked, expected = self.check(literal, "ab")
            self.assertTrue(walked == looked == expected)

    def assert_bounded(self, clock, events=6000):
        """What is kept does not grow with the number of purchases; it is all there is from a time on."""
        for begin in 0, events // 2:
            with small_pages(16, 4):
                literal = Literal(3)
                for k in range(events):
                    if k == begin:
                        recent = literal.history.recent_purchases()
                    literal.record(str(k % 500), clock(k), 1)
                    if k >= begin:
                        for kept in (lambda page: len(page.purchases), lambda page: len(page.buyers),
                                     lambda page: sum(map(len, page.by_user.values()))):
                            self.assertLess(sum(map(kept, recent.pages)), 4 * 16 * 4)
                        self.assertLess(len(recent.pages), 10)
                    if not begin and not k % 500:
                        there = [(*p[:2], user) for page in recent.pages for p, user in zip(page.purchases, page.buyers)]
                        since = recent.pages[0].since[:2]
                        self.assertEqual(there, [p[:3] for p in sorted(literal.all) if p[:2] >= since])
                        self.assertGreaterEqual(len(there), min(k, 16))
                self.check(literal, [str(k) for k in range(500)])

    def test_bounded_in_order(self):
        self.assert_bounded(lambda k: k / 10)

    def test_bounded_after_a_purchase_from_the_future(self):
        """One wrong year in a log, and everything after it is late."""
        self.assert_bounded(lambda k: k / 10 if k else 3599)

    def test_bounded_in_disorder(self):
        rng = Random(4)
        self.assert_bounded(lambda k: rng.randint(0, 3599))

    def test_bounded_backwards(self):
        self.assert_bounded(lambda k: 3599 - k / 10)

    def test_bounded_with_one_timestamp(self):
        self.assert_bounded(lambda k: 7)


if __name__ == "__main__":
    unittest.main()
