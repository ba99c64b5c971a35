"""The program and the literal reference give the same bytes on random logs."""

import contextlib
import io
import os
import sys
import tempfile
import unittest
from random import Random

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
sys.path.insert(0, os.path.join(HERE, "..", "..", "src"))
import anomaly_detection
import reference
from random_logs import random_log

CLEAN, DIRTY, OVERRIDDEN = 800, 200, 100
DIRT = 0.1


class Differential(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.paths = [os.path.join(folder.name, name)
                      for name in ("batch", "stream", "flagged", "rejects")]

    def program(self, batch, stream, *options):
        """What the program writes to its output and to --rejects (bytes)."""
        for path, log in zip(self.paths, (batch, stream)):
            with open(path, "wb") as file:
                file.write(log)
        *logs, rejects = self.paths
        with contextlib.redirect_stderr(io.StringIO()) as said:
            status = anomaly_detection.main(["--jobs", "1", "--rejects", rejects, *options, *logs])
        self.assertEqual(status, 0, said.getvalue())
        written = []
        for path in self.paths[2:]:
            with open(path, "rb") as file:
                written.append(file.read())
        return written

    def compare(self, seed, dirt=0, override=False):
        """Hold the two against each other; return the reference's Result."""
        batch, stream = random_log(Random(seed), dirt)
        settings, options = {}, []
        if override:
            settings = {"degree": seed % 5 + 1, "tracked": seed % 7 + 2}
            options = ["-D", str(settings["degree"]), "-T", str(settings["tracked"])]
            if seed % 2:
                batch = batch.split(b"\n", 1)[1]        # both are given: no header is needed
        result = reference.judge_logs(batch, stream, **settings)
        skipped = [line + b"\n" for _, line in result.batch_skipped + result.stream_skipped]
        flagged, rejects = self.program(batch, stream, *options)
        how = "random_logs.py %d DIRECTORY %s writes these logs %s" % (seed, dirt, options)
        self.assertEqual(flagged.split(b"\n"), result.flagged.split(b"\n"), how)
        self.assertEqual(rejects, b"".join(skipped), how)
        return result

    def test_clean_logs(self):
        results = [self.compare(seed) for seed in range(CLEAN)]
        self.assertFalse(any(r.batch_skipped or r.stream_skipped for r in results))
        with_flags = sum(bool(r.flagged) for r in results)
        self.assertGreater(with_flags, CLEAN // 2, "too few of these logs have something to flag")
        flagged = sum(r.flagged.count(b"\n") for r in results)
        judged = sum(r.judged for r in results)
        self.assertTrue(judged / 20 < flagged < judged / 4, (flagged, judged))

    def test_dirty_logs(self):
        results = [self.compare(seed, DIRT) for seed in range(DIRTY)]
        with_skips = sum(bool(r.batch_skipped or r.stream_skipped) for r in results)
        self.assertGreater(with_skips, DIRTY // 2, "too few of these logs have a malformed line")
        self.assertGreater(sum(bool(r.flagged) for r in results), DIRTY // 2)

    def test_degree_and_tracked_given_beside_the_logs(self):
        for seed in range(OVERRIDDEN):
            self.compare(seed, override=True)


if __name__ == "__main__":
    unittest.main()
