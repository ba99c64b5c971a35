"""--report: every figure, mark and promise of the page, held against a literal computation.

What the page should say is worked out here from lists of purchases, each table and chart by itself, with
real dates, exact fractions and full sorts, once all are known; the page is read with an HTML parser.
"""

import json
import os
import re
import signal
import tracemalloc
import unittest
from collections import Counter, defaultdict, namedtuple
from datetime import datetime, timedelta
from fractions import Fraction
from functools import partial
from math import log10
from random import Random
from types import SimpleNamespace
from unittest.mock import patch
from xml.etree import ElementTree

from support import (
    BATCH, FLAGGED, HEADER, OLD, STREAM, FolderTest, MainTest, drawn_log, friendship, purchase)
import anomaly_detection
import random_logs
import reference

# Tables, in the order of the page, and their columns.
FIGURES = ["purchases", "total", "flagged", "flagged mean", "flagged sd"]
TABLES = {"flagged": ["user", "timestamp", "amount", "above mean", "sd above mean", "network mean", "network sd",
                      "line"],
          "users": ["user", "flagged", "largest"], "busiest": FIGURES, "most-flags": FIGURES}


# --- the literal computation --------------------------------------------------

# A purchase that was judged: its line in the stream, when it was (a datetime), the printed (mean, sd) if flagged.
Judged = namedtuple("Judged", "line when user amount verdict")
Literal = namedtuple("Literal", "judged skipped degree tracked too_few")


def literally(batch, stream, windows=None):
    """The Literal of two logs, by the letter of the rule; of {user: amounts} where windows do not change."""
    (_, header), *batch_lines = reference.lines_of(batch)
    rule = reference.Rule(int(json.loads(header)["D"]), int(json.loads(header)["T"]))
    judged, skipped, too_few = [], 0, 0
    for streaming, lines in (False, [] if windows else batch_lines), (True, reference.lines_of(stream)):
        for number, line in lines:
            try:
                event = reference.read_event(line)
            except ValueError:
                skipped += 1
                continue
            user = event.users[0]
            if event.type == "purchase":
                if streaming:
                    window = windows.get(user, []) if windows else rule.window(user)
                    too_few += len(window) < 2
                    judged.append(Judged(number, event.when, user, event.amount,
                                         reference.verdict(event.amount, window)))
                if not windows:
                    rule.purchase(user, event.when, event.amount)
            else:
                (rule.befriend if event.type == "befriend" else rule.unfriend)(*event.users)
    return Literal(judged, skipped, rule.degree, rule.tracked, too_few)


def stamp(when):
    """A time as it is ordered: with a year of four digits, and no decimals that say nothing."""
    text = when.isoformat(" ")
    return text.rstrip("0") if "." in text else text


def separated(text):
    """A decimal with its thousands separated."""
    sign, digits, point, decimals = re.fullmatch(r"(-?)(\d+)(\.?)(\d*)", text).groups()
    return sign + format(int(digits), ",") + point + decimals


def exact(amount):
    """An amount with two decimals, or as many more as it has: 1,234,567.50, -0.125."""
    places = next(n for n in range(2, 16) if amount * 10 ** n % 1 == 0)
    digits = str(int(abs(amount) * 10 ** places)).rjust(places + 1, "0")
    return separated("-" * (amount < 0) + digits[:-places] + "." + digits[-places:])


def by_size(judged, key, first):
    """[[purchases of a kind], ...] of kinds with several, most first, equals by the least of what `first` says."""
    kinds = defaultdict(list)
    for p in judged:
        kinds[key(p)].append(p)
    several = [group for group in kinds.values() if len(group) > 1]
    return sorted(several, key=lambda group: (-len(group), min(map(first, group))))


def tables(literal):
    """{table: (its columns, its rows, how many there would be if there was no limit)} of those with rows."""
    flagged = [p for p in literal.judged if p.verdict]
    again = by_size(flagged, lambda p: p.user, lambda p: p.line)
    found = {
        "flagged": (TABLES["flagged"], [
            (p.user, stamp(p.when), exact(p.amount), exact(p.amount - Fraction(p.verdict[0])), sd_above(p),
             *map(separated, p.verdict), str(p.line)) for p in farthest(flagged)[:200]], len(flagged)),
        "users": (TABLES["users"], [(group[0].user, format(len(group), ","), exact(max(p.amount for p in group)))
                                    for group in again[:20]], len(again))}
    if literal.judged:
        axis = Axis(literal)
        if axis.over_time:
            found["busiest"] = ranking(axis, literal.judged)
        found["most-flags"] = ranking(axis, flagged)
    return {name: found[name] for name in found if found[name][1]}


def ranking(axis, counted):
    """What a table says of the intervals with several of some purchases: most, largest total, earliest first."""
    several = by_size(counted, axis.begin_of, axis.begin_of)
    several.sort(key=lambda group: (-len(group), -sum(p.amount for p in group)))
    heads, rows = [axis.since, *FIGURES], []
    for group in several[:20]:
        begin = axis.begin_of(group[0])
        everyone = [p for p in axis.judged if axis.begin_of(p) == begin]
        flags = [p.amount for p in everyone if p.verdict]
        mean, variance = reference.mean_and_variance(flags or [Fraction(0)])
        rows.append((axis.text(begin), format(len(everyone), ","), exact(sum(p.amount for p in everyone)),
                     str(len(flags)), separated(reference.truncated(mean)) if flags else "",
                     separated(reference.truncated_root(variance)) if len(flags) > 1 else ""))
    while rows and not any(row[-1].strip("0") for row in rows):         # says nothing of any
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    return heads, rows, len(several)


def farthest(flagged):
    """The flagged purchases by how far they are above their mean, which is the printed one."""
    return sorted(flagged, key=lambda p: (Fraction(p.verdict[0]) - p.amount, p.line))


def sd_above(p):
    """How many sd a purchase is above its mean, as printed both, cut to one decimal."""
    mean, sd = map(Fraction, p.verdict)
    if sd == 0:
        return "\u221e"
    tenths = (p.amount - mean) * 10 // sd
    return "%s.%d" % (format(tenths // 10, ","), tenths % 10)


# The lengths of intervals: in seconds, and in lines. Each is made of several of the one before.
MINUTE, HOUR, DAY = 60, 3600, 86400
TIMES = {1: "second", 2: "2 seconds", 10: "10 seconds", 30: "30 seconds",
         MINUTE: "minute", 2 * MINUTE: "2 minutes", 10 * MINUTE: "10 minutes", 30 * MINUTE: "30 minutes",
         HOUR: "hour", 2 * HOUR: "2 hours", 6 * HOUR: "6 hours", 12 * HOUR: "12 hours", DAY: "day",
         2 * DAY: "2 days", **{n * zeros * DAY: "%s days" % format(n * zeros, ",")
                               for zeros in (10, 100, 1000, 10000) for n in (1, 2)}}
LINES = {1: "line", 2: "2 lines", **{n * 10 ** zeros: format(n * 10 ** zeros, ",") + " lines"
                                     for zeros in range(1, 9) for n in (1, 2)}}


def seconds(when):
    """Since the year 1 began, which was a Monday."""
    return (when - datetime.min) // timedelta(seconds=1)


class Axis:
    """The horizontal axis that the charts of a Literal should have, and what its intervals hold."""

    def __init__(self, literal):
        self.judged, self.over_time, self.since = literal.judged, True, "from"
        self.divide(TIMES, 240)
        most = max(Counter(map(self.begin_of, self.judged)).values())
        if most > 2 and 4 * most > len(self.judged) and any(p.verdict for p in self.judged):
            self.over_time, self.since = False, "after line"
            self.divide(LINES, 120)

    def divide(self, lengths, most):
        first, last = (f(map(self.place, self.judged)) for f in (min, max))
        self.size = next(size for size in lengths if last // size - first // size + 1 <= most)
        self.length = lengths[self.size]
        self.begin = first // self.size * self.size
        self.end = max((last // self.size + 1) * self.size, self.begin + 10 * self.size)

    def place(self, p):
        return seconds(p.when) if self.over_time else p.line - 1

    def begin_of(self, p):
        return self.place(p) // self.size * self.size

    def across(self, place):
        return 100 * (place - self.begin) / (self.end - self.begin)

    def text(self, begin):
        return stamp(datetime.min + timedelta(seconds=begin)) if self.over_time else format(begin, ",")

    def bars(self):
        """[(where it begins, what it is, purchases, flags)] of the intervals in use."""
        purchases = Counter(map(self.begin_of, self.judged))
        flags = Counter(self.begin_of(p) for p in self.judged if p.verdict)
        return [(begin, "the %s %s %s: purchases %s, flagged %s" % (
                    self.length, self.since, self.text(begin), format(purchases[begin], ","),
                    format(flags[begin], ",")), purchases[begin], flags[begin]) for begin in sorted(purchases)]

    def dots(self):
        """[(per cent, purchase)]: those of one second share the room to the end of its interval."""
        shown = farthest([p for p in self.judged if p.verdict])[:500]
        places = defaultdict(list)
        for p in shown:
            places[self.place(p)].append(p)
        return [(self.across(place + (self.size - place % self.size) * places[place].index(p) / len(places[place])), p)
                for p in shown for place in [self.place(p)]]


# --- reading a page -----------------------------------------------------------

class Page:
    """A page as a tree of elements: but for `meta`, which has no end, it is XML, which is read strictly."""

    def __init__(self, data):
        self.data, self.text = data, data.decode()
        doctype, html = self.text.split("\n", 1)
        assert doctype == "<!DOCTYPE html>"
        self.root = ElementTree.fromstring(re.sub("(<meta [^>]*)>", r"\1/>", html))
        self.elements = list(self.root.iter())

    def tags(self, tag):
        return list(self.root.iter(tag))

    def identified(self, name):
        """The only element with such an id."""
        element, = self.root.findall(".//*[@id='%s']" % name)
        return element

    def tables(self):
        """{name: (texts of its head, rows of texts)} of the tables, in their order."""
        return {table.get("id"): ([head.text for head in table.find("thead/tr")],
                                  [tuple("".join(cell.itertext()) for cell in row) for row in table.find("tbody")])
                for table in self.tags("table")}

    def rows(self, name):
        """The texts in the body of a table; none if it is not there."""
        return self.tables().get(name, ([], []))[1]

    def caption(self, name):
        section, = self.root.findall(".//table[@id='%s']/../.." % name)
        return "".join(section.find("h2").itertext())

    def sentence(self):
        """What happened, as one line of text."""
        return " ".join("".join(self.tags("p")[0].itertext()).split())

    def figures(self):
        """The numbers of the sentence: judged, flagged, per cent, T, D, lines skipped."""
        found = re.match(r"Purchases judged: ([\d,]+)[ .].*?Flagged: ([\d,]+) \(([\d.]+)%\)\."
                         r".* T = ([\d,]+).* D = ([\d,]+).* skipped: ([\d,]+)\.", self.sentence())
        return tuple(found.groups())

    def period(self):
        return tuple(time.text for time in self.tags("p")[0].iter("time"))

    def too_few(self):
        """How many purchases had too few to be judged by, as the sentence says it."""
        return int(re.match(r"Purchases judged: [^.]*?(?:, ([\d,]+) with fewer than 2 purchases to judge by)?\. ",
                            re.sub(r"\.\d+", "", self.sentence()))[1] or "0")

    def title(self, name):
        return self.identified(name).find("title").text

    def words(self, name):
        return self.identified(name).find("desc").text

    def shapes(self, name, tag):
        """[(what its title says, {attribute: number}) of the shapes of a kind in a chart."""
        return [(group.find("title").text, {
                    key: float(value.rstrip("%")) for key, value in shape.items() if key in
                    ("x", "y", "width", "height", "cx", "cy", "r", "x1", "x2", "y1", "y2")})
                for group in self.identified(name).iter("g") if group.find("title") is not None
                for shape in group.iter(tag)]

    def ticks(self, name, axis):
        """[(place, label)] of an axis."""
        return [(float(text.get(axis).rstrip("%")) - 4 * (axis == "y"), text.text)
                for text in self.identified(name).find(".//g[@class='%s']" % axis).iter("text")]


class PageTest(MainTest):
    """A test that reads the pages of runs in this process."""

    def page(self, *options, status=0):
        """Run the command line; return the page."""
        self.main("--quiet", *self.files, "--report", self.path("page"), *options, status=status)
        return Page(self.read("page"))

    def write_logs(self, logs):
        for name, log in zip(("batch", "stream"), logs):
            self.write(name, log)

    def compare(self, logs, literal=None, how=None, options=("--jobs", 1)):
        """Write the logs; the page says and draws what is literally true of them.  Return both."""
        self.write_logs(logs)
        literal, page = literal or literally(*logs), self.page(*options)
        self.assert_says(page, literal, how)
        self.assert_draws(page, literal, how)
        return page, literal

    def assert_says(self, page, literal, how=None):
        """The sentence and the tables say what is true of these purchases."""
        judged = literal.judged
        count = sum(p.verdict is not None for p in judged)
        *whole, percent = (page.figures()[at] for at in (0, 1, 3, 4, 5, 2))
        self.assertEqual(whole, [format(n, ",") for n in (
            len(judged), count, literal.tracked, literal.degree, literal.skipped)], how)
        self.assertEqual(percent, "%d.%02d" % divmod(count * 10000 // max(len(judged), 1), 100), how)
        times = sorted({stamp(p.when) for p in judged})
        self.assertEqual(page.period(), tuple(dict.fromkeys(times[:1] + times[-1:])), how)
        expected = tables(literal)
        self.assertEqual(page.tables(), {name: (heads, rows) for name, (heads, rows, _) in expected.items()}, how)
        self.assertEqual(list(page.tables()), [name for name in TABLES if name in expected], how)
        for name, (_, rows, number) in expected.items():
            part = "%d of %s" % (len(rows), format(number, ",")) if number > len(rows) else ""
            self.assertTrue(page.caption(name).endswith(" " + part), (page.caption(name), part))
        self.assertEqual(page.too_few(), literal.too_few, how)

    def assert_draws(self, page, literal, how=None):
        """Both charts show these purchases, on one axis."""
        if not literal.judged:
            self.assertEqual(page.tags("svg"), [])
            return
        axis = Axis(literal)
        self.assert_bars_and_pins(page, axis, how)
        flagged = [p for p in literal.judged if p.verdict]
        self.assertEqual(len(page.tags("svg")), 1 + bool(flagged), how)
        if flagged:
            self.assertEqual(page.ticks("amounts", "x"), page.ticks("intervals", "x"), how)
            self.assert_dots_and_whiskers(page, axis, how)

    def assert_bars_and_pins(self, page, axis, how):
        """Every interval in use has a bar, and over time a pin above its middle if some are flagged."""
        expected, bars = axis.bars(), page.shapes("intervals", "rect")
        self.assertEqual([what for what, _ in bars], [what for _, what, *_ in expected], how)
        most = max(bar[2 if axis.over_time else 3] for bar in expected)
        labels = page.ticks("intervals", "y")
        self.assertTrue(1 < len(labels) <= 5 and labels[0] == (200, "0"), labels)
        for place, label in labels:
            self.assertAlmostEqual(place, 200 - 200 * int(label.replace(",", "")) / most, delta=.06, msg=how)
        for (begin, _, *numbers), (_, bar) in zip(expected, bars):
            self.assertAlmostEqual(bar["x"], axis.across(begin), delta=.01, msg=how)
            self.assertAlmostEqual(bar["width"], axis.across(axis.begin + axis.size), delta=.07, msg=how)
            self.assertAlmostEqual(bar["height"], 200 * numbers[not axis.over_time] / most, delta=.06, msg=how)
            self.assertAlmostEqual(bar["y"] + bar["height"], 200, delta=.11, msg=how)
            self.assertTrue(bar["y"] >= 0)
        pins = page.shapes("intervals", "circle")
        expected = [item for item in expected if item[3] and axis.over_time]
        self.assertEqual([what for what, _ in pins], [what for _, what, *_ in expected], how)
        radii = []
        for (begin, _, _, flags), (_, pin) in zip(expected, pins):
            self.assertAlmostEqual(pin["cx"], axis.across(begin + axis.size / 2), delta=.02, msg=how)
            self.assertTrue(-36 <= pin["cy"] - pin["r"] and pin["cy"] < 0, "not in the band above the bars")
            radii.append((flags, pin["r"]))
        self.assertEqual([r for _, r in sorted(radii)], sorted(r for _, r in radii), "not larger for more")

    def assert_dots_and_whiskers(self, page, axis, how, deviations=3):
        """The 500 farthest: a dot where the amount is, and a line from the mean to the limit."""
        expected = axis.dots()
        dots, lines = page.shapes("amounts", "circle"), page.shapes("amounts", "line")
        self.assertEqual((len(dots), len(lines)), (len(expected), len(expected)), how)
        y = self.scale(page)
        for (x, p), (title, dot), (_, line) in zip(expected, dots, lines):
            mean, sd = map(Fraction, p.verdict)
            limit = mean + deviations * sd
            self.assertEqual(title, "line %d, %s, user %s: %s, mean %s, limit %s" % (
                p.line, stamp(p.when), p.user, exact(p.amount), separated(p.verdict[0]), exact(limit)), how)
            for place in dot["cx"], line["x1"], line["x2"]:
                self.assertAlmostEqual(place, x, delta=.01, msg=how)
            self.assertTrue(0 <= dot["cx"] <= 100 and 0 <= dot["cy"] <= 200, how)
            for place, amount in (dot["cy"], p.amount), (line["y1"], mean), (line["y2"], limit):
                self.assertAlmostEqual(place, y(amount), delta=.11, msg=(how, title))

    @staticmethod
    def scale(page):
        """Where the labels of the axis say that an amount is, in pixels from above, on a log scale."""
        ticks = [(float(re.sub("[,\u2264 ]", "", label)), place) for place, label in page.ticks("amounts", "y")]
        (one, below), (other, above) = ticks[0], ticks[-1]
        if not (below > above and one < other):
            raise AssertionError("an axis upside down: %s" % ticks)

        def y(amount):
            share = (log10(max(float(amount), .01)) - log10(one)) / (log10(other) - log10(one))
            return min(below + share * (above - below), 200)        # what is less stands on the axis
        for label, place in ticks:
            if abs(y(label) - place) > .11:
                raise AssertionError("%s is not where a log scale has it" % label)
        return y


# --- the tests ----------------------------------------------------------------

class Figures(PageTest):
    """The sentence, the tables and the charts of random logs, of a known one and of drawn-up ones."""

    def test_random_logs(self):
        """Ties, disorder, sub-second times, sub-cent, negative and huge amounts, damaged lines; both axes."""
        flagged, over_time = 0, Counter()
        for seed in range(80):
            _, literal = self.compare(random_logs.random_log(Random(seed), 0.1 * (seed % 2)), how=seed)
            flagged += sum(p.verdict is not None for p in literal.judged)
            over_time[bool(literal.judged) and Axis(literal).over_time] += 1
        self.assertGreater(flagged, 150)
        self.assertGreater(min(over_time.values()), 10)

    def test_the_example(self):
        """In every cell: user 2 buys for 1601.83 when his network's mean is 29.10 and its sd 21.46."""
        page, _ = self.compare((BATCH, b"\n" + STREAM))
        row = "2", "2017-06-13 11:33:02", "1,601.83", "1,572.73", "73.2", "29.10", "21.46", "2"
        self.assertEqual(page.tables(), {"flagged": (TABLES["flagged"], [row])})    # of one, nothing else says more
        page, _ = self.compare((BATCH, STREAM + purchase(amount="1600.00")))
        second = "2017-06-13 11:33:02", "2", "3,201.83", "2", "1,600.91", "0.91"
        self.assertEqual({name: page.rows(name) for name in list(TABLES)[1:]}, {
            "users": [("2", "2", "1,601.83")], "busiest": [second], "most-flags": [second]})
        page, _ = self.compare((BATCH, b"\n" + STREAM))
        self.assertEqual(page.figures(), ("1", "1", "100.00", "50", "3", "0"))
        self.assertIn(" The limit is mean + 3 sd of ", page.sentence())
        self.assertEqual(page.text.count("standard deviation"), 1)

    def test_more_than_the_tables_hold(self):
        """20 and 200 rows and 500 dots, of 1,300 flagged purchases, of which many are equally far above."""
        rng = Random(5)
        amounts = ["%d.%02d" % (rng.randint(20, 60), rng.randint(0, 99)) for _ in range(250)]
        buyers = ["u%d" % n for n in range(60)]
        batch = HEADER.replace(b"3", b"1") + b"".join(friendship("1", user) for user in buyers) + (
            purchase("1", "10.00") * 2)
        for span in 400, 2:             # seconds: over time, and by lines
            stream = b"".join(purchase(rng.choice(buyers), rng.choice(amounts), stamp(
                datetime(2017, 6, 13) + timedelta(seconds=rng.randint(0, span)))) for _ in range(1300))
            literal = literally(batch, stream, {user: [Fraction(10)] * 2 for user in buyers})
            self.assertEqual(sum(p.verdict is not None for p in literal.judged), 1300)
            for jobs in 1, 3:
                page, _ = self.compare((batch, stream), literal, options=("--jobs", jobs))
            self.assertEqual([len(page.rows(name)) for name in TABLES], [200, 20, 20 if span > 2 else 0, 20])
            self.assertIn("200 of 1,300", page.caption("flagged"))
            self.assertIn("The 500 farthest", page.words("amounts"))

    def test_d_and_t_are_those_in_force(self):
        self.assertEqual(self.page("-D", 1000000, "-T", 1234).figures()[3:5], ("1,234", "1,000,000"))

    def test_the_limit_is_as_many_deviations_as_the_detector_has(self):
        """In the words and in the lines."""
        for said in "2", "2.5", "10", "0.125":
            report = direct(self.path("page"), deviations=said)
            give(report, ("2", "2017-06-13 11:33:02", 160183, (2910, 2146)))
            page = Page(report.page().encode())
            self.assertIn("The limit is mean + %s sd of" % said, page.sentence())
            self.assertIn("mean + %s sd" % said, page.words("amounts"))
            judged = [Judged(1, datetime(2017, 6, 13, 11, 33, 2), "2", Fraction("1601.83"), ("29.10", "21.46"))]
            self.assert_dots_and_whiskers(page, Axis(Literal(judged, 0, 2, 50, 0)), said, Fraction(said))


def direct(path, deviations=3, said=None):
    """A live Report without a run; what it warns of goes to a list."""
    console = anomaly_detection.Console()
    console.write = (said if said is not None else []).append
    batch, stream = (anomaly_detection.Totals(SimpleNamespace(name=name, is_file=False), console.info)
                     for name in ("batch", "stream"))
    report = anomaly_detection.Report(path, warn=console.warn)
    report.context = anomaly_detection.Context(
        anomaly_detection.Detector(2, 50, deviations), batch, stream)
    return report


def give(report, *purchases):
    """Let a Report take purchases (user, timestamp, cents, flag), one a line."""
    times = [when for _, when, _, _ in purchases]
    findings = anomaly_detection.Findings(
        len(purchases), len(purchases), len(purchases), [
            anomaly_detection.Judged(place, "", user, when, cents, flag and anomaly_detection.Flag(*flag), None, None,
                None)
            for place, (user, when, cents, flag) in enumerate(purchases)], [], min(times), max(times))
    report.context.stream_totals.add(findings)
    report.take(findings)


class Axes(PageTest):
    """Over time or by lines; how long intervals are; the labels."""

    WINDOWS = {"2": [Fraction(text) for text in ("16.83", "59.28", "11.20")]}

    def draw(self, *purchases, before=b""):
        """The page of a stream of purchases by 2, (time, amount), of which those above 200 are flagged."""
        stream = before + b"".join(purchase("2", amount, when) for when, amount in purchases)
        batch = BATCH.replace(b'"D":"3"', b'"D":"1"')
        return self.compare((batch, stream), literally(batch, stream, self.WINDOWS), how=purchases[:3])

    def test_time_or_lines(self):
        """By lines if one interval has more than two purchases and more than a quarter, and some are flagged."""
        def at(*seconds):
            return [("2017-06-13 11:%02d:%02d" % divmod(second, 60), "600.00") for second in seconds]
        for purchases, over_time in (
                (at(0), True), (at(0, 1), True), (at(0, 0, 0), False), (at(0, 1, 2), True), (at(*[0] * 50), False),
                (at(*range(10)), True), (at(*[*range(3)] * 3), False), (at(*[*range(4)] * 20), True),
                (at(*range(60), *[30] * 18), True), (at(*range(60), *[30] * 19), False), (at(0, 0, 3000, 3000), True),
                ([(when, "1.00") for when, _ in at(*[0] * 50)], True)):
            page, literal = self.draw(*purchases)
            self.assertEqual(Axis(literal).over_time, over_time, purchases)
            self.assertEqual(page.title("intervals").startswith("Purchases per "), over_time, purchases)
            self.assertEqual("follow the lines" in page.words("intervals"), not over_time, purchases)

    def test_lines(self):
        """Also those that are no purchases count."""
        some = [("2017-06-13 11:33:02", "600.00" if at % 9 == 4 else "5.00") for at in range(1497)]
        page, _ = self.draw(*some, before=b"\n\n" + b" \n")
        self.assertEqual([label for _, label in page.ticks("amounts", "x")], "0 200 400 600 800 1,000 1,200 1,400".split())
        self.assertEqual(page.shapes("intervals", "rect")[0][0], "the 20 lines after line 0: purchases 17, flagged 2")
        page, _ = self.draw(*some[:997], before=b"\n\n\n")
        self.assertEqual(page.ticks("amounts", "x")[-1], (100, "1,000"))

    def test_the_shortest_round_interval_that_does(self):
        """At every border between two: as many seconds as 240 of the shorter take, and one more."""
        for size in list(TIMES)[:20]:
            begin = datetime.min + timedelta(seconds=seconds(datetime(1017, 6, 12)) // size * size)
            last = begin + timedelta(seconds=240 * size - 1)
            for end, same in (last, True), (last + timedelta(seconds=1), False):
                page, _ = self.draw((stamp(begin), "5000.00"), (stamp(end), "600.00"))
                self.assertEqual(page.title("intervals") == "Purchases per " + TIMES[size], same, size)

    def test_all_time(self):
        """From 0001-01-01 to 9999-12-31, and either end of it alone."""
        first, last = "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"
        page, _ = self.draw((last, "1000.00"), (first, "500.00"), ("2017-06-13 11:33:02", "700.00"))
        self.assertEqual(page.period(), (first, last))
        for other in first, last, "0999-12-31 23:59:59", "9999-12-31 00:00:00", "0003-01-01 00:00:00", "9998-01-01 00:00:00":
            for end in first, last, other:
                self.draw((other, "1000.00"), (end, "1000.00"))

    def test_labels(self):
        """Of a period that ends at 2017-06-30 11:40:20 or begins at 2017-06-13 11:33:02."""
        begin, end = "2017-06-13 11:33:02", "2017-06-30 11:40:20"
        for first, last, labels in (
                (begin, "2017-06-13 11:33:19", "11:33:05 11:33:10 11:33:15 11:33:20"),
                (begin, "2017-06-13 19:40:20", "12:00 14:00 16:00 18:00"),
                ("2017-06-13 00:00:00", "2017-06-13 23:59:59", "00:00 03:00 06:00 09:00 12:00 15:00 18:00 21:00 00:00"),
                (begin, "2017-06-14 19:40:20", "06-13T12:00 06-13T18:00 06-14T00:00 06-14T06:00 06-14T12:00 06-14T18:00"),
                (begin, end, "2017-06-19 2017-06-26"),
                ("2017-02-13 11:33:02", end,
                 "2017-02-21 2017-03-13 2017-04-02 2017-04-22 2017-05-12 2017-06-01 2017-06-21"),
                ("2010-02-13 11:33:02", end, "2010-08-17 2011-12-30 2013-05-13 2014-09-25 2016-02-07 2017-06-21")):
            page, _ = self.draw((first, "600.00"), (last, "5000.00"))
            self.assertEqual([label.replace(" ", "T") for _, label in page.ticks("intervals", "x")], labels.split())

    def test_amounts_of_every_size(self):
        """From a cent to 10**15 on one scale, and each alone; below zero and below a cent."""
        sizes = ["0.10", "0.99", "1.00", "123456.78", "999999999999999.99", "1", "0.11"]
        batch = HEADER.replace(b"3", b"1") + b"".join(
            friendship("f%d" % at, "u%d" % at) + purchase("f%d" % at, "-0.05" if at % 2 else "0.01") * 2
            for at in range(len(sizes)))
        lines = [purchase("u%d" % at, amount, "2017-06-13 11:33:%02d" % at) for at, amount in enumerate(sizes)]
        for stream in (b"".join(lines), *lines):
            page, _ = self.compare((batch, stream))
            self.assertEqual(len(page.rows("flagged")), stream.count(b"\n"))
        for window, amounts in (
                (["-1000.00", "-1000.50"], ["-3.00", "2000.00", "0.00"]), (["-1000.00", "-1000.50"], ["-0.005", "0"]),
                (["0.0001"] * 2, ["0.0002", "0.0009"]), (["-0.009"] * 2, ["-0.001", "0.000000000000011"]),
                (["999999999999998", "999999999999998.1"], ["999999999999999.999999999999999"] * 7),
                (["0.01"] * 2, ["9e25", "1e20"])):
            page, _ = self.compare((HEADER + friendship("1", "2") + b"".join(purchase("1", text) for text in window),
                                    b"".join(purchase("2", text) for text in amounts)))
            self.assertEqual(len(page.rows("flagged")), len(amounts))
        self.write_logs((HEADER + friendship("1", "2") + purchase("1", "1e-99") * 2, purchase("2", "999999999999999e99")))
        self.assertIn("\u2264 0.01", [label for _, label in self.page().ticks("amounts", "y")])

    def test_nothing_to_draw(self):
        for stream in b"", b"\n \r\n", friendship("1", "9"), b"\xef\xbb\xbf":
            page, _ = self.compare((BATCH, stream))
            self.assertEqual(page.figures()[:3], ("0", "0", "0.00"))
            self.assertEqual(page.tables(), {})
        page, _ = self.compare((BATCH, purchase(amount="1.00") * 3 + purchase("7", "1.00", "2017-06-14 11:33:02")))
        self.assertEqual(page.tables(), {"busiest": (["from", "purchases", "total"], [
            ("2017-06-13 11:30:00", "3", "3.00")])})
        self.assertEqual(page.words("intervals"), "None is flagged.")


class Bounded(PageTest):
    """However long a stream is, the page keeps a few hundred intervals, and joins them in any order."""

    def test_random_spans(self):
        """From a second to 9,000 years, in order, shuffled and with strays; of times and, if they are alike, of lines."""
        rng, over_time = Random(2), Counter()
        batch = BATCH.replace(b'"D":"3"', b'"D":"1"')
        for case in range(60):
            span = timedelta(seconds=10 ** rng.uniform(0, 11.4))
            times = [datetime(200, 1, 1) + rng.random() * span for _ in range(rng.randint(1, 500))]
            times[:0] = [times[0]] * (case % 5 * 50)
            times += [datetime(rng.choice((1, 2017, 9999)), 1, 1)] * (case % 4 == 0)
            if case % 2:
                times.sort()
            stream = b"".join(purchase("2", "%d.%02d" % (rng.randint(200, 500) if at % 7 == 0 else 5, at % 100), stamp(when))
                              for at, when in enumerate(times))
            with patch.object(anomaly_detection, "CHUNK", rng.choice((1000, 1 << 16))):
                page, literal = self.compare((batch, stream), literally(batch, stream, Axes.WINDOWS), (case, span))
            over_time[Axis(literal).over_time] += 1
            if case % 10 == 0:
                self.assertEqual(self.page("--jobs", 3).data, page.data)
        self.assertGreater(min(over_time.values()), 10, over_time)

    def test_the_order_does_not_matter(self):
        """The same purchases in any order, in any pieces, are summed up in the same intervals."""
        rng = Random(3)
        for over_time in True, False:
            positions = [int(10 ** rng.uniform(0, 7)) for _ in range(2000)]
            found = []
            for piece in 1, 7, 2000:
                intervals = anomaly_detection.Intervals(over_time)
                rng.shuffle(positions)
                for start in range(0, len(positions), piece):
                    for position in positions[start:start + piece]:
                        intervals.add(position, (1, position, 0, 0, 0))
                    intervals.fit()
                    self.assertLessEqual(len(intervals), intervals.limit)
                found.append((intervals, intervals.size, intervals.begin, intervals.end))
            self.assertEqual(found, found[:1] * 3)

    def test_memory(self):
        """What is kept does not grow with the stream, all flagged; with a limit never reached it does, as is seen."""
        report, begin = partial(direct, self.path("page")), datetime(2017, 6, 13)

        def peak():
            tracemalloc.start()
            try:
                page = report()
                for at in range(0, 6000, 100):
                    give(page, *(("2", stamp(begin + timedelta(seconds=second)), 90000 + second % 9, (5, 5))
                                 for second in range(at, at + 100)))
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        with patch.object(anomaly_detection.Report, "dots", 100):
            self.assertLess(peak(), 1000000)
            with patch.object(anomaly_detection.Intervals, "fit", lambda intervals: None):
                self.assertGreater(peak(), 2000000)

    def test_the_largest_page(self):
        """As many rows, dots, pins and digits as there can be, and all that can be escaped: below 500 KB."""
        users = ["&" * 70 + str(n) for n in range(600)]
        begin = datetime(2017, 6, 13, 11, 33, 1, 123457)
        batch = HEADER.replace(b"3", b"1") + b"".join(friendship("1", user) for user in users) + (
            purchase("1", "100000000000001.11") + purchase("1", "300000000000009.99"))
        self.write_logs((batch, b"".join(
            purchase(user, "999999999999999.%015d" % (10 ** 15 - 1 - at), stamp(begin + timedelta(seconds=at * 478 / 600)))
            for at, user in enumerate(users))))
        page = self.page()
        self.assertEqual([len(page.shapes(*shapes)) for shapes in (
            ("intervals", "rect"), ("intervals", "circle"), ("amounts", "circle"))], [240, 240, 500])
        self.assertLess(len(page.data), 500000)


class SelfContained(PageTest):
    """One file that runs nothing, asks for nothing and says everything, whatever is in the logs."""

    def assert_harmless(self, page):
        allowed = set("html head meta title style body h1 h2 p b small time div section figure table thead tbody tr th td "
                      "svg desc g rect line circle text span wbr".split())
        for element in page.elements:
            self.assertIn(element.tag, allowed)
            for name, value in element.items():
                self.assertFalse(name.startswith("on") or name in ("src", "href", "style", "xmlns", "srcset", "data"), name)
                self.assertNotRegex(value.lower(), "javascript|http|//|url|script")
        style, = page.tags("style")
        self.assertNotRegex(style.text, r"http|//|url\(|@import|expression|[<>]")
        self.assertEqual({c for c in page.text if not c.isprintable()} - set("\n"), set())
        self.assertTrue(page.text.startswith("<!DOCTYPE html>\n") and page.text.endswith("</html>\n"))
        self.assertNotIn("http-equiv", page.text)

    def test_a_page_is_complete(self):
        """What a browser, a phone, a printer, a screen reader and a blocked style sheet need."""
        for stream in STREAM, STREAM * 1000, purchase(amount="1.00"):
            self.write("stream", stream)
            page = self.page()
            self.assert_harmless(page)
            self.assertEqual(page.tags("html")[0].get("lang"), "en")
            self.assertIn({"charset": "utf-8"}, [meta.attrib for meta in page.tags("meta")])
            self.assertIn('name="viewport" content="width=device-width', page.text)
            for part in "color-scheme: light dark", "@media print", "overflow: auto", "break-inside: avoid":
                self.assertIn(part, page.tags("style")[0].text)
            for name in page.tables():
                self.assertTrue(page.caption(name).strip())
                self.assertTrue(all(row[0].tag == "th" for row in page.identified(name).find("tbody")))
            self.assertLessEqual({head.get("scope") for head in page.tags("th")}, {"col", "row"})
            for svg in page.tags("svg"):
                self.assertTrue(svg.find("title").text and svg.find("desc").text)
                self.assertEqual((svg.get("width"), svg.get("height"), svg.get("overflow")), ("100%", "264", "visible"))
                parents = {child: parent for parent in svg.iter() for child in parent}
                for shape in svg.iter():
                    for attribute in {"rect": ["fill"], "circle": ["fill", "stroke"], "line": ["stroke"],
                                      "text": ["fill"]}.get(shape.tag, ()):
                        while shape is not None and not shape.get(attribute):
                            shape = parents.get(shape)
                        self.assertRegex(shape.get(attribute), "#[0-9a-f]{6}|currentColor")

    def test_contrast(self):
        """Of text at least 4.5 : 1, of shapes 3 : 1, light and dark (Canvas is at most as light as #1e1e1e)."""
        def contrast(color, canvas, opacity=1):
            lights = []
            for mixed in opacity, 0:
                parts = [(mixed * one + (1 - mixed) * other) / 255
                         for one, other in zip(bytes.fromhex(color), bytes.fromhex(canvas))]
                lights.append(sum(share * (part / 12.92 if part <= .04045 else ((part + .055) / 1.055) ** 2.4)
                                  for share, part in zip((.2126, .7152, .0722), parts)) + .05)
            return max(lights) / min(lights)
        page = self.page()
        colors, opacities = (set(re.findall(pattern, page.text)) for pattern in (
            r'(?:fill|stroke)="#(\w{6})"', r' opacity: ([.\d]+)|currentColor" fill-opacity="([.\d]+)"'))
        self.assertEqual((len(colors), opacities), (2, {(".7", ""), ("", ".7")}))
        for text, canvas in ("000000", "ffffff"), ("ffffff", "1e1e1e"):
            self.assertGreater(contrast(text, canvas, .7), 4.5)
            for color in colors:
                self.assertGreater(contrast(color, canvas), 3, (color, canvas))

    HOSTILE = ["<script>alert(1)</script>", "</title></svg><script>alert(1)</script>", "</td></table></style>",
               '"\' onload="alert(1)', "x' onmouseover='alert(1)", "&lt;b&gt;", "&amp;", "&", "&#60;script&#62;", "]]>",
               "<!--", "-->", "<![CDATA[", "javascript:alert(1)", "https://example.org/", "a\0b\x07\x1b[2J",
               "\u202eevil\u2066", "\ud800", "\udfff\ud800", "\ufffe\uffff", "\x85\x9b\xa0", "\u2028\u2029", "\r\n\t",
               "\U0001f600 Zo\xeb \u65e5\u672c", " ", "=cmd", "{{7*7}}", "%s%d{0}", "\\u003cscript\\u003e",
               "x" * 10 ** 6, "<" * 10 ** 6, "\u65e5" * 10 ** 5, "a" * 60, "b" * 61]

    def test_hostile_ids(self):
        """They are shown, escaped, wherever users are named; what cannot be seen, or is long, is written otherwise."""
        def line(text, of):
            return of.replace(b'"X"', json.dumps(text).encode())
        batch = HEADER.replace(b"3", b"1") + purchase("1", "5.00") * 2 + b"".join(
            line(text, friendship("1", "X")) for text in self.HOSTILE)
        stream = b"".join(line(text, purchase("X", "100.00")) for text in self.HOSTILE)
        self.write_logs((batch, stream * 2))
        page = self.page()
        self.assert_harmless(page)
        users = [row[0] for row in page.rows("users")]
        self.write("stream", stream)
        page = self.page()
        self.assert_harmless(page)
        shown = [row[0] for row in page.rows("flagged")]
        self.assertEqual(len(shown), len(self.HOSTILE))
        self.assertEqual(shown[-1], "b" * 60 + "\u2026")
        self.assertEqual(users, shown[:20])
        for text, cell, (title, _) in zip(self.HOSTILE, shown, page.shapes("amounts", "circle")):
            if text.isprintable() and len(text) <= 60:
                self.assertEqual(cell, text)
            self.assertIn("user %s: " % cell, title)
            self.assertTrue(0 < len(cell) < 200)

    def test_file_names(self):
        """Those of the logs are shown, and can be wrapped after each slash only."""
        names = [text for text in self.HOSTILE if "\0" not in text and len(text) < 100 and "\ud800" not in text
                 and "//" not in text] + ["long" * 20 + "/" + "name" * 20, os.fsdecode(b"\xff<&\xfe")]
        for number, name in enumerate(names):
            path = os.path.join(self.path(str(number)), name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as log:
                log.write(BATCH)
            os.makedirs(self.path("stream of " + str(number)))
            stream = os.path.join(self.path("stream of " + str(number)), os.path.basename(path))
            self.files[:2] = path, self.write(stream, STREAM)
            page = self.page()
            self.assert_harmless(page)
            if name.isprintable():
                self.assertIn("Logs: %s, %s." % (path, stream), page.sentence())
                self.assertEqual(len(page.tags("wbr")), path.count("/") + stream.count("/"))


class Same(PageTest):
    """The page depends on the logs alone, and nothing depends on the page."""

    def test_the_same_bytes_in_another_process(self):
        """Whatever the hash seed, the time zone and the language."""
        self.write_logs(drawn_log(3, users=20, shape=random_logs.clique))
        pages = {self.page().data}
        for extra in {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONOPTIMIZE": "2"}:
            self.do(*self.files, "--report", self.path("page"), env={**os.environ, **extra})
            pages.add(self.read("page"))
        self.assertEqual(len(pages), 1)

    def test_shards(self):
        """Each is the page of its part of the stream, which the summary says how many purchases are of."""
        for seed in range(4):
            logs = drawn_log(seed, dirt=0.05, shape=random_logs.anyone)
            self.write_logs(logs)
            literal, place = literally(*logs), 0
            for k in 1, 2, 3:
                said = self.main(*self.files, "--report", self.path("page"), "--shard", "%d/3" % k, "--jobs", 1 + seed % 2)
                number = int(re.search(r" (\d+) judged", said)[1])
                few = int((re.search(r" judged \((\d+) with fewer than 2 ", said) or "00")[1])
                self.assert_says(Page(self.read("page")), literal._replace(
                    judged=literal.judged[place:place + number], too_few=few,
                    skipped=sum(map(int, re.findall(r"\((\d+) skipped\)", said)))), how=(seed, k))
                place += number
                literal = literal._replace(too_few=literal.too_few - few)
            self.assertEqual((place, literal.too_few), (len(literal.judged), 0))


class File(PageTest):
    """The page's file: complete or not there, as every output's."""

    def test_the_file(self):
        """Nothing else is left behind; standard output gets the same page."""
        page = self.page().data
        self.assertEqual(sorted(self.snapshot()), ["batch", "output", "page", "stream"])
        self.assertEqual(self.read("output"), FLAGGED)
        self.assertEqual(self.do(*self.files, "--report", "-", "--quiet"), (page, ""))

    def test_no_other_file(self):
        self.assert_no_other_file("--report")


class Live(FolderTest):
    """STREAM "-": the page is there while the stream goes on, and no longer live when it does not."""

    def setUp(self):
        super().setUp()
        self.now, self.said = 1000.0, []
        clock = patch("time.monotonic", lambda: self.now)
        clock.start()
        self.addCleanup(clock.stop)
        self.report = direct(self.path("page"), said=self.said)

    def tick(self, seconds, lines=0):
        """Let time pass, and lines be read; return the page if it is another one then."""
        before = self.snapshot().get("page")
        self.report.context.stream_totals.position.lines += lines
        self.now += seconds
        self.report.tick()
        after = self.snapshot().get("page")
        self.assertFalse([name for name in self.snapshot() if name.endswith(".tmp")])
        return after if after != before else None

    def reload(self, page):
        """In how many seconds a browser reads the page again."""
        return int(re.search(rb'<meta http-equiv="refresh" content="(\d+)">', page)[1])

    def test_when_a_page_is_written(self):
        """At once, then when there are more lines, two seconds apart; without lines before it is read again."""
        self.assertTrue(self.tick(0))
        self.assertFalse(self.tick(1.9, 1))
        self.assertTrue(self.tick(0.2))
        self.assertFalse(self.tick(3))
        self.assertTrue(self.tick(3, 1))
        self.assertFalse(self.tick(31.9))
        with patch("time.strftime", lambda form: "later"):
            self.assertIn(b"later", self.tick(0.2))

    def test_pages_take_two_per_cent_of_the_time(self):
        page = self.report.page

        def slowly(*arguments):
            self.now += 0.2
            return page(*arguments)
        self.report.page = slowly
        self.assertTrue(self.tick(0))
        self.assertFalse(self.tick(9.9, 1))
        self.assertTrue(self.tick(0.2))

    def test_as_of_when_a_page_is(self):
        with patch("time.strftime", lambda form: "2026-11-25 12:00:00 +0100"):
            page = self.tick(0, 1234)
        text = " ".join("".join(Page(page).tags("p")[1].itertext()).split())
        for part in "line 1,234 ", "2026-11-25 12:00:00 +0100", "every 30 s", "90 s old":
            self.assertIn(part, text)

    def test_how_often_it_is_read_again(self):
        """As often as flags come, but at most every 30 s, which leaves time to copy a row, and at least every 300 s."""
        self.assertEqual(self.reload(self.tick(0)), 30)
        self.assertEqual(self.reload(self.tick(120, 1)), 120)
        give(self.report, ("2", "2017-06-13 11:33:02", 160183, (2910, 2146)))
        self.assertEqual(self.reload(self.tick(60, 1)), 90)
        self.assertEqual(self.reload(self.tick(9999, 1)), 300)
        give(self.report, *[("2", "2017-06-13 11:33:02", 160183, (2910, 2146))] * 1000)
        self.assertEqual(self.reload(self.tick(3, 1)), 30)

    def test_a_page_that_cannot_be_written(self):
        """It is said once; the page before stays whole, the run goes on, and a later page is written."""
        self.tick(0)
        with patch("os.fsync", side_effect=OSError(28, "No space left on device")):
            for _ in range(3):
                self.assertIsNone(self.tick(3, 1))
        self.assertEqual(len(self.said), 1)
        self.assertIn(self.path("page"), self.said[0])
        self.assertIn("No space left on device", self.said[0])
        self.assertTrue(self.tick(3))

    def test_a_page_is_moved_into_its_place(self):
        """A reader sees the page before or the new one, never a part."""
        with open(self.path("page"), "wb") as file:
            file.write(OLD)
        with open(self.path("page"), "rb") as old:
            new = self.tick(0)
            self.assertEqual(old.read(), OLD)
        self.assertTrue(new.endswith(b"</html>\n"))

    def test_how_a_slow_stream_goes_on_and_ends(self):
        """What was sent before a pause is there in time. Then the stream ends, a signal comes, or the run fails."""
        patch.stopall()
        ends = {"ended": (None, 0, ()), "stopped": (signal.SIGTERM, 143, ()), "strict": (b"malformed\n", 1, ("--strict",))}
        runs = {name: self.start(self.batch, "-", self.path("flags of " + name), "--report", self.path(name), "--quiet",
                                 *options, bufsize=0) for name, (_, _, options) in ends.items()}

        def judged(name):
            with open(self.path(name), "rb") as file:
                page = file.read()
            self.assertTrue(page.startswith(b"<!DOCTYPE html>") and page.endswith(b"</html>\n"))
            return Page(page).figures()[0], b"http-equiv" in page
        for name, process in runs.items():
            self.wait_until(lambda: os.path.exists(self.path(name)))
            self.assertEqual(judged(name), ("0", True))
            process.stdin.write(STREAM)
        for name, (end, status, _) in ends.items():
            self.wait_until(lambda: judged(name) == ("1", True))
            if isinstance(end, bytes):
                runs[name].stdin.write(end)
            elif end:
                runs[name].send_signal(end)
            if end:
                self.wait_until(lambda: runs[name].poll() is not None)
            self.finish(runs[name], status=status)
            self.assertEqual(judged(name), ("1", False))
        self.assertFalse([name for name in self.snapshot() if name.endswith(".tmp")])


if __name__ == "__main__":
    unittest.main()
