"""The quick forms of the torture: random, changed, damaged and hostile logs, faults, live mode."""

import contextlib
import io
import sys
import unittest

from support import PROGRAM     # first: it finds the modules below
from torture import coverage, differential, faults, hostile, live, metamorphic, mutation
from torture.common import Trial, name_of


class Trust(unittest.TestCase):

    def trial(self, part, cases=None, run=None, **sizes):
        """Run a part of the torture, or its function `run`; nothing may go wrong."""
        trial = Trial(name_of(part), seed=7, cases=cases)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            (run or part.run)(trial, **sizes)
        self.assertGreater(trial.cases, 0)
        self.assertEqual(trial.closing(), "%d cases tried, 0 mismatches, 0 crashes" % trial.cases,
                         "\n" + "\n".join(trial.complaints)[:5000])

    def test_logs_with_the_thresholds_of_all_short_cuts_low(self):
        self.trial(differential, 200)

    def test_logs_that_mean_the_same(self):
        self.trial(metamorphic, 30)

    def test_damaged_lines(self):
        self.trial(mutation, 80)

    def test_faults(self):
        self.trial(faults, 12, faults.each_fault)

    def test_signals_at_random_moments(self):
        self.trial(faults, 12, faults.random_signals)

    def test_loads_made_to_be_slow(self):
        """Those with an extreme setting or page; the others tell nothing when they are this small."""
        self.trial(hostile, shrink=50, slack=4, names=r"10\*\*9|page")

    def test_live_mode(self):
        self.trial(live, events=30000)

    def test_lines_that_are_run(self):
        there = coverage.lines_there()
        ran = coverage.lines_run(sys.executable, PROGRAM, "--version")
        self.assertTrue(ran and ran < there, ran - there)


if __name__ == "__main__":
    unittest.main()
