"""How a log is read and applied at full speed: the shapes learned from its lines, and chunks applied by columns.

Whatever is fast is held against its plain equivalent, on the same chunks: `read_event` for the shapes, and
`apply_in_order` for the columns.
"""

import json
import re
import sys
import tracemalloc
import unittest
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

import support      # first: it finds the modules below
import anomaly_detection
from anomaly_detection import (Detector, Malformed, PurchaseHistory, RecentPurchases, SocialNetwork, read_event, replay,
                               same_text, shape_of)
from test_spellings import broken, spelled


def event(rng, clock, users=8):
    """A random event as a dict.  Few users: pairs meet again, and some buy more than T times a chunk."""
    clock[0] += rng.randint(0, 1)
    when = "2017-06-13 12:%02d:%02d" % divmod(clock[0] - rng.choice((0,) * 9 + (rng.randint(0, 60),)) + 60, 60)
    if rng.random() < 0.7:
        return {"event_type": "purchase", "timestamp": when, "id": str(rng.randrange(users)),
                "amount": "%d.%02d" % (rng.randrange(100), rng.randrange(100))}
    one, other = rng.sample(range(users), 2)
    return {"event_type": rng.choice(("befriend", "unfriend")), "timestamp": when, "id1": str(one), "id2": str(other)}


def writer(rng):
    """A function that writes an event as a line, like some program: in an order of its own, with fields of its own."""
    names = rng.sample(("currency", "session_id", "ID", "a.b*", "(c)+", "^|$", "x\\n", "note"), rng.randint(0, 3))
    keys = rng.sample(["event_type", "timestamp", "id", "amount", "id1", "id2", *names], 6 + len(names))
    separators, optional, ascii_only = rng.choice(((", ", ": "), (",", ":"))), rng.random() < 0.3, rng.random() < 0.5

    def write(event):
        event = {**event, **{name: rng.choice((None, 1, -2.5e-7, True, "", "US$", "Zo\xeb \\ \"", "\u2028", [0], {}))
                             for name in names if not optional or rng.random() < 0.5}}
        line = json.dumps({key: event[key] for key in keys if key in event}, separators=separators,
                          ensure_ascii=ascii_only)
        return line.encode()
    return write


def random_chunks(rng):
    """Chunks of lines of one to three programs, which take turns or alternate, some lines damaged or strange."""
    clock, writers = [0], [writer(rng) for _ in range(rng.randint(1, 3))]
    odd, turn, chunks = rng.choice((0, 0.003, 0.1)), rng.choice((1, 50)), []
    for _ in range(rng.randint(3, 8)):
        lines = []
        for number in range(rng.choice((1, 30, 80, 120))):
            line = writers[number // turn % len(writers)](event(rng, clock))
            if rng.random() < odd:
                line = broken(rng, spelled(rng) if rng.random() < 0.5 else line)
            lines.append(line + b"\n")
        chunks.append(b"".join(lines))
    return chunks


def row(rng, clock, late):
    """A random purchase as texts, with amounts and timestamps of all kinds."""
    clock[0] += rng.random() < 0.5
    seconds = clock[0] + 60 - (rng.randint(0, 60) if rng.random() < late else 0)
    amount = rng.choice(("%d.%02d",) * 200 + ("-%d.%02d", "%d.%02d5", "%d.%d", "%d%02de-2")) % (
        rng.randrange(100), rng.randrange(100))
    return str(rng.choice((rng.randrange(4), rng.randrange(40)))), "2017-06-13 12:%02d:%02d" % divmod(seconds, 60), amount


def contents(history):
    """All that the histories hold, in their order, and their types."""
    return [(user, type(purchases), list(purchases)) for user, purchases in history.by_user.items()]


def state(detector):
    """All that a Detector knows, in its order, and what its windows hold."""
    history, sums = detector.history, [detector.verdict(str(user), 0, whole=True) for user in range(8)]
    return (contents(history), history.recorded, history.newest, list(detector.social.friends.items()), sums)


class LearningTest(unittest.TestCase):

    def slow_lines(self, lines, size=400):
        """How many of the lines are read as JSON, in chunks of this size."""
        chunks = [b"".join(line + b"\n" for line in lines[k:k + size]) for k in range(0, len(lines), size)]
        with patch.object(anomaly_detection, "read_event", side_effect=read_event) as slow:
            self.assertEqual(sum(found.events for found in replay(chunks, Detector(1, 5))), len(lines))
        return slow.call_count

    def test_few_lines_are_read_as_json(self):
        """Whatever the programs are that write, and how often they take turns."""
        plain = dict(event_type="purchase", timestamp="2017-06-13 12:00:00", id="1", amount="5.00")
        text, other = json.dumps(plain).encode(), json.dumps(plain, sort_keys=True).encode()
        longer = b'{"currency": "a \\u00fc", "none": null, ' + text[1:]
        for lines in ([text] * 4000, [other] * 4000, [longer] * 4000, [text, other] * 2000,
                      ([text] * 1000 + [longer] * 1000) * 2,
                      [text, text[:-1] + b', "x": 1}', longer, longer[:-1] + b', "x": 1}'] * 1000,
                      [text, text.replace(b"5.00", "5.00\", \"\xfc\": \"\xfc".encode())] * 2000,
                      [text, text.replace(b'"1"', b"1").replace(b'"5.00"', b"5.00")] * 2000):
            self.assertLess(self.slow_lines(lines), 500)

    def test_a_live_stream_is_fast_after_a_hundred_lines(self):
        lines = [b'{"n":%d,"amount":5.00,"id":7,"timestamp":"2017-06-13 12:00:00","event_type":"purchase"}' % number
                 for number in range(300)]
        with patch.object(anomaly_detection, "read_event", side_effect=read_event) as slow:
            list(replay([line + b"\n" for line in lines], Detector(1, 5)))
        self.assertLess(slow.call_count, 100)

    def test_few_expressions_are_compiled(self):
        """Their number, and their lengths, are bounded, also where each line, or each dozen, has a new shape."""
        for same in 1, 12, 100:
            lines = [b'{"key%d": 1, "event_type": "purchase", "timestamp": "2017-06-13 12:00:00", "id": 1, "amount": 1}'
                     % (number // same) for number in range(6000)]
            with patch.object(anomaly_detection.re, "split", side_effect=anomaly_detection.re.split) as split:
                self.slow_lines(lines, size=100)
            used = {call[0][0] for call in split.call_args_list}
            self.assertLess(len(used), 2 if same == 1 else 16)
            self.assertLess(max(map(len, used)), 8 * 700)

    def test_longest_shape(self):
        start = '{"event_type":"purchase","timestamp":"x","id":"1","amount":"1"'
        for number, known in (16, True), (17, False), (5000, False):
            line = start + "".join(',"%s%04d":"x"' % ("." * 76, k) for k in range(number)) + "}"
            self.assertEqual(bool(shape_of(line)), known)
            self.assertLess(len(shape_of(line)[0] if known else ""), 16 * 500)

    def test_fields_that_come_and_go(self):
        """One shape is enough for them, but not for those of the event, nor for another order."""
        start, fields, end = '{"event_type":"purchase"', [',"a":1', ',"b":"x"', ',"c":null'], ',"id":"1","amount":"1"}'
        expression, _ = shape_of(start + "".join(fields) + ',"timestamp":"x"' + end)
        for kept in range(8):
            line = start + "".join(field for place, field in enumerate(fields) if kept >> place & 1)
            self.assertTrue(re.fullmatch(expression, line + ',"timestamp":"x"' + end + "\n"), line)
            self.assertFalse(re.fullmatch(expression, line + end + "\n"), line)
        line = start + "".join(reversed(fields)) + ',"timestamp":"x"' + end + "\n"
        self.assertFalse(re.fullmatch(expression, line))

    def test_no_shape(self):
        """What these lines mean is left to JSON."""
        line = '{"event_type": "purchase", "timestamp": "x", "id": "1", "amount": "1"%s}'
        self.assertTrue(shape_of(line % ', "note": "\\u0000", "n": -1E5'))
        for rest in ', "id": "2"', ', "a": 1, "a": 1', ', "\\u0069d": "2"', ', "a": []', ', "a": {}', ', "": 1', '} ', ',':
            self.assertIsNone(shape_of(line % rest), rest)
        for old, new in ("purchase", "block"), ('"1", ', "01, "), ('"1"}', "1e2}"), ("{", " {"), ("{", "\ufeff{"):
            self.assertIsNone(shape_of((line % "").replace(old, new)), new)


class ColumnsTest(unittest.TestCase):

    def test_equals_the_plain_way(self):
        """Late purchases, damaged lines, pairs that meet and part in one chunk, more than T purchases of a user."""
        taken = []
        by_kind = anomaly_detection.apply_by_kind

        def counting(*arguments):
            taken.append(by_kind(*arguments))
            return taken[-1]

        for seed in range(60):
            chunks, tracked, results = random_chunks(Random(seed)), Random(seed).choice((2, 5, 50)), []
            for way in counting, lambda *_: None:
                detector = Detector(2, tracked)
                if seed % 3 == 0:
                    detector.history.recent_purchases()     # pages that are there go stale
                with patch.object(anomaly_detection, "apply_by_kind", way):
                    results.append(([(found, [set(detector.social.neighbors[str(user)]) for user in range(8)])
                                     for found in replay(chunks, detector)], state(detector)))
            self.assertEqual(*results)
        self.assertGreater(min(taken.count(None), len(taken) - taken.count(None)), 50)

    def test_no_event_is_applied_unless_all_lines_are_valid(self):
        lines = [b'{"event_type":"purchase","timestamp":"2017-06-13 12:00:00","id":"1","amount":"5.00"}\n',
                 b'{"event_type":"befriend","timestamp":"2017-06-13 12:00:00","id1":"1","id2":"2"}\n']
        for bad in (lines[0].replace(b"5.00", b"5,00"), lines[0].replace(b"12:", b"25:"), lines[1].replace(b"2\"}", b"1\"}"),
                    b"x\n", lines[0].replace(b"5.00", b"1.00 2.00"), lines[0].replace(b"5.00", b"1.00\\n2.00")):
            for place in range(20):
                detector, chunk = Detector(1, 50), lines * 10
                chunk[place] = bad
                first, second = replay([b"".join(lines * 20), b"".join(chunk)], detector)
                self.assertEqual([found.place for found in second.malformed], [place])
                self.assertEqual((second.events, detector.history.recorded), (19, 20 + second.purchases))
                self.assertEqual(second.purchases, 10 - (b"purchase" in lines[place % 2]))

    def test_columns_wait(self):
        """Late purchases, records and looks in between, few or many columns: what the pages and the histories hold
        is what single purchases give, and the pages lack only what is older than their first purchase."""
        waited = 0
        for seed in range(300):
            rng, clock = Random(seed), [0]
            tracked, late, most = rng.choice((2, 5, 50)), rng.choice((0, 0, 0.02, 0.5)), rng.choice((0, 40, 100, 1 << 19))
            with patch.multiple(RecentPurchases, page_size=8, capacity=64), (
                    patch.object(PurchaseHistory, "max_waiting", most)):
                plain, history = PurchaseHistory(tracked), PurchaseHistory(tracked)
                for _ in range(rng.randint(1, 30)):
                    rows = [row(rng, clock, late) for _ in range(rng.choice((0, 1, 10, 30)))]
                    for one in rows:
                        plain.record(*one)
                    if rng.random() < 0.7:
                        history.record_all(*map(list, zip(*rows)) if rows else ([], [], []))
                    else:
                        for one in rows:
                            history.record(*one)
                    if rng.random() < 0.3:
                        self.check_pages(plain, history.recent_purchases())
                        waited += len(history.waiting) > 1
                    if rng.random() < 0.05:
                        self.assertEqual(list(history.last("0123", tracked)), list(plain.last("0123", tracked)))
                    self.assertEqual((history.recorded, history.newest), (plain.recorded, plain.newest))
                    self.assertLessEqual(sum(len(columns[2]) for columns in history.waiting), most + 30)
                    self.assertLessEqual(len(history.later), most // 4)
                self.check_pages(plain, history.recent_purchases())
                self.assertEqual(contents(history), contents(plain))
                self.check_pages(plain, history.recent_purchases())
        self.assertGreater(waited, 200)

    def test_no_purchase_is_added_unless_all_are_valid(self):
        history = PurchaseHistory(2)
        for place in range(3):
            for bad in "5,00", "", "1.00\n2.00", "1.00\n", "1.002.00", "1.00 2.00", "0123456789012345.00":
                amounts = ["5.00", "1.5", "7.25"][:place] + [bad] + ["5.00"] * (2 - place)
                with self.assertRaises(Malformed, msg=bad):
                    history.record_all(["1"] * 3, ["2017-06-13 12:00:00"] * 3, amounts)
            with self.assertRaises(Malformed):
                history.record_all(["1"] * 3, (["2017-06-13 12:00:00"] * 3)[:place] + ["x"] * (3 - place), ["5.00"] * 3)
        self.assertEqual((history.by_user, history.recorded, history.newest), ({}, 0, ""))

    def check_pages(self, plain, recent):
        """The pages hold the purchases of the histories that are not older than their first one, by buyer and time."""
        held = [(purchase, user) for page in recent.pages for purchase, user in zip(page.purchases, page.buyers)]
        self.assertEqual(held, sorted(held))
        due = {(purchase, user) for user, purchases in plain.by_user.items() for purchase in purchases
               if held and purchase >= held[0][0]}
        self.assertLessEqual(due, set(held))
        self.assertTrue(held or not plain.by_user)

    def test_a_short_stream_needs_no_histories(self):
        """A network with T purchases on the pages is judged by these alone, so the columns go on waiting."""
        rng, detector = Random(1), Detector(2, 50)
        for user in range(1, 100):
            detector.befriend("0", str(user))
        for _ in range(60):
            users = [str(rng.randrange(100)) for _ in range(500)]
            detector.history.record_all(users, ["2017-06-13 12:00:00"] * 500, ["5.00"] * 500)
        for number in range(50):
            detector.purchase(str(number), "2017-06-13 12:00:01", "5.00")
        self.assertEqual((len(detector.history.waiting), detector.history.histories), (60, {}))
        self.assertEqual(sum(map(len, detector.history.by_user.values())), 100 * 50)

    def test_lack_of_memory(self):
        """At whichever row: nothing is said of the chunk, no later one is applied, and no purchase counts twice."""
        line = b'{"event_type":"purchase","timestamp":"2017-06-13 12:00:00","id":"%d","amount":"5.00"}\n'
        chunks = [b"".join(line % user for user in range(30))] * 5
        for nth in range(31, 61):
            detector = Detector(1, 50)

            class Users(dict):
                calls = 0

                def get(self, user):
                    self.calls += 1
                    if self.calls == nth:
                        raise MemoryError
                    return dict.get(self, user)

            detector.history.histories = Users()
            with patch.object(PurchaseHistory, "max_waiting", 0):       # each chunk takes in the one before
                all_findings = replay(chunks, detector)
                self.assertEqual([next(all_findings).events for _ in "12"], [30, 30])
                self.assertRaises(MemoryError, next, all_findings)
                self.assertEqual(list(all_findings), [])
            self.assertEqual(sum(map(len, detector.history.by_user.values())), nth - 1)


class GrowthTest(unittest.TestCase):
    """Nothing grows that the state does not need."""

    def test_a_hub_that_lost_its_friends(self):
        social = SocialNetwork()
        for number in range(20000):
            social.befriend("hub", str(number))
        for number in range(19999):
            social.unfriend("hub", str(number))
            friends = social.friends["hub"]
            self.assertLessEqual(sys.getsizeof(friends), 256 * len(friends))

    def test_ids_that_are_gone(self):
        """No copy of all ids seen is kept.  (On Python 3.12 sys.intern keeps them for ever.)"""
        self.assertFalse(hasattr(anomaly_detection, "intern"))
        social = SocialNetwork()
        for number in range(70000):
            social.befriend("x%d" % number, "y")
            social.unfriend("x%d" % number, "y")
        self.assertEqual((social.friends, social.neighbors), ({}, {}))
        self.assertLessEqual(len(same_text), 1 << 16)

    def test_blank_lines_before_the_header(self):
        """They are counted, and take no more memory than a chunk."""
        blank = b"\n" * 60000 + b" \t\r\n\xef\xbb\xbf\0 \n"
        for header in b'{"D": 1, "T": 2}\n', b'{"event_type": 1}\n':
            with self.subTest(header=header):
                tracemalloc.start()
                self.addCleanup(tracemalloc.stop)
                _, _, chunks = anomaly_detection.read_state(
                    SimpleNamespace(name="log", head=b""), iter([blank] * 9 + [b"\r\n" + header + b"x\n", b"y\n"]), 3, 4, 3)
                lines = [len(found.malformed) + 1j * found.lines for found in replay(chunks, Detector(1, 2))]
                self.assertEqual(sum(lines), 2 + (header[2:3] == b"e") + 1j * (9 * 60002 + 4))
                self.assertLess(tracemalloc.get_traced_memory()[1], 20e6)
                tracemalloc.stop()


if __name__ == "__main__":
    unittest.main()
