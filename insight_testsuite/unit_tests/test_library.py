"""The detector inside another program: loading and saving its state, what its methods refuse, copies of it."""

import copy
import inspect
import json
import pathlib
import pickle
import unittest
import unittest.mock
from random import Random

from support import BATCH, EVENTS, STREAM, MainTest
import anomaly_detection
import random_logs
from anomaly_detection import Detector, Failure, Flag, Malformed, dollars, load, read_event, save


def judged(detector, stream):
    """What a program does with the lines of a stream: [(line, Flag)] of the flagged purchases."""
    flags = []
    for line in stream.decode(errors="surrogateescape").split("\n"):
        try:
            event_type, values = read_event(line)
            flag = getattr(detector, event_type)(*values)
        except ValueError:
            continue
        if flag:
            flags.append((json.loads(line), flag))
    return flags


class LoadAndSave(MainTest):

    def test_a_service_that_is_restarted_judges_as_the_command_line(self):
        """Loaded from the batch log, saved and loaded again at random places, on logs with damaged lines."""
        flagged = 0
        for seed in range(40):
            rng = Random(seed)
            batch, stream = random_logs.random_log(rng, 0.1)
            self.write("batch", batch)
            self.write("stream", stream)
            self.main("--quiet", *self.files, "--snapshot", self.path("snapshot"))
            lines = stream.splitlines(True)
            place = rng.randint(0, len(lines))
            detector = load(self.batch)
            flags = judged(detector, b"".join(lines[:place]))
            save(detector, self.path("state"))
            detector = load(self.path("state"))
            flags += judged(detector, b"".join(lines[place:]))
            self.assertEqual([(dollars(flag.mean), dollars(flag.sd)) for _, flag in flags],
                             [(line["mean"], line["sd"]) for line in map(json.loads, self.read("output").splitlines())], seed)
            save(detector, self.path("state"))
            self.assertEqual(self.read("state").split(b"\n")[1:], self.read("snapshot").split(b"\n")[1:], seed)
            flagged += len(flags)
        self.assertGreater(flagged, 40)

    def test_parameters_and_malformed_lines(self):
        self.write("batch", BATCH + b"x\n[]\n")
        detector = load(self.batch, degree=1, tracked=7, deviations="2.5")
        self.assertEqual((detector.degree, detector.tracked, detector.limit), (1, 7, "mean + 2.5 sd"))
        self.assertEqual((detector.skipped, detector.reason), (2, "not JSON: Expecting value at character 1"))
        self.write("batch", EVENTS)
        self.assertEqual(load(self.batch, 3, 50).skipped, 0)
        for wrong, words in ((EVENTS, "no valid D and T"), (b"", "it is empty")):
            self.write("batch", wrong)
            with self.assertRaisesRegex(Failure, words):
                load(self.batch)
        with self.assertRaisesRegex(Failure, "cannot be read"):
            load(self.path("missing"))

    def test_paths_and_bytes(self):
        save(load(pathlib.Path(self.batch)), pathlib.Path(self.path("state")))
        self.assertEqual(read_event(STREAM), read_event(STREAM.decode()))
        with self.assertRaisesRegex(Malformed, "not UTF-8"):
            read_event(b'{"event_type": "\xff"}')

    def test_a_larger_tracked_than_the_snapshot_has(self):
        """The next snapshot claims no more than what was kept."""
        save(load(self.batch, tracked=5), self.path("state"))
        save(load(self.path("state"), tracked=50), self.path("state"))
        self.assertEqual(load(self.path("state")).tracked, 5)

    def test_a_snapshot_that_cannot_be_written_leaves_the_old_one(self):
        detector = load(self.batch)
        save(detector, self.path("state"))
        old = self.read("state")
        judged(detector, STREAM)
        with unittest.mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")):
            with self.assertRaises(OSError):
                save(detector, self.path("state"))
        self.assertEqual(self.read("state"), old)
        self.assertEqual(sorted(self.snapshot()), ["batch", "output", "state", "stream"])
        with self.assertRaisesRegex(Failure, "Is a directory"):
            save(detector, self.folder)
        with self.assertRaisesRegex(Failure, "is a log"):
            save(detector, self.batch)
        self.assertEqual(self.read("batch"), BATCH)


def state(detector):
    """All that later verdicts depend on."""
    return detector.social.friends, detector.history.by_user, detector.history.recorded


class Methods(unittest.TestCase):

    def test_what_is_refused_changes_nothing_and_names_the_argument(self):
        when = "2017-06-13 11:33:01"
        detector = Detector(1, 50)
        detector.befriend("1", "2")
        before = copy.deepcopy(state(detector))
        for method, arguments, kind, words in (
                ("befriend", (1, "2"), TypeError, "id1 is 1, not a str"),
                ("befriend", ("1", ""), ValueError, "id2 is empty"),
                ("unfriend", ("1", None), TypeError, "id2 is None, not a str"),
                ("unfriend", ("1", "1"), ValueError, "id1 and id2"),
                ("record", ("1", when, 20), TypeError, "amount is 20, not a str"),
                ("record", ("1", when, "x"), ValueError, "amount 'x'"),
                ("purchase", (b"1", when, "20"), TypeError, "user is b'1', not a str"),
                ("purchase", ("", when, "20"), ValueError, "user is empty"),
                ("purchase", ("1", 0, "20"), TypeError, "timestamp is 0, not a str"),
                ("purchase", ("1", "x", "20"), Malformed, "timestamp 'x'")):
            with self.subTest(method=method, arguments=arguments):
                with self.assertRaises(kind) as raised:
                    getattr(detector, method)(*arguments)
                self.assertIn(words, str(raised.exception))
        self.assertEqual(state(detector), before)

    def test_parameters_that_are_refused(self):
        for arguments, words in (
                ((2.0, 50), "degree is 2.0, not an int from 1 up"), (("2", 50), "degree is '2', not an int"),
                ((0, 50), "degree is 0"), ((1, 1), "tracked is 1, not an int from 2 up"), ((True, 2), "degree is True"),
                ((1, 2, float("nan")), "deviations is nan, not a number"), ((1, 2, None), "deviations is None"),
                ((1, 2, float("inf")), "deviations is inf"), ((1, 2, -0.5), "deviations is -1/2, not a number from 0 up")):
            with self.subTest(arguments=arguments), self.assertRaises(ValueError) as raised:
                Detector(*arguments)
            self.assertIn(words, str(raised.exception))

    def test_methods_are_methods(self):
        """They have signatures and docstrings, and those of a subclass are used."""
        for name in "befriend", "unfriend", "record", "purchase":
            self.assertTrue(inspect.getdoc(getattr(Detector, name)))
        self.assertEqual(str(inspect.signature(Detector.record)), "(self, user, timestamp, amount)")
        seen = []

        class Watched(Detector):
            def record(self, *arguments):
                seen.append(arguments)
                super().record(*arguments)
        Watched(1, 50).purchase("1", "2017-06-13 11:33:01", "20")
        self.assertEqual(seen, [("1", "2017-06-13 11:33:01", "20")])

    def test_copies_and_pickles_judge_alike(self):
        """On a stream that changes friendships, too; the copies have nothing in common."""
        batch, stream = random_logs.random_log(Random(7))
        first = Detector(2, 5)
        judged(first, batch)
        others = [pickle.loads(pickle.dumps(first)), copy.deepcopy(first)]
        flags = [judged(detector, stream) for detector in (first, *others)]
        self.assertTrue(flags[0])
        self.assertEqual(flags, [flags[0]] * 3)
        self.assertIsInstance(flags[0][0][1], Flag)

    def test_all_is_there(self):
        for name in anomaly_detection.__all__:
            self.assertTrue(hasattr(anomaly_detection, name), name)


if __name__ == "__main__":
    unittest.main()
