"""--evidence, held against the literal rule, against --verdicts and against every purchase of the logs."""

import json
import re
import unittest
from fractions import Fraction
from random import Random
from statistics import mean, pvariance
from unittest.mock import patch

from support import BATCH, FLAGGED, HEADER, STREAM, MainTest, friendship, purchase, with_odd_ids
import anomaly_detection
import random_logs
import reference
from torture.common import sums_agree


class EvidenceTest(MainTest):

    def draw(self, seed):
        """Write random logs, half of them with odd ids; return (batch, stream)."""
        logs = random_logs.random_log(Random(seed), 0.05, (0, 0.2)[seed % 3 == 0])
        if seed % 2:
            logs = with_odd_ids(seed, *logs)
        for name, log in zip(("batch", "stream"), logs):
            self.write(name, log)
        return logs

    def given(self, *options):
        """Run in this process; return the evidence."""
        self.main("--quiet", *self.files, "--evidence", self.path("evidence"), *options)
        return self.read("evidence")

    def literal(self, batch, stream, deviations=3):
        """The evidence by the reference."""
        evidence = []
        reference.judge_logs(batch, stream, evidence=evidence, deviations=deviations)
        return b"".join(evidence)


class Literal(EvidenceTest):

    def test_random_logs(self):
        """In one process, in three and live the same bytes as the reference's; the sums are the verdicts'."""
        several = full = 0
        for seed in range(60):
            expected = self.literal(*self.draw(seed))
            self.assertEqual(self.given("--jobs", 1, "--verdicts", self.path("verdicts")), expected, seed)
            self.assertTrue(sums_agree(self.read("verdicts"), expected), seed)
            self.assertEqual(self.read("output"), b"".join(
                re.sub(rb', "purchases": .*\n', b"}\n", line) for line in expected.splitlines(True)), seed)
            if seed % 4 == 0:
                self.assertEqual(self.given("--jobs", 3), expected, seed)
            if seed % 10 == 0:
                out, _ = self.do(self.batch, "-", self.output, "--evidence", "-", data=self.read("stream"))
                self.assertEqual(out, expected, seed)
            for line in map(json.loads, expected.splitlines()):
                several += len({purchase["id"] for purchase in line["purchases"]}) > 1
                full += len(line["purchases"]) > 10
        self.assertGreater(min(several, full), 30)

    def test_other_sums_are_noticed(self):
        """The comparison with the verdicts fails if one purchase of one window is another one."""
        self.write("stream", STREAM)
        evidence = self.given("--verdicts", self.path("verdicts"))
        verdicts = self.read("verdicts")
        self.assertTrue(sums_agree(verdicts, evidence))
        self.assertFalse(sums_agree(verdicts, evidence.replace(b"59.28", b"59.27")))
        self.assertFalse(sums_agree(verdicts, re.sub(rb', \{"id"[^}]*\}\]', b"]", evidence)))

    def test_parts(self):
        """Shards, joined, and runs from snapshots and with --resume give what one run gives."""
        lines_of_all = 0
        for seed in range(0, 40, 3):
            batch, stream = self.draw(seed)
            expected = self.literal(batch, stream)
            lines_of_all += expected.count(b"\n")
            parts = [self.given("--shard", "%d/3" % k) for k in (1, 2, 3)]
            self.assertEqual(b"".join(parts), expected, seed)
            self.write("state", batch)
            lines, found = stream.splitlines(True), b""
            for end in len(lines) // 3, len(lines):
                log = self.write("part", b"".join(lines[:end]))
                status = 0 if any(b'"event_type' in line for line in lines[:end]) else None
                if status is None:
                    continue
                self.main("--quiet", self.path("state"), log, self.output, "--resume", "--evidence",
                          self.path("evidence"), "--snapshot", self.path("state"))
                found += self.read("evidence")
            self.assertEqual(found, expected, seed)
        self.assertGreater(lines_of_all, 30)

    def test_the_window_is_taken_without_short_cuts(self):
        """Whatever they give: a flag that a wrong window led to would be seen."""
        with patch.object(anomaly_detection.Detector, "window", lambda detector, user: [[1, 1]]):
            line = self.given("--jobs", 1)
        self.assertIn(b'"mean": "0.01", "sd": "0.00"', line)
        self.assertEqual([p["amount"] for p in json.loads(line)["purchases"]], ["11.20", "59.28", "16.83"])


class Line(EvidenceTest):

    def test_the_example(self):
        """Newest first; of equal timestamps the later line."""
        purchases = b", ".join(b'{"id": "1", "timestamp": "2017-06-13 11:33:01", "amount": "%s"}' % amount
                               for amount in (b"11.20", b"59.28", b"16.83"))
        self.assertEqual(self.given(), FLAGGED[:-2] + b', "purchases": [%s]}\n' % purchases)

    def test_values(self):
        """Times in UTC, amounts exact, ids as JSON text: each can be read again."""
        self.write("batch", HEADER + b"".join([
            friendship("2", "7"), friendship("2", "X").replace(b'"X"', br'"\ud800 \"q\" \u00eb"'),
            purchase("7", "1e-2", "2017-06-13T01:33:01,50+02:00").replace(b'"id": "7"', b'"id": 7.0'),
            purchase("X", "-0.12500", "2017-06-13 11:33:01").replace(b'"X"', br'"\ud800 \"q\" \u00eb"'),
            purchase("7", "1e-99", "2017-06-14 11:33:01")]))
        line = self.given()
        self.assertIn(b'"purchases": [{"id": "7", "timestamp": "2017-06-14 11:33:01", "amount": "0.', line)
        self.assertIn(br', {"id": "\ud800 \"q\" %s", "timestamp": "2017-06-13 11:33:01", "amount": "-0.125"}, '
                      br'{"id": "7", "timestamp": "2017-06-12 23:33:01.5", "amount": "0.01"}]}' % "\xeb".encode(), line)
        amounts = [Fraction(p["amount"]) for p in json.loads(line)["purchases"]]
        self.assertEqual(amounts, [Fraction("1e-99"), Fraction("-0.125"), Fraction("0.01")])

    def test_anybody_can_check_a_flag(self):
        """As the README does, exactly."""
        for seed in range(30):
            self.draw(seed)
            for flag in map(json.loads, self.given("--sd", "0.5").splitlines()):
                window = [Fraction(p["amount"]) for p in flag["purchases"]]
                above = Fraction(str(flag["amount"])) - mean(window)
                self.assertTrue(above > 0 and 4 * above ** 2 > pvariance(window), flag)

    def test_the_purchase_itself_is_not_in_it(self):
        """Nor what the buyer bought before, nor anything on later lines."""
        self.write("stream", purchase("2", "1.00") + STREAM + purchase("1", "5.00"))
        self.assertEqual(len(json.loads(self.given())["purchases"]), 3)


class AlreadyJudged(EvidenceTest):
    """Outputs on lines that an earlier run, or somebody else, gave fields of the same names."""

    def outputs(self, *options):
        """Run with all outputs that copy lines; return {name: its lines}."""
        names = "notify", "verdicts", "evidence"
        self.main("--quiet", *self.files, *(word for name in names for word in ("--" + name, self.path(name))), *options)
        return {name: self.read(name).splitlines() for name in ("output", *names)}

    def test_a_flagged_file_is_fed_again(self):
        """Any output of a run as the stream of the next: the same lines, not one field twice."""
        self.write("stream", STREAM + b'{"x":{"mean":1}, ' + STREAM[1:])
        first = self.outputs("--jobs", 1)
        for name in first:
            self.write("stream", b"\n".join(first[name]) + b"\n")
            again = self.outputs("--jobs", 1)
            self.assertEqual(again[name], first[name])
            for line in (line for lines in again.values() for line in lines):
                keys = json.loads(line, object_pairs_hook=lambda pairs: [key for key, _ in pairs])
                self.assertEqual(len(set(keys)), len(keys), line)

    def test_the_rest_of_a_line_stays(self):
        """Numbers, escapes, blanks, other fields given twice; a nested field or a text of that name is another thing."""
        rest = br' "id" :2 ,"amount": 1.60183E3,"x": "\u0041\/","x":[{"mean": [1, "]}"]}, 1.0e5 ] '
        head = b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:02",'
        tail = b', "mean": "29.10", "sd": "21.46"}'
        for before, after in (
                (head + rest + b"}", head + rest + tail),
                (head + rest + b', "mean": 1}', head + rest + tail),
                (head + b'"sd" :{"sd":[]} ,' + rest + b"}", head + rest + tail),
                (head.replace(b"{", b'{\t"mean":null,"sd":"a,\\"}b" , ') + rest + b"}",
                 head.replace(b"{", b"{ ") + rest + tail),
                (head + br' "m\u0065an": [ ], "mean": 5,' + rest + br',"\u0073d":-1 }', head + rest + tail),
                (head + rest + b', "window": 3, "feed": ["mean"]}', head + rest + b', "window": 3, "feed": ["mean"]' + tail),
                (head + rest + b', "note": "\\"mean\\": 1, sd"}', head + rest + b', "note": "\\"mean\\": 1, sd"' + tail)):
            self.write("stream", before + b"\r\n")
            self.assertEqual(self.outputs()["output"], [after], before)

    def test_random_fields(self):
        """Wherever they are and whatever they hold: the reference's bytes, in every output."""
        replaced = 0
        for seed in range(40):
            rng = Random(seed)
            batch, stream = random_logs.random_log(rng)
            stream = b"\n".join(random_logs.judged_before(rng, random_logs.judged_before(rng, line)) if line else line
                                for line in stream.split(b"\n"))
            self.write("batch", batch)
            self.write("stream", stream)
            notify, verdicts, evidence = [], [], []
            result = reference.judge_logs(batch, stream, notify=notify, verdicts=verdicts, evidence=evidence)
            if not verdicts:
                continue
            self.assertEqual({name: b"".join(line + b"\n" for line in lines) for name, lines in self.outputs().items()}, {
                "output": result.flagged, "notify": b"".join(notify), "verdicts": b"".join(verdicts),
                "evidence": b"".join(evidence)}, seed)
            replaced += sum(line.count(b'"mean":') == 1 for line in verdicts)
        self.assertGreater(replaced, 100)


class TooFew(EvidenceTest):
    """The number of purchases that could not be judged, because their window held fewer than 2."""

    def counted(self, *options):
        """Run; return (purchases judged, those with too few) by the summary, and what else was said."""
        *said, summary = self.main(*self.files, *options).splitlines()
        judged, _, few = re.search(r" (\d+) judged( \((\d+) with fewer than 2 purchases to judge by\))?, \d+ flagged",
                                   summary).groups("0")
        return (int(judged), int(few)), said

    def test_random_logs(self):
        """For each output, number of processes and shard: as many as the reference says; T down to 2."""
        none = some = 0
        for seed in range(40):
            batch, stream = random_logs.random_log(Random(seed))
            verdicts = []
            self.write("batch", batch)
            self.write("stream", stream)
            reference.judge_logs(batch, stream, verdicts=verdicts)
            few = sum(b', "mean": null' in line for line in verdicts)
            for options in ((), ("--verdicts", self.path("verdicts")), ("--jobs", 3)):
                self.assertEqual(self.counted(*options)[0], (len(verdicts), few), (seed, options))
            parts = [self.counted("--shard", "%d/2" % k)[0] for k in (1, 2)]
            self.assertEqual(tuple(map(sum, zip(*parts))), (len(verdicts), few), seed)
            some, none = some + (few > 0), none + (few == 0)
        self.assertGreater(min(some, none), 8)

    def test_ids_that_do_not_agree(self):
        """A warning if it is so for all of 20 or more; also with --quiet."""
        strangers = [purchase("0%d" % n, "5.00") for n in range(20)]
        for lines, warned in (strangers, True), (strangers[1:], False), (strangers + [STREAM], False):
            self.write("stream", b"".join(lines))
            for options in (), ("--jobs", 2), ("--verdicts", self.path("verdicts")):
                said = [line for line in self.counted(*options)[1] if "do the ids of both logs agree?" in line]
                self.assertEqual(said, ["anomaly_detection: %s: nothing to judge by: do the ids of both logs agree?"
                                        % self.stream] * warned)
            self.assertEqual("agree?" in self.main("-q", *self.files), warned)

    def test_the_page_says_it_too(self):
        self.write("stream", STREAM + purchase("9", "5.00") * 1001)
        self.main(*self.files, "--report", self.path("page"))
        self.assertIn(b", 1,001 with fewer than 2 purchases to judge by.", self.read("page"))


if __name__ == "__main__":
    unittest.main()
