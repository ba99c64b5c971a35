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
from anomaly_detection import Detector, PurchaseHistory, Reach, RecentPurchases

NEVER, ALWAYS = 10 ** 30, -1
SMALL_PAGES = {"page_size": 2, "page_limit": 3}

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
        """The method, counting what it returns or raises: 'Reach.True', 'Reach.TooFar', ..."""
        def counted(*arguments, **named):
            try:
                result = method(*arguments, **named)
            except Exception as error:
                self.counts["%s.%s" % (name, type(error).__name__)] += 1
                raise
            self.counts["%s.%s" % (name, result if isinstance(result, bool) else "called")] += 1
            return result
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
            (Reach, "__missing__", counting.call("Reach", Reach.__missing__)),
            (RecentPurchases, "walk", counting.items("walk", RecentPurchases.walk)),
            (RecentPurchases, "look_up", counting.items("look_up", RecentPurchases.look_up)),
            (RecentPurchases, "insert", counting.call("insert", RecentPurchases.insert)),
            (PurchaseHistory, "last", counting.call("last", PurchaseHistory.last)),
            (anomaly_detection, "merge", counting.items("merge", anomaly_detection.merge)),
            (anomaly_detection, "Page", counting.call("Page", anomaly_detection.Page)),
            (RecentPurchases, "open_page", counting.call("open_page", RecentPurchases.open_page)),
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
            RecentPurchases: {"page_size": 0, "page_limit": 0, "add": lambda *arguments: None},
            PurchaseHistory: {"gather_limit": ALWAYS}})
        self.assert_taken(counts, "last.called", "merge.called", "flagged")
        self.assertFalse(counts["walk.found"] + counts["look_up.found"] + counts["Reach.True"], counts)

    def test_gathering(self):
        """Few purchases are sorted instead of merged."""
        counts = self.count(range(100), {
            Detector: {"ball_effort": NEVER, "walk_width": 0}, PurchaseHistory: {"gather_limit": NEVER}})
        self.assert_taken(counts, "last.called", "flagged")
        self.assertFalse(counts["merge.called"], counts)

    def test_walking_back(self):
        """Wide networks: everybody's recent purchases, and the plain way where they run out."""
        counts = self.count(range(200), {
            Detector: {"ball_effort": NEVER, "walk_width": NEVER}, RecentPurchases: SMALL_PAGES})
        self.assert_taken(counts, "walk.called", "walk.found", "last.called", "insert.called", "flagged")
        self.assertGreater(counts["walk.called"], counts["last.called"], "the walk always ran out")

    def test_walking_back_over_everything(self):
        counts = self.count(range(100), {Detector: {"ball_effort": NEVER, "walk_width": NEVER}})
        self.assert_taken(counts, "walk.called", "walk.found", "insert.called", "flagged")

    def test_looking_up(self):
        """Narrow networks: page by page of the recent purchases, with late ones that split pages."""
        counts = self.count(range(200), {
            Detector: {"ball_effort": NEVER, "walk_width": 0},
            RecentPurchases: {"page_size": 4, "page_limit": 5, "capacity": lambda self: NEVER}})
        self.assert_taken(counts, "look_up.called", "look_up.found", "insert.called", "open_page.called", "flagged")
        splits = (counts["Page.called"] - counts["open_page.called"]) // 2
        self.assertGreater(splits, 20, "late purchases split no pages: %s" % counts)

    def test_meeting_in_the_middle(self):
        """Large networks: the ball and the search from the other side, given up at any moment."""
        for effort in 0, 1, 3, 10, 40:
            with self.subTest(ball_effort=effort):
                counts = self.count(range(150), {
                    Detector: {"ball_effort": effort}, RecentPurchases: SMALL_PAGES})
                self.assert_taken(counts, "walk.called", "flagged")
                self.assert_taken(counts, "Reach.TooFar" if effort < 40 else "Reach.True", least=20)
                if effort > 1:
                    self.assert_taken(counts, "Reach.True", "Reach.False")

    def test_early_acquittal(self):
        """A part of the window is enough for most purchases; never for one that is flagged."""
        counts = self.count(range(100), {})
        self.assert_taken(counts, "early", "flagged")


if __name__ == "__main__":
    unittest.main()
