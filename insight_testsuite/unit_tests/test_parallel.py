"""--jobs and --shard: the same as one process, byte for byte, and safe when a worker is not."""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import unittest
import warnings
from functools import partial
from random import Random
from unittest.mock import patch

from support import (
    BATCH, DEADLINE, EVENTS, FLAGGED, HEADER, OLD, ROOT, STREAM, FolderTest, answered, friendship, purchase)
import anomaly_detection
import generate
from random_logs import random_log


def said_by_main(*arguments, status=0):
    """Run the command line in this process; return its standard error."""
    with contextlib.redirect_stderr(io.StringIO()) as said, warnings.catch_warnings():
        warnings.simplefilter("ignore")         # unittest turns them on; test_no_warnings looks at them
        ended = anomaly_detection.main(list(arguments))
    if ended != status:
        raise AssertionError("exit status %d: %s" % (ended, said.getvalue()))
    return said.getvalue()


def without_seconds(said):
    return re.sub(r"\d+\.\d+ s", "S s", said)


def counts_of(said):
    """The six numbers of the summary, which is the last line."""
    summary = said.splitlines()[-1]
    return [int(n) for n in re.findall(r" (\d+) events| \((\d+) skipped| (\d+) judged| (\d+) flagged", summary)
            for n in n if n]


def runs(pid):
    """Is there such a process that has not ended?"""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class SameTest(FolderTest):
    """A test that holds runs against each other."""

    def setUp(self):
        super().setUp()
        disk = patch("os.fsync")        # may take long, and is not what is tested
        disk.start()
        self.addCleanup(disk.stop)

    def result(self, *options):
        """Run in this process; return (what was said, output, rejects)."""
        said = said_by_main(*self.files, "--rejects", self.path("rejects"), *options)
        return without_seconds(said), self.read("output"), self.read("rejects")

    def random_logs(self, seed):
        """Write dirty random logs; every other batch log is itself full of churn."""
        batch, stream = random_log(Random(seed), 0.15)
        self.write("batch", batch + stream if seed % 2 else batch)
        self.write("stream", stream)

    def generated_logs(self, name, fraction):
        """Write some hundred KB of a benchmark's logs, every hundredth line damaged; return how many lines are."""
        generate.write_logs(name, self.folder, fraction)
        for log in "batch", "stream":
            lines = self.read(log + "_log.json").splitlines(True)
            lines[50::100] = [line[:-3] + b"\n" for line in lines[50::100]]
            self.write(log, b"".join(lines))

    def assert_shards_join(self, shards, *options):
        whole = self.result("--jobs", "1")
        said, outputs, rejects = zip(*(
            self.result("--shard", "%d/%d" % (k, shards), *options) for k in range(1, shards + 1)))
        self.assertEqual((b"".join(outputs), b"".join(rejects)), whole[1:])
        each = list(map(counts_of, said))
        self.assertEqual([n[:2] for n in each], [counts_of(whole[0])[:2]] * shards)     # all load the batch log
        self.assertEqual([sum(n) for n in zip(*each)][2:], counts_of(whole[0])[2:])


class Jobs(SameTest):

    def test_random_logs(self):
        """The same output, rejects, skip reports and summary in any number of processes."""
        flags = skips = 0
        for seed in range(40):
            self.random_logs(seed)
            one = self.result("--jobs", "1")
            flags, skips = flags + one[1].count(b"\n"), skips + one[2].count(b"\n")
            for jobs in range(2, 6) if seed % 4 < 2 else (2, 3):
                self.assertEqual(self.result("--jobs", str(jobs)), one, (seed, jobs))
        self.assertGreater(min(flags, skips), 150, (flags, skips))

    def test_more_jobs_than_lines(self):
        for batch, stream in (BATCH, STREAM), (HEADER, b"x"), (HEADER, b""), (BATCH[:-1], b"\n"):
            self.write("batch", batch)
            self.write("stream", stream)
            self.assertEqual(self.result("--jobs", "12"), self.result("--jobs", "1"))

    def test_lines_without_a_header(self):
        """-D and -T given: what begins the batch log belongs to a part, too."""
        for batch in EVENTS, b"\xef\xbb\xbf" + EVENTS, b"\n\nx\n" + EVENTS, b"", b"\n", b"\xef\xbb\xbf", b"x":
            self.write("batch", batch)
            self.assertEqual(self.result("--jobs", "3", "-D", "3", "-T", "50"),
                             self.result("--jobs", "1", "-D", "3", "-T", "50"))

    def test_blank_lines_line_ends_and_byte_order_marks(self):
        self.write("batch", b"\xef\xbb\xbf\n\r\n" + BATCH.replace(b"\n", b"\r\n\n") + b"x")
        self.write("stream", b"\xef\xbb\xbf" + STREAM + b"\n\n\r\nx\n" * 9 + b"x\n" * 9 + STREAM[:-1] + b"\r")
        one = self.result("--jobs", "1")
        self.assertEqual(one[1].count(b"\n"), 2)
        for jobs in range(2, 6):
            self.assertEqual(self.result("--jobs", str(jobs)), one)

    def test_the_last_word_on_a_friendship(self):
        """Befriended and unfriended in different parts of the batch log, in every order of six events."""
        pairs = [friendship("1", "2", "befriend"), friendship("2", "1", "unfriend")]
        purchases = purchase("1", "5.00") + purchase("1", "6.00")
        for n in range(2 ** 6):
            events = [pairs[n >> k & 1] for k in range(6)]
            self.write("batch", HEADER + purchases + b"".join(events))
            said, output, rejects = self.result("--jobs", "4")
            self.assertEqual(bool(output), events[-1] is pairs[0], n)

    def test_late_purchases_across_parts(self):
        """One user's purchases, all out of order, some in each part of the batch log, more in the stream.

        Without the short-cut that keeps recent purchases beside the histories: these have to be right.
        """
        rng = Random(1)
        nothing = patch.multiple(anomaly_detection.RecentPurchases, walk=lambda *_: iter(()), look_up=lambda *_: iter(()))
        nothing.start()
        self.addCleanup(nothing.stop)
        for _ in range(30):
            bought = [purchase("1", "%d.00" % rng.randint(1, 9), "2017-06-13 11:33:%02d" % second)
                      for second in rng.sample(range(60), 20)]
            self.write("batch", b'{"D":1, "T":%d}\n' % rng.randint(2, 12) + friendship("1", "2") + b"".join(bought[:12]))
            self.write("stream", b"".join(line + STREAM for line in bought[12:]))
            one = self.result("--jobs", "1")
            self.assertEqual(one[1].count(b"\n"), 8)
            for jobs in "2", "3", "4":
                self.assertEqual(self.result("--jobs", jobs), one)

    def test_a_line_longer_than_all_others_together(self):
        long = STREAM[:-2] + b', "note": "%s"}\n' % (b"x" * 300000)
        for stream in long + STREAM * 3, STREAM + long + STREAM, STREAM * 3 + long[:-1]:
            self.write("stream", stream)
            one = self.result("--jobs", "1")
            self.assertEqual(one[1].count(b"\n"), stream.count(b"{"))
            self.assertEqual(self.result("--jobs", "4"), one)

    def test_generated_logs(self):
        """Larger ones, through the real command line, in order and with late purchases."""
        for name, fraction in ("young", 0.02), ("late", 0.006):
            self.generated_logs(name, fraction)
            one, *others = [
                (without_seconds(self.do(*self.files, "--rejects", self.path("rejects"), "--jobs", str(jobs))[1]),
                 self.read("output"), self.read("rejects")) for jobs in range(1, 6)]
            self.assertGreater(one[1].count(b"\n"), 3)
            self.assertGreater(one[2].count(b"\n"), 20)
            self.assertEqual(one[0].count("skipped: "), 10 + min(10, len(self.read("stream").splitlines()) // 100))
            for other in others:
                self.assertEqual(other, one)

    def test_the_default(self):
        """As many processes as there are processors, but only for logs that are large enough."""
        self.generated_logs("young", 0.005)
        one = self.result("--jobs", "1")
        workers = []

        class CountedWorker(anomaly_detection.Worker):
            def __init__(self, *arguments):
                workers.append(self)
                super().__init__(*arguments)

        with patch.object(anomaly_detection, "Worker", CountedWorker), \
                patch("os.sched_getaffinity", lambda pid: range(3), create=True):
            self.assertEqual(self.result(), one)
            self.assertEqual(len(workers), 0)
            with patch.multiple(anomaly_detection, BATCH_PART=10 ** 4, STREAM_PART=10 ** 4):
                self.assertEqual(self.result(), one)
                self.assertEqual(len(workers), 2 + 2)
                self.assert_shards_join(2)

    def test_standard_input_is_one_job(self):
        out, said = self.do(self.batch, "-", "-", "--jobs", "4", data=STREAM)
        self.assertEqual(out, FLAGGED)


class Shards(SameTest):

    def test_random_logs(self):
        """Outputs and rejects, joined in order, are those of the single run; so are the numbers, added up."""
        for seed in range(20):
            self.random_logs(seed)
            for shards in (1, 2, 3, 5):
                self.assert_shards_join(shards, "--jobs", str(1 + seed % 2))

    def test_more_shards_than_lines(self):
        self.write("stream", b"\xef\xbb\xbf" + STREAM + b"x")
        self.assert_shards_join(9)
        self.write("stream", b"")
        self.assert_shards_join(3)

    @unittest.skipUnless(shutil.which("xargs") and shutil.which("seq"), "no xargs here")
    def test_the_example_of_the_readme(self):
        with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as readme:
            commands = re.findall(r"^    (seq 4 \| xargs .*|cat part-1.json .*)$", readme.read(), re.MULTILINE)
        self.assertEqual(len(commands), 2)
        shutil.copytree(os.path.join(ROOT, "src"), self.path("src"))
        self.generated_logs("young", 0.01)
        for log in "batch", "stream":
            os.rename(self.path(log), self.path(log + "_log.json"))
        self.write("python3", b'#!/bin/sh\nexec %s "$@"\n' % shlex.quote(sys.executable).encode())
        os.chmod(self.path("python3"), 0o755)
        for command in [*commands, "python3 src/anomaly_detection.py --quiet batch_log.json stream_log.json single"]:
            done = subprocess.run(["sh", "-c", command], cwd=self.folder, timeout=DEADLINE,
                                  env={**os.environ, "PATH": self.folder + os.pathsep + os.environ["PATH"]})
            self.assertEqual(done.returncode, 0)
        self.assertGreater(min(len(self.read("part-%d.json" % k)) for k in range(1, 5)), 0)
        self.assertEqual(self.read("flagged_purchases.json"), self.read("single"))


class Failures(FolderTest):

    def test_strict_tells_the_first_malformed_line_of_the_log(self):
        """Although another process may meet another one earlier."""
        self.write("stream", STREAM * 3000 + b"x\n" + STREAM * 100 + b"y\n" * 3000)
        for jobs in "1", "2", "5":
            self.assertIn("%s:3001: " % self.stream, self.assert_fails(1, *self.files, "--strict", "--jobs", jobs))
        self.write("batch", BATCH + EVENTS * 500 + b"[]\n" + EVENTS + b"y\n" * 3000)
        for jobs in "1", "2", "5":
            self.assertIn("%s:3008: " % self.batch, self.assert_fails(1, *self.files, "--strict", "--jobs", jobs))

    def test_full_disk(self):
        import resource
        self.write("stream", STREAM * 1000)
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (10 ** 4, 10 ** 4))
        self.assert_fails(1, *self.files, "--jobs", "2", preexec_fn=limit)

    def test_a_worker_that_dies(self):
        """In whatever it was doing; checked in this process, where it can be made to."""
        def die(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)

        before = self.snapshot()
        for task in "learn_part", "judge_part_of":
            with patch.object(anomaly_detection, task, die):
                self.assert_one_line(said_by_main(*self.files, "--jobs", "3", status=1))
            self.assertEqual(self.snapshot(), before)

    def children(self, process):
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as file:
            return list(map(int, file.read().split()))

    def start_workers(self, jobs):
        """Start a run that takes long; return it and its workers' process ids, once they are at work."""
        self.write("stream", STREAM * 40000)
        fifo = self.path("fifo")
        os.mkfifo(fifo)                 # loaded by one process: all workers judge
        process = self.start(fifo, self.stream, self.output, "--jobs", str(jobs), start_new_session=True,
                             preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
        with open(fifo, "wb") as batch:
            batch.write(BATCH)
        os.unlink(fifo)
        self.wait_until(lambda: len(self.children(process)) == jobs - 1)
        return process, self.children(process)

    def wait_until(self, happened):
        give_up = time.monotonic() + DEADLINE
        while not happened():
            self.assertLess(time.monotonic(), give_up, "waited in vain")
            time.sleep(0.002)

    @unittest.skipUnless(os.path.exists("/proc/self/task/%d/children" % os.getpid()), "no list of child processes here")
    def test_killed_and_stopped(self):
        """A killed worker, Ctrl-C, SIGTERM: one line, nothing half-written, and no process that goes on."""
        def kill_a_worker(process, workers):
            os.kill(workers[0], signal.SIGKILL)

        def interrupt(process, workers):
            os.killpg(process.pid, signal.SIGINT)       # a terminal tells the whole group

        def terminate(process, workers):
            process.send_signal(signal.SIGTERM)

        for end, status in (kill_a_worker, 1), (interrupt, 130), (terminate, 143):
            with self.subTest(end=end.__name__):
                process, workers = self.start_workers(3)
                os.kill(workers[-1], signal.SIGSTOP)    # this one will not end by itself
                end(process, workers)
                out, said = self.finish(process, status=status)
                self.assert_one_line(said)
                self.assertEqual(sorted(self.snapshot()), ["batch", "output", "stream"])
                self.assertEqual(self.read("output"), OLD)
                self.wait_until(lambda: not any(map(runs, workers)))

    def test_no_warnings(self):
        """Python's own ones, of files left open for instance."""
        out, said = self.do(*self.files, "--jobs", "3", "--quiet", "--rejects", self.path("rejects"),
                            env={**os.environ, "PYTHONWARNINGS": "always"})
        self.assertEqual(said, "")

    def test_temporary_files_are_not_left_behind(self):
        os.mkdir(self.path("temporary"))
        self.write("stream", STREAM * 100 + b"x\n")
        self.do(*self.files, "--jobs", "3", "--rejects", self.path("rejects"),
                env={**os.environ, "TMPDIR": self.path("temporary")})
        self.assertEqual(self.read("output"), answered([STREAM] * 100))
        self.assertEqual(os.listdir(self.path("temporary")), [])


if __name__ == "__main__":
    unittest.main()
