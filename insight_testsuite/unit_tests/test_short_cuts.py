"""Every short-cut gives the same bytes as the literal rule, and is really taken.

Thresholds are forced so that logs of a hundred lines reach what otherwise only
large ones do; wrappers around the methods count how often each way was gone.
"""

import unittest
from collections import Counter
from contextlib import ExitStack
from functools import lru_cache
from random import Random
from unittest.mock import patch

import support      # first: it finds the modules below
import anomaly_detection
import random_logs
import reference
from anomaly_detection import Detector, Page, PurchaseHistory, Reach, RecentPurchases

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
        """Reach.__missing__, counting the answers before and after it has listed the network, and the listings."""
        def counted(reach, v):
            searching = reach.hops > 0
            answer = method(reach, v)
            self.counts["Reach.%s" % answer if searching else "Reach.%s after listing" % answer] += 1
            self.counts["Reach.listed"] += searching and not reach.hops
            return answer
        return counted

    def addition(self, method):
        """RecentPurchases.add, counting late purchases, pages that those split, and pages forgotten."""
        def counted(recent, purchase, user):
            since, newest = recent.pages[0].since, recent.pages[-1].line[-1:]
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
        def counted(amount, n, total, squares, size):
            answer = method(amount, n, total, squares, size)
            self.counts["early"] += answer and n < size
            return answer
        return counted


class ShortCuts(support.FolderTest):

    def count(self, seeds, thresholds):
        """Compare program and reference on the logs of seeds; return how often each way was taken.

        thresholds is {class: {attribute: value}}.
        """
        counting = Counting()
        wrapped = [
            (Reach, "__missing__", counting.answer(Reach.__missing__)),
            (RecentPurchases, "walk", counting.items("walk", RecentPurchases.walk)),
            (RecentPurchases, "look_up", counting.items("look_up", RecentPurchases.look_up)),
            (RecentPurchases, "add", counting.addition(RecentPurchases.add)),
            (Page, "halves", counting.call("split", Page.halves)),
            (PurchaseHistory, "last", counting.call("last", PurchaseHistory.last)),
            (anomaly_detection, "merge", counting.items("merge", anomaly_detection.merge)),
            (anomaly_detection, "cannot_be_flagged",
             counting.verdict(anomaly_detection.cannot_be_flagged))]
        with ExitStack() as stack:
            stack.enter_context(patch("os.fsync"))      # a disk may take long, and is not what is tested
            for owner, attributes in thresholds.items():
                stack.enter_context(patch.multiple(owner, **attributes))
            for replaced in wrapped:
                stack.enter_context(patch.object(*replaced))
            for seed in seeds:
                batch, stream, expected = log(seed)
                self.write("batch", batch)
                self.write("stream", stream)
                status = anomaly_detection.main(["--quiet", "--jobs", "1", *self.files])
                self.assertEqual(status, 0)
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
            Detector: {"ball_effort": NEVER, "walk_width": 0},
            PurchaseHistory: {"of_everybody": lambda self: RecentPurchases({}, ())}})
        self.assert_taken(counts, "last.called", "merge.called", "flagged")
        self.assertFalse(counts["walk.found"] + counts["look_up.found"] + counts["Reach.True"], counts)

    def test_walking_back(self):
        """Wide networks: everybody's recent purchases, and the plain way where they run out."""
        counts = self.count(range(200), {
            Detector: {"ball_effort": NEVER, "walk_width": NEVER}, RecentPurchases: SMALL_PAGES})
        self.assert_taken(counts, "walk.called", "walk.found", "last.called", "late", "forgotten", "flagged")
        self.assertGreater(counts["walk.called"], counts["last.called"], "the walk always ran out")

    def test_walking_back_over_everything(self):
        counts = self.count(range(100), {Detector: {"ball_effort": NEVER, "walk_width": NEVER}})
        self.assert_taken(counts, "walk.called", "walk.found", "late", "flagged")

    def test_looking_up(self):
        """Narrow networks: page by page of the recent purchases, with late ones that split pages."""
        counts = self.count(range(200), {
            Detector: {"ball_effort": NEVER, "walk_width": 0},
            RecentPurchases: {"page_size": 4, "capacity": NEVER}})
        self.assert_taken(counts, "look_up.called", "look_up.found", "late", "split.called", "flagged")
        self.assertGreater(counts["late splits"], 20, "late purchases split no pages: %s" % counts)

    def test_meeting_in_the_middle(self):
        """Large networks: the ball and the search from the other side, which ends at any moment in a list."""
        for effort in 0, 1, 3, 10, 40:
            with self.subTest(ball_effort=effort):
                counts = self.count(range(150), {
                    Detector: {"ball_effort": effort}, RecentPurchases: SMALL_PAGES})
                self.assert_taken(counts, "walk.called", "flagged")
                self.assert_taken(counts, "Reach.True", "Reach.False")
                if effort < 40:
                    self.assert_taken(counts, "Reach.listed", "Reach.True after listing", "Reach.False after listing")

    def test_early_acquittal(self):
        """A part of the window is enough for most purchases; never for one that is flagged."""
        counts = self.count(range(100), {})
        self.assert_taken(counts, "early", "flagged")


if __name__ == "__main__":
    unittest.main()
