"""Friendships and networks, against a literal breadth-first search."""

import copy
import gc
import pickle
import time
import unittest
import weakref
from collections import Counter
from itertools import combinations
from random import Random
from unittest.mock import patch

import support      # first: it finds the modules below
import random_logs
import reference
from anomaly_detection import Detector, Malformed, NetworkMembership, SocialNetwork


def random_graph(rng):
    """A SocialNetwork and the reference's Rule that have seen the same events, and the users."""
    n = rng.choice((2, 3, 5, 8, 12, 20))
    users = ["u%d" % k for k in range(n)]
    social, rule = SocialNetwork(), reference.Rule(1, 2)
    pairs = rng.choice(random_logs.SHAPES)(rng, n)
    churn = [(*rng.sample(range(n), 2), rng.random() < 0.5) for _ in range(rng.choice((0, n, 3 * n)))]
    for one, other, parting in [(*pair, False) for pair in pairs] + churn:
        if one != other:
            for graph in social, rule:
                (graph.unfriend if parting else graph.befriend)(users[one], users[other])
    return social, rule, [*users, "stranger"]


def network(rule, user, degree):
    rule.degree = degree
    return rule.network(user)


class Friendships(unittest.TestCase):

    def friends(self, social, *users):
        return ["".join(sorted(social.network(user, 1))) for user in users]

    def test_both_ways(self):
        social = SocialNetwork()
        social.befriend("a", "b")
        social.befriend("c", "a")
        self.assertEqual(self.friends(social, "a", "b", "c", "d"), ["bc", "a", "a", ""])
        social.unfriend("b", "a")
        self.assertEqual(self.friends(social, "a", "b", "c", "d"), ["c", "", "a", ""])

    def test_twice_is_once(self):
        social = SocialNetwork()
        for pair in "ab", "ba", "ab":
            social.befriend(*pair)
        social.unfriend("a", "b")
        self.assertEqual(self.friends(social, "a", "b"), ["", ""])
        social.unfriend("a", "b")
        self.assertEqual(self.friends(social, "a", "b"), ["", ""])

    def test_a_search_before_makes_no_difference(self):
        social = SocialNetwork()
        for pair, found in ("ab", "b"), ("bc", "bc"), ("db", "bcd"):
            social.befriend(*pair)
            self.assertEqual(social.network("a", 2), set(found))

    def test_unfriending_strangers_does_nothing(self):
        social = SocialNetwork()
        social.unfriend("x", "y")
        social.befriend("a", "b")
        social.unfriend("a", "x")
        social.unfriend("y", "b")
        self.assertEqual(self.friends(social, "a", "b", "x", "y"), ["b", "a", "", ""])

    def test_nobody_is_their_own_friend(self):
        social = SocialNetwork()
        social.befriend("a", "b")
        for apply in social.befriend, social.unfriend:
            with self.assertRaises(Malformed) as caught:
                apply("7", "7")
            self.assertEqual((str(caught.exception), caught.exception.kind), ("id1 and id2 are both '7'", "id1 and id2"))
        self.assertEqual(self.friends(social, "a", "b", "7"), ["b", "a", ""])

    def test_asking_changes_nothing(self):
        """Neither does a question make users appear, nor friendships left and ended."""
        social = SocialNetwork()
        social.unfriend("a", "b")
        for degree in 1, 2, 10 ** 9:
            self.assertEqual(social.network("a", degree), set())
        self.assertEqual(social.friends, {})
        social.befriend("a", "b")
        social.unfriend("a", "b")
        for degree in 1, 2, 10 ** 9:
            self.assertEqual(social.network("a", degree), set())
        self.assertEqual(len(social.friends), 0)


class Network(unittest.TestCase):

    def made_of(self, pairs):
        social = SocialNetwork()
        for pair in pairs:
            social.befriend(*pair)
        return social

    def sizes(self, social, user, degrees=range(1, 11)):
        return [len(social.network(user, degree)) for degree in degrees]

    def test_path(self):
        path = self.made_of(zip("abcdefghijkl", "bcdefghijkl"))
        self.assertEqual(self.sizes(path, "a"), list(range(1, 11)))
        self.assertEqual(path.network("f", 2), set("degh"))
        self.assertEqual(self.sizes(path, "f"), [2, 4, 6, 8, 10, 11, 11, 11, 11, 11])

    def test_ring(self):
        """The two ways around meet, and never come back to the user."""
        ring = self.made_of(zip("abcdefgh", "bcdefgha"))
        self.assertEqual(self.sizes(ring, "c"), [2, 4, 6, 7, 7, 7, 7, 7, 7, 7])
        self.assertEqual(ring.network("a", 4), set("bcdefgh"))

    def test_clique(self):
        clique = self.made_of(combinations("abcdef", 2))
        self.assertEqual(self.sizes(clique, "a"), [5] * 10)

    def test_star(self):
        star = self.made_of(("hub", "leaf%d" % k) for k in range(50))
        self.assertEqual(self.sizes(star, "hub"), [50] * 10)
        self.assertEqual(self.sizes(star, "leaf7"), [1] + [50] * 9)
        self.assertNotIn("leaf7", star.network("leaf7", 2))

    def test_two_components(self):
        social = self.made_of(("ab", "bc", "xy", "yz"))
        self.assertEqual(social.network("a", 10 ** 9), set("bc"))
        self.assertEqual(social.network("nobody", 10 ** 9), set())

    def test_long_path_with_an_enormous_degree(self):
        """The degree itself costs nothing, nor does the search recurse."""
        path = self.made_of((str(k), str(k + 1)) for k in range(5000))
        self.assertEqual(len(path.network("0", 10 ** 9)), 5000)

    def test_a_ball_on_a_long_path(self):
        """It grows in place: copied at each distance, this one would take 100 times as long as the rings."""
        path = self.made_of((str(k), str(k + 1)) for k in range(20000))
        start = time.perf_counter()
        self.assertEqual(sum(map(len, path.rings("0", 10 ** 9))), 20000)
        middle = time.perf_counter()
        ball, hops_left = path.ball("0", 10 ** 9)
        self.assertEqual((len(ball), hops_left), (20000, 0))
        self.assertLess(time.perf_counter() - middle, 10 * (middle - start) + 0.2)

    def test_rings(self):
        """Nearest first, each user once, and none that is empty."""
        path = self.made_of(zip("abcdefgh", "bcdefgha"))
        self.assertEqual(list(path.rings("c", 3)), [set("bd"), set("ae"), set("hf")])
        self.assertEqual(list(path.rings("c", 10 ** 9)), [set("bd"), set("ae"), set("hf"), set("g")])
        self.assertEqual(list(path.rings("nobody", 10 ** 9)), [])
        path.unfriend("a", "b")
        path.unfriend("b", "c")
        self.assertEqual(list(path.rings("b", 2)), [])
        self.assertNotIn("b", path.friends)

    def test_rings_of_a_long_path(self):
        path = self.made_of((str(k), str(k + 1)) for k in range(5000))
        self.assertEqual(list(path.rings("0", 10 ** 9)), [{str(k)} for k in range(1, 5001)])

    def test_rings_of_random_graphs(self):
        """What the literal search reaches with one degree more, as long as there is any."""
        rng, met = Random(8), set()
        for _ in range(120):
            social, rule, users = random_graph(rng)
            for user in users:
                reached = [network(rule, user, degree) for degree in range(11)]
                rings = [wider - narrower for narrower, wider in zip(reached, reached[1:]) if wider != narrower]
                for degree in range(1, 11):
                    self.assertEqual(list(social.rings(user, degree)), rings[:degree])
                met.add(len(rings))
            for user in users:
                self.assertEqual(social.friends.get(user, set()), network(rule, user, 1))
        self.assertEqual(met, set(range(11)))

    def test_random_graphs(self):
        """Equal to the literal search, and nobody's friends are changed by asking."""
        rng = Random(1)
        for _ in range(120):
            social, rule, users = random_graph(rng)
            for degree in range(1, 11):
                for user in users:
                    self.assertEqual(social.network(user, degree), network(rule, user, degree))
            for user in users:
                self.assertEqual(social.network(user, 1), rule.friends.get(user, set()))


class MeetingInTheMiddle(unittest.TestCase):
    """A ball around the user, and a search from the other side, instead of the whole network.

    These tests call the inside of the search: only budgets given here make it stop at every moment
    on small graphs.
    """

    def test_without_a_limit_the_ball_is_the_network(self):
        social, rule, users = random_graph(Random(7))
        self.assertEqual(social.ball(users[0], 4), (social.network(users[0], 4), 0))

    def test_a_ball_is_a_smaller_network(self):
        """Whatever the budget, it is everyone up to some distance, the rest being `hops_left`."""
        rng, hops_met = Random(2), set()
        for _ in range(150):
            social, rule, users = random_graph(rng)
            degree, user = rng.randint(1, 10), rng.choice(users)
            for budget in (0, 1, 2, 4, 8, 16, 64, 10 ** 6):
                ball, hops_left = social.ball(user, degree, budget)
                hops_met.add(hops_left)
                self.assertTrue(0 <= hops_left < degree)
                self.assertEqual(ball - {user}, network(rule, user, degree - hops_left))
        self.assertTrue(set(range(8)) <= hops_met, hops_met)

    def test_members(self):
        """NetworkMembership answers as the network does, which it lists when its budget is used up."""
        rng = Random(3)
        answers = Counter()
        listed = []

        class CountedMembership(NetworkMembership):
            def network(self):
                listed.append(self)
                return super().network()

        for _ in range(150):
            social, rule, users = random_graph(rng)
            degree, user = rng.randint(2, 10), rng.choice(users)
            members = network(rule, user, degree)
            for budget in (0, 1, 2, 4, 8, 16, 64):
                ball, hops_left = social.ball(user, degree, budget)
                for search_budget in (0, 1, 3, 10, 100, 10 ** 6) if hops_left else ():
                    membership = CountedMembership(social, user, degree, ball, hops_left, search_budget)
                    listed.clear()
                    for v in rng.choices(users, k=10):
                        answer = membership[v]
                        self.assertIs(answer, v in members)
                        answers[answer, "listed" if listed else "searched"] += 1
                    self.assertLessEqual(len(listed), search_budget < 10 ** 6)
                    self.assertEqual(membership.network(), members)
                    for v in users:         # of an answer already given and of a new one
                        self.assertIs(membership[v], v in members)
            for friend in users:
                self.assertEqual(social.friends.get(friend, set()), network(rule, friend, 1))
        self.assertEqual(len(answers), 4)
        self.assertGreater(min(answers.values()), 1000, answers)

    def test_the_user_is_never_a_member(self):
        social, rule, users = random_graph(Random(4))
        for user in users:
            ball, hops_left = social.ball(user, 5, 0)
            self.assertIs(NetworkMembership(social, user, 5, ball, hops_left, 100)[user], False)


class Audience(unittest.TestCase):

    def test_order(self):
        """The nearest first, then those with the most friends in common, then by id as text."""
        social = SocialNetwork()
        for pair in "ab", "ac", "bx", "cx", "bz", "by", "b9", "ym", "xn", "zn", "b10":
            social.befriend(pair[0], pair[1:])
        self.assertEqual(social.audience("a", 1), (["b", "c"], []))
        self.assertEqual(social.audience("a", 2), (["b", "c"], ["x", "10", "9", "y", "z"]))
        self.assertEqual(social.audience("a", 3), (["b", "c"], ["x", "10", "9", "y", "z", "m", "n"]))
        self.assertEqual(social.audience("nobody", 3), ([], []))

    def test_random_graphs(self):
        rng = Random(9)
        for _ in range(60):
            social, rule, users = random_graph(rng)
            for user in users:
                rule.degree = rng.randint(1, 5)
                self.assertEqual(social.audience(user, rule.degree), rule.told(user))


class Memory(unittest.TestCase):
    """The program runs without garbage collection, and a library's user may make many Detectors."""

    def used(self):
        """A Detector that has befriended, recorded and searched in every way."""
        detector = Detector(degree=4, tracked=2)
        for k in range(60):
            detector.befriend(str(k), str(k + 1))
            detector.purchase(str(k), "2017-06-13 12:00:00", "1.00")
        with patch.object(Detector, "search_to_list", 0):
            detector.verdict("30", 10 ** 9)
        detector.unfriend("3", "4")
        return detector

    def test_no_reference_cycle(self):
        gc.disable()
        self.addCleanup(gc.enable)
        detector = self.used()
        gone = list(map(weakref.ref, (detector, detector.social, detector.social.neighbors, detector.history,
                                      detector.history.recent_purchases())))
        del detector
        self.assertEqual([ref() for ref in gone], [None] * len(gone))

    def test_a_copy_is_independent(self):
        detector = self.used()
        for copied in copy.deepcopy(detector), pickle.loads(pickle.dumps(detector)):
            copied.befriend("30", "3")
            self.assertEqual(copied.social.network("30", 1), {"29", "31", "3"})
            self.assertIn("2", copied.social.network("30", 2))
            self.assertNotIn("2", detector.social.network("30", 2))


class TwoWaysToAskADetector(unittest.TestCase):

    def test_a_detector_befriends_and_unfriends(self):
        detector = Detector(degree=2, tracked=2)
        for pair in "ab", "bc":
            detector.befriend(*pair)
        self.assertEqual(detector.social.network("a", 2), set("bc"))
        detector.unfriend("c", "b")
        self.assertEqual(detector.social.network("a", 2), set("b"))
        self.assertRaises(ValueError, detector.befriend, "a", "a")

    def test_degree_and_tracked_have_a_least_value(self):
        for degree, tracked in (0, 2), (-1, 2), (1, 1), (1, 0):
            self.assertRaises(ValueError, Detector, degree, tracked)


if __name__ == "__main__":
    unittest.main()
