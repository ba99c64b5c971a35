"""Amounts, timestamps, the arithmetic of a verdict: exact, whatever the numbers."""

import time
import unittest
from decimal import Decimal
from fractions import Fraction
from random import Random

import support      # first: it finds the modules below
import anomaly_detection
import random_logs
import reference
from anomaly_detection import (
    Flag, Malformed, Memo, amount_in_cents, amount_text, dollars, flag_of, normalized_timestamp,
    plain_number, printable, quoted)

AMOUNTS = sorted(set(random_logs.AMOUNTS), key=lambda kind: kind.__name__)


def random_amounts(rng, n):
    """n amounts of one random kind, in cents."""
    kind = rng.choice(AMOUNTS)
    return [amount_in_cents(kind(rng)) for _ in range(n)]


def sums(amounts):
    """What the program keeps of a window: n, sum and sum of squares."""
    return len(amounts), sum(amounts), sum(x * x for x in amounts)


class Amounts(unittest.TestCase):

    def test_cents(self):
        for text, cents in [
                ("16.83", 1683), ("0", 0), ("-0", 0), ("-0.00", 0), ("007", 700), ("5.1", 510),
                ("-2", -200), ("-0.01", -1), ("1.5000", 150), ("0.125", Fraction(25, 2)),
                ("-0.001", Fraction(-1, 10)), ("999999999999999.99", 99999999999999999),
                ("0.000000000000001", Fraction(1, 10 ** 13)), ("1e3", 100000), ("-1.5E+2", -15000), ("1250e-3", 125),
                ("1e-99", Fraction(1, 10 ** 97)), ("0e99", 0),
                ("0.30000000000000004", Fraction(30000000000000004, 10 ** 15)),
                ("9" * 15 + "." + "9" * 30 + "e99", (10 ** 45 - 1) * 10 ** 71)]:
            with self.subTest(text=text):
                self.assertEqual(amount_in_cents(text), cents)

    def test_what_is_a_whole_number_of_cents_is_an_int(self):
        """Fractions are slow; only amounts finer than a cent may be some."""
        for text in "1", "1.2", "1.23", "1.230", "1.230000000000000", "-4.000":
            self.assertIs(type(amount_in_cents(text)), int, text)
        self.assertIs(type(amount_in_cents("1.234")), Fraction)

    def test_random_texts_are_what_decimal_reads(self):
        rng = Random(1)
        for _ in range(2000):
            text = rng.choice(AMOUNTS)(rng)
            self.assertEqual(Fraction(amount_in_cents(text)), Fraction(Decimal(text)) * 100, text)

    def test_not_an_amount(self):
        for text in ("", "-", ".", "1.", ".5", "+1", "--1", "1e", "1e100", "1e-100", "1e999999999", "e1", "1e1.0",
                     "1 e1", "1e--1", "1_000", "1,5", "0x1", " 1", "1 ",
                     "1\n", "\n1", "NaN", "Infinity", "-inf", "1.2.3", "\uff11", "\u0661", "\u00b2", "1\u0660",
                     "9" * 16, "1." + "9" * 31, "1\x00", "\u22121"):
            with self.subTest(text=text):
                with self.assertRaises(Malformed) as caught:
                    amount_in_cents(text)
                self.assertEqual(caught.exception.kind, "amount")

    def test_dollars(self):
        for cents, text in [(2910, "29.10"), (29, "0.29"), (5, "0.05"), (2800, "28.00"), (0, "0.00"), (-1, "-0.01"),
                            (-100, "-1.00"), (-199, "-1.99"), (10 ** 17, "1000000000000000.00")]:
            self.assertEqual(dollars(cents), text)

    def test_texts_stand_for_amounts_exactly(self):
        """The text of a snapshot is read again; it is that of `dollars` unless that is too long."""
        rng = Random(6)
        for _ in range(3000):
            text = "%s%d%s%s" % (
                rng.choice(("", "-")), rng.randrange(10 ** rng.randint(0, 15)),
                rng.choice(("", ".%d" % rng.randrange(10 ** rng.randint(0, 30)))),
                rng.choice(("", "e%d" % rng.randint(-99, 99))))
            cents = amount_in_cents(text)
            self.assertEqual(amount_in_cents(amount_text(cents)), cents, text)
            self.assertEqual(Fraction(dollars(cents)) * 100, cents, text)
            if "e" not in text:
                self.assertEqual(amount_text(cents), dollars(cents))
        for text in "1e-99", "0.%s1e-99" % ("0" * 29), "9" * 15 + "e99", "9" * 15 + "." + "9" * 30 + "e-99", "1e15":
            self.assertEqual(amount_in_cents(amount_text(amount_in_cents(text))), amount_in_cents(text))


class Numbers(unittest.TestCase):
    """The ids that JSON numbers stand for."""

    def test_shortest_plain_decimal_text(self):
        for plain, texts in {"7": ("7", "7.0", "7e0", "70e-1", "0.7e1", "7.000", "7E+00"), "1.5": ("1.50", "15e-1"),
                             "0": ("0", "-0", "0.0", "-0.0", "0e9", "-0e-9"), "-12": ("-12", "-1.2e1", "-120e-1"),
                             "100": ("100", "1e2", "100.0"), "0.001": ("0.001", "1e-3"), "1" + "0" * 99: ("1e99",),
                             "0." + "0" * 98 + "1": ("1e-99",), "999999999999999": ("999999999999999",),
                             "4111111111111111": ("4111111111111111.0", "4.111111111111111e15", "4111111111111111",
                                                  "4111111111111111e000"),
                             "12345678901234567890.5": ("12345678901234567890.50", "1234567890123456789050e-2"),
                             "9" * 100: ("9" * 100,), "0." + "9" * 99: ("0." + "9" * 99,), "0.001": ("1" + "0" * 99 + "e-102",),
                             "5": ("5." + "0" * 99, "5" + "0" * 99 + "e-99")}.items():
            for text in texts:
                self.assertEqual(plain_number(text), plain, text)

    def test_what_is_too_long_is_its_own_text(self):
        for text in ("1e100", "-1e-100", "1e999", "-1e-999", "1e999999999", "5." + "0" * 100, "5e0000", "9" * 101 + "e-1",
                     "9" * 100 + "e1", "9" * 100 + "e-1000", "0." + "1" * 99 + "e-1"):
            self.assertEqual(plain_number(text), text)
        self.assertEqual(plain_number("9" * 100 + "e-1"), "9" * 99 + ".9")

    def test_a_long_number_costs_nothing(self):
        started = time.process_time()
        for text in "9" * 10 ** 7, "0." + "0" * 10 ** 7, "1e" + "9" * 10 ** 7, "1e999", "1e-999":
            self.assertEqual(plain_number(text), text)
        self.assertLess(time.process_time() - started, 1)

    def test_the_exponents_of_the_reference(self):
        """Read as literally as possible, for lengths and exponents around the limits."""
        rng = Random(1)
        for _ in range(2000):
            whole, decimals = rng.choice((1, 2, 15, 16, 17, 99, 100, 101)), rng.choice((0, 0, 1, 2, 30, 31, 84, 99))
            text = rng.choice(("", "-")) + str(rng.randrange(10 ** (whole - 1), 10 ** whole))
            text += ("." + "".join(rng.choice("0005") for _ in range(decimals))) * (decimals > 0)
            text += rng.choice(("", "", "e1", "E+0", "e-2", "e15", "e-16", "e84", "e-99", "e099", "e100", "e-999", "e1000"))
            self.assertEqual(plain_number(text), reference.id_of({"id": reference.Number(text)}, "id"), text)

    def test_it_is_a_plain_text(self):
        for text in "7", "1e100":
            self.assertIs(type(plain_number(anomaly_detection.Number(text))), str)


class Timestamps(unittest.TestCase):

    def test_real_ones(self):
        for text in ("2017-06-13 11:33:01", "0001-01-01 00:00:00", "9999-12-31 23:59:59", "2016-02-29 12:00:00",
                     "2000-02-29 12:00:00", "2017-06-13 11:33:01.5", "2017-06-13 11:33:01.123456"):
            self.assertEqual(normalized_timestamp(text), text)

    def test_zones_and_other_forms(self):
        for text, normalized in [
                ("2024-03-01T09:00:00Z", "2024-03-01 09:00:00"), ("2024-03-01 09:00:00 Z", "2024-03-01 09:00:00"),
                ("2024-03-01T10:00:00.123+01:00", "2024-03-01 09:00:00.123"),
                ("2024-03-01 09:00:00,5", "2024-03-01 09:00:00.5"), ("2024-03-01 09:00:00 UTC", "2024-03-01 09:00:00"),
                ("2017-06-13 11:33:01.123456 UTC", "2017-06-13 11:33:01.123456"),
                ("2024-03-01 09:00:00.123456789", "2024-03-01 09:00:00.123456789"),
                ("2024-03-01 09:00:00.000000001-0000", "2024-03-01 09:00:00.000000001"),
                ("2024-03-01 00:00:00,100+02", "2024-02-29 22:00:00.1"),
                ("2023-12-31 12:00:00-2359", "2024-01-01 11:59:00"),
                ("2024-03-01 09:00:00+0530", "2024-03-01 03:30:00"),
                ("2024-03-01 09:00:00 -05:30", "2024-03-01 14:30:00"), ("2024-03-01 10:00:00Z", "2024-03-01 10:00:00"),
                ("0001-01-01 00:00:00-00:01", "0001-01-01 00:01:00"), 
                ("9999-12-31 23:59:59.9+23:59", "9999-12-31 00:00:59.9")]:
            with self.subTest(text=text):
                self.assertEqual(normalized_timestamp(text), normalized)

    def test_not_real_ones(self):
        good = "2017-06-13 11:33:01"
        for text in (
                "", good[:10], good + ".", good + ",", good + ".1234567890", good + " ", " " + good, good + "\n",
                good + "z", good + "  Z", good + "Z ", good + ".Z", good + "UTC", good + "  UTC", good + " utc", good + " UTC+1", good + " GMT",
                good + "Z UTC", good + "+", good + "+2",
                good + "+024",
                good + "+24", good + "+02:60", good + "+02:", good + "+02:0", good + "+2:00", good + "+02:00:00",
                good + "Z+00:00", good + "\u221202:00", good + "++02", good + "+02 00", good.replace(" ", "t"),
                good.replace(" ", "  "), good.replace(" ", ""), good.replace(" ", "_"), "0001-01-01 00:00:00+00:01",
                "9999-12-31 23:59:00-00:01", "2016-12-31T23:59:60Z", "2017-06-31T11:33:01Z", "1709283600",
                "1709283600.5", "2017-06-13T11:33Z", "20170613T113301Z", "2017-W24-2T11:33:01",
                good.replace("-06-", "-6-"), "2017-02-29 11:33:01", "1900-02-29 11:33:01",
                "2017-06-31 11:33:01", "2017-00-13 11:33:01", "2017-13-13 11:33:01", "2017-06-00 11:33:01",
                "0000-06-13 11:33:01", "2017-06-13 24:00:00", "2017-06-13 11:60:01", "2017-06-13 11:33:60",
                "+2017-06-13 11:33:01", "12017-06-13 11:33:01", "2017-06-13 11:33:0\uff11", good + ".\u0661"):
            with self.subTest(text=text):
                with self.assertRaises(Malformed) as caught:
                    normalized_timestamp(text)
                self.assertEqual(caught.exception.kind, "timestamp")
                self.assertIn("YYYY-MM-DD HH:MM:SS", str(caught.exception))

    def test_equal_times_are_equal_texts(self):
        """However a time is written, so that a tie is decided by arrival."""
        base = "2017-06-13 11:33:10"
        parts = "", ".0", ".00", ".000000", ",0", "Z", "+00:00"
        self.assertEqual({normalized_timestamp(base + part) for part in parts}, {base})
        self.assertEqual(normalized_timestamp(base + ".5"), normalized_timestamp(base + ".500"))

    def test_order_of_texts_is_order_of_time(self):
        rng = Random(2)
        for _ in range(2000):
            one, other = ("2017-06-%02d 11:33:%02d%s" % (
                rng.randint(12, 13), rng.randint(9, 11), rng.choice(
                    ("", ".%d" % rng.randint(0, 9), ".%06d" % rng.choice((1, 100, 100000, 120000, 999999)))))
                for _ in range(2))
            times = [(text[:19], Fraction("0" + text[19:])) for text in (one, other)]
            self.assertEqual(normalized_timestamp(one) < normalized_timestamp(other), times[0] < times[1], (one, other))


class MeanAndSd(unittest.TestCase):
    """mean and sd of a flag: truncated toward zero, never rounded."""

    def printed(self, *texts):
        return tuple(map(dollars, flag_of(*sums(list(map(amount_in_cents, texts))))))

    def test_traps(self):
        """What floats and rounding get wrong in published solutions."""
        for texts, printed in [
                (("16.83", "59.28", "11.20"), ("29.10", "21.46")),
                (("23.18", "42.80", "21.32"), ("29.10", "9.71")),       # not 29.09
                (("0.28", "0.30"), ("0.29", "0.01")),                   # not 0.28
                (("0.29", "0.29", "0.29"), ("0.29", "0.00")),
                (("26.0398", "26.0400"), ("26.03", "0.00")),            # 26.0399, not 26.04
                (("73.9601", "126.0399"), ("100.00", "26.03")),         # an sd of 26.0399
                (("73.96", "126.04"), ("100.00", "26.04")),             # and of 26.04 exactly
                (("28", "28"), ("28.00", "0.00")),
                (("-1.99", "-2.00"), ("-1.99", "0.00")),                # -1.995 toward zero
                (("-0.01", "0"), ("0.00", "0.00")),                     # no -0.00
                (("-0.001", "-0.002"), ("0.00", "0.00"))]:
            with self.subTest(texts=texts):
                self.assertEqual(self.printed(*texts), printed)

    def test_random_windows(self):
        """The largest whole cents that do not exceed the exact value, by their definition."""
        rng = Random(3)
        for _ in range(800):
            window = random_amounts(rng, rng.randint(1, 60))
            flag = flag_of(*sums(window))
            mean, variance = reference.mean_and_variance(list(map(Fraction, window)))
            self.assertIs(type(flag), Flag)
            self.assertIs(type(flag.mean), int)
            self.assertIs(type(flag.sd), int)
            self.assertTrue(abs(flag.mean) <= abs(mean) < abs(flag.mean) + 1, window)
            self.assertTrue(flag.mean * mean >= 0, window)
            self.assertTrue(flag.sd ** 2 <= variance < (flag.sd + 1) ** 2, window)
            self.assertEqual((dollars(flag.mean), dollars(flag.sd)),
                             (reference.truncated(mean / 100), reference.truncated_root(variance / 10000)))


class MemoTest(unittest.TestCase):

    def test_it_is_the_function_and_bounded(self):
        calls = []
        memo = Memo(lambda x: calls.append(x) or x * x, limit=10)
        for x in (*range(25), *range(25), 24, 24):
            self.assertEqual(memo[x], x * x)
            self.assertLessEqual(len(memo), 10)
        self.assertEqual(calls[-1], 24)
        self.assertEqual(calls.count(24), 2)        # remembered at the end

    def test_an_error_is_not_remembered(self):
        memo = anomaly_detection.Memo(amount_in_cents)
        for _ in range(2):
            self.assertRaises(ValueError, memo.__getitem__, "x")
        self.assertEqual(len(memo), 0)


class Texts(unittest.TestCase):
    """What a message or a page may show of a text that comes from a log."""

    def test_quoted(self):
        """Up to 60 characters are shown as they are, of a longer text the first 57."""
        self.assertEqual(quoted("x" * 60), "'%s'" % ("x" * 60))
        self.assertEqual(quoted("x" * 61), "'%s...'" % ("x" * 57))
        self.assertEqual(quoted("\u00e9\x1b"), r"'\xe9\x1b'")

    def test_printable(self):
        """What moves a cursor, or cannot be seen, is escaped whole; letters of any script stay."""
        self.assertEqual(printable("a\x1b[31m\r\n\x9b\u202e\ud800\u00e9 \u4e2d"),
                         r"a\x1b[31m\r\n\x9b\u202e\ud800" + "\u00e9 \u4e2d")


if __name__ == "__main__":
    unittest.main()
