"""--jobs and --shard: the same as one process, byte for byte, and safe when a worker is not."""

import errno
import io
import os
import re
import shutil
import signal
import unittest
from functools import partial
from itertools import count
from multiprocessing.process import BaseProcess
from random import Random
from unittest.mock import patch

from support import (
    BATCH, EVENTS, FLAGGED, HEADER, OLD, PROGRAM, STREAM, FolderTest, MainTest, answered, flagged,
    friendship, purchase, with_odd_ids)
import anomaly_detection
import generate
from random_logs import random_log


def without_seconds(said):
    return re.sub(r"\d+\.\d+ s", "S s", said)


def counts_of(said):
    """The six numbers of the summary, which is the last line."""
    summary = said.splitlines()[-1]
    return [int(n) for n in re.findall(r" (\d+) events| \((\d+) skipped| (\d+) judged| (\d+) flagged", summary)
            for n in n if n]


def processors(number):
    """A patch that pretends that this process may use so many processors, and has no quota."""
    return patch.multiple(os, create=True, sched_getaffinity=lambda pid: range(number),
                          process_cpu_count=lambda: number)


def runs(pid):
    """Is there such a process that has not ended?"""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class SameTest(MainTest):
    """A test that holds runs against each other."""

    SHARED = "rejects", "notify"            # the options whose outputs, joined, are the single run's
    ALL = (*SHARED, "report", "snapshot")

    def result(self, *options, names=ALL):
        """Run in this process with these outputs, too; return (what was said, output, rejects, ...)."""
        said = self.main(*self.files, *(word for name in names for word in ("--" + name, self.path(name))), *options)
        return (without_seconds(said), *map(self.read, ("output", *names)))

    def random_logs(self, seed):
        """Write dirty random logs; every other batch log is itself full of churn, one in three has odd ids."""
        batch, stream = random_log(Random(seed), 0.15)
        if seed % 3 == 0:
            batch, stream = with_odd_ids(seed, batch, stream)
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
        whole = self.result("--jobs", "1", names=self.SHARED)
        said, *outputs = zip(*(self.result("--shard", "%d/%d" % (k, shards), *options, names=self.SHARED)
                               for k in range(1, shards + 1)))
        self.assertEqual(tuple(map(b"".join, outputs)), whole[1:])
        each = list(map(counts_of, said))
        self.assertEqual([n[:2] for n in each], [counts_of(whole[0])[:2]] * shards)     # all load the batch log
        self.assertEqual([sum(n) for n in zip(*each)][2:], counts_of(whole[0])[2:])


class Jobs(SameTest):

    def test_random_logs(self):
        """The same bytes in every output, the same messages, in any number of processes."""
        flags = skips = 0
        for seed in range(24):
            self.random_logs(seed)
            one = self.result("--jobs", "1")
            flags, skips = flags + one[1].count(b"\n"), skips + one[2].count(b"\n")
            for jobs in 2, 3 + seed % 3:
                self.assertEqual(self.result("--jobs", str(jobs)), one, (seed, jobs))
        self.assertGreater(min(flags, skips), 90, (flags, skips))

    def test_more_jobs_than_lines(self):
        for batch, stream in (BATCH, STREAM), (HEADER, b"x\n" + STREAM), (HEADER, b""), (BATCH[:-1], b"\n"):
            self.write("batch", batch)
            self.write("stream", stream)
            self.assertEqual(self.result("--jobs", "12"), self.result("--jobs", "1"))
        self.write("stream", b"x\n")
        for jobs in "1", "12":
            self.assertIn("no line is an event", self.main(*self.files, "--jobs", jobs, status=1))

    def test_lines_without_a_header(self):
        """-D and -T given: what begins the batch log may be an event, too."""
        for batch in EVENTS, b"\xef\xbb\xbf" + EVENTS, b"\n\nx\n" + EVENTS, b"", b"\n", b"\xef\xbb\xbf":
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
        """Befriended and unfriended in different parts of the stream, in every order of four events."""
        pairs = [friendship("1", "2", "befriend"), friendship("2", "1", "unfriend")]
        self.write("batch", HEADER + purchase("1", "5.00") + purchase("1", "6.00"))
        for n in range(2 ** 4):
            events = [pairs[n >> k & 1] for k in range(4)]
            self.write("stream", b"".join(event + STREAM for event in events))
            said, output, *_ = self.result("--jobs", "4")
            self.assertEqual(output, flagged(STREAM, "5.50", "0.50") * events.count(pairs[0]), n)
            self.write("stream", b"".join(events) + STREAM)
            said, output, *_ = self.result("--jobs", "4")
            self.assertEqual(output, flagged(STREAM, "5.50", "0.50") * (events[-1] is pairs[0]), n)

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
                 self.read("output"), self.read("rejects")) for jobs in (1, 2, 5)]
            self.assertGreater(one[1].count(b"\n"), 3)
            self.assertGreater(one[2].count(b"\n"), 20)
            self.assertEqual(one[0].count(": skipped: "), 6)
            self.assertEqual(len(re.findall(r": skipped \d+: \d+ not JSON\n", one[0])), 2)
            for other in others:
                self.assertEqual(other, one)

    def test_late_purchases_across_parts(self):
        """One user's purchases, all out of order, some in the batch log, more in each part of the stream.

        Bystanders who buy too make the network a small part, so that its window is merged from its histories.
        """
        rng = Random(1)
        others = b"".join(purchase("by %d" % k) for k in range(40))
        for _ in range(20):
            bought = [purchase("1", "%d.00" % rng.randint(1, 9), "2017-06-13 11:33:%02d" % second)
                      for second in rng.sample(range(60), 20)]
            self.write("batch", b'{"D":1, "T":%d}\n' % rng.randint(3, 12) + others + friendship("1", "2")
                       + b"".join(bought[:8]))
            self.write("stream", b"".join(line + STREAM for line in bought[8:]))
            one = self.result("--jobs", "1")
            self.assertEqual(one[1].count(b"\n"), 12)
            self.assertEqual(self.result("--jobs", "3"), one)

    def forks(self, *options):
        """Run in this process, as if it had three processors; return how many processes are forked."""
        forked = []
        fork = os.fork

        def counted():
            forked.append(None)
            return fork()
        with patch("os.fork", counted), processors(3):
            self.result(*options)
        return len(forked)

    def test_how_many_processes(self):
        """One for each 256 KB of the stream, at most the processors, fewer for a large state; or as many as given."""
        line = friendship("8", "9")
        for kilobytes, jobs in (1, 1), (500, 1), (550, 2), (900, 3), (1200, 3):
            self.write("stream", line * (kilobytes * 1024 // len(line)))
            self.assertEqual(self.forks(), jobs - 1, kilobytes)
        for megabytes, jobs in (10, 2), (20, 1):
            self.write("batch", BATCH + (b" " * (1 << 20) + b"\n") * megabytes)
            self.assertEqual(self.forks(), jobs - 1, megabytes)
            self.assertEqual(self.forks("--jobs", "2"), 1)
        self.assertEqual(self.forks("--shard", "2/2", "--jobs", "3"), 2)
        self.assertEqual(self.forks("--jobs", "9" * 18), 11)        # four for each processor, and one is this one

    def test_standard_input_is_one_job(self):
        out, said = self.do(self.batch, "-", "-", "--jobs", "4", data=STREAM)
        self.assertEqual(out, FLAGGED)


class Quota(FolderTest):
    """A container may use less than the processors that it sees."""

    def jobs(self, *jobs, **files):
        """How many processes judge 1 GB on 8 processors, with these files where the kernel tells of quotas."""
        folder = self.path("cgroup")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(os.path.join(folder, "cpu"))
        for name, text in files.items():
            self.write("cgroup/" + {"max": "cpu.max", "quota": "cpu/cpu.cfs_quota_us",
                                    "period": "cpu/cpu.cfs_period_us"}[name], text.encode())
        with processors(8), patch.object(anomaly_detection, "CGROUP", folder):
            return anomaly_detection.number_of_jobs(*jobs or (None, 1 << 30, 0))

    def test_quotas(self):
        for number, files in [
                (8, {}), (2, {"max": "200000 100000\n"}), (2, {"max": "150000 100000\n"}), (1, {"max": "5000 100000\n"}),
                (8, {"max": "max 100000\n"}), (8, {"max": "9900000 100000\n"}), (8, {"max": ""}), (8, {"max": "x y\n"}),
                (3, {"quota": "300000\n", "period": "100000\n"}), (8, {"quota": "-1\n", "period": "100000\n"}),
                (8, {"quota": "300000\n"}), (1, {"quota": "10000\n", "period": "100000\n"})]:
            self.assertEqual(self.jobs(**files), number, files)

    def test_what_is_asked_for(self):
        """It is given, up to four processes a processor; nothing to judge takes one."""
        quota = "200000 100000"
        for arguments, number in [((5, 1 << 30, 0), 5), ((8, 10, 10 ** 9), 8), ((9, 10, 0), 8), ((5, 0, 0), 1),
                                  ((None, 0, 0), 1), ((None, 10, 0), 1)]:
            self.assertEqual(self.jobs(*arguments, max=quota), number, arguments)


class Refusals(SameTest):
    """Where processes or temporary folders are refused, one process judges all, unless --jobs asks for more."""

    def setUp(self):
        super().setUp()
        line = friendship("8", "9")
        self.write("stream", (STREAM + b"x\n" + line * 3000) * 3)      # enough for three processes
        self.one = self.result("--jobs", "1")
        self.assertEqual(self.one[1], FLAGGED * 3)
        self.pids = []

    def assert_refused(self, refusal, text):
        """Under a patch that makes a refusal: the same result, or one line and no change."""
        with processors(3):
            with refusal():
                self.assertEqual(self.result(), self.one)
                self.assertEqual(self.result("--shard", "1/1"), self.one)
            with refusal():
                before = self.snapshot()
                said = self.main(*self.files, "--jobs", "3", status=1)
        self.assertEqual(said, "".join(line + "\n" for line in said.splitlines()[:-1]) +
                         "anomaly_detection: %s; no output file is changed\n" % text)
        self.assertEqual(self.snapshot(), before)
        self.assertFalse(any(map(runs, self.pids)))

    def test_processes(self):
        """The first one, or the second; then the first is ended."""
        fork = os.fork

        def refusal(nth):
            numbers = count()

            def refused():
                if next(numbers) % 2 == nth:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                pid = fork()
                if pid:
                    self.pids.append(pid)
                return pid
            return patch("os.fork", refused)

        for nth in 0, 1:
            with self.subTest(nth=nth):
                self.assert_refused(partial(refusal, nth), os.strerror(errno.EAGAIN))
        self.assertEqual(len(self.pids), 3)

    def test_temporary_folders(self):
        text = "No usable temporary directory found"
        self.assert_refused(lambda: patch("tempfile.TemporaryFile", side_effect=FileNotFoundError(2, text)), text)


class Shards(SameTest):

    def test_random_logs(self):
        """Flags, rejects and whom to tell, joined in order, are the single run's; so are the numbers, added up."""
        for seed in range(12):
            self.random_logs(seed)
            for shards in (1, 4) if seed % 3 else (2, 3):
                self.assert_shards_join(shards, "--jobs", str(1 + seed % 2))

    def test_every_line_once(self):
        """Lines of every length, with other event types but for the last: wherever parts are cut, the rejects joined are these."""
        rng = Random(5)
        for _ in range(20):
            lines = [b'{"event_type":"%s"}' % (b"x" * rng.choice((1, 5, 40, 300))) for _ in range(rng.randint(0, 40))]
            self.write("stream", b"\n".join([*lines, friendship("8", "9")[:-1]]) + b"\n" * rng.randint(0, 1))
            shards, jobs = rng.randint(1, 4), str(rng.randint(1, 4))
            parts = [self.result("--shard", "%d/%d" % (k, shards), "--jobs", jobs, names=["rejects"])[2]
                     for k in range(1, shards + 1)]
            self.assertEqual(b"".join(parts), b"".join(line + b"\n" for line in lines))

    def test_more_shards_than_lines(self):
        self.write("stream", b"\xef\xbb\xbf" + STREAM + b"x")
        self.assert_shards_join(9)
        self.write("stream", b"")
        self.assert_shards_join(3)


class Failures(MainTest):
    """A run whose workers fail or are stopped: one line, every output as it was, and no process that goes on."""

    def assert_worker_fails(self, error, text):
        """Let a worker's N-th purchase raise an error, or call it; the run says `text`."""
        me, record = os.getpid(), anomaly_detection.PurchaseHistory.record
        self.write("stream", STREAM * 30)
        for nth in 1, 9, 18:
            numbers = count(1)

            def recording(*arguments):
                if os.getpid() != me and next(numbers) == nth:
                    if not isinstance(error, BaseException):
                        error()
                    raise error
                record(*arguments)

            before = self.snapshot()
            with patch.object(anomaly_detection.PurchaseHistory, "record", recording):
                said = self.main(*self.files, "--jobs", "3", status=1)
            self.assert_one_line(said)
            self.assertIn(text, said)
            self.assertEqual(self.snapshot(), before)

    def test_a_worker_that_dies(self):
        self.assert_worker_fails(lambda: os.kill(os.getpid(), signal.SIGKILL), "a worker process died")

    def test_an_error_in_a_worker(self):
        """It is told as one of the whole run."""
        for error, text in (
                (MemoryError(), "out of memory"), (OSError(5, "bad disk", "some file"), "some file: bad disk"),
                (KeyboardInterrupt(), "a worker process died")):
            with self.subTest(error=error):
                self.assert_worker_fails(error, text)

    def test_a_programming_error_in_a_worker(self):
        """Its traceback is shown, once, by the process that the user started; no output is changed."""
        program = self.write("program.py", ("""if True:
            import os, sys
            sys.path.insert(0, %r)
            import anomaly_detection
            me, record = os.getpid(), anomaly_detection.PurchaseHistory.record
            def recording(*arguments):
                if os.getpid() != me:
                    return 1 / 0
                record(*arguments)
            anomaly_detection.PurchaseHistory.record = recording
            sys.exit(anomaly_detection.main())
            """ % os.path.dirname(PROGRAM)).encode())
        before = self.snapshot()
        out, said = self.do(*self.files, "--jobs", "3", status=1, program=program)
        self.assertEqual(said.count("ZeroDivisionError"), 1, said)
        self.assertIn("in recording", said)
        self.assertNotIn("perhaps for lack of memory", said)
        self.assertEqual(self.snapshot(), before)

    def test_strict_tells_the_first_malformed_line_of_the_log(self):
        """Although another process may meet another one earlier."""
        self.write("stream", STREAM * 3000 + b"x\n" + STREAM * 100 + b"y\n" * 3000)
        for jobs in "1", "2", "5":
            self.assertIn("%s:3001: " % self.stream, self.assert_fails(1, *self.files, "--strict", "--jobs", jobs))
        self.write("batch", BATCH + EVENTS * 500 + b"[]\n" + EVENTS + b"y\n" * 3000)
        for jobs in "1", "2", "5":
            self.assertIn("%s:3008: " % self.batch, self.assert_fails(1, *self.files, "--strict", "--jobs", jobs))

    def test_a_worker_whose_parent_is_gone_ends(self):
        """It looks before each read and each purchase."""
        signals = anomaly_detection.Signals()

        def part_findings():
            signals.look()
            yield from ()

        for parent, status in (os.getpid(), 0), (1 << 30, 1):
            pid = os.fork()
            if not pid:
                anomaly_detection.run_worker(signals, parent, part_findings, io.BytesIO())
            self.assertEqual(os.WEXITSTATUS(os.waitpid(pid, 0)[1]), status)

    def clean_up(self, pid):
        """End a child process that was lost; return whether it was."""
        try:
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            return True
        except ChildProcessError:
            return False

    def assert_stopped(self, number, forked, status=None):
        """A signal stops a run in this process (unless it ends by itself, with a status),
        and nothing is left of it.

        forked(pids) is called after each fork, with the process ids so far; return them.
        """
        fork, me, pids = os.fork, os.getpid(), []

        def watched_fork():
            pid = fork()
            if pid and os.getpid() == me:
                pids.append(pid)
                forked(pids)
            return pid

        def missed(*arguments):
            raise AssertionError("the signal came when nobody waited for it")

        before, old = self.snapshot(), signal.signal(number, missed)
        try:
            with patch("os.fork", watched_fork):
                said = self.main(*self.files, "--jobs", "4", status=status or 128 + number)
        finally:
            signal.signal(number, old)
            lost = list(map(self.clean_up, pids))
        self.assert_one_line(said)
        self.assertEqual(self.snapshot(), before)
        self.assertFalse(any(lost), "of %d processes, these go on: %s" % (len(pids), lost))
        return pids

    def test_stopped_while_workers_start(self):
        """No process is lost, at whatever moment a signal comes."""
        for number in signal.SIGINT, signal.SIGTERM:
            for nth in 1, 2, 3:
                def stop(pids):
                    if len(pids) == nth:
                        os.kill(pids[-1], signal.SIGSTOP)       # this one will not end by itself
                        os.kill(os.getpid(), number)

                with self.subTest(signal=number, fork=nth):
                    self.assertGreaterEqual(len(self.assert_stopped(number, stop)), nth)

    def test_stopped_while_workers_end(self):
        """After the first worker's failure, and before all others have been ended: it is too late to stop."""
        me, record, kill = os.getpid(), anomaly_detection.PurchaseHistory.record, BaseProcess.kill
        for number in signal.SIGINT, signal.SIGTERM:
            signals, pids = [number], []

            def failing(*arguments):
                if os.getpid() != me and not pids:
                    raise MemoryError
                record(*arguments)

            def killing(worker):
                if signals:
                    os.kill(os.getpid(), signals.pop())
                kill(worker)

            def forked(so_far):
                pids[:] = so_far
                if len(pids) > 1:
                    os.kill(pids[-1], signal.SIGSTOP)

            with self.subTest(signal=number), patch.object(BaseProcess, "kill", killing), \
                    patch.object(anomaly_detection.PurchaseHistory, "record", failing):
                self.assertEqual(len(self.assert_stopped(number, forked, status=1)), 3)

    def children(self, process):
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as file:
            return list(map(int, file.read().split()))

    def start_workers(self, jobs):
        """Start a run that takes long; return it and its workers' process ids, once they are at work."""
        self.write("stream", STREAM * 40000)
        process = self.start(*self.files, "--jobs", str(jobs), start_new_session=True,
                             preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
        self.wait_until(lambda: len(self.children(process)) == jobs - 1)
        workers = self.children(process)
        self.addCleanup(lambda: [os.kill(pid, signal.SIGKILL) for pid in workers if runs(pid)])
        return process, workers

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
        out, said = self.do(*self.files, "--jobs", "3", "--quiet", "--rejects", self.path("rejects"), program=PROGRAM,
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
