"""The rule for any number of standard deviations, and its early acquittal: exact."""

import os
import subprocess
import sys
import unittest
from decimal import Decimal
from fractions import Fraction
from math import isqrt
from random import Random

import support      # first: it finds the modules below
import anomaly_detection
import random_logs
import reference
from anomaly_detection import Detector, amount_in_cents, cannot_be_flagged, flag_of

AMOUNTS = sorted(set(random_logs.AMOUNTS), key=lambda kind: kind.__name__)
FINE = 10 ** 12
MANY_DEVIATIONS = (0, Fraction(1, 2), 1, 2, Fraction(5, 2), Fraction(314159, 100000), 3, 4, 1000)
NOON = "2017-06-13 12:00:00"


def random_amounts(rng, n):
    """n amounts of one random kind, in cents."""
    kind = rng.choice(AMOUNTS)
    return [amount_in_cents(kind(rng)) for _ in range(n)]


def sums(amounts):
    """What the program keeps of a window: n, sum and sum of squares."""
    return len(amounts), sum(amounts), sum(x * x for x in amounts)


def squared(deviations):
    """The arguments a and b of cannot_be_flagged for N = deviations."""
    return deviations.numerator ** 2, deviations.denominator ** 2


def is_flagged(amount, window, deviations):
    """The literal rule, in Fractions."""
    if len(window) < 2:
        return False
    mean, variance = reference.mean_and_variance(list(map(Fraction, window)))
    return amount > mean and (amount - mean) ** 2 > Fraction(deviations) ** 2 * variance


class CannotBeFlagged(unittest.TestCase):

    def test_a_full_window_is_the_rule_itself(self):
        """On both sides of mean + N sd, and by a hair."""
        rng, flags = Random(4), 0
        for _ in range(500):
            deviations = rng.choice(MANY_DEVIATIONS)
            window = random_amounts(rng, rng.randint(2, 30))
            n, total, squares = sums(window)
            edge = (total + isqrt(int(deviations ** 2 * (n * squares - total * total)))) // n
            for amount in (*range(edge - 1, edge + 3), edge + Fraction(1, 10 ** 13)):
                flag = is_flagged(amount, window, deviations)
                flags += flag
                self.assertEqual(cannot_be_flagged(amount, n, total, squares, n, *squared(deviations)),
                                 not flag, (amount, window, deviations))
        self.assertTrue(600 < flags < 2000, flags)

    def test_exactly_at_the_limit(self):
        """A limit that is a whole number of cents does not flag its own amount, but any amount above it."""
        for window, deviations, edge in [
                ((1000, 1200), 3, 1400), ((1000, 1000, 1500, 1000, 1000), 3, 1700), ((500, 500), 3, 500),
                ((10 ** 17, 10 ** 17 + 2), 3, 10 ** 17 + 4), ((-1200, -1000), 3, -800),
                ((1000, 1200), 0, 1100), ((1000, 1200), Fraction(1, 2), 1150),
                ((1000, 1200), Fraction(5, 2), 1350), ((1000, 1200), 1000, 101100), ((500, 500), 0, 500)]:
            known = sums(window)
            self.assertTrue(cannot_be_flagged(edge, *known, known[0], *squared(deviations)))
            for more in 1, Fraction(1, 10 ** 13):
                self.assertFalse(cannot_be_flagged(edge + more, *known, known[0], *squared(deviations)))

    def completions(self, rng, known, size, deviations):
        """Windows of at most `size` amounts that begin with the known ones, the worst of all among them.

        mean + N sd is least when all unknown amounts equal m - s / sqrt((1 + N**2) n / size - 1).
        """
        n, total, squares = sums(known)
        unknown, mean = size - n, Fraction(total, n)
        root = (1 + Fraction(deviations) ** 2) * n / size - 1
        if root > 0 and deviations:
            variance = Fraction(squares, n) - mean ** 2
            below = Fraction(isqrt(int(variance / root * FINE ** 2)), FINE)
            for length in range(unknown + 1):
                yield known + [mean - below] * length
        for same in int(mean), int(mean) - 10 ** rng.randint(1, 8), int(mean) + 10 ** rng.randint(1, 8), rng.choice(known):
            yield known + [same] * unknown
        for _ in range(3):
            yield known + random_amounts(rng, rng.randint(0, unknown))

    def test_part_of_a_window(self):
        """True settles it for each window; False, a cent above the bound, only when some window would flag."""
        rng = Random(5)
        for deviations in MANY_DEVIATIONS:
            acquitted = left_open = 0
            for _ in range(100):
                size = rng.randint(2, 24)
                known = random_amounts(rng, rng.randint(1, size))
                n, total, squares = sums(known)
                factor = (1 + Fraction(deviations) ** 2) * n / size - 1
                bound = (total + isqrt(int(max(factor, 0) * (n * squares - total * total)))) // n
                for amount in bound - 1, bound, bound + 1, bound + 2, bound + rng.randint(0, 10 ** 6):
                    windows = self.completions(rng, known, size, deviations)
                    flags = [is_flagged(amount, window, deviations) for window in windows]
                    if cannot_be_flagged(amount, n, total, squares, size, *squared(deviations)):
                        acquitted += 1
                        self.assertFalse(any(flags), (amount, known, size, deviations))
                    elif factor > 0 and amount > bound + 1:
                        left_open += 1
                        self.assertTrue(any(flags), (amount, known, size, deviations))
            if deviations:
                self.assertTrue(acquitted > 30 and left_open > 30, (deviations, acquitted, left_open))

    def test_too_small_a_part_says_nothing(self):
        """An unknown amount may be as low as it likes there, and takes the limit down with it."""
        for n, size, *limit in (1, 11), (1, 10 ** 9), (0, 50), (4, 5, 0, 1), (1, 2, 1, 4), (9, 11, 1, 25):
            self.assertFalse(cannot_be_flagged(1001, n, 1000 * n, 1000 ** 2 * n, size, *limit))
            self.assertFalse(cannot_be_flagged(-5, n, 1000 * n, 1000 ** 2 * n, size, *limit))


class Deviations(unittest.TestCase):

    def test_what_a_detector_takes(self):
        for deviations, exact in [(3, 3), (0, 0), (10 ** 30, 10 ** 30), (Fraction(5, 2), Fraction(5, 2)),
                                  ("2.5", Fraction(5, 2)), (Decimal("0.1"), Fraction(1, 10)), (2.5, Fraction(5, 2))]:
            self.assertEqual(Detector(1, 2, deviations).deviations, exact)
        self.assertEqual(Detector(1, 2).deviations, 3)

    def test_what_it_does_not_take(self):
        for deviations in (-1, Fraction(-1, 10 ** 9), "-2", "x", "", "1/0", "nan", None, [], 1j,
                           float("nan"), float("inf"), Decimal("Infinity"), Decimal("NaN")):
            with self.subTest(deviations=deviations):
                self.assertRaises(ValueError, Detector, 1, 2, deviations)

    def test_a_whole_number_needs_no_fractions(self):
        """Importing that module takes as long as judging a short log."""
        code = "import sys; sys.path[:0] = [%r]; import anomaly_detection as a; a.Detector(1, 2, 4); " \
               "print('fractions' in sys.modules)" % os.path.dirname(anomaly_detection.__file__)
        self.assertEqual(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE).stdout, b"False\n")

    def test_judging_equals_the_literal_rule(self):
        """By verdict, with its early acquittal and from the whole window's sums, and by plain_flag."""
        rng, flags = Random(6), 0
        for _ in range(150):
            deviations, tracked = rng.choice(MANY_DEVIATIONS), rng.choice((2, 5, 20, 50))
            detector = Detector(1, tracked, deviations)
            detector.befriend("a", "b")
            amounts = [rng.randint(1, 10 ** rng.randint(1, 5)) for _ in range(rng.randint(0, 80))]
            for cents in amounts:
                detector.record("b", NOON, "%d.%02d" % divmod(cents, 100))
            window = amounts[-tracked:]
            self.assertEqual(detector.verdict("b", 5), (None, 0, 0, 0))
            mean = sum(window) // max(len(window), 1)
            for amount in (*rng.choices(window or [1], k=3), mean, mean + 1, mean * 3, 10 ** 5, 10 ** 8 + Fraction(1, 3)):
                expected = flag_of(*sums(window)) if is_flagged(amount, window, deviations) else None
                flag, n, total, squares = detector.verdict("a", amount)
                self.assertEqual(flag, expected)
                self.assertEqual(n < 2, len(window) < 2)
                self.assertTrue((n, total, squares) == sums(window) or not flag)
                self.assertEqual(detector.verdict("a", amount, whole=True), (expected, *sums(window)))
                self.assertEqual(detector.plain_flag("a", amount), expected)
                flags += expected is not None
        self.assertTrue(300 < flags < 900, flags)


if __name__ == "__main__":
    unittest.main()
