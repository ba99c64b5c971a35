"""How events are written: every spelling of the grammar, and what is no spelling of it.

Three readers are held against each other: the expressions learned from the lines of a log, the JSON reader,
and the literal reference. They accept the same lines, with the same meaning.
"""

import json
import unittest
from fractions import Fraction
from random import Random
from unittest.mock import patch

import support      # first: it finds the modules below
import anomaly_detection
import random_logs
import reference
from anomaly_detection import (
    EVENTS, NESTING, Detector, Malformed, Shapes, amount_in_cents, dollars, judge,
    normalized_timestamp, read_event, replay, shape_of)


# --- lines drawn from the grammar, and broken ones ----------------------------

def digits(rng, most):
    return "".join(rng.choice("0123456789") for _ in range(rng.choice((1, 1, 2, rng.randint(1, most)))))


def number(rng):
    """A JSON number, mostly within the grammar of amounts or ids."""
    if rng.random() < 0.5:
        return rng.choice(("0", "1", "7", "10", "-2", "-0"))
    whole = rng.choice(("0", "7", str(rng.randrange(10 ** rng.randint(1, 15))), "9" * rng.choice((14, 15, 16, 99, 100))))
    decimals = rng.choice(("", "", ".0", ".00", ".5", "." + digits(rng, 31), "." + "0" * rng.choice((84, 99, 100))))
    exponent = rng.choice(("",) * 5 + ("e0", "E+1", "e-2", "e%d" % rng.randint(-120, 120), "e00", "e-099", "e999",
                                       "e1000000000"))
    return rng.choice(("", "", "-")) + whole + decimals + exponent


def amount(rng):
    if rng.random() < 0.4:
        return number(rng)
    plain = rng.choice(("", "", "-")) + digits(rng, 16) + rng.choice(("", "." + digits(rng, 31)))
    return '"%s"' % (plain + rng.choice(("",) * 3 + ("e%s" % digits(rng, 3), "E+7", "e-30")))


def user(rng):
    if rng.random() < 0.4:
        return number(rng)
    name = rng.choice(("1", "2", "7.0", "1e3", "-0", " ", "a b", "\u00e9", "}", "x" * rng.choice((79, 80, 81)),
                       rng.choice(support.ODD_IDS)))
    return json.dumps(name, ensure_ascii=rng.random() < 0.5)


def timestamp(rng):
    if rng.random() < 0.4:
        return '"2017-06-13 11:33:01"'
    year = rng.choice(("2017", "2016", "2024", "0001", "9999", "1900", "0000"))
    month, day = rng.choice((1, 2, 6, 12, rng.randint(0, 13))), rng.choice((1, 28, 29, 31, rng.randint(0, 32)))
    clock = "%02d:%02d:%02d" % (rng.choice((0, 11, 23, rng.randint(0, 24))), rng.choice((0, 59, rng.randint(0, 60))),
                                rng.choice((0, 59, rng.randint(0, 60))))
    fraction = rng.choice(("",) * 3 + (".5", ",25", ".000", rng.choice(".,") + digits(rng, 10)))
    hours, minutes = rng.choice(("00", "05", "23", "%02d" % rng.randint(0, 24))), rng.choice(("00", "30", "59", "60"))
    zone = rng.choice(("",) * 4 + ("Z", " UTC", rng.choice("+-") + hours + rng.choice(("", minutes, ":" + minutes))))
    day = "%s-%02d-%02d" % (year, month, day)
    return '"%s"' % (day + rng.choice("  T") + clock + fraction + rng.choice(("", "", " ") if zone else ("",)) + zone)


def spelled(rng):
    """A line in any spelling."""
    event_type = rng.choice(("purchase", "purchase", "befriend", "unfriend"))
    fields = {"event_type": '"%s"' % event_type, "timestamp": timestamp(rng)}
    if event_type == "purchase":
        fields.update(id=user(rng), amount=amount(rng))
    else:
        fields.update(id1=user(rng), id2=user(rng))
    names = list(fields)
    if rng.random() < 0.1:
        rng.shuffle(names)
    if rng.random() < 0.05:
        names.insert(rng.randrange(5), "note")
        fields["note"] = rng.choice(("1", "null", '"}"', "[[1], {}]", "NaN", *("[" * n + "]" * n for n in (99, 100))))
    commas = rng.choice(((",",), (", ",), (",", ", "), (",", ", ", " ,")))
    colons = rng.choice(((":",), (":", ": "), (":", " : ")))
    line = "{%s}" % "".join('%s"%s"%s%s' % (rng.choice(commas) if k else "", name, rng.choice(colons), fields[name])
                            for k, name in enumerate(names))
    if rng.random() < 0.05:
        line = rng.choice(("\ufeff", "\0", "\0\ufeff\0", " ", "\ufeff ")) + line
    return (line + rng.choice(("",) * 9 + ("\r", " ", "\t\r"))).encode(errors="surrogatepass")


def broken(rng, line):
    """A line with bytes lost, doubled or put in."""
    for _ in range(rng.choice((1, 1, 2))):
        one, two = sorted(rng.randint(0, len(line)) for _ in range(2))
        line = rng.choice((
            lambda: line[:one] + line[one + 1:], lambda: line[:one] + rng.choice(PIECES) + line[one:],
            lambda: line[:one] + line[two:], lambda: line[:one] + rng.choice(PIECES) + line[one + 1:],
            lambda: line.replace(b'"', b"", rng.randint(1, 3)), lambda: line[:two] + line[one:]))()
    return line.replace(b"\n", b"")


# What damage puts in.
PIECES = [bytes([byte]) for byte in b'"",,::{}[]\\0019-+.eETZ \t\r\0x'] + [
    b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc3\xa9", b"\xef\xbb\xbf", b"\\u0031", b"\\ud800", b'": "', b'", "', b"null"]


# --- what the readers make of a line -------------------------------------------

def meaning(event_type, fields):
    """The values of an event, or Malformed."""
    if event_type == "purchase":
        buyer, when, paid = fields
        return event_type, buyer, normalized_timestamp(when), amount_in_cents(paid)
    if fields[0] == fields[1]:
        raise Malformed("id1 and id2")
    return (event_type, *fields)


def by_json(line):
    """The event that the JSON reader reads, or None."""
    try:
        return meaning(*read_event(line.decode(errors="surrogateescape")))
    except Malformed:
        return None


def by_reference(line):
    """The event that the reference reads, or None."""
    try:
        event = reference.read_event(line)
    except ValueError:
        return None
    if event.type != "purchase":
        return (event.type, *event.users)
    fraction = ("%06d%03d" % (event.when.microsecond, event.nanoseconds)).rstrip("0")
    when = event.when.replace(microsecond=0).isoformat(" ") + ("." + fraction if fraction else "")
    return event.type, *event.users, when, event.amount * 100


def by_shape(line, known):
    """The event of a line by the shape of another line, None if it is malformed, or () if it is left to JSON."""
    shapes = Shapes()
    shapes.known = [shape for shape in [shape_of(known.decode(errors="surrogateescape"))] if shape]
    columns = shapes.read(line.decode(errors="surrogateescape") + "\n")
    (when, buyer, paid, event_type, id1, id2, _), = zip(*columns)
    if not buyer and not event_type:
        return ()
    try:
        return meaning(event_type, (id1, id2)) if event_type else meaning("purchase", (buyer, when, paid))
    except Malformed:
        return None


def numbered(findings):
    """(number, line, kind, reason) of all malformed lines."""
    before, result = 0, []
    for found in findings:
        result += [(before + bad.place + 1, *bad[1:]) for bad in found.malformed]
        before += found.lines
    return result


def malformed(*lines):
    """(kind, reason) of each malformed line among the lines of a log."""
    log = b"".join(line + b"\n" for line in lines)
    return [bad[2:] for bad in numbered(replay([log], Detector(1, 50)))]


def judged(stream, needs=()):
    """The Findings of a stream; user 2 is a friend of user 1, who bought for 10, 12 and 11."""
    detector = Detector(1, 50)
    detector.befriend("1", "2")
    for second, paid in enumerate(("10.00", "12.00", "11.00")):
        detector.record("1", "2024-03-01 08:00:0%d" % second, paid)
    return list(judge([stream], detector, needs))


def purchase(when='"2024-03-01 09:00:00"', buyer='"2"', paid='"5000"'):
    return ('{"event_type":"purchase","timestamp":%s,"id":%s,"amount":%s}' % (when, buyer, paid)).encode()


class Readers(unittest.TestCase):

    def compare(self, line, *others):
        """Hold the three readers against each other; return (accepted, by the shape of it or of another line)."""
        event, literal = by_json(line), by_reference(line)
        self.assertEqual(event, literal, line)
        quick = [by_shape(line, known) for known in (line, *others) if by_json(known)]
        self.assertTrue(all(fast in ((), event) for fast in quick), (line, event, quick))
        return event is not None, any(quick)

    def test_spellings(self):
        rng, accepted, quick = Random(1), 0, 0
        for _ in range(5000):
            results = self.compare(spelled(rng))
            accepted, quick = accepted + results[0], quick + results[1]
        self.assertTrue(1000 < quick < accepted < 4600, (quick, accepted))

    def test_broken_lines(self):
        rng, accepted, quick = Random(2), 0, 0
        for _ in range(5000):
            whole = spelled(rng) if rng.random() < 0.5 else purchase()
            results = self.compare(broken(rng, whole), whole)
            accepted, quick = accepted + results[0], quick + results[1]
        self.assertTrue(30 < quick < accepted < 2500, (quick, accepted))

    def test_every_byte_of_a_usual_line(self):
        """Lost, doubled, or another one in its place, in quotes and without."""
        for line in (purchase(), purchase(buyer="2", paid="50.25"), b'{"event_type": "befriend", "timestamp": "x", '
                     b'"id1": "1", "id2": 2}', b'{"event_type":"unfriend","timestamp":"","id1":10,"id2":"10.0"}'):
            self.compare(line)
            for k in range(len(line)):
                self.compare(line[:k] + line[k + 1:], line)
                for byte in (line[k:k + 1] * 2, *(bytes([byte]) for byte in b'"0,}\\ ')):
                    self.compare(line[:k] + byte + line[k + 1:], line)

    def test_logs(self):
        """All lines are read alike among others, in chunks."""
        for seed in range(30):
            rng = Random(seed)
            lines = [spelled(rng) if rng.random() < 0.7 else broken(rng, spelled(rng)) for _ in range(60)]
            chunks = [b"".join(line + b"\n" for line in lines[k:k + 20]) for k in range(0, 60, 20)]
            bad = [(number, line) for number, line in enumerate(lines, 1)
                   if by_json(line) is None and reference.without_marks(line).strip(b" \t\r")]
            findings = list(replay(chunks, Detector(1, 50)))
            self.assertEqual([(number, line.encode(errors="surrogateescape"))
                              for number, line, *_ in numbered(findings)], bad)
            self.assertEqual(sum(found.events for found in findings), sum(by_json(line) is not None for line in lines))
            self.assertEqual([found.lines for found in findings], [20, 20, 20])

    def test_what_most_programs_write_has_a_shape(self):
        """From its ninth line on a log is not read as JSON."""
        for line in (purchase(), purchase(buyer="2", paid="5000"), purchase()[:-1] + b', "currency": null, "n": 7}',
                     purchase(when='"2024-03-01T09:00:00.123Z"', paid="0.5"),
                     json.dumps(json.loads(purchase())).encode() + b"\r",
                     json.dumps(json.loads(purchase(buyer="0", paid="-1.25"))).encode()):
            all_findings = replay([(line + b"\n") * 8] * 2, Detector(1, 50))
            next(all_findings)
            with patch.object(anomaly_detection, "read_event", side_effect=AssertionError):
                found = next(all_findings)
            self.assertEqual((found.events, found.purchases), (8, 8))

    def test_another_event_type_is_a_row_and_a_method(self):
        lines = (b'{"event_type":"block","timestamp":"x","id1":"1","id2":"2"}',
                 purchase().replace(b"purchase", b"gift"), b'{"event_type": "close", "id1": 7.0}')
        self.assertEqual(len(malformed(*lines)), 3)
        calls = []

        class Extended(Detector):
            def block(self, id1, id2):
                calls.append((id1, id2))

            def gift(self, user, timestamp, amount):
                calls.append((user, timestamp, amount))

            def close(self, user):
                calls.append(user)

        rows = {"block": (("id1", "id2"), lambda detector: detector.block),
                "gift": (("id", "timestamp", "amount"), lambda detector: detector.gift),
                "close": (("id1",), lambda detector: detector.close)}
        with patch.dict(EVENTS, rows):
            found, = replay([b"\n".join([*lines, b""])], Extended(1, 50))
        self.assertEqual(calls, [("1", "2"), ("2", "2024-03-01 09:00:00", "5000"), "7"])
        self.assertEqual((found.events, found.malformed), (3, []))


class Cases(unittest.TestCase):
    """What people's logs have had in them."""

    def flags(self, *lines):
        """The lines that are flagged, of a stream in which all are well-formed."""
        findings = judged(b"".join(line + b"\n" for line in lines))
        self.assertEqual(numbered(findings), [])
        return [purchase.line.encode() for found in findings for purchase in found.judged]

    def test_amounts_of_floats(self):
        found, = judged(purchase(paid="0.30000000000000004") + b"\n", {"every"})
        self.assertEqual(Fraction(found.judged[0].amount), Fraction("30.000000000000004"))
        self.assertEqual(len(self.flags(purchase(paid="5e3"), purchase(paid='"1E+2"'), purchase(paid="110e-1"))), 2)

    def test_an_exponent_without_end_costs_nothing(self):
        self.assertEqual([kind for kind, _ in malformed(purchase(paid="1e999999999"), purchase(paid='"1e-999999999"'))],
                         ["amount", "amount"])
        self.assertEqual(malformed(purchase(buyer="1e999999999"), purchase(buyer='"1e9"')), [])

    def test_ids_of_floats(self):
        lines = [purchase(buyer=buyer) for buyer in ("2.0", "2", "20e-1", '"2"')]
        self.assertEqual(self.flags(*lines, purchase(buyer='"2.0"'), purchase(buyer="3.0")), lines)

    def test_timestamps(self):
        lines = [purchase(when='"2024-03-01%s"' % rest) for rest in
                 ("T09:00:00Z", "T10:00:00.123+01:00", " 09:00:00.1234567", " 09:00:00,5")]
        self.assertEqual(self.flags(*lines), lines)
        bad = malformed(purchase(when='"2016-12-31T23:59:60Z"'), purchase(when="1709283600"))
        self.assertEqual([kind for kind, _ in bad], ["timestamp", "timestamp"])
        self.assertTrue(all("YYYY-MM-DD HH:MM:SS" in reason for _, reason in bad))

    def test_first_and_last(self):
        stream = b"".join(purchase(when='"2024-03-01 %s"' % when) + b"\n" for when in
                          ("09:00:00.5", "09:00:00,25", "10:30:00+01:30", "12:00:00"))
        found, = judged(stream)
        self.assertEqual((found.first, found.last), ("2024-03-01 09:00:00", "2024-03-01 12:00:00"))
        malformed, = judged(b"x\n")
        self.assertEqual((malformed.first, malformed.last), ("", ""))

    def test_marks(self):
        """They are no part of a flagged line, and stay in a malformed one."""
        marks = "\ufeff".encode(), b"\0" * 4096, b"\0\xef\xbb\xbf\0"
        self.assertEqual(self.flags(*(mark + purchase() + b"\r" for mark in marks)), [purchase() + b"\r"] * 3)
        self.assertEqual(self.flags(*marks, b"", b" \r"), [])
        found, = judged(b"\0\xef\xbb\xbf x\n")
        self.assertEqual([bad.line for bad in found.malformed], ["\0\ufeff x"])

    def test_kinds(self):
        page_view = b'{"event_type":"page_view","id":"2"}'
        found = malformed(page_view, purchase(paid='"5,000.00"'), page_view, purchase(paid='"$4000"'))
        self.assertEqual([kind for kind, _ in found], ['event_type "page_view"', "amount"] * 2)
        for line, kind in [
                (b"x", "not JSON"), (b'"\xff"', "not UTF-8"), (b"[]", "not a JSON object"), (b"{}", "event_type"),
                (b"[" * 101, "nested too deeply"), (b'{"D": 3, "T": 50}', "parameters"),
                (b'{"event_type": 1}', 'event_type "1"'), (b'{"event_type": null}', "event_type"),
                (purchase(buyer="null"), "id"), (purchase(paid='""'), "amount"), (purchase(when="[]"), "timestamp"),
                (b'{"event_type": "befriend", "id2": 1}', "id1"), (b'{"event_type": "unfriend", "id1": 1}', "id2"),
                (b'{"event_type": "befriend", "timestamp": "x", "id1": "1", "id2": "1"}', "id1 and id2")]:
            (found, reason), = malformed(line)
            self.assertEqual(found, kind)
            self.assertTrue(reason.startswith(kind), reason)
        (kind, _), = malformed(b'{"event_type": "%s\\u001b"}' % (b"x" * 10 ** 6))
        self.assertLess(len(kind), 100)

    def test_reasons(self):
        for line, reason in [
                (b'{"a": "x', "not JSON: Unterminated string starting at character 7"),
                (b'{"a": "\t"}', "not JSON: Invalid control character at character 8"),
                (b'{"a": NaN}', "not JSON: NaN"), (b"{} {}", "not JSON: Extra data at character 4"),
                (b'{"D": 3}', "parameters (D and T) stand on the batch log's first line only"),
                (b'{"event_type": "refund"}', 'event_type "refund" is none of purchase, befriend, unfriend')]:
            self.assertEqual([told for _, told in malformed(line)], [reason])

    def test_nesting(self):
        """The limit is that of the grammar, not of Python: it is the same in every process."""
        def note(text):
            return purchase()[:-1] + b', "note": %s}' % text

        def nest(depth):
            return b"[" * depth + b"]" * depth

        self.assertEqual(malformed(note(nest(NESTING - 1)), note(b'[%s]' % b",".join([nest(50)] * 50)),
                                   note(b'"%s"' % (b"[" * 1000)), note(b'"\\"%s"' % (b'{\\\\\\"' * 1000))), [])
        for text in note(nest(NESTING)), note(b'{"a": ' * 100 + b"0" + b"}" * 100), b"[" * 10 ** 6, b'{"":' * 10 ** 5:
            self.assertEqual([kind for kind, _ in malformed(text)], ["nested too deeply"])

    def test_every_purchase_if_needed(self):
        lines = [purchase(), purchase(paid="10"), purchase(buyer='"1"')]
        found, = judged(b"".join(line + b"\n" for line in lines), {"every"})
        self.assertEqual([one.place for one in found.judged], [0, 1, 2])
        self.assertEqual([one.line.encode() for one in found.judged], lines)
        self.assertEqual([one.flag and tuple(map(dollars, one.flag)) for one in found.judged],
                         [("11.00", "0.81"), None, None])
        self.assertEqual({(one.window, one.audience) for one in found.judged}, {(None, None)})


if __name__ == "__main__":
    unittest.main()
