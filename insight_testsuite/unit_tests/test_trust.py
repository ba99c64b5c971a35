"""The quick forms of torture.py: random, changed, damaged and hostile logs, faults, live mode."""

import contextlib
import io
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
import torture


class Trust(unittest.TestCase):

    def trial(self, part, cases=None, **sizes):
        """Run a part of torture.py; nothing may have gone wrong."""
        trial = torture.Trial(part.__name__, seed=7, cases=cases)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            part(trial, **sizes)
        self.assertGreater(trial.cases, 0)
        self.assertEqual(trial.closing(), "%d cases tried, 0 mismatches, 0 crashes" % trial.cases,
                         "\n" + "\n".join(trial.complaints)[:5000])

    def test_logs_with_the_thresholds_of_all_short_cuts_low(self):
        self.trial(torture.differential, 500)

    def test_logs_that_mean_the_same(self):
        self.trial(torture.metamorphic, 60)

    def test_damaged_lines(self):
        self.trial(torture.mutation, 250)

    def test_faults(self):
        self.trial(torture.faults, 12)

    def test_loads_made_to_be_slow(self):
        self.trial(torture.hostile, shrink=50, slack=4)

    def test_live_mode(self):
        self.trial(torture.live, events=50000)

    def test_lines_that_are_run(self):
        there = torture.lines_there()
        ran = torture.lines_run(sys.executable, torture.DETECTOR, "--version")
        self.assertTrue(ran and ran < there, ran - there)


if __name__ == "__main__":
    unittest.main()
