"""The quick forms of the torture: random, changed, damaged and hostile logs, faults, live mode."""

import contextlib
import io
import sys
import unittest

from support import PROGRAM     # first: it finds the modules below
from torture import coverage, differential, faults, hostile, live, metamorphic, mutation
from torture.common import Trial, name_of


class Trust(unittest.TestCase):

    def trial(self, part, cases=None, **sizes):
        """Run a part of the torture; nothing may have gone wrong."""
        trial = Trial(name_of(part), seed=7, cases=cases)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            part.run(trial, **sizes)
        self.assertGreater(trial.cases, 0)
        self.assertEqual(trial.closing(), "%d cases tried, 0 mismatches, 0 crashes" % trial.cases,
                         "\n" + "\n".join(trial.complaints)[:5000])

    def test_logs_with_the_thresholds_of_all_short_cuts_low(self):
        self.trial(differential, 400)

    def test_logs_that_mean_the_same(self):
        self.trial(metamorphic, 60)

    def test_damaged_lines(self):
        self.trial(mutation, 200)

    def test_faults(self):
        self.trial(faults, 12)

    def test_loads_made_to_be_slow(self):
        self.trial(hostile, shrink=50, slack=4)

    def test_live_mode(self):
        self.trial(live, events=50000)

    def test_lines_that_are_run(self):
        there = coverage.lines_there()
        ran = coverage.lines_run(sys.executable, PROGRAM, "--version")
        self.assertTrue(ran and ran < there, ran - there)


if __name__ == "__main__":
    unittest.main()
