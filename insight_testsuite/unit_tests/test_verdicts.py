"""--sd and --verdicts, held against the literal rule: in one process, in many, live, and day by day."""

import unittest
from fractions import Fraction
from random import Random

from support import FLAGGED, HEADER, STREAM, MainTest, friendship, purchase, with_odd_ids
import random_logs
import reference

DEVIATIONS = "3", "0", "2.5", "1.000000000000001", "0.5", "1000", "03.0"


class VerdictsTest(MainTest):

    def arguments(self, *options):
        """The command line's arguments, with --verdicts."""
        return *self.files, "--verdicts", self.path("verdicts"), *options

    def judged(self, *options):
        """Run in this process; return (verdicts, flags)."""
        self.main(*self.arguments(*options))
        return self.read("verdicts"), self.read("output")

    def draw(self, seed, dirt=0.1):
        """Write random logs, half of them with odd ids; return (batch, stream, the text of an sd, its options)."""
        logs = random_logs.random_log(Random(seed), dirt)
        if seed % 2:
            logs = with_odd_ids(seed, *logs)
        for name, log in zip(("batch", "stream"), logs):
            self.write(name, log)
        text = DEVIATIONS[seed % len(DEVIATIONS)]
        return (*logs, text, () if seed == 0 else ("--sd", text))

    def literal(self, batch, stream, text):
        """(verdicts, flags) by the reference."""
        verdicts = []
        result = reference.judge_logs(batch, stream, deviations=Fraction(text), verdicts=verdicts)
        return b"".join(verdicts), result.flagged


class Literal(VerdictsTest):

    def test_random_logs(self):
        """In one process and in three; without --verdicts the flags are the same."""
        flagged = normal = 0
        for seed in range(70):
            batch, stream, text, options = self.draw(seed)
            expected = self.literal(batch, stream, text)
            self.assertEqual(self.judged(*options, "--jobs", 1), expected, (seed, text))
            if seed % 3 == 0:
                self.assertEqual(self.judged(*options, "--jobs", 3), expected, (seed, text))
            self.main(*self.files, *options, "--jobs", 1 + seed % 2)
            self.assertEqual(self.read("output"), expected[1], (seed, text))
            flagged += expected[0].count(b'"flagged": true}\n')
            normal += expected[0].count(b'"flagged": false}\n')
            self.assertEqual(expected[0].count(b'"flagged": true}\n'), expected[1].count(b"\n"))
        self.assertGreater(min(flagged, normal), 250, (flagged, normal))

    def test_shards(self):
        for seed in range(8):
            batch, stream, text, options = self.draw(seed)
            for shards in 2, 3:
                parts = [self.judged(*options, "--shard", "%d/%d" % (k, shards)) for k in range(1, shards + 1)]
                self.assertEqual(tuple(map(b"".join, zip(*parts))), self.literal(batch, stream, text), (seed, shards))

    def test_day_by_day(self):
        """Three runs, each from the snapshot of the one before, over a growing stream or its parts."""
        for seed in range(21):
            batch, stream, text, options = self.draw(seed)
            expected, rng = self.literal(batch, stream, text), Random(seed)
            lines = stream.splitlines(True)
            ends = [*sorted(rng.randint(0, len(lines)) for _ in range(2)), len(lines)]
            found, begin, resume = [], 0, seed % 3 == 0
            state = self.path("batch")
            for end in ends:
                self.write("stream", b"".join(lines[0 if resume else begin:end]))
                if end == begin or b"".join(lines[begin:end]).strip() and not self.has_events(lines[begin:end]):
                    continue                        # a log without an event is no log
                self.main(state, self.stream, self.output, "--verdicts", self.path("verdicts"), *options,
                          "--snapshot", self.path("state"), *["--resume"] * resume)
                found.append((self.read("verdicts"), self.read("output")))
                state, begin = self.write("yesterday", self.read("state")), end
            self.assertEqual(tuple(map(b"".join, zip(*found))) if found else (b"", b""), expected, (seed, text, ends))

    def has_events(self, lines):
        """Is one of the lines an event?"""
        for line in lines:
            try:
                return bool(reference.read_event(line.rstrip(b"\n")))
            except ValueError:
                pass
        return False


class Live(VerdictsTest):

    def test_random_logs(self):
        for seed in range(0, 30, 3):
            batch, stream, text, options = self.draw(seed)
            out, said = self.do(self.batch, "-", self.output, "--verdicts", "-", *options, data=stream)
            self.assertEqual((out, self.read("output")), self.literal(batch, stream, text), (seed, text))

    def test_each_verdict_is_there_before_the_next_line(self):
        process = self.start(self.batch, "-", self.output, "--verdicts", "-", bufsize=0)
        for line, fields in [
                (purchase("9", "5.00"), b', "window": 0, "mean": null, "sd": null, "flagged": false}\n'),
                (purchase("2", "5.00"), b', "window": 3, "mean": "29.10", "sd": "21.46", "flagged": false}\n'),
                (friendship("8", "9") + purchase("8", "5.00"),
                 b', "window": 1, "mean": null, "sd": null, "flagged": false}\n'),
                (STREAM, FLAGGED[len(STREAM) - 2:-2].replace(b', "mean"', b', "window": 3, "mean"')
                 + b', "flagged": true}\n')]:
            process.stdin.write(line)
            self.assertEqual(self.lines_arriving(process.stdout), line.splitlines()[-1][:-1] + fields)
        self.finish(process)


class Limit(VerdictsTest):
    """What a run says of its limit; which numbers are none, test_ordinary_days tells."""

    def test_the_summary_names_it(self):
        for text, shown in ("3", "3"), ("2.50", "2.5"), ("0", "0"), ("007", "7"), ("0.125", "0.125"):
            self.assertIn("; above mean + %s sd, " % shown, self.main(*self.files, "--sd", text))
        self.assertIn("; above mean + 3 sd, ", self.main(*self.files))

    def test_exactly_at_the_limit(self):
        """The window's mean is 11, its sd 1: a purchase at mean + N sd is normal, by a hair more it is flagged."""
        self.write("batch", HEADER + friendship("1", "2") + purchase("1", "10") + purchase("1", "12"))
        for text, limit in [("3", "14.00"), ("2.5", "13.50"), ("0", "11.00"),
                            ("0.000000000000001", "11.000000000000001")]:
            self.write("stream", purchase("2", limit) + purchase("2", limit.rstrip("0") + "0" * 10 + "1"))
            verdicts, flags = self.judged("--sd", text)
            self.assertEqual([line.rpartition(b" ")[2] for line in verdicts.splitlines()], [b"false}", b"true}"], text)


if __name__ == "__main__":
    unittest.main()
