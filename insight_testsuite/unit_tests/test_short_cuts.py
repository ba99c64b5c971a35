"""Every short-cut gives the same bytes as the literal rule, and is really taken.

These tests bind to the inside of the program: logs of a hundred lines reach the code for
large networks only if thresholds are forced, and only wrapped methods tell which code ran.
"""

import unittest
from collections import Counter
from contextlib import ExitStack
from functools import lru_cache
from itertools import chain, permutations, product
from random import Random
from unittest.mock import patch

import support      # first: it finds the modules below
import anomaly_detection
import random_logs
import reference
from anomaly_detection import Detector, NetworkMembership, Page, PurchaseHistory, RecentPurchases

NEVER = 10 ** 30
SMALL_PAGES = {"page_size": 2, "capacity": 2 * 3}

# The kinds of logs that some short-cut might be wrong about.
SHAPES = [random_logs.hubs, random_logs.ring, random_logs.components, random_logs.path, random_logs.anyone]
CLOCKS = [random_logs.ticking, random_logs.late, random_logs.disorder, random_logs.standing]


@lru_cache(maxsize=None)
def log(seed):
    """A random log of 12 or 20 users, D up to 10, each shape with each clock; and the reference's Result."""
    rng = Random(seed)
    with patch.multiple(random_logs, SHAPES=[SHAPES[seed % len(SHAPES)]],
                        CLOCKS=[CLOCKS[seed // len(SHAPES) % len(CLOCKS)]],
                        random_degree=lambda rng: 1 + seed % 10,
                        random_tracked=lambda rng: rng.choice((2, 3, 5, 8, 20))):
        drawn = random_logs.Log(rng, 0)
        drawn.users = rng.choice((12, 20))
        drawn.ids = [str(user) for user in rng.sample(range(1, 60), drawn.users)]
        batch, stream = drawn.written()
    return batch, stream, reference.judge_logs(batch, stream)


class Counting:
    """Counts calls of methods, by name, and what comes of them."""

    def __init__(self):
        self.counts = Counter()

    def call(self, name, method):
        """The method, counting the calls."""
        def counted(*arguments, **named):
            self.counts[name + ".called"] += 1
            return method(*arguments, **named)
        return counted

    def answer(self, method):
        """NetworkMembership.__missing__, counting the listings, and the answers before and after them."""
        def counted(membership, v):
            searching = membership.hops_left > 0
            answer = method(membership, v)
            self.counts["%s" % answer if searching else "%s after listing" % answer] += 1
            self.counts["listed"] += searching and not membership.hops_left
            return answer
        return counted

    def addition(self, method):
        """RecentPurchases.add, counting late purchases, pages that those split, and pages forgotten."""
        def counted(recent, purchase, user):
            since, newest = recent.pages[0].since, recent.pages[-1].purchases[-1:]
            late = bool(newest) and since <= purchase < newest[0]
            splits = self.counts["split.called"]
            method(recent, purchase, user)
            self.counts["late"] += late
            self.counts["late splits"] += late and self.counts["split.called"] > splits
            self.counts["forgotten"] += recent.pages[0].since > since
        return counted

    def items(self, name, method):
        """A method that returns an iterator, counting the calls and the items taken."""
        def counted(*arguments, **named):
            self.counts[name + ".called"] += 1
            for item in method(*arguments, **named):
                self.counts[name + ".found"] += 1
                yield item
        return counted

    def verdict(self, method):
        """cannot_be_flagged, counting the windows settled before they were complete."""
        def counted(amount, n, total, squares, size, *limit):
            answer = method(amount, n, total, squares, size, *limit)
            self.counts["early"] += answer and n < size
            return answer
        return counted


class ShortCuts(support.MainTest):

    def count(self, seeds, thresholds):
        """Compare program and reference on the logs of seeds; return how often each way was taken.

        thresholds is {class: {attribute: value}}.
        """
        counting = Counting()
        wrapped = [
            (NetworkMembership, "__missing__", counting.answer(NetworkMembership.__missing__)),
            (RecentPurchases, "walk", counting.items("walk", RecentPurchases.walk)),
            (RecentPurchases, "look_up", counting.items("look_up", RecentPurchases.look_up)),
            (RecentPurchases, "add", counting.addition(RecentPurchases.add)),
            (Page, "halves", counting.call("split", Page.halves)),
            (PurchaseHistory, "last", counting.call("last", PurchaseHistory.last)),
            (anomaly_detection, "merge", counting.items("merge", anomaly_detection.merge)),
            (anomaly_detection, "cannot_be_flagged",
             counting.verdict(anomaly_detection.cannot_be_flagged))]
        with ExitStack() as stack:
            for owner, attributes in thresholds.items():
                stack.enter_context(patch.multiple(owner, **attributes))
            for replaced in wrapped:
                stack.enter_context(patch.object(*replaced))
            for seed in seeds:
                batch, stream, expected = log(seed)
                self.write("batch", batch)
                self.write("stream", stream)
                self.main("--jobs", "1", *self.files)
                self.assertEqual(self.read("output").split(b"\n"), expected.flagged.split(b"\n"),
                                 "test_short_cuts.log(%d)" % seed)
                counting.counts["flagged"] += expected.flagged.count(b"\n")
        return counting.counts

    def assert_taken(self, counts, *names, least=100):
        for name in names:
            self.assertGreaterEqual(counts[name], least, (name, counts))

    def test_plain_way(self):
        """Breadth-first search and merge of every history, with all short-cuts off."""
        counts = self.count(range(200), {
            Detector: {"search_to_list": NEVER, "look_up_to_walk": 0},
            PurchaseHistory: {"recent_purchases": lambda self: RecentPurchases({}, ())}})
        self.assert_taken(counts, "last.called", "merge.called", "flagged")
        self.assertFalse(counts["walk.found"] + counts["look_up.found"] + counts["True"], counts)

    def test_walking_back(self):
        """Wide networks: everybody's recent purchases, and the plain way where they run out."""
        counts = self.count(range(200), {
            Detector: {"search_to_list": NEVER, "look_up_to_walk": NEVER}, RecentPurchases: SMALL_PAGES})
        self.assert_taken(counts, "walk.called", "walk.found", "last.called", "late", "forgotten", "flagged")
        self.assertGreater(counts["walk.called"], counts["last.called"], "the walk always ran out")

    def test_looking_up(self):
        """Narrow networks: page by page of the recent purchases, with late ones that split pages."""
        counts = self.count(range(200), {
            Detector: {"search_to_list": NEVER, "look_up_to_walk": 0},
            RecentPurchases: {"page_size": 4, "capacity": NEVER}})
        self.assert_taken(counts, "look_up.called", "look_up.found", "late", "split.called", "flagged")
        self.assertGreater(counts["late splits"], 20, "late purchases split no pages: %s" % counts)

    def test_meeting_in_the_middle(self):
        """Large networks: the ball and the search from the other side, which ends at any moment in a list."""
        for ratio in 0, 1, 4:
            with self.subTest(search_to_list=ratio):
                counts = self.count(range(200), {
                    Detector: {"search_to_list": ratio}, RecentPurchases: SMALL_PAGES})
                self.assert_taken(counts, "walk.called", "True", "False", "flagged")
                if ratio < 4:
                    self.assert_taken(counts, "listed", "True after listing", "False after listing")

    def test_early_acquittal(self):
        """A part of the window is enough for most purchases; never for one that is flagged."""
        counts = self.count(range(100), {})
        self.assert_taken(counts, "early", "flagged")


class WindowSources(unittest.TestCase):
    """Each source of a window alone and each pair of them, whatever the thresholds would choose."""

    SOURCES = {
        "list and walk": lambda detector, user: detector.history.recent_purchases().walk(
            detector.social.network(user, detector.degree).__contains__),
        "search and walk": lambda detector, user: detector.history.recent_purchases().walk(
            NetworkMembership(detector.social, user, detector.degree,
                              *detector.social.ball(user, detector.degree, 1), 5).__getitem__),
        "look up": lambda detector, user: detector.history.recent_purchases().look_up(
            detector.social.network(user, detector.degree), detector.tracked),
        "last": lambda detector, user: detector.history.last(
            detector.social.network(user, detector.degree), detector.tracked)}

    def random_detector(self, rng):
        """A Detector with small pages, begun at any time, and its [(timestamp, number, user)].

        The amount of a purchase, in cents, is its number.
        """
        detector = Detector(rng.randint(2, 4), rng.choice((2, 5, 12)))
        users = [str(k) for k in range(rng.choice((5, 12, 20)))]
        for _ in range(rng.choice((1, 2)) * len(users)):
            detector.befriend(*rng.sample(users, 2))
        purchases, begin, late = [], rng.randint(0, 100), rng.choice((0, 3, 60))
        for number in range(rng.randint(1, 150)):
            if number == begin:
                detector.history.recent_purchases()
            second, user = number // 2 + rng.randint(0, late), rng.choice(users)
            timestamp = "2017-06-13 12:%02d:%02d" % divmod(second, 60)
            detector.record(user, timestamp, "%d.%02d" % divmod(number, 100))
            purchases.append((timestamp, number, user))
        return detector, users, purchases

    def found(self, detector, user, *names):
        """The amounts that the window has if these are its sources."""
        sources = [self.SOURCES[name](detector, user) for name in names]
        with patch.object(Detector, "window_sources", lambda self, user: iter(sources)):
            return list(chain.from_iterable(detector.window(user)))

    def test_alone_and_in_pairs(self):
        """They find the newest purchases of the network, however few; the last source, the window."""
        rng, went_on = Random(7), Counter()
        for _ in range(100):
            with patch.multiple(RecentPurchases, page_size=2, capacity=2 * rng.choice((3, 6))):
                detector, users, purchases = self.random_detector(rng)
                for user in rng.sample(users, 3):
                    network = detector.social.network(user, detector.degree)
                    newest = [p[1] for p in sorted(purchases, reverse=True) if p[2] in network][:detector.tracked]
                    alone = {name: self.found(detector, user, name) for name in self.SOURCES}
                    for name, amounts in alone.items():
                        self.assertEqual(sorted(amounts), sorted(newest[:len(amounts)]), name)
                    self.assertEqual(alone["last"], newest)
                    for pair in permutations(self.SOURCES, 2):
                        amounts = self.found(detector, user, *pair)
                        self.assertEqual(len(amounts), max(len(alone[name]) for name in pair), pair)
                        self.assertEqual(sorted(amounts), sorted(newest[:len(amounts)]), pair)
                        went_on[pair] += 0 < len(alone[pair[0]]) < len(amounts)
        walks = "list and walk", "search and walk"
        for pair in (*product(walks, ("look up", "last")), ("look up", "last")):
            self.assertGreater(went_on[pair], 30, went_on)


if __name__ == "__main__":
    unittest.main()
