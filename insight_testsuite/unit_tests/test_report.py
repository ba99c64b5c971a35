"""--report: every figure, mark and promise of the page, held against a literal computation.

What the page should say is worked out here from lists of purchases, each table and chart by itself, with
real dates, exact fractions and full sorts; the page is read with an HTML parser, its charts as XML.
"""

import json
import os
import re
import signal
import stat
import time
import tracemalloc
import unittest
from collections import defaultdict, namedtuple
from datetime import datetime, timedelta
from fractions import Fraction
from functools import partial
from html.parser import HTMLParser
from math import log10
from random import Random
from unittest.mock import patch
from xml.etree import ElementTree

from support import (
    BATCH, FLAGGED, HEADER, OLD, PROGRAM, STREAM, SUITE, FolderTest, MainTest, drawn_log, flagged,
    friendship, purchase, with_odd_ids)
import anomaly_detection
import random_logs
import reference

TABLES = {"busiest": 5, "flagged-times": 5, "flagged": 6, "users": 3}       # and their columns
REFRESH = b'<meta http-equiv="refresh" content="2">'
VOID = {"meta"}


# --- the literal computation --------------------------------------------------

# A purchase that was judged: when it was (a datetime), the printed (mean, sd) if it is flagged.
Judged = namedtuple("Judged", "when user amount verdict")
Literal = namedtuple("Literal", "judged skipped degree tracked")


def literally(batch, stream, degree=None):
    """The Literal of two logs, by the letter of the rule."""
    (_, header), *batch_lines = reference.lines_of(batch)
    degree = degree or int(json.loads(header)["D"])
    rule = reference.Rule(degree, int(json.loads(header)["T"]))
    judged, skipped = [], 0
    for streaming, lines in (False, batch_lines), (True, reference.lines_of(stream)):
        for _, line in lines:
            try:
                event = reference.read_event(line)
            except ValueError:
                skipped += 1
                continue
            if event.type == "purchase":
                user, = event.users
                if streaming:
                    verdict = reference.verdict(event.amount, rule.window(user))
                    judged.append(Judged(event.when, user, event.amount, verdict))
                rule.purchase(user, event.when, event.amount)
            else:
                (rule.befriend if event.type == "befriend" else rule.unfriend)(*event.users)
    return Literal(judged, skipped, degree, rule.tracked)


def of_known_windows(batch, stream, windows):
    """The Literal of a stream whose buyers each have a window, {user: amounts}, that does not change."""
    judged = []
    for _, line in reference.lines_of(stream):
        event = reference.read_event(line)
        user, = event.users
        judged.append(Judged(event.when, user, event.amount,
                             reference.verdict(event.amount, windows.get(user, []))))
    header = json.loads(batch.split(b"\n")[0])
    return Literal(judged, 0, int(header["D"]), int(header["T"]))


def stamp(when):
    """A time as it is ordered: with a year of four digits, and no decimals that say nothing."""
    text = when.isoformat(" ")
    return text.rstrip("0") if "." in text else text


CUTS = ({"microsecond": 0}, {"second": 0}, {"minute": 0}, {"hour": 0}, {"day": 1}, {"month": 1})
SECONDS, MINUTES, HOURS, DAYS, MONTHS, YEARS = 19, 16, 13, 10, 7, 4     # how many characters say so much
WORDS = {MINUTES: "minutes", HOURS: "hours", DAYS: "days", MONTHS: "months", YEARS: "years"}


def cut(when, unit):
    """The time when the second, minute, ... began that a time belongs to."""
    for less in CUTS[:1 + (SECONDS, MINUTES, HOURS, DAYS, MONTHS, YEARS).index(unit)]:
        when = when.replace(**less)
    return when


def separated(text):
    """A decimal with its thousands separated."""
    sign, digits, point, decimals = re.fullmatch(r"(-?)(\d+)(\.?)(\d*)", text).groups()
    return sign + format(int(digits), ",") + point + decimals


def exact(amount):
    """An amount with two decimals, or as many more as it has: 1,234,567.50, -0.125."""
    places = next(n for n in range(2, 16) if amount * 10 ** n % 1 == 0)
    digits = str(int(abs(amount) * 10 ** places)).rjust(places + 1, "0")
    return separated("-" * (amount < 0) + digits[:-places] + "." + digits[-places:])


def grouped(judged, key):
    """[[purchases of a kind], ...] in the order of the logs, most purchases first, equals by their earliest
    purchase's time, then by the place of that in the logs."""
    places = defaultdict(list)
    for at, p in enumerate(judged):
        places[key(p)].append(at)
    groups = sorted(places.values(), key=lambda group: (-len(group), min((judged[at].when, at) for at in group)))
    return [[judged[at] for at in group] for group in groups]


def busiest(judged, unit):
    return [(str(rank), stamp(cut(group[0].when, unit))[:unit], format(len(group), ","),
             exact(sum(p.amount for p in group)), format(sum(p.verdict is not None for p in group), ","))
            for rank, group in enumerate(grouped(judged, lambda p: cut(p.when, unit))[:20], 1)]


def flagged_times(flagged, unit):
    rows = []
    for rank, group in enumerate(grouped(flagged, lambda p: cut(p.when, unit))[:20], 1):
        mean, variance = reference.mean_and_variance([p.amount for p in group])
        rows.append((str(rank), stamp(cut(group[0].when, unit))[:unit], format(len(group), ","),
                     separated(reference.truncated(mean)), separated(reference.truncated_root(variance))))
    return rows


def farthest(flagged):
    """The flagged purchases by how far they are above their mean, which is the printed one."""
    order = sorted(range(len(flagged)), key=lambda at: (
        Fraction(flagged[at].verdict[0]) - flagged[at].amount, flagged[at].when, at))
    return [flagged[at] for at in order]


def sd_above(p):
    """How many sd a purchase is above its mean, as printed both, cut to one decimal."""
    mean, sd = map(Fraction, p.verdict)
    if sd == 0:
        return "\u221e"
    tenths = (p.amount - mean) * 10 // sd
    return "%s.%d" % (format(tenths // 10, ","), tenths % 10)


def tables(judged, unit=SECONDS):
    """The rows of each table."""
    flagged = [p for p in judged if p.verdict]
    return {
        "busiest": busiest(judged, unit),
        "flagged-times": flagged_times(flagged, unit),
        "flagged": [(stamp(p.when), p.user, exact(p.amount), *map(separated, p.verdict), sd_above(p))
                    for p in farthest(flagged)[:200]],
        "users": [(group[0].user, format(len(group), ","), exact(max(p.amount for p in group)))
                  for group in grouped(flagged, lambda p: p.user)[:20]]}


# The round intervals of the specification as far as it names them, in seconds.
MINUTE, HOUR, DAY = 60, 3600, 86400
ROUND = [1, 2, 5, 10, 15, 30, *(n * MINUTE for n in (1, 2, 5, 10, 15, 30)),
         *(n * HOUR for n in (1, 2, 3, 6, 12)), DAY, 2 * DAY, 7 * DAY]


def seconds(when):
    """Since the year 1 began, which was a Monday."""
    return (when - datetime.min) // timedelta(seconds=1)


def intervals(judged, unit=SECONDS):
    """The times when the intervals begin: the shortest round ones of which at most 240 hold all purchases.
    None when these are longer than the specification says anything of."""
    times = [seconds(cut(p.when, unit)) for p in judged]
    for size in ROUND:
        starts = list(range(min(times) // size * size, max(times) + 1, size)) if size * 250 > (
            max(times) - min(times)) else range(241)
        if len(starts) <= 240:
            return starts, size
    return None


# --- reading a page -----------------------------------------------------------

class Page(HTMLParser):
    """A page as a tree of elements; every tag must be closed, by the right one."""

    def __init__(self, data):
        super().__init__(convert_charrefs=True)
        self.data, self.text = data, data.decode("utf-8")       # strictly
        self.builder, self.open, self.elements = ElementTree.TreeBuilder(), [], []
        self.feed(self.text)
        self.close()
        if self.open:
            raise AssertionError("never closed: %s" % self.open)
        self.root = self.builder.close()

    def error(self, message):
        raise AssertionError(message)

    def handle_starttag(self, tag, attributes):
        names = [name for name, value in attributes]
        if len(set(names)) < len(names):
            raise AssertionError("an attribute twice: %s" % attributes)
        self.elements.append(self.builder.start(tag, {name: value or "" for name, value in attributes}))
        self.open.append(tag)
        if tag in VOID:
            self.handle_endtag(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            raise AssertionError("</%s> closes nothing" % tag)
        self.builder.end(tag)

    def handle_data(self, data):
        if self.open:
            self.builder.data(data)

    def tags(self, tag):
        return [element for element in self.elements if element.tag == tag]

    def identified(self, name):
        """The only element with such an id."""
        element, = [element for element in self.elements if element.get("id") == name]
        return element

    def rows(self, name):
        """The texts in the body of a table."""
        return [tuple("".join(cell.itertext()) for cell in row)
                for row in self.identified(name).find("tbody")]

    def tables(self):
        return {name: self.rows(name) for name in TABLES}

    def sentence(self):
        """What happened, as one line of text."""
        return " ".join("".join(self.tags("p")[0].itertext()).split())

    def figures(self):
        """The numbers of the sentence: judged, flagged, per cent, T, D, lines skipped."""
        found = re.match(r"Purchases judged: ([\d,]+)[,.].*?Flagged: ([\d,]+) \(([\d.]+)%\),"
                         r".* T = ([\d,]+).* D = ([\d,]+).* skipped: ([\d,]+)\.", self.sentence())
        return tuple(found.groups())

    def period(self):
        return tuple(element.text for element in self.tags("time"))

    def svg(self, name):
        """A chart, read as XML by itself."""
        start = self.text.index('<svg id="%s"' % name)
        depth = 0
        for tag in re.compile("<svg|(</svg>)").finditer(self.text, start):
            depth += -1 if tag[1] else 1
            if not depth:
                return ElementTree.fromstring(self.text[start:tag.end()])
        raise AssertionError("%s does not end" % name)

    def counts(self):
        """The purchases of each interval, as the line draws them."""
        path = self.svg("over-time").find(".//path")
        if path is None:
            return []
        steps = re.findall(r"V-?(\d+)H(\d+)", path.get("d"))
        if path.get("d") != "M0 0%sV0" % "".join("V-%sH%s" % step if step[0] != "0" else "V0H%s" % step[1]
                                                 for step in steps):
            raise AssertionError("not a line of steps: " + path.get("d"))
        if [int(at) for _, at in steps] != list(range(1, len(steps) + 1)):
            raise AssertionError("not step by step: " + path.get("d"))
        return [int(number) for number, _ in steps]

    def marks(self, name):
        """[(what its title says, group)] of the dots in a chart."""
        return [(group.find("title").text, group) for group in self.svg(name).iter("g")
                if group.find("circle") is not None]


def per_cent(text):
    return float(re.fullmatch(r"(-?[\d.]+)%", text)[1])


class PageTest(MainTest):
    """A test that reads the pages of runs in this process."""

    def page(self, *options, status=0):
        """Run the command line; return the page."""
        self.main("--quiet", *self.files, "--report", self.path("page"), *options, status=status)
        return Page(self.read("page"))

    def write_logs(self, logs):
        for name, log in zip(("batch", "stream"), logs):
            self.write(name, log)

    def assert_says(self, page, literal, unit=SECONDS, how=None):
        """The sentence and the tables say what is true of these purchases."""
        judged, skipped, degree, tracked = literal
        count = sum(p.verdict is not None for p in judged)
        *whole, percent = (page.figures()[at] for at in (0, 1, 3, 4, 5, 2))
        self.assertEqual(whole, [format(n, ",") for n in (len(judged), count, tracked, degree, skipped)], how)
        places = len(percent.partition(".")[2])
        self.assertEqual(Fraction(percent), Fraction(count * 100 * 10 ** places // max(len(judged), 1),
                                                     10 ** places), how)
        times = [stamp(cut(p.when, unit))[:unit] for p in judged]
        self.assertEqual(page.period(), (min(times), max(times)) if times else (), how)
        for name, rows in tables(judged, unit).items():
            self.assertEqual(page.rows(name), rows, (how, name))
        if unit == SECONDS:
            self.assertNotIn(" cut to ", page.sentence())
        else:
            self.assertIn(" cut to %s." % WORDS[unit], page.sentence())

    def assert_draws(self, page, literal, unit=SECONDS, how=None):
        """Both charts show these purchases."""
        self.assert_both_described(page)
        judged = literal.judged
        if not judged:
            self.assertEqual((page.counts(), page.marks("over-time"), page.marks("amounts")), ([], [], []))
            return
        found = intervals(judged, unit)
        if found:
            starts, size = found
            self.assert_line_and_pins(page, judged, starts, size, unit, how)
        else:
            size = self.assert_long_line_and_pins(page, judged, how)
            starts = range(min(seconds(p.when) for p in judged) // size * size,
                           max(seconds(p.when) for p in judged) + 1, size)
        self.assert_dots_and_whiskers(page, [p for p in judged if p.verdict], starts, size, how)

    def assert_both_described(self, page):
        for name in "over-time", "amounts":
            svg = page.svg(name)
            for tag in "title", "desc":
                self.assertTrue(svg.find(tag).text.strip(), (name, tag))

    def assert_line_and_pins(self, page, judged, starts, size, unit, how):
        """Every interval has its purchases, and those with flags a pin above their middle."""
        self.assertLessEqual(len(starts), 240)
        belongs = [(seconds(cut(p.when, unit)) - starts[0]) // size for p in judged]
        counts = page.counts()
        self.assertEqual(counts, [belongs.count(at) for at in range(len(starts))], how)
        left, top, width, height = map(float, page.svg("over-time").find(".//path/..").get("viewBox").split())
        self.assertEqual((left, width), (0, len(starts)), how)
        self.assertTrue(top == -height and height >= max(counts), how)
        pins = page.marks("over-time")
        expected = [(at, [p for p, place in zip(judged, belongs) if p.verdict and place == at])
                    for at in range(len(starts))]
        expected = [(at, flagged) for at, flagged in expected if flagged]
        self.assertEqual(len(pins), len(expected), how)
        radii = {}
        for (title, group), (at, flagged) in zip(pins, expected):
            for said in (stamp(datetime.min + timedelta(seconds=starts[at])),
                         "purchases %s," % format(counts[at], ","),
                         "flagged %s," % format(len(flagged), ","), exact(max(p.amount for p in flagged))):
                self.assertIn(said, title, how)
            circle, = group.iter("circle")
            self.assertAlmostEqual(per_cent(circle.get("cx")), (at + .5) * 100 / len(starts), 1)
            self.assertTrue(-36 <= float(circle.get("cy")) < 0, "not in the band above the line")
            radii.setdefault(len(flagged), set()).add(float(circle.get("r")))
        ordered = [radius for _, same in sorted(radii.items()) for radius in same]
        self.assertEqual(ordered, sorted(set(ordered)), "not larger for more")

    def assert_long_line_and_pins(self, page, judged, how):
        """Of intervals longer than a week: they are at most 240 and not a few, and hold what there is.
        Return how long they are, which the words tell."""
        counts, flagged = page.counts(), [p for p in judged if p.verdict]
        self.assertTrue(60 <= len(counts) <= 240, (how, len(counts)))
        self.assertEqual(sum(counts), len(judged), how)
        days, = re.findall(r"per (\d+) d\.", page.svg("over-time").find("desc").text)
        size = int(days) * DAY
        self.assertGreater(size, 7 * DAY)
        first = min(seconds(p.when) for p in judged) // size
        belongs = [seconds(p.when) // size - first for p in judged]
        self.assertEqual(counts, [belongs.count(at) for at in range(len(counts))], how)
        pins = [title[:19] for title, group in page.marks("over-time")]
        self.assertEqual(pins, [stamp(datetime.min + timedelta(seconds=(first + at) * size)) for at in
                                sorted({seconds(p.when) // size - first for p in flagged})], how)
        return size

    def assert_dots_and_whiskers(self, page, flagged, starts, size, how):
        """The 500 farthest: a dot where the amount is, and a line from the mean to mean + 3 sd."""
        expected = farthest(flagged)[:500]
        marks = page.marks("amounts")
        self.assertEqual(len(marks), len(expected), how)
        dots = []
        for title, group in marks:
            circle, = group.iter("circle")
            line, = group.iter("line")
            self.assertEqual((line.get("x1"), line.get("x2")), (circle.get("cx"), circle.get("cx")))
            dots.append((title, *map(per_cent, (circle.get("cx"), circle.get("cy"),
                                                line.get("y1"), line.get("y2")))))
            self.assertTrue(all(0 <= place <= 100 for place in dots[-1][1:]), (how, "outside", dots[-1]))
        y = self.scale(page)
        span = len(starts) * size
        for p, (title, across, dot, mean, limit) in zip(expected, dots):
            m, sd = map(Fraction, p.verdict)
            for said in stamp(p.when), p.user, exact(p.amount), separated(p.verdict[0]), exact(m + 3 * sd):
                self.assertIn(said, title, how)
            self.assertAlmostEqual(across, 100 * (seconds(p.when) + .5 - starts[0]) / span,
                                   delta=.02 + 51 / span, msg=how)
            for place, amount in (dot, p.amount), (mean, m), (limit, m + 3 * sd):
                self.assertAlmostEqual(place, y(amount), delta=.02, msg=(how, title))
        heights = sorted((p.amount, 100 - dot) for p, (_, _, dot, _, _) in zip(expected, dots))
        self.assertEqual([height for _, height in heights], sorted(height for _, height in heights),
                         "a higher amount is lower down")

    @staticmethod
    def scale(page):
        """Where the labels of the axis say that an amount is, in per cent from above, on a log scale."""
        ticks = [(float(re.sub("[,\u2264 ]", "", text.text)), per_cent(text.get("y")))
                 for text in page.svg("amounts").findall("g[@class='y']/text")]
        if not ticks:
            return None
        (one, below), (other, above) = ticks[0], ticks[-1]
        if not (below > above and one < other):
            raise AssertionError("an axis upside down: %s" % ticks)

        def y(amount):
            amount = max(float(amount), .01)
            share = (log10(amount) - log10(one)) / (log10(other) - log10(one))
            return min(below + share * (above - below), 100)        # what is less stands on the axis
        for label, place in ticks:
            if abs(y(label) - place) > .02:
                raise AssertionError("%s is not where a log scale has it" % label)
        return y


# --- the tests ----------------------------------------------------------------

class Figures(PageTest):
    """The sentence, the tables and the charts of random logs, of a known one and of drawn-up ones."""

    def compare(self, logs, how, *options):
        self.write_logs(logs)
        literal = literally(*logs)
        page = self.page("--jobs", 1, *options)
        self.assert_says(page, literal, how=how)
        self.assert_draws(page, literal, how=how)
        return literal.judged

    def test_random_logs(self):
        """Ties, disorder, sub-second times, sub-cent, negative and huge amounts, damaged lines."""
        flagged = 0
        for seed in range(60):
            judged = self.compare(random_logs.random_log(Random(seed), 0.1 * (seed % 2)), seed)
            flagged += sum(p.verdict is not None for p in judged)
        self.assertGreater(flagged, 150)

    def test_every_clock_and_kind_of_amounts(self):
        """Each with each: what one has, such as times that tie or sums of parts of a cent, meets the other."""
        clocks = list(dict.fromkeys(random_logs.CLOCKS))
        together = subcent = late = 0
        for number, amount in enumerate(dict.fromkeys(random_logs.AMOUNTS)):
            for clock in clocks:
                flagged = [p for p in self.compare(
                    drawn_log(number, clock=clock, amount=amount, shape=random_logs.clique, users=6),
                    (amount.__name__, clock.__name__)) if p.verdict]
                times = [cut(p.when, SECONDS) for p in flagged]
                together += len(set(times)) < len(times)
                subcent += any(p.amount * 100 % 1 for p in flagged)
                late += times != sorted(times)
        self.assertGreater(min(together, subcent, late), 15, "hardly put to the test")

    def test_a_grader_case(self):
        """medium: with the means and sds that its expected output has."""
        case = os.path.join(SUITE, "tests", "medium")
        batch, stream = (os.path.join(case, "log_input", name) for name in ("batch_log.json", "stream_log.json"))
        with open(os.path.join(case, "log_output", "flagged_purchases.json"), "rb") as file:
            answers = [json.loads(line) for line in file]
        with open(batch, "rb") as file:
            header = json.loads(file.readline())
        judged = []
        with open(stream, "rb") as file:
            for line in file:
                event = reference.read_event(line)
                if event.type == "purchase":
                    fields, verdict = json.loads(line), None
                    if answers and fields.items() <= answers[0].items():
                        answer = answers.pop(0)
                        verdict = answer["mean"], answer["sd"]
                    judged.append(Judged(event.when, *event.users, event.amount, verdict))
        self.assertFalse(answers)
        self.files[:2] = batch, stream
        literal = Literal(judged, 0, int(header["D"]), int(header["T"]))
        page = self.page()
        self.assert_says(page, literal)
        self.assert_draws(page, literal)

    def test_the_example(self):
        """In every cell: user 2 buys for 1601.83 when his network's mean is 29.10 and its sd 21.46."""
        page = self.page()
        self.assertEqual(page.tables(), {
            "busiest": [("1", "2017-06-13 11:33:02", "1", "1,601.83", "1")],
            "flagged-times": [("1", "2017-06-13 11:33:02", "1", "1,601.83", "0.00")],
            "flagged": [("2017-06-13 11:33:02", "2", "1,601.83", "29.10", "21.46", "73.2")],
            "users": [("2", "1", "1,601.83")]})
        self.assertEqual(page.figures(), ("1", "1", "100.00", "50", "3", "0"))

    def test_more_than_the_tables_hold(self):
        """20 and 200 rows and 500 dots, of 1,300 flagged purchases, of which many are equally far above."""
        rng = Random(5)
        amounts = ["%d.%02d" % (rng.randint(20, 60), rng.randint(0, 99)) for _ in range(250)]
        buyers = ["u%d" % n for n in range(60)]
        batch = HEADER + b"".join(friendship("1", user) for user in buyers) + purchase("1", "10.00") * 2
        when = [datetime(2017, 6, 13) + timedelta(seconds=rng.randint(0, 400)) for _ in range(1300)]
        stream = b"".join(purchase(rng.choice(buyers), rng.choice(amounts), stamp(time)) for time in when)
        windows = {user: [Fraction(10)] * 2 for user in buyers}
        # Nobody's own purchases count, nor those at distance 2.
        batch = batch.replace(b'"D":"3"', b'"D":"1"')
        self.write_logs((batch, stream))
        literal = of_known_windows(batch, stream, windows)
        self.assertEqual(sum(p.verdict is not None for p in literal.judged), 1300)
        for jobs in 1, 3:
            page = self.page("--jobs", jobs)
            self.assert_says(page, literal)
            self.assert_draws(page, literal)
        self.assertEqual([len(rows) for rows in page.tables().values()], [20, 20, 200, 20])
        self.assertEqual(len(page.marks("amounts")), 500)

    def test_cut_not_rounded(self):
        """The mean and sd of flagged amounts, and how many sd above: 3.19 is 3.1; for an sd of 0 it is infinite."""
        batch = (HEADER.replace(b"3", b"1") + friendship("1", "2") + friendship("3", "4")
                 + purchase("1", "10.00") + purchase("1", "30.00") + purchase("3", "7.00") * 2)
        stream = (purchase("2", "51.99") + purchase("2", "51.98") + purchase("2", "50.01")
                  + purchase("4", "7.001") + purchase("4", "9999999.00"))
        self.write_logs((batch, stream))
        page = self.page()
        self.assert_says(page, literally(batch, stream))
        self.assertEqual([row[1:] for row in page.rows("flagged")], [
            ("4", "9,999,999.00", "7.00", "0.00", "\u221e"), ("2", "51.99", "20.00", "10.00", "3.1"),
            ("2", "51.98", "20.00", "10.00", "3.1"), ("2", "50.01", "20.00", "10.00", "3.0"),
            ("4", "7.001", "7.00", "0.00", "\u221e")])
        self.assertEqual(page.rows("users"), [("2", "3", "51.99"), ("4", "2", "9,999,999.00")])

    def test_ties(self):
        """By time, then by the order in the log, also of what comes late."""
        batch = HEADER.replace(b"3", b"1") + purchase("1", "10.00") * 2 + b"".join(
            friendship("1", user) for user in "abcd")
        stream = b"".join(purchase(user, "20.00", "2017-06-13 11:33:" + when) for user, when in (
            ("d", "05.5"), ("c", "05.25"), ("b", "05.250"), ("a", "07"), ("a", "04"), ("d", "05.1"),
            ("b", "08"), ("c", "08.000")))
        self.write_logs((batch, stream))
        page = self.page()
        self.assertEqual([row[0] for row in page.rows("users")], ["a", "d", "c", "b"])
        self.assertEqual([row[1][14:] for row in page.rows("busiest")], ["33:05", "33:08", "33:04", "33:07"])
        self.assertEqual([(row[0][17:], row[1]) for row in page.rows("flagged")], [
            ("04", "a"), ("05.1", "d"), ("05.25", "c"), ("05.25", "b"), ("05.5", "d"), ("07", "a"),
            ("08", "b"), ("08", "c")])

    def test_lines_skipped_are_those_of_both_logs(self):
        self.write_logs((BATCH + b"x\n\n" + purchase(amount="1e5"), b"{}\n" + STREAM + b"\xff\n"))
        self.assertEqual(self.page().figures()[5], "4")

    def test_d_and_t_are_those_in_force(self):
        self.assertEqual(self.page("-D", 1000000, "-T", 1234).figures()[3:5], ("1,234", "1,000,000"))

    def test_the_logs_names(self):
        os.rename(self.stream, self.path("of the day.json"))
        self.do("batch", "of the day.json", "output", "--report", "page", cwd=self.folder)
        sentence = Page(self.read("page")).sentence()
        self.assertRegex(sentence, r"\bbatch\b.*\bof the day\.json\b")


class Charts(PageTest):
    """What the random logs, all within some minutes, do not show."""

    def draw(self, *purchases):
        """The page of a stream of flagged purchases of 2, (time, amount), among many of 3 that are not."""
        usual = sorted(purchases)[0][0], sorted(purchases)[-1][0]
        stream = b"".join(purchase("2", amount, when) for when, amount in purchases) + b"".join(
            purchase("3", "1.00", when) for when in usual for _ in range(3))
        self.write_logs((BATCH, stream))
        windows = {"2": [Fraction(text) for text in ("16.83", "59.28", "11.20")]}
        literal = of_known_windows(BATCH, stream, windows)
        page = self.page("-D", 1)
        self.assert_draws(page, literal._replace(degree=1))
        self.assert_says(page, literal._replace(degree=1))
        return page

    def test_the_shortest_round_interval_that_does(self):
        """At every border between two: as many seconds as 240 of the shorter take, and one more."""
        begin = datetime(2017, 6, 12)           # a Monday, when intervals of all lengths begin
        for size, longer in zip(ROUND, ROUND[1:] + [None]):
            begin = next(begin + timedelta(days=day) for day in range(14)
                         if (seconds(begin) + day * DAY) % max(size, DAY) == 0)
            last = begin + timedelta(seconds=240 * size - 1)
            with self.subTest(size=size):
                page = self.draw((stamp(begin), "5000.00"), (stamp(last), "600.00"), (stamp(last), "700.00"))
                self.assertEqual(len(page.counts()), 240)
                self.assertEqual(len(page.marks("over-time")), 2)
                page = self.draw((stamp(begin), "5000.00"), (stamp(last + timedelta(seconds=1)), "600.00"))
                if longer:
                    self.assertEqual(len(page.counts()), -(-(240 * size + 1) // longer))
                self.assertLess(len(page.counts()), 240)

    def test_ten_years(self):
        rng = Random(1)
        days = sorted(rng.sample(range(3650), 300))
        self.draw(*((stamp(datetime(2007, 6, 13, 11, 33, day % 60) + timedelta(days=day)),
                     "%d.00" % rng.randint(100, 9999)) for day in days))

    def test_all_time(self):
        """From 0001-01-01 to 9999-12-31, and either end of it alone."""
        first, last = "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"
        page = self.draw((last, "1000.00"), (first, "500.00"), ("2017-06-13 11:33:02", "700.00"))
        self.assertEqual(page.period(), (first, last[:19]))
        for alone in first, last, "0999-12-31 23:59:59", "9999-12-31 00:00:00":
            self.draw((alone, "1000.00"))
        self.draw(("9999-12-31 00:00:00", "1000.00"), (last, "1000.00"))
        self.draw(("9998-01-01 00:00:00", "1000.00"), (last, "1000.00"))
        self.draw((first, "1000.00"), ("0003-01-01 00:00:00", "1000.00"))

    def test_a_single_timestamp(self):
        page = self.draw(*[("2017-06-13 11:33:02", amount) for amount in ("600.00", "5000.00", "200.00")])
        self.assertEqual(page.counts(), [9])
        self.assertEqual(len(page.marks("over-time")), 1)

    def test_pins_are_larger_for_more(self):
        """1, 2, 5, 30 and 200 flags in a second; the pin of more does not leave the band above the line."""
        numbers = 1, 2, 5, 30, 200
        page = self.draw(*[("2017-06-13 11:33:%02d" % at, "600.00") for at, n in enumerate(numbers)
                           for _ in range(n)])
        circles = [group.find("circle") for _, group in page.marks("over-time")]
        radii = [float(circle.get("r")) for circle in circles]
        self.assertEqual(radii, sorted(set(radii)))
        self.assertTrue(all(radius + abs(float(circle.get("cy"))) <= 36 for radius, circle in zip(radii, circles)))

    def test_amounts_of_every_size(self):
        """From a cent to 10**15 on one scale, and each alone."""
        sizes = ["0.10", "0.99", "1.00", "10.00", "123456.78", "999999999999999.99", "1", "0.11"]
        batch = HEADER + b"".join(
            friendship("f%d" % at, "u%d" % at) + purchase("f%d" % at, "-0.05" if at % 2 else "0.01") * 2
            for at in range(len(sizes)))
        lines = [purchase("u%d" % at, amount, "2017-06-13 11:33:%02d" % at) for at, amount in enumerate(sizes)]
        for stream in (b"".join(lines), *lines):
            self.write_logs((batch, stream))
            literal = literally(batch, stream)
            self.assertEqual(sum(p.verdict is not None for p in literal.judged), stream.count(b"\n"))
            page = self.page()
            self.assert_says(page, literal)
            self.assert_draws(page, literal)

    def test_axes(self):
        """Ticks have labels, on both axes of both charts, within the plot and not one on the other."""
        page = self.draw(("2017-06-13 11:33:02", "600.00"), ("2017-06-15 11:33:02", "5000.00"))
        for name in "over-time", "amounts":
            for axis, place in ("x", "x"), ("y", "y"):
                texts = page.svg(name).findall("g[@class='%s']/text" % axis)
                self.assertTrue(2 <= len(texts) <= 10, (name, axis))
                places = [per_cent(text.get(place)) for text in texts]
                self.assertTrue(all(0 <= where <= 100 for where in places))
                self.assertEqual(len(set(places)), len(places))
                self.assertTrue(all(text.text.strip() for text in texts))

    def test_round_ticks(self):
        """Of a period that ends at 2017-06-30 11:40:20 or begins at 2017-06-13 11:33:02."""
        begin, end = "2017-06-13 11:33:02", "2017-06-30 11:40:20"
        for first, last, labels in (
                (begin, "2017-06-13 11:33:20", "11:33:05 11:33:10 11:33:15 11:33:20"),
                (begin, "2017-06-13 19:40:20", "06-13T12:00 06-13T14:00 06-13T16:00 06-13T18:00"),
                (begin, end, "2017-06-19 2017-06-26"),
                ("2017-02-13 11:33:02", end, "2017-03 2017-04 2017-05 2017-06"),
                ("2014-02-13 11:33:02", end, "2014-08 2015-02 2015-08 2016-02 2016-08 2017-02"),
                ("2010-02-13 11:33:02", end, "2011 2012 2013 2014 2015 2016 2017"),
                ("1990-02-13 11:33:02", end, "1994 1998 2002 2006 2010 2014")):
            page = self.draw((first, "600.00"), (last, "5000.00"))
            for name in "over-time", "amounts":
                texts = page.svg(name).findall("g[@class='x']/text")
                self.assertEqual([text.text.replace(" ", "T") for text in texts], labels.split())


class EdgeCases(PageTest):

    def answer(self, batch, stream, *options):
        self.write_logs((batch, stream))
        literal = literally(batch, stream)
        page = self.page(*options)
        self.assert_says(page, literal)
        self.assert_draws(page, literal)
        return page

    def test_an_empty_stream(self):
        for stream in b"", b"\n \r\n", b"x\n", friendship("1", "9"), b"\xef\xbb\xbf":
            page = self.answer(BATCH, stream)
            self.assertEqual(page.figures()[:3], ("0", "0", "0.00"))
            self.assertEqual(page.tables(), dict.fromkeys(TABLES, []))

    def test_nothing_flagged(self):
        page = self.answer(BATCH, purchase(amount="1.00") * 3 + purchase("7", "1.00", "2017-06-14 11:33:02"))
        self.assertEqual([len(rows) for rows in page.tables().values()], [2, 0, 0, 0])
        self.assertEqual((page.counts()[0], page.counts()[-1]), (3, 1))

    def test_negative_amounts(self):
        """Above their mean all the same; a log scale has no place below 0, so that they stand on its axis."""
        batch = HEADER + friendship("1", "2") + purchase("1", "-1000.00") + purchase("1", "-1000.50")
        for amounts in ["-3.00", "-0.01"], ["-3.00", "2000.00", "0.00"], ["-0.005", "0.0049", "0"]:
            page = self.answer(batch, b"".join(purchase("2", amount) for amount in amounts))
            self.assertEqual(len(page.rows("flagged")), len(amounts))

    def test_sub_cent_amounts(self):
        """Means below a cent, amounts below their printed means, sums of many small parts."""
        batch = HEADER + friendship("1", "2") + purchase("1", "0.0001") + purchase("1", "0.0001")
        self.answer(batch, b"".join(purchase("2", "0.000%d" % n) for n in range(2, 9)))
        batch = HEADER + friendship("1", "2") + purchase("1", "-0.009") * 2
        self.answer(batch, purchase("2", "-0.001") + purchase("2", "0.0000000000000%d" % 11) * 3)
        batch = HEADER + friendship("1", "2") + purchase("1", "999999999999998") + purchase("1", "999999999999998.1")
        self.answer(batch, purchase("2", "999999999999999.999999999999999") * 7)


class Bounded(PageTest):
    """Beyond a limit of kept timestamps the page goes on in minutes, then hours, and says so."""

    def drawn_up(self, *times):
        """Logs with a purchase at each time, every seventh flagged."""
        rng = Random(len(times))
        stream = b"".join(
            purchase("2", "%d.%02d" % (rng.randint(200, 500) if at % 7 == 0 else 5, at % 100), stamp(when))
            for at, when in enumerate(times))
        self.write_logs((BATCH.replace(b'"D":"3"', b'"D":"1"'), stream))
        windows = {"2": [Fraction(text) for text in ("16.83", "59.28", "11.20")]}
        return of_known_windows(BATCH, stream, windows)._replace(degree=1)

    def compare(self, literal, limit, unit, charts=True):
        with patch.object(anomaly_detection.Report, "limit", limit):
            page = self.page("--jobs", 1)
            self.assert_says(page, literal, unit, (limit, unit))
            if charts:
                self.assert_draws(page, literal, unit, (limit, unit))
            self.assertEqual(self.page("--jobs", 3).data, page.data)

    def test_minutes_and_hours(self):
        """Timestamps that the limit is just enough for, and one more; in order, and shuffled."""
        begin, rng = datetime(2017, 6, 13, 20, 5), Random(2)
        times = [begin + timedelta(hours=n, minutes=13 * m, seconds=s, microseconds=250000 * (s % 3))
                 for n in range(250) for m in range(2) for s in (1, 59)]
        for order in times, rng.sample(times, len(times)):
            literal = self.drawn_up(*order)
            self.compare(literal, 1000, SECONDS)
            self.compare(literal, 999, MINUTES)
            self.compare(literal, 500, MINUTES)
            self.compare(literal, 499, HOURS)
            self.compare(literal, 250, HOURS)

    def test_days_months_and_years(self):
        """And so on, as often as it takes; also when there is but one timestamp left in the end."""
        begin, rng = datetime(2017, 1, 5, 20, 5), Random(2)
        literal = self.drawn_up(*[begin + timedelta(days=rng.randrange(1000), seconds=rng.randrange(DAY))
                                  for _ in range(700)])
        for unit, more in (DAYS, HOURS), (MONTHS, DAYS), (YEARS, MONTHS):
            kept = len({cut(p.when, unit) for p in literal.judged})
            self.assertLess(kept, len({cut(p.when, more) for p in literal.judged}))
            self.compare(literal, kept, unit, charts=False)

    def test_random_logs(self):
        """Ties are by time, then by the order in the log, after a cut, too."""
        for seed in range(30):
            logs = random_logs.random_log(Random(seed))
            self.write_logs(logs)
            literal = literally(*logs)
            kept, unit = (len({cut(p.when, SECONDS) for p in literal.judged}), SECONDS)
            while kept > 3:
                unit = {SECONDS: MINUTES, MINUTES: HOURS}[unit]
                kept = len({cut(p.when, unit) for p in literal.judged})
            self.compare(literal, 3, unit, charts=False)

    def test_the_limit(self):
        """100,000 timestamps are kept, and one more is too many."""
        begin = datetime(2017, 6, 13)
        stream = b"".join(purchase("9", "9.00", stamp(begin + timedelta(seconds=second))) for second in range(100000))
        stream += purchase("2", "999.00", "2017-06-13 00:01:12") * 2
        for more, cut_to_minutes, row in (
                (b"", False, ("1", "2017-06-13 00:01:12", "3", "2,007.00", "2")),
                (purchase("9", "9.00", "2017-06-12 23:59:59"), True, ("1", "2017-06-13 00:01", "62", "2,538.00", "2"))):
            self.write_logs((BATCH, stream + more))
            page = self.page("-D", 1)
            self.assertEqual(" cut to minutes." in page.sentence(), cut_to_minutes)
            self.assertEqual(page.rows("busiest")[0], row)
            self.assertEqual(sum(page.counts()), 100002 + more.count(b"\n"))
            (title, _), = page.marks("over-time")
            self.assertIn("flagged 2,", title)

    def test_memory(self):
        """What is kept does not grow with the stream, all flagged; with a limit never reached it does, as is seen."""
        begin = datetime(2017, 6, 13)
        self.write_logs((BATCH, b"".join(purchase("2", "%d.00" % (900 + second % 9), stamp(begin + timedelta(
            seconds=second))) for second in range(6000))))

        def peak(*options):
            tracemalloc.start()
            try:
                self.main("--quiet", *self.files, "--jobs", 1, *options)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        with patch.object(anomaly_detection.Report, "dots", 100):
            peak("--report", self.path("page"))      # what is imported is not measured
            alone = peak()
            with patch.object(anomaly_detection.Report, "limit", 300):
                self.assertLess(peak("--report", self.path("page")) - alone, 400000)
            self.assertGreater(peak("--report", self.path("page")) - alone, 1000000)


class SelfContained(PageTest):
    """One file that runs nothing, asks for nothing and says everything, whatever is in the logs."""

    def assert_harmless(self, page):
        allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "b", "small", "time", "div",
                   "table", "caption", "thead", "tbody", "tr", "th", "td",
                   "svg", "desc", "g", "path", "line", "circle", "rect", "text", "section", "main", "span"}
        for element in page.elements:
            self.assertIn(element.tag, allowed)
            for name, value in element.items():
                self.assertRegex(name, r"\A[a-z-]+[12]?\Z")
                self.assertFalse(name.startswith("on") or name in ("src", "href", "style", "xmlns", "srcset", "data"),
                                 name)
                self.assertNotRegex(value.lower(), "javascript|http|//|url|script")
        for style in page.tags("style"):
            self.assertNotRegex(style.text, r"http|//|url\(|@import|expression|[<>]")
        self.assertEqual([c for c in page.text if not c.isprintable() and c != "\n"], [])
        self.assertLess(len(page.data), 500000)
        self.assertNotIn("<script", page.text.lower())
        for name in "over-time", "amounts":
            self.assertEqual(page.svg(name).get("id"), name)

    def assert_complete(self, page):
        """What a browser, a phone, a printer and a screen reader need."""
        self.assertTrue(page.text.startswith("<!DOCTYPE html>\n"))
        self.assertTrue(page.text.endswith("</html>\n"))
        html, = page.tags("html")
        self.assertEqual(html.get("lang"), "en")
        metas = [meta.attrib for meta in page.tags("meta")]
        self.assertIn({"charset": "utf-8"}, metas)
        viewport, = [meta["content"] for meta in metas if meta.get("name") == "viewport"]
        self.assertIn("width=device-width", viewport)
        self.assertFalse([meta for meta in metas if "http-equiv" in meta])
        self.assertIn("prefers-color-scheme: dark", page.tags("style")[0].text)
        self.assertIn("@media print", page.tags("style")[0].text)
        self.assertTrue(html.find("head/title").text.strip())
        self.assertEqual(page.text.index('charset="utf-8"') // 1024, 0)
        for name, columns in TABLES.items():
            table = page.identified(name)
            heads = list(table.find("thead/tr"))
            self.assertEqual([head.tag for head in heads], ["th"] * columns)
            self.assertTrue("".join(table.find("caption").itertext()).strip())
            for row in page.rows(name):
                self.assertEqual(len(row), columns)
        for head in page.tags("th"):
            self.assertIn(head.get("scope"), ("col", "row"))
        order = [page.text.index(part) for part in ("<h1", *('id="%s"' % name for name in (
            "over-time", "amounts", "busiest", "flagged-times", "flagged", "users")))]
        self.assertEqual(order, sorted(order))

    def test_nothing_refers_to_anything_outside(self):
        """Of a log with harmless ids not even the letters of it are there."""
        for stream in STREAM, b"", purchase(amount="1.00"), STREAM * 1000:
            self.write("stream", stream)
            page = self.page()
            for wrong in ("http:", "https:", "//", "src=", "href=", "url(", "@import", "javascript:", "xmlns",
                          "<script", "<link", "<img", "&nbsp;"):
                self.assertNotIn(wrong, page.text.lower())
            self.assert_harmless(page)
            self.assert_complete(page)

    HOSTILE = ["<script>alert(1)</script>", "</title></svg><script>alert(1)</script>", "</td></table></style>",
               '"\' onload="alert(1)', "x' onmouseover='alert(1)", "&lt;b&gt;", "&amp;", "&", "&#60;script&#62;", "]]>",
               "<!--", "-->", "<![CDATA[", "javascript:alert(1)", "https://example.org/", "a\0b\x07\x1b[2J",
               "\u202eevil\u2066", "\ud800", "\udfff\ud800", "\ufffe\uffff", "\x85\x9b\xa0", "\u2028\u2029", "\r\n\t",
               "\U0001f600 Zo\xeb \u65e5\u672c", " ", "=cmd", "{{7*7}}", "%s%d{0}", "\\u003cscript\\u003e",
               "x" * 10 ** 6, "<" * 10 ** 6, "\u65e5" * 10 ** 5]

    def test_hostile_ids(self):
        """They are shown, escaped, wherever users are named; what cannot be seen, or is long, is written otherwise."""
        def line(text, of):
            return of.replace(b'"X"', json.dumps(text).encode())
        batch = HEADER + purchase("1", "5.00") * 2 + b"".join(
            line(text, friendship("1", "X")) for text in self.HOSTILE)
        stream = b"".join(line(text, purchase("X", "100.00")) for text in self.HOSTILE)
        self.write_logs((batch.replace(b'"D":"3"', b'"D":"1"'), stream))
        page = self.page()
        self.assert_harmless(page)
        self.assert_complete(page)
        shown = [row[1] for row in page.rows("flagged")]
        self.assertEqual(len(shown), len(self.HOSTILE))
        titles = [title for title, _ in page.marks("amounts")]
        for text, cell, title in zip(self.HOSTILE, shown, titles):
            if text.isprintable() and len(text) <= 60:
                self.assertEqual(cell, text)
                self.assertIn(text, title)
            self.assertLess(len(cell), 200)
            self.assertTrue(cell)
        self.assertEqual([row[0] for row in page.rows("users")], shown[:20])

    def test_long_ids(self):
        """60 characters are shown whole, of more the first 60."""
        ids = ["a" * 60, "b" * 61]
        self.write_logs((HEADER.replace(b'"D":"3"', b'"D":"1"') + purchase("1", "5.00") * 2
                         + b"".join(friendship("1", name) for name in ids),
                         b"".join(purchase(name, "100.00") for name in ids)))
        self.assertEqual([row[0] for row in self.page().rows("users")], ["a" * 60, "b" * 60 + "\u2026"])

    def test_odd_ids_in_random_logs(self):
        """Every other figure stays as it is."""
        for seed in range(30):
            logs = with_odd_ids(seed, *drawn_log(seed, users=20))
            self.write_logs(logs)
            page, literal = self.page(), literally(*logs)
            self.assert_harmless(page)
            for name, rows in tables(literal.judged).items():
                self.assertEqual(len(page.rows(name)), len(rows))
                column = {"flagged": 1, "users": 0}.get(name)
                for found, row in zip(page.rows(name), rows):
                    for at, (cell, expected) in enumerate(zip(found, row)):
                        if at != column or expected.isprintable() and len(expected) <= 60:
                            self.assertEqual(cell, expected, seed)

    def test_hostile_file_names(self):
        """Those of the logs stand in the sentence, and in the title."""
        for number, name in enumerate(text for text in self.HOSTILE if "\0" not in text and len(text) < 100):
            try:
                path = os.path.join(self.path(str(number)), os.fsencode(name).decode(errors="surrogateescape"))
            except UnicodeEncodeError:
                continue
            path = os.path.normpath(path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as log:
                log.write(BATCH + STREAM)
            page = self.page_of(path)
            self.assert_harmless(page)
            self.assert_complete(page)
        with self.subTest("bytes that are not UTF-8"):
            try:
                with open(os.path.join(os.fsencode(self.folder), b"\xff<&\xfe"), "wb") as log:
                    log.write(BATCH)
            except OSError:
                self.skipTest("no such file names here")
            self.assert_harmless(self.page_of(os.path.join(self.folder, os.fsdecode(b"\xff<&\xfe"))))

    def page_of(self, path):
        """The page of a run with a log of that name, as both."""
        self.main("--quiet", path, path, self.output, "--report", self.path("page"))
        return Page(self.read("page"))

    def test_the_names_are_shown(self):
        name = "<script>alert(1)<"
        os.mkdir(self.path(name))
        self.write(name + "/script>&'\"", BATCH)
        self.do(name + "/script>&'\"", "stream", "output", "--report", "page", cwd=self.folder)
        page = Page(self.read("page"))
        self.assert_harmless(page)
        self.assertIn(name + "/script>&'\"", page.sentence())

    def test_the_largest_page(self):
        """As many rows, dots, pins and digits as there can be, and all that can be escaped: below 500 KB."""
        users = ["&" * 70 + str(n) for n in range(600)]
        begin = datetime(2017, 6, 13, 11, 33, 1, 123457)
        batch = HEADER.replace(b"3", b"1") + b"".join(friendship("1", user) for user in users) + (
            purchase("1", "100000000000001.11") + purchase("1", "300000000000009.99"))
        stream = b"".join(purchase(user, "999999999999999.%015d" % (10 ** 15 - 1 - at),
                                   stamp(begin + timedelta(seconds=at * 478 / 600)))
                          for at, user in enumerate(users))
        self.write_logs((batch, stream))
        page = self.page()
        self.assertEqual(len(page.marks("amounts")), 500)
        self.assertEqual(len(page.rows("flagged")), 200)
        self.assertEqual(len(page.marks("over-time")), 240)
        self.assert_harmless(page)
        self.assert_complete(page)

    def test_the_size_does_not_grow_with_the_log(self):
        """500 flagged purchases or 5,000: but for some digits the same."""
        sizes = []
        for number in 1000, 6000:
            self.write("stream", b"".join(purchase("2", "5%03d.00" % (at % 100),
                                                   "2017-06-13 11:%02d:%02d" % divmod(at % 600, 60))
                                          for at in range(number)))
            sizes.append(len(self.page().data))
        self.assertLess(sizes[1], sizes[0] + 5000)


class Same(PageTest):
    """The page depends on the logs alone, and nothing depends on the page."""

    def test_the_same_bytes_in_any_number_of_processes(self):
        for seed in range(8):
            self.write_logs(random_logs.random_log(Random(seed), 0.1))
            one = self.page("--jobs", 1).data
            for jobs in 1, 2, 3, 5:
                self.assertEqual(self.page("--jobs", jobs).data, one, (seed, jobs))

    def test_the_same_bytes_in_another_process(self):
        """Whatever the hash seed, the time zone and the language."""
        pages = set()
        self.write_logs(drawn_log(3, users=20, shape=random_logs.clique))
        for number, extra in enumerate(({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"},
                                        {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONOPTIMIZE": "2"})):
            self.do(*self.files, "--report", self.path("page"), env={**os.environ, **extra})
            pages.add(self.read("page"))
        pages.add(self.page().data)
        self.assertEqual(len(pages), 1)

    def test_shards(self):
        """Each is the page of its part of the stream, which the summary says how many purchases are of."""
        judged = 0
        for seed in range(7):
            logs = drawn_log(seed, dirt=0.05, shape=random_logs.anyone)
            self.write_logs(logs)
            literal = literally(*logs)
            for shards in 2, 3, 7:
                place = 0
                for k in range(1, shards + 1):
                    said = self.main(*self.files, "--report", self.path("page"), "--shard",
                                     "%d/%d" % (k, shards), "--jobs", 1 + seed % 2)
                    number = int(re.search(r" (\d+) judged", said)[1])
                    skipped = sum(map(int, re.findall(r"\((\d+) skipped\)", said)))
                    self.assert_says(Page(self.read("page")), literal._replace(
                        judged=literal.judged[place:place + number], skipped=skipped), how=(seed, k, shards))
                    place += number
                self.assertEqual(place, len(literal.judged))
                judged += place
        self.assertGreater(judged, 500)

    def test_everything_else_is_the_same_without_it(self):
        """The flags, the rejects, whom to tell, the snapshot and what is said, byte for byte."""
        def rest(*options):
            said = self.main(*self.files, *options, *(
                text for name in ("notify", "snapshot", "rejects") for text in ("--" + name, self.path(name))))
            return (re.sub(r"\d+\.\d+ s", "S s", said),
                    *map(self.read, ("output", "notify", "snapshot", "rejects")))
        for seed in range(10):
            self.write_logs(random_logs.random_log(Random(seed), 0.1))
            for jobs in 1, 3:
                alone = rest("--jobs", jobs)
                self.assertEqual(rest("--jobs", jobs, "--report", self.path("page")), alone, (seed, jobs))

    def test_an_old_page_does_not_matter(self):
        new = self.page().data
        for old in OLD, b"", new, new * 2, b"\xff" * 10 ** 6:
            self.write("page", old)
            self.assertEqual(self.page().data, new)


class File(FolderTest):
    """The page's file: complete or not there, as every output's."""

    def page_of(self, *options, **how):
        self.do(*self.files, "--quiet", "--report", self.path("page"), *options, **how)
        return self.read("page")

    def test_nothing_else_is_left_behind(self):
        self.page_of("--jobs", "3")
        self.assertEqual(sorted(self.snapshot()), ["batch", "output", "page", "stream"])
        self.assertEqual(self.read("output"), FLAGGED)

    def test_standard_output(self):
        """The same page, as a whole."""
        page = self.page_of()
        for name in "-", "/dev/stdout":
            self.assertEqual(self.do(*self.files, "--report", name, "--quiet"), (page, ""))
        self.assertEqual(self.do(self.batch, "-", self.output, "--report", "-", "--quiet", data=STREAM),
                         (page.replace(self.stream.encode(), b"&lt;stdin&gt;"), ""))

    def test_a_missing_folder_is_created(self):
        page = self.page_of()
        self.do(*self.files, "--report", self.path("a/b/page"))
        self.assertEqual(self.read("a/b/page"), page)

    def test_a_link_and_permissions(self):
        """A link's target is what gets replaced, and keeps its permissions, live too."""
        page = self.page_of()
        os.unlink(self.path("page"))
        os.symlink("target", self.path("page"))
        for arguments, data in ((self.files, None), ([self.batch, "-", self.output], STREAM)):
            os.chmod(self.write("target", OLD), 0o604)
            self.do(*arguments, "--report", self.path("page"), data=data)
            self.assertTrue(os.path.islink(self.path("page")))
            self.assertEqual(self.read("target").replace(b"&lt;stdin&gt;", self.stream.encode()), page)
            self.assertEqual(stat.S_IMODE(os.stat(self.path("target")).st_mode), 0o604)

    def test_the_permissions_of_a_new_page(self):
        """Those of any new file."""
        self.page_of(preexec_fn=partial(os.umask, 0o027))
        self.assertEqual(stat.S_IMODE(os.stat(self.path("page")).st_mode), 0o640)

    def test_the_same_file_as_another(self):
        """An input or another output, by whatever name."""
        self.assert_no_other_file("--report")
        os.symlink("new", self.path("symlink to new"))
        for other in "--rejects", "--notify", "--snapshot":
            with self.subTest(other=other):
                self.assert_fails(2, *self.files, other, self.path("new"), "--report", self.path("symlink to new"))
        self.assert_fails(2, self.batch, self.stream, "-", "--report", "-")
        self.assert_fails(2, self.batch, "-", "-", "--report", "/dev/stdout", data=STREAM)

    def test_what_cannot_be_written(self):
        os.mkdir(self.path("folder"))
        for wrong in self.path("folder"), os.path.join(self.stream, "x"), "/proc/no-such-folder/x":
            with self.subTest(path=wrong):
                self.assertIn(wrong, self.assert_fails(2, *self.files, "--report", wrong))
        self.assert_fails(2, *self.files, "--report", "")
        self.assert_fails(2, *self.files, "--report")

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full here")
    def test_a_full_device(self):
        for jobs in "1", "2":
            self.assertIn("/dev/full", self.assert_fails(
                1, *self.files, "--report", "/dev/full", "--quiet", "--jobs", jobs))

    def test_a_full_disk(self):
        """As a limit on the size of files shows it: the flags would fit, the page does not."""
        import resource
        page = self.write("page", OLD)
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (2000, 2000))
        for arguments, data in ((self.files, None), ([self.batch, "-", self.output], STREAM)):
            self.assertIn(page, self.assert_fails(1, *arguments, "--report", page, "--quiet",
                                                  preexec_fn=limit, data=data))

    def test_a_run_that_fails_leaves_the_old_page(self):
        self.write("page", OLD)
        self.write("stream", STREAM + b"x\n")
        self.assert_fails(1, *self.files, "--report", self.path("page"), "--strict")
        self.write("stream", STREAM)
        self.assert_fails(2, self.write("no header", b"{}\n"), *self.files[1:], "--report", self.path("page"))
        self.assert_fails(2, *self.files, "--report", self.path("page"), "--rejects", self.folder)
        if os.path.exists("/dev/full"):
            self.assert_fails(1, *self.files[:2], "/dev/full", "--report", self.path("page"), "--quiet")

    def test_a_signal_leaves_the_old_page(self):
        """STREAM being a named pipe, which is not live."""
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        for number, status in (signal.SIGINT, 130), (signal.SIGTERM, 143):
            self.write("page", OLD)
            process = self.start(self.batch, fifo, self.output, "--report", self.path("page"), "--quiet",
                                 preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
            with open(fifo, "wb", buffering=0) as pipe:
                pipe.write(STREAM)
                self.wait_until(lambda: any(name.endswith(".tmp") for name in os.listdir(self.folder)))
                process.send_signal(number)
                self.assert_one_line(self.finish(process, status=status)[1])
            self.assertEqual(self.read("page"), OLD)
            self.assertEqual(sorted(self.snapshot()), ["batch", "fifo", "output", "page", "stream"])


# A run of the command line that sends itself a signal when the page, for the N-th time, has been written, or is
# about to be moved into its place, or has been; its clock goes twenty times as fast.
STRUCK = """
import io, os, signal, sys, time
sys.path.insert(0, %r)
import anomaly_detection
number, moment, *arguments = sys.argv[1:]
replace, clock, passed = os.replace, time.monotonic, {"written": 0, "before": 0, "after": 0}

def strike(now):
    passed[now] += 1
    if now == moment and passed[now] == int(number):
        os.kill(os.getpid(), signal.SIGTERM)

class File(io.BufferedWriter):
    def write(self, data):
        done = super().write(data)
        if data.startswith(b"<!DOCTYPE html>"):
            strike("written")
        return done

def opened(path, mode="r", *rest, **options):
    if mode in ("xb", "wb"):
        return File(io.FileIO(path, mode, options.get("closefd", True)))
    return open(path, mode, *rest, **options)

def moved(source, target):
    if os.path.basename(target) == "page":
        strike("before")
    replace(source, target)
    if os.path.basename(target) == "page":
        strike("after")

os.replace, time.monotonic, anomaly_detection.open = moved, lambda: 20 * clock(), opened
sys.exit(anomaly_detection.main(arguments))
"""


class Live(FolderTest):
    """STREAM "-": the page is there while the stream goes on, and no longer live when it does not."""

    BEHIND, APART = 3, 2        # seconds: a page is never more behind, nor less after another

    def go(self, name="page", *options, **how):
        """Start a live run whose page has a name."""
        how.setdefault("preexec_fn", partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
        return self.start(self.batch, "-", self.path("flags of " + name), "--report", self.path(name),
                          "--quiet", *options, bufsize=0, **how)

    def page(self, name="page"):
        """The page as it is now, which is complete, or nothing; and when it was written."""
        try:
            with open(self.path(name), "rb") as file:
                page, written = file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return b"", 0
        self.assertTrue(page.startswith(b"<!DOCTYPE html>") and page.endswith(b"</html>\n"), page[-100:])
        self.assertEqual(page.count(b"<html"), 1, "more than one page")
        return page, written

    @staticmethod
    def judged(page):
        found = re.search(br"Purchases judged: <b>([\d,]+)", page)
        return int(found[1].replace(b",", b"")) if found else -1

    def assert_live(self, page):
        self.assertEqual(page.count(REFRESH), 1)
        self.assertEqual(page.count(b"http-equiv"), 1)

    def assert_last(self, name, judged):
        """The page is a last one, with so many purchases judged."""
        page, _ = self.page(name)
        self.assertFalse(b"http-equiv" in page, "still live")
        self.assertEqual(self.judged(page), judged)
        self.assertEqual(Page(page).figures()[0], format(judged, ","))

    def test_while_the_stream_goes_on(self):
        """A line every few milliseconds, until there has been a third page; the last one is that of a run on a file."""
        process = self.go()
        lines, sent, pages = [], [], []
        self.wait_until(lambda: self.page()[0])
        while len(pages) < 3:
            lines.append(purchase(amount="%d.00" % (30 + len(lines) % 97 * 5),
                                  when="2017-06-13 11:%02d:%02d" % divmod(len(lines) // 9, 60)))
            process.stdin.write(lines[-1])
            sent.append(time.monotonic())
            before = time.monotonic() - self.BEHIND
            page, written = self.page()
            if not pages or page != pages[-1][0]:
                self.assert_live(page)
                pages.append((page, written))
            self.assertGreaterEqual(self.judged(page), sum(at < before for at in sent))
            time.sleep(0.004)
        self.assertEqual(self.finish(process), (b"", ""))
        times = [written for _, written in pages]
        self.assertGreater(min(later - sooner for sooner, later in zip(times, times[1:])), self.APART - 0.05)
        self.assert_last("page", len(lines))
        self.write("stream", b"".join(lines))
        live = self.read("page")
        self.do("batch", "stream", "output", "--report", "page", cwd=self.folder)
        self.assertEqual(live.replace(self.batch.encode(), b"batch").replace(b"&lt;stdin&gt;", b"stream"),
                         self.read("page"))
        self.assertEqual(self.read("flags of page"), self.read("output"))

    def test_while_the_stream_pauses_and_how_it_ends(self):
        """What was sent before a pause is there in time. Then the stream ends, a signal comes, or the run fails."""
        ends = {"ended": (None, 0, ()), "SIGTERM": (signal.SIGTERM, 143, ()), "SIGINT": (signal.SIGINT, 130, ()),
                "strict": (b"malformed\n", 1, ("--strict",)),
                "snapshot": (signal.SIGTERM, 143, ("--snapshot", self.path("state")))}
        if os.path.exists("/dev/full"):
            ends["notify"] = (STREAM, 1, ("--notify", "/dev/full"))
        runs = {name: self.go(name, *options) for name, (_, _, options) in ends.items()}
        for name in runs:
            self.wait_until(lambda: self.judged(self.page(name)[0]) == 0)       # before there is a line
        for name, process in runs.items():
            process.stdin.write(purchase(amount="1.00"))
        waiting, begin = set(runs), time.monotonic()
        while waiting:
            self.assertLess(time.monotonic() - begin, self.BEHIND, "behind: %s" % waiting)
            for name in list(waiting):
                page, _ = self.page(name)
                self.assert_live(page)
                if self.judged(page) == 1:
                    waiting.remove(name)
            time.sleep(0.005)
        for name, (end, status, _) in ends.items():
            with self.subTest(name):
                process = runs[name]
                if isinstance(end, bytes):
                    process.stdin.write(end)
                    self.wait_until(lambda: process.poll() is not None)
                elif end:
                    process.send_signal(end)
                    self.wait_until(lambda: process.poll() is not None)
                out, said = self.finish(process, status=status)
                if status:
                    self.assert_one_line(said)
                self.assert_last(name, 1 + (end == STREAM))
                self.assertEqual(os.path.exists(self.path("flags of " + name)), name in ("ended", "snapshot"))
        self.assertFalse([name for name in self.snapshot() if name.endswith(".tmp")])

    def test_a_page_of_before(self):
        """It gives way to the first live page; a run that cannot start leaves it."""
        self.write("page", OLD)
        self.assert_fails(2, self.write("no header", b"{}\n"), "-", self.output,
                          "--report", self.path("page"), data=STREAM)
        process = self.go()
        self.wait_until(lambda: self.read("page") != OLD)
        self.assert_live(self.page()[0])
        self.finish(process, STREAM)
        self.assert_last("page", 1)

    def test_a_signal_in_the_moment_of_writing(self):
        """Whether a page has just been moved into its place or not, what is there in the end is one, and not live."""
        program = self.write("program.py", (STRUCK % os.path.dirname(PROGRAM)).encode())
        for number in 1, 2:
            for moment in "written", "before", "after":
                with self.subTest(number=number, moment=moment):
                    if os.path.exists(self.path("page")):
                        os.unlink(self.path("page"))
                    process = self.start(str(number), moment, self.batch, "-", self.output, "--report",
                                         self.path("page"), "--quiet", program=program, bufsize=0)
                    if number == 2:
                        self.wait_until(lambda: self.page()[0])
                        process.stdin.write(STREAM)
                    self.wait_until(lambda: process.poll() is not None)
                    self.assert_one_line(self.finish(process, status=143)[1])
                    self.assertFalse([name for name in self.snapshot() if name.endswith(".tmp")])
                    if number == 2 or moment == "after":
                        self.assert_last("page", number - 1)
                    else:
                        self.assertFalse(REFRESH in self.page()[0], "still live")       # if there is one

    def test_a_disk_that_gets_full(self):
        """The run fails; the page that was there before it did is whole."""
        import resource
        process = self.go(preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (9000, 9000)))
        self.wait_until(lambda: self.page()[0])
        process.stdin.write(b"".join(purchase(amount="%d.00" % (500 + n), when="2017-06-13 11:33:%02d" % (n % 60))
                                     for n in range(100)))
        self.wait_until(lambda: process.poll() is not None)
        self.assert_one_line(self.finish(process, status=1)[1])
        self.assertTrue(self.page()[0])
        self.assertEqual(sorted(self.snapshot()), ["batch", "output", "page", "stream"])


if __name__ == "__main__":
    unittest.main()
