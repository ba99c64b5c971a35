"""The literal reference, checked by hand-worked examples before it checks anything."""

import doctest
import os
import subprocess
import sys
import tempfile
import unittest
from datetime import datetime
from fractions import Fraction

HERE = os.path.dirname(os.path.abspath(__file__))
SUITE = os.path.join(HERE, "..")
sys.path.insert(0, SUITE)
import random_logs
import reference
from reference import judge_logs, read_event, verdict

BATCH = b"""\
{"D":"3", "T":"50"}
{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "1", "amount": "16.83"}
{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "1", "amount": "59.28"}
{"event_type":"befriend", "timestamp":"2017-06-13 11:33:01", "id1": "1", "id2": "2"}
{"event_type":"befriend", "timestamp":"2017-06-13 11:33:01", "id1": "3", "id2": "1"}
{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "1", "amount": "11.20"}
{"event_type":"unfriend", "timestamp":"2017-06-13 11:33:01", "id1": "1", "id2": "3"}
"""
BOUGHT = b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:02", "id": "2", "amount": "1601.83"}'
FLAGGED = BOUGHT[:-1] + b', "mean": "29.10", "sd": "21.46"}\n'


def load_tests(loader, tests, pattern):
    for module in reference, random_logs:
        tests.addTests(doctest.DocTestSuite(module))
    return tests


def line(**changes):
    """A purchase line; the changed fields are given as JSON, None leaves one out."""
    fields = {"event_type": '"purchase"', "timestamp": '"2017-06-13 11:33:01"',
              "id": '"1"', "amount": '"16.83"'}
    fields.update(changes)
    return ("{%s}" % ", ".join('"%s": %s' % field for field in fields.items()
                               if field[1] is not None)).encode()


def friendship(one, other, event_type="befriend"):
    return ('{"event_type": "%s", "id1": %s, "id2": %s}' % (event_type, one, other)).encode()


def judged(amount, *window):
    return verdict(Fraction(amount), [Fraction(x) for x in window])


class Verdict(unittest.TestCase):

    def test_exactly_3_sd_above_is_not_flagged(self):
        for amount, window in [("14", ("10", "12")),
                               ("17", ("10", "10", "15", "10", "10")),
                               ("0.5", ("0.1", "0.3")),
                               ("100000000000004", ("100000000000000", "100000000000002")),
                               ("0.000000000000005", ("0.000000000000001", "0.000000000000003"))]:
            with self.subTest(window=window):
                self.assertIsNone(judged(amount, *window))
                self.assertIsNotNone(judged(Fraction(amount) + Fraction(1, 10 ** 15), *window))

    def test_far_below_the_mean_is_not_flagged(self):
        self.assertIsNone(judged("-1000000", "10", "12"))
        self.assertIsNone(judged("4.99", "5", "5", "5"))

    def test_equal_amounts_flag_anything_above(self):
        self.assertIsNone(judged("5", "5", "5", "5"))
        self.assertEqual(judged("5.01", "5", "5", "5"), ("5.00", "0.00"))

    def test_fewer_than_two_purchases(self):
        self.assertIsNone(judged("1000000"))
        self.assertIsNone(judged("1000000", "1"))
        self.assertEqual(judged("1000000", "1", "1"), ("1.00", "0.00"))

    def test_truncation(self):
        self.assertEqual(judged("100", "23.18", "42.80", "21.32"), ("29.10", "9.71"))
        self.assertEqual(judged("1", "0.28", "0.30"), ("0.29", "0.01"))
        self.assertEqual(judged("30", "26.0398", "26.0400"), ("26.03", "0.00"))
        self.assertEqual(judged("200", "73.9601", "126.0399"), ("100.00", "26.03"))
        self.assertEqual(judged("200", "73.96", "126.04"), ("100.00", "26.04"))
        self.assertEqual(judged("200", "87.41", "15.14", "34.79", "68.40", "67.79"),
                         ("54.70", "26.03"))

    def test_truncation_is_toward_zero_and_knows_no_minus_zero(self):
        self.assertEqual(judged("0", "-1.99", "-2.00"), ("-1.99", "0.00"))
        self.assertEqual(judged("1", "-0.01", "0"), ("0.00", "0.00"))


class RuleTest(unittest.TestCase):

    def setUp(self):
        self.rule = reference.Rule(2, 3)
        for pair in "ab", "bc", "cd", "da", "de":
            self.rule.befriend(*pair)

    def buys(self, user, amount, second, microsecond=0):
        self.rule.purchase(user, datetime(2017, 6, 13, 11, 33, second, microsecond), amount)

    def test_network(self):
        self.assertEqual(self.rule.network("a"), set("bcde"))
        self.assertEqual(self.rule.network("e"), set("dac"))
        self.assertEqual(self.rule.network("nobody"), set())
        self.rule.befriend("a", "b")
        self.rule.unfriend("b", "a")
        self.rule.unfriend("a", "e")
        self.assertEqual(self.rule.network("b"), set("cd"))

    def test_window(self):
        self.buys("b", 1, 5)
        self.buys("a", 2, 9)                # the buyer's own
        self.buys("c", 3, 4, 999999)
        self.assertEqual(self.rule.window("a"), [3, 1])
        self.buys("d", 4, 5)
        self.buys("e", 5, 4, 500000)        # late: too old for the last three
        self.assertEqual(self.rule.window("a"), [3, 1, 4])
        self.buys("e", 6, 5)                # a tie: what came later is later
        self.assertEqual(self.rule.window("a"), [1, 4, 6])


class Lines(unittest.TestCase):

    def test_accepted(self):
        for accepted in [
                line(), b" \t" + line() + b" \r", line(amount="16.83"), line(amount="-0"),
                line(amount='"007"'), line(amount='"%s.%s"' % ("9" * 15, "9" * 30)),
                line(amount="1e2"), line(amount='"1e2"'), line(amount='"-1.50E-99"'), line(amount='"1e+07"'),
                line(timestamp='"2017-06-13T11:33:01"'), line(timestamp='"2017-06-13 11:33:01Z"'),
                line(timestamp='"2017-06-13 11:33:01,123456789 -2359"'), line(timestamp='"2017-06-13T11:33:01+02"'), line(timestamp='"2017-06-13 11:33:01.5 UTC"'),
                line(timestamp='"9999-12-31 23:59:59.999999999+00:00"'), line(timestamp='"0001-01-01 00:00:00-01"'),
                b"\xef\xbb\xbf" + line(), b"\0\xef\xbb\xbf\0\0" + line() + b"\r",
                line(note="[" * 99 + "]" * 99), line(note='"%s"' % ("[" * 1000)),
                line(timestamp='"2017-06-13 11:33:01.123456"'), line(timestamp='"0001-01-01 00:00:00"'),
                line(timestamp='"2016-02-29 23:59:59.0"'), line(timestamp='"9999-12-31 23:59:59"'),
                line(id="1e5"), line(id='" "'), line(id=r'"\ud800"'), line(id=r'"\n"'),
                line(id='"na\u00efve \u2028"'), line(note='{"a": [1, 2.5, null, true, {}]}'),
                line(amount="null, \"amount\": 1"), friendship('"1"', '"2"'), friendship("1", "2"),
                friendship('"1"', '"01"'), friendship("1", '"1.0"', "unfriend")]:
            with self.subTest(line=accepted):
                read_event(accepted)

    def test_rejected(self):
        for rejected in [
                b"", b"x", b"{}", b"[]", b"1", b'"a"', b"null", b"[" * 100000, b"{" * 100000,
                line() + b"x", line() + line(), line()[:-1], b" \xef\xbb\xbf" + line(), b"\xc2\xa0" + line(),
                b"\xef\xbb" + line(), line() + b"\0", line(note="[" * 100 + "]" * 100),
                line(event_type=None), line(event_type='"Purchase"'), line(event_type='"sale"'),
                line(event_type='["purchase"]'), line(event_type="1"), line(event_type=r'"purchase\n"'),
                line(id=None), line(id='""'), line(id="null"), line(id="true"), line(id="[1]"),
                line(amount=None), line(amount="null"), line(amount="false"), line(amount="[1]"),
                line(amount="1e999999999"), line(amount='"1e100"'), line(amount='"1e"'), line(amount='"1_000"'),
                line(amount='"NaN"'),
                line(amount="NaN"), line(amount="-Infinity"), line(amount="016"), line(amount='"1."'),
                line(amount='".5"'), line(amount='"+1"'), line(amount='" 1"'), line(amount=r'"1\n"'),
                line(amount='"\uff11"'), line(amount='"\u0661"'), line(amount='"\u00b2"'),
                line(amount='"%s"' % ("9" * 16)), line(amount='"1.%s"' % ("9" * 31)), line(amount='"--1"'),
                line(timestamp=None), line(timestamp="20170613113301"), line(timestamp='"2017-06-13"'),
                line(timestamp='"2017-06-31 11:33:01"'), line(timestamp='"2017-02-29 11:33:01"'),
                line(timestamp='"0000-01-01 11:33:01"'), line(timestamp='"2017-06-13 24:00:00"'),
                line(timestamp='"2017-06-13 11:33:60"'), line(timestamp='"2017-06-13t11:33:01"'),
                line(timestamp='"2017-06-13 11:33:01."'), line(timestamp='"2017-06-13 11:33:01.1234567890"'),
                line(timestamp=r'"2017-06-13 11:33:01\n"'), line(timestamp='"2017-06-13 11:33:01  Z"'),
                line(timestamp='"2017-06-13 11:33:01+24:00"'), line(timestamp='"2017-06-13 11:33:01+02:60"'),
                line(timestamp='"2017-06-13 11:33:01+2"'), line(timestamp='"2017-06-13 11:33:01UTC"'),
                line(timestamp='"0001-01-01 00:00:00+00:01"'), line(timestamp='"9999-12-31 23:59:59.5-01"'),
                line(timestamp='"2017-06-13 11:33:0\uff11"'), line(timestamp='"2017-6-13 11:33:01"'),
                line(note="NaN"), line(note="'x'"), line(note='"\t"'), line(note='"\x00"'), line(note=r'"\x"'),
                line(note='"x"').replace(b'"x"', b'"\xff"'), line(note='"x"').replace(b'"x"', b'"\xed\xa0\x80"'),
                friendship('"1"', '"1"'), friendship("1", '"1"'), friendship("10e-1", '"1"'), friendship('"1"', '""'),
                friendship('"1"', "null"), b'{"event_type": "befriend", "id1": "1"}',
                b'{"event_type": "unfriend", "id2": "1"}']:
            with self.subTest(line=rejected[:120]):
                self.assertRaises(ValueError, read_event, rejected)

    def test_what_is_read(self):
        event = read_event(line(id="7", amount="1.50", timestamp='"2017-06-13 11:33:01.5"'))
        self.assertEqual(event, ("purchase", ("7",), datetime(2017, 6, 13, 11, 33, 1, 500000),
                                 Fraction(3, 2), 0))
        event = read_event(line(id="1.50", amount='"15e-1"', timestamp='"2017-06-13T00:33:01,123456789 +01"'))
        self.assertEqual(event, ("purchase", ("1.5",), datetime(2017, 6, 12, 23, 33, 1, 123456), Fraction(3, 2), 789))
        self.assertEqual(read_event(friendship("1", '"\\u0032"')), ("befriend", ("1", "2"), None, None, None))


class Logs(unittest.TestCase):

    def test_the_example(self):
        self.assertEqual(judge_logs(BATCH, BOUGHT + b"\n"), (FLAGGED, [], [], 1))

    def test_bom_line_ends_blank_lines_and_no_last_newline(self):
        batch = b"\xef\xbb\xbf\r\n" + BATCH.replace(b"\n", b"\r\n \t\r\n")
        self.assertEqual(judge_logs(batch, b"\xef\xbb\xbf\n" + BOUGHT + b" \r"), (FLAGGED, [], [], 1))
        self.assertEqual(judge_logs(batch, b"\xef\xbb\xbf" + BOUGHT).flagged, FLAGGED)

    def test_marks_at_the_beginning_of_any_line(self):
        """They are dropped from what is flagged; a line of nothing else is blank."""
        stream = b"\xef\xbb\xbf\n\0\0\r\n\0\xef\xbb\xbf" + BOUGHT + b"\n\xef\xbb\xbfx\n"
        batch = BATCH.replace(b"\n", b"\n\0\xef\xbb\xbf")
        self.assertEqual(judge_logs(b"\0" + batch, stream), (FLAGGED, [], [(4, b"\xef\xbb\xbfx")], 1))

    def test_deviations(self):
        """The example is 73 standard deviations above the mean."""
        for deviations, flagged in [(0, FLAGGED), (Fraction("73.2"), FLAGGED), (Fraction("73.3"), b""), (1000, b"")]:
            self.assertEqual(judge_logs(BATCH, BOUGHT, deviations=deviations).flagged, flagged)

    def test_verdicts(self):
        verdicts = []
        judge_logs(BATCH, BOUGHT + b"\n" + BOUGHT.replace(b'"2"', b'"9"') + b"\nx\n", verdicts=verdicts)
        self.assertEqual(verdicts, [
            BOUGHT[:-1] + b', "window": 3, "mean": "29.10", "sd": "21.46", "flagged": true}\n',
            BOUGHT.replace(b'"2"', b'"9"')[:-1] + b', "window": 0, "mean": null, "sd": null, "flagged": false}\n'])

    def test_skipped_lines_have_their_numbers_and_bytes(self):
        result = judge_logs(BATCH + b"\nx \r\n\xff\n", b"\n[1]\n" + BOUGHT + b"\n{")
        self.assertEqual(result, (FLAGGED, [(9, b"x \r"), (10, b"\xff")], [(2, b"[1]"), (4, b"{")], 1))

    def test_header(self):
        rest = BATCH.split(b"\n", 1)[1]
        for header in b'{"D":3,"T":50}', b'{"T":"50", "x":[], "D":"03"}', b'\n \n{"D":"3","T":"%s"}' % (b"9" * 18):
            with self.subTest(header=header):
                self.assertEqual(judge_logs(header + b"\n" + rest, BOUGHT).flagged, FLAGGED)
        for header in (b"", b"\n", b"x", b"[3, 50]", b'{"D":3}', b'{"T":50}', b'{"D":0,"T":50}', b'{"D":3,"T":1}',
                       b'{"D":"3 ","T":50}', b'{"D":3.0,"T":50}', b'{"D":"","T":50}', b'{"D":true,"T":50}',
                       b'{"D":-1,"T":50}', b'{"D":"%s","T":50}' % (b"1" * 19), b'{"D":3,"T":50}x',
                       b'{"D":3,"T":50,"x":NaN}', b'{"D":"\xef\xbc\x93","T":50}'):
            with self.subTest(header=header):
                self.assertRaises(ValueError, judge_logs, header + b"\n" + rest, BOUGHT)
        self.assertRaises(ValueError, judge_logs, b"", BOUGHT)

    def test_degree_and_tracked_given(self):
        header, rest = BATCH.split(b"\n", 1)
        self.assertEqual(judge_logs(b'{"D":"?", "T":50}\n' + rest, BOUGHT, degree=1).flagged, FLAGGED)
        self.assertEqual(judge_logs(b'{"D":1}\n' + rest, BOUGHT, tracked=50).flagged, FLAGGED)
        self.assertRaises(ValueError, judge_logs, b'{"D":1}\n' + rest, BOUGHT, degree=1)
        for given in BATCH, rest, b'{"D":"?"}\n' + rest:
            self.assertEqual(judge_logs(given, BOUGHT, 3, 50), (FLAGGED, [], [], 1))
        self.assertEqual(judge_logs(b'{}\n' + rest, BOUGHT, 3, 50), (FLAGGED, [(1, b"{}")], [], 1))
        self.assertEqual(judge_logs(b"", b"", 3, 50), (b"", [], [], 0))

    def test_command_line(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, name) for name in ("batch", "stream", "flagged")]
            for path, log in zip(paths, (BATCH, BOUGHT)):
                with open(path, "wb") as file:
                    file.write(log)
            subprocess.run([sys.executable, os.path.join(SUITE, "reference.py"), *paths], check=True)
            with open(paths[2], "rb") as file:
                self.assertEqual(file.read(), FLAGGED)


class RandomLogs(unittest.TestCase):

    def test_the_same_seed_gives_the_same_log(self):
        for shares in (0,), (0.2,), (0.2, 0.5):
            one, same, other = (random_logs.random_log(random_logs.Random(seed), *shares) for seed in (5, 5, 6))
            self.assertEqual(one, same)
            self.assertNotEqual(one, other)

    def test_other_spellings_mean_the_same(self):
        """But for the text of the lines: what is flagged, with which mean and sd."""
        def outcome(logs):
            rows = judge_logs(*logs)
            self.assertEqual(rows[1:3], ([], []))
            return rows.judged, [line[line.rindex(b', "mean"'):] for line in rows.flagged.splitlines()]

        for seed in range(60):
            plain = random_logs.random_log(random_logs.Random(seed))
            spelled = []
            for log in plain:
                rng, (first, *lines) = random_logs.Random(seed), log.splitlines()
                for _ in range(3):
                    lines = [rng.choice(random_logs.SPELLINGS)(rng, line) for line in lines]
                spelled.append(b"\n".join([first, *lines]))
            if plain[1].startswith(b"{"):
                self.assertEqual(outcome(plain), outcome(spelled), seed)

    def test_the_edge_is_hit_exactly_now_and_then(self):
        window = [Fraction(10), Fraction(12)]
        planted = {random_logs.at_the_edge(random_logs.Random(seed), window) for seed in range(100)}
        self.assertTrue({"14.00", "14.01", "13.99"} <= planted, planted)


if __name__ == "__main__":
    unittest.main()
