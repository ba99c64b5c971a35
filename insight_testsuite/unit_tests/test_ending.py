"""How a run ends: what is on disk then, what its last line says, its status, and what the next run does."""

import contextlib
import errno
import gzip
import os
import resource
import signal
import subprocess
import time
import unittest
import weakref
from functools import partial
from itertools import product
from unittest.mock import patch

from support import (
    BATCH, FLAGGED, HEADER, OLD, STREAM, FolderTest, MainTest, answered, friendship, is_full, purchase)
import anomaly_detection
from anomaly_detection import Abandoned, Failure, Stopped, decide

LINES = [purchase(amount="%d.00" % amount) for amount in range(1000, 1060)]     # all of them are flagged
AGAIN = "no snapshot is written, so the next run judges these lines again\n"
NOBODY = {"preexec_fn": partial(os.setuid, 65534)}
QUICKLY = 5         # seconds: generous, since the machine may be busy; it takes 0.2 s


def slow_verdict(detector, user, amount, whole=False):
    time.sleep(0.1)
    return None, 2, 0, 0


class Table(unittest.TestCase):

    def test_every_cell(self):
        """What ended a run, whether live -> what happens if no output failed, if one did, and if a reader went.

        Each answer is outputs, snapshot, status; of a run with a snapshot and of one without.
        """
        full, gone = OSError(errno.ENOSPC, "full"), BrokenPipeError(errno.EPIPE, "gone")
        term, failure, start, memory = Stopped(15), Failure("x"), Failure("x", 2), MemoryError()
        placed, kept, lost = (True, True), (True, False), (False, False)
        table = [
            # error, live, with a snapshot: none failed, one did; without: none failed, one did
            (None, False, (*placed, 0), (*kept, 1), (*kept, 0), (*kept, 1)),
            (None, True, (*placed, 0), (*kept, 1), (*kept, 0), (*kept, 1)),
            (term, True, (*placed, 143), (*kept, 1), (*kept, 143), (*kept, 1)),
            (Stopped(2), True, (*placed, 130), (*kept, 1), (*kept, 130), (*kept, 1)),
            (failure, True, (*placed, 1), (*kept, 1), (*kept, 1), (*kept, 1)),
            (full, True, (*placed, 1), (*kept, 1), (*kept, 1), (*kept, 1)),
            (memory, True, (*kept, 1), (*kept, 1), (*kept, 1), (*kept, 1)),
            (SystemError(), True, (*kept, 1), (*kept, 1), (*kept, 1), (*kept, 1)),
            (term, False, (*lost, 143), (*lost, 143), (*lost, 143), (*lost, 143)),
            (Stopped(1), False, (*lost, 129), (*lost, 129), (*lost, 129), (*lost, 129)),
            (failure, False, (*lost, 1), (*lost, 1), (*lost, 1), (*lost, 1)),
            (full, False, (*lost, 1), (*lost, 1), (*lost, 1), (*lost, 1)),
            (memory, False, (*lost, 1), (*lost, 1), (*lost, 1), (*lost, 1)),
            (start, False, (*lost, 2), (*lost, 2), (*lost, 2), (*lost, 2)),
        ]
        for error, live, *cells in table:
            for (snapshot, failures), cell in zip(
                    [(True, []), (True, [full]), (False, []), (False, [full])], cells):
                for one in failures and [full, gone] or [None]:
                    with self.subTest(error=error, live=live, failed=one, snapshot=snapshot):
                        self.assertEqual(decide(error, live, [one] if one else [], snapshot), cell)
        for failures, live in product(([full], [gone], [gone, gone], [gone, full]), (False, True)):
            self.assertEqual(decide(Abandoned("x"), live, failures, True), (*lost, 1))
            self.assertEqual(decide(Abandoned("x"), live, failures, False), (*lost, int(full in failures)))


class EndingTest(FolderTest):

    def setUp(self):
        super().setUp()
        self.state = self.write("state", BATCH)
        self.again = ["--quiet", "--resume", "--snapshot", self.state, self.state]

    def monitor(self, *options, output="-", **how):
        return self.start(*self.again, "-", output, *options, **how)

    def said(self, process, status):
        """Wait for a process to end by itself with a status, its input still open; return its standard error."""
        process.wait(20)
        said = process.stderr.read().decode()
        self.assertEqual(process.returncode, status, said)
        return said

    def feed(self, process, lines):
        process.stdin.write(b"".join(lines))
        process.stdin.flush()

    def signal(self, process, number=signal.SIGTERM):
        """Send a signal; return after how many seconds the process has ended."""
        sent = time.monotonic()
        process.send_signal(number)
        process.wait(20)
        return time.monotonic() - sent

    def names(self):
        return sorted(self.snapshot())


class CommitRecord(EndingTest):
    """The snapshot takes its place only if what it covers has been delivered."""

    def assert_judged_again(self, said, reason, lines=LINES):
        """The old snapshot is as it was, and the next run writes all flags."""
        self.assertIn(reason, said)
        self.assertTrue(said.endswith(AGAIN), said)
        self.assertEqual(self.read("state"), BATCH)
        out, said = self.do(*self.again, "-", "-", data=b"".join(lines))
        self.assertEqual((out, said), (answered(lines), ""))
        self.assertNotEqual(self.read("state"), BATCH)

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full here")
    def test_a_full_standard_output(self):
        with open("/dev/full", "wb") as full:
            process = self.monitor(stdout=full)
            self.feed(process, LINES)           # which stays open
            said = self.said(process, 1)
        self.assert_judged_again(said, "standard output: No space left on device; no output file is changed")

    def test_a_reader_that_has_gone(self):
        """While judging, or at the very moment at which a signal or the stream's end comes."""
        for moment in "judging", "signal", "end":
            self.write("state", BATCH)
            process = self.monitor()
            self.feed(process, LINES[:3])
            self.lines_arriving(process.stdout)
            time.sleep(0.3)
            process.send_signal(signal.SIGSTOP)
            process.stdout.close()
            if moment == "signal":
                process.send_signal(signal.SIGINT)
            elif moment == "end":
                process.stdin.close()
            process.send_signal(signal.SIGCONT)
            self.assert_judged_again(self.said(process, 1), "standard output: Broken pipe")

    def test_a_reader_that_stalls(self):
        """The second signal gives it up."""
        lines = LINES * 40
        process = self.monitor()
        feeder = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=process.stdin)
        self.addCleanup(feeder.kill)
        process.stdin.close()
        with contextlib.suppress(BrokenPipeError), feeder.stdin:
            os.set_blocking(feeder.stdin.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                feeder.stdin.write(b"".join(lines))
            self.wait_until(lambda: is_full(process.stdout))
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            self.assertIsNone(process.poll(), "the first signal waits for the reader")
            self.assertLess(self.signal(process), QUICKLY)
            feeder.kill()
        self.assertEqual(process.returncode, 1)
        self.assert_judged_again(process.stderr.read().decode(), "standard output: nobody reads it", lines)

    def test_a_line_that_a_full_disk_tears(self):
        """What there was of it is taken back, so that the next run's first line stands by itself."""
        log = self.write("flags", b"kept\n")
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (230, resource.RLIM_INFINITY))
        for prepare, status in (limit, 1), (None, 0):
            with open(log, "ab") as flags:
                self.do(*self.again, "-", "-", stdout=flags, data=b"".join(LINES), status=status, preexec_fn=prepare)
        first, *rest = self.read("flags").splitlines(True)
        self.assertEqual((first, rest[0], b"".join(rest[1:])), (b"kept\n", answered(LINES[:1]), answered(LINES)))

    def test_another_output(self):
        """A live run ends at its first failed output, and the others are written; over files they go on."""
        for live in True, False:
            self.write("state", BATCH)
            self.write("stream", b"".join(LINES))
            before = self.names()
            options = "--verdicts", "/dev/full"
            if live:
                process = self.monitor(*options, output=self.output)
                self.feed(process, LINES[:3])
                said = self.said(process, 1)
            else:
                out, said = self.do(*self.again, self.stream, self.output, *options, status=1)
            self.assertEqual(self.read("output"), answered(LINES[:3] if live else LINES))
            self.assertEqual(self.names(), before)
            self.assert_judged_again(said, "/dev/full: No space left on device; ended after line 3 of standard input; "
                                     "what was judged is written to %s; no snapshot" % self.output if live else
                                     "/dev/full: No space left on device; this output is given up")

    def test_each_output_at_each_stage(self):
        """However it fails, the snapshot stays; a lack of memory in the snapshot costs nothing else."""
        kinds = {kind.name: kind for kind in anomaly_detection.OUTPUTS}
        new = dict.fromkeys(kinds, None)
        for (stage, name), error, live in product(
                product(("complete", "replace"), kinds), (MemoryError(), OSError(errno.EIO, "broken")), (True, False)):
            with self.subTest(stage=stage, name=name, error=error, live=live):
                self.write("state", BATCH)
                self.write("stream", b"".join(LINES[:3]) + b"x\n")
                paths = {**{name: self.write(name, OLD) for name in new}, "snapshot": self.state}
                options = [word for other, path in paths.items() for word in ("--" + other, path)]
                def fail(output, *arguments, act=getattr(kinds[name], stage)):
                    if output.name == name:
                        raise error
                    act(output, *arguments)         # another output that inherits it

                with patch.object(kinds[name], stage, fail):
                    out, said = self.do("--quiet", "--resume", "--batch-log", self.state, "--stream-log",
                                        "-" if live else self.stream, *options, status=1,
                                        data=b"".join(LINES[:3]) + b"x\n" if live else b"")
                self.assertEqual(self.read("state"), BATCH)
                self.assertTrue(said.endswith(AGAIN), said)
                self.assertIn("%s: %s; this output is given up" % (
                    paths[name], "out of memory" if isinstance(error, MemoryError) else "broken"), said)
                for other in {*paths} - {"snapshot", "report" if live else None}:     # of which there was a live page
                    self.assertEqual(self.read(other) == OLD, other == name, other)
                self.assertEqual(self.read("output"), OLD if name == "output" else answered(LINES[:3]))

    def test_memory_that_runs_out_while_live(self):
        """An event may be half applied: the flags up to it are written, and the snapshot stays."""
        judge = anomaly_detection.Detector.verdict

        def verdict(detector, user, amount, whole):
            if amount == 101000:        # the eleventh line
                raise MemoryError
            return judge(detector, user, amount, whole)

        with patch.object(anomaly_detection.Detector, "verdict", verdict):
            out, said = self.do(*self.again, "-", self.output, data=b"".join(LINES), status=1)
        self.assertEqual(self.read("output"), answered(LINES[:10]))
        self.assert_judged_again(said, "out of memory; ended after line 10 of standard input; what was judged is written")

    def test_a_live_run_that_loses_all_at_its_end(self):
        """It does not say that anything is written."""
        with patch("os.replace", side_effect=OSError(errno.EIO, "broken")), \
                patch("shutil.copyfileobj", side_effect=OSError(errno.EIO, "broken")):
            process = self.start(self.batch, "-", self.output)
        self.feed(process, LINES[:3])
        time.sleep(0.5)
        self.signal(process)
        said = self.said(process, 1)
        self.assertTrue(said.endswith("; nothing is written\nanomaly_detection: stopped by SIGTERM "
                                      "after line 3 of standard input\n"), said)


class SignalsTest(MainTest, EndingTest):
    """A signal is looked for, never thrown, and soon found."""

    def test_one_that_comes_inside_a_callback(self):
        """Python discards what is raised there; nothing may take the place of the old output."""
        pread, callbacks, log = os.pread, [], None

        class Thing:
            pass

        def reading(fd, size, position):
            status = os.stat(log)
            if not callbacks and os.path.samestat(os.fstat(fd), status) and position == status.st_size:
                thing = Thing()
                callbacks.append(weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM)))
                del thing
            return pread(fd, size, position)

        for log in self.batch, self.stream:
            callbacks[:] = []
            with patch("os.pread", reading):
                said = self.main(*self.files, "--jobs", 1, status=143)
            self.assertEqual(said, "anomaly_detection: stopped by SIGTERM; no output file is changed\n")
            self.assertEqual((len(callbacks), self.read("output")), (1, OLD))

    def test_one_that_comes_at_the_last_moment(self):
        """After the last line was judged, and before anything takes its place."""
        take = anomaly_detection.FlaggedPurchases.take

        def taking(output, findings):
            take(output, findings)
            if findings.judged:
                os.kill(os.getpid(), signal.SIGTERM)

        with patch.object(anomaly_detection.FlaggedPurchases, "take", taking):
            self.main(*self.files, status=143)
        self.assertEqual(self.read("output"), OLD)

    def test_while_a_fifo_is_opened(self):
        """A log or an output whose other end nobody opens."""
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        for files in [fifo, "stream", "output"], ["batch", fifo, "output"], ["batch", "stream", fifo]:
            process = self.start(*map(self.path, files))
            time.sleep(0.4)
            self.assertIsNone(process.poll())
            self.assertLess(self.signal(process), QUICKLY, files)
            said = process.stderr.read().decode()
            live = files[1] == fifo
            self.assertEqual(process.returncode, 143)
            self.assertEqual(self.read("output"), OLD if files[1] == "stream" else b"")
            self.write("output", OLD)
            self.assertIn("stopped by SIGTERM%s" % (" after line 0 of" if live else "; no output file is changed"), said)

    def test_an_output_of_files_that_nobody_reads(self):
        """While judging, it is the end of the run; of what is written after that, of this output only."""
        self.write("stream", b"".join(LINES) * 20)
        self.write("batch", BATCH + b"".join(purchase("u%d" % n) for n in range(2000)))
        for options, status, means in (
                (["-"], 143, "stopped by SIGTERM; no output file is changed, but standard output may hold part of the results"),
                ([self.output, "--snapshot", "-"], 1, "standard output: nobody reads it; this output is given up")):
            process = self.start("--quiet", self.batch, self.stream, *options)
            self.wait_until(lambda: is_full(process.stdout))
            self.assertLess(self.signal(process), QUICKLY)
            self.assertTrue(self.said(process, status).startswith("anomaly_detection: %s\n" % means))
            self.assertEqual(self.read("output"), OLD if status == 143 else answered(LINES * 20))

    def test_where_a_purchase_takes_long(self):
        """As in the network of a hub: a chunk takes a minute. Live, only the lines already read are judged."""
        self.write("stream", b"".join(LINES) * 40)
        for stream, jobs in (self.stream, "1"), (self.stream, "3"), ("-", "1"):
            with patch.object(anomaly_detection.Detector, "verdict", slow_verdict):
                process = self.start(self.batch, stream, self.output, "--jobs", jobs)
            if stream == "-":
                self.feed(process, LINES * 10)      # which the pipe holds
            time.sleep(1)
            self.assertIsNone(process.poll())
            self.assertLess(self.signal(process), QUICKLY, (stream, jobs))
            self.assertEqual(process.returncode, 143, process.stderr.read())

    def test_while_the_findings_of_workers_are_joined(self):
        """They may be many: here they come slowly."""
        def slowly(file):
            for _ in range(600):
                time.sleep(0.1)
                yield anomaly_detection.Findings(0, 0, 0, [], [])
        with patch("anomaly_detection.saved_findings", slowly):
            process = self.start(*self.files, "--jobs", "2")
        time.sleep(1)
        self.assertLess(self.signal(process), QUICKLY)
        self.assertEqual((process.returncode, self.read("output")), (143, OLD))

    def test_one_to_the_whole_group(self):
        """As from a terminal: no worker is said to have died."""
        self.write("stream", b"".join(LINES) * 40)
        with patch.object(anomaly_detection.Detector, "verdict", slow_verdict):
            process = self.start(*self.files, "--jobs", "3", start_new_session=True)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        out, said = self.finish(process, status=130)
        self.assertEqual(said, "anomaly_detection: stopped by SIGINT; no output file is changed\n")

    def test_a_worker_tells_what_ended_it(self):
        """A programming error shows its traceback once, and is no lack of memory."""
        def verdict(detector, user, amount, whole):
            raise KeyError("seeded")

        self.write("stream", b"".join(LINES))
        with patch.object(anomaly_detection.Detector, "verdict", verdict):
            out, said = self.do(*self.files, "--jobs", "3", status=1)
        self.assertEqual(said.count("KeyError: 'seeded'"), 1, said)
        self.assertNotIn("lack of memory", said)
        self.assertEqual(self.read("output"), OLD)


class TakingItsPlace(MainTest, EndingTest):
    """Rename; if that fails, copy from the open file; if that fails, keep the temporary file and name it."""

    def all_outputs(self):
        """Options for every output, each of which exists already."""
        return [word for kind in anomaly_detection.OUTPUTS[1:] for word in (
            "--" + kind.name, self.write(kind.name, OLD))]

    def test_temporaries_that_are_removed_meanwhile(self):
        """As by a clean-up of old files: all outputs are written all the same."""
        options = self.all_outputs()
        process = self.start(self.batch, "-", self.output, *options)
        self.feed(process, LINES[:3] + [b"x\n"])
        time.sleep(0.5)
        temporaries = [name for name in os.listdir(self.folder) if name.startswith(".flagged-")]
        self.assertEqual(len(temporaries), len(anomaly_detection.OUTPUTS))
        for name in temporaries:
            os.unlink(self.path(name))
        self.signal(process)
        self.assertEqual(process.returncode, 143)
        for kind in anomaly_detection.OUTPUTS:
            self.assertNotEqual(self.read(kind.name), OLD, kind.name)
        self.assertEqual(self.read("output"), answered(LINES[:3]))
        self.assertTrue(self.read("snapshot").startswith(HEADER[:9]))
        self.assertFalse([name for name in os.listdir(self.folder) if name.startswith(".flagged-")])

    def test_names_that_cannot_be_replaced(self):
        """For whatever reason: the content is written into the old file, a line says so, status 0."""
        for code in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.ETXTBSY, errno.EBUSY, errno.EPERM,
                     errno.EACCES, errno.EEXIST, errno.EIO, errno.ENOENT):
            self.write("output", OLD * 50)
            with patch("os.replace", side_effect=OSError(code, os.strerror(code))):
                said = self.main("--quiet", *self.files)
            self.assertEqual(said, "anomaly_detection: %s: cannot be replaced, so it was written into\n" % self.output)
            self.assertEqual((self.read("output"), self.names()), (FLAGGED, ["batch", "output", "state", "stream"]))

    def test_what_is_not_offered(self):
        """A file system may offer no fsync and no locks; a broken or full disk is an error."""
        for code in errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EROFS, errno.EBADF:
            with patch("os.fsync", side_effect=OSError(code, "not offered")), \
                    patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "no locks")):
                self.main("--quiet", *self.files, "--snapshot", self.write("snapshot", OLD))
            self.assertEqual((self.read("output"), self.read("snapshot") == OLD), (FLAGGED, False))
        for code in errno.EIO, errno.ENOSPC, errno.EDQUOT:
            self.write("output", OLD)
            with patch("os.fsync", side_effect=OSError(code, "broken")):
                said = self.main("--quiet", *self.files, status=1)
            self.assertIn("%s: broken" % self.output, said)
            self.assertEqual((self.read("output"), self.names()), (OLD, ["batch", "output", "snapshot", "state", "stream"]))

    def test_a_read_that_fails(self):
        """Of a log: nothing is changed, and the line names it."""
        pread = os.pread
        for name, (part, status) in product(("batch", "stream", "output"), ((0, 2), (2, 1))):
            reads = []

            def reading(fd, size, position):
                if os.path.samestat(os.fstat(fd), os.stat(self.path(name))):
                    reads.append(position)
                    if len(reads) > part:           # after it was opened
                        raise OSError(errno.EIO, os.strerror(errno.EIO))
                return pread(fd, size, position)

            if (name, part) != ("output", 2):
                with patch("os.pread", reading):
                    said = self.main("--quiet", *self.files, "--jobs", 1, status=status)
                self.assertRegex(said, "%s: .*Input/output error" % self.path(name))
                self.assert_one_line(said)
                self.assertEqual(self.read("output"), OLD)

    def test_a_copy_that_fails_midway(self):
        """The temporary file is complete, and stays, and its name is told. A full disk leaves the old content."""
        def copying(source, target):
            target.write(source.read(10))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with patch("os.replace", side_effect=OSError(errno.EXDEV, "another device")), \
                patch("shutil.copyfileobj", copying):
            said = self.main("--quiet", *self.files, "--snapshot", self.write("snapshot", OLD), status=1)
        kept, = [name for name in os.listdir(self.folder) if name.startswith(".flagged-")]
        self.assertEqual((self.read(kept), self.read("output"), self.read("snapshot")), (FLAGGED, OLD, OLD))
        self.assertEqual(said, "anomaly_detection: %s: No space left on device; %s holds the new content; this output "
                         "is given up\nanomaly_detection: %s" % (self.output, self.path(kept), AGAIN))

    def test_a_copy_that_fails_leaves_no_empty_file(self):
        """Where there was none before, as an empty state could not be read by the next run."""
        with patch("os.replace", side_effect=OSError(errno.EXDEV, "another device")), \
                patch("shutil.copyfileobj", side_effect=OSError(errno.ENOSPC, "full")):
            said = self.main("--quiet", *self.files, "--snapshot", self.path("new"), status=1)
        self.assertNotIn("new", self.snapshot())
        self.assertTrue(said.endswith(AGAIN), said)

    def test_a_snapshot_whose_folder_cannot_be_synced(self):
        """It is in its place, so it is not said that there is none."""
        fsync, synced = os.fsync, []

        def sync(fd):
            synced.append(fd)
            if len(synced) == 4:        # output, its folder, snapshot, its folder
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            fsync(fd)

        with patch("os.fsync", sync):
            said = self.main("--quiet", *self.files, "--snapshot", self.path("new"), status=1)
        self.assertEqual(said, "anomaly_detection: %s: Input/output error, so a power failure may undo its "
                         "replacement; this output is given up\n" % self.path("new"))
        self.assertTrue(self.read("new").startswith(b'{"D":"3"'))

    @unittest.skipIf(os.geteuid(), "only root can give files away")
    def test_the_group(self):
        """It is kept where it may be, even if the owner may not."""
        os.chmod(self.folder, 0o777)
        member = {"preexec_fn": lambda: (os.setgroups([5]), os.setgid(65534), os.setuid(65534))}
        for owner, mode, how in (0, 0o660, {}), (7, 0o666, {}), (7, 0o664, member), (65534, 0o640, member):
            os.chmod(self.write("output", OLD), mode)
            os.chown(self.output, owner, 5)
            self.do("--quiet", *self.files, **how)
            status = os.stat(self.output)
            self.assertEqual((self.read("output"), status.st_uid, status.st_gid, status.st_mode & 0o777),
                             (FLAGGED, 65534 if how else owner, 5, mode))
            os.unlink(self.output)

    def test_a_descriptor_of_the_caller_stays_open(self):
        reading, writing = os.pipe()
        self.main("--quiet", self.batch, self.stream, "/dev/fd/%d" % writing)
        os.close(writing)
        with open(reading, "rb") as pipe:
            self.assertEqual(pipe.read(), FLAGGED)

    def test_a_live_page_has_the_permissions_of_the_old_one(self):
        page = self.write("page", OLD)
        os.chmod(page, 0o600)
        process = self.start(self.batch, "-", self.output, "--report", page)
        self.feed(process, LINES[:3])
        self.wait_until(lambda: b"refresh" in self.read("page"))
        self.assertEqual(os.stat(page).st_mode & 0o777, 0o600)
        self.signal(process)
        self.assertEqual(os.stat(page).st_mode & 0o777, 0o600)


class Refused(EndingTest):
    """What cannot work is refused before anything is read: status 2, one line, all files as they were."""

    def assert_refused(self, *arguments, says="", **how):
        self.assertIn(says, self.assert_fails(2, *arguments, **how))

    def test_names_of_outputs(self):
        os.mkdir(self.path("folder"))
        os.symlink("loop", self.path("folder/loop"))
        fifo = self.path("fifo")
        os.mkfifo(fifo)                         # whoever read it would wait
        names = {"folder": "Is a directory", "folder/": "Is a directory", "new/": "Is a directory", "new/sub/": "", "new/.": "",
                 "x" * 300: "File name too long", "folder/loop": "Too many levels of symbolic links", "stream/x": "Not a directory",
                 "stream/x/y": "Not a directory", ".": "", "..": "", "folder/.": "", "x" * 300 + "/y": "File name too long"}
        for (name, reason), option in product(names.items(), ("output", "rejects", "report", "snapshot")):
            with self.subTest(name=name, option=option):
                others = ["--output", self.output] * (option != "output")
                self.assert_refused("--batch-log", fifo, "--stream-log", self.stream, *others, "--" + option,
                                    self.path(name), says=reason)
        said = self.do(self.batch, self.stream, self.path("missing/" + "x" * 300), status=2)[1]
        self.assertIn("File name too long", said)
        self.assertEqual(os.listdir(self.path("missing")), [])

    def test_descriptors(self):
        """One that is not open when the program starts, is for reading only, or has no number that can be."""
        with open(self.output, "rb") as old:
            reading = "/dev/fd/%d" % old.fileno()
            names = {"/dev/fd/99999999999999": "is closed", "/dev/fd/3": "is closed", "/dev/fd/9": "is closed",
                     "/proc/self/fd/9": "is closed", reading: "reading"}
            for (name, reason), option in product(names.items(), ("rejects", "notify", "snapshot")):
                if name == reading or not reading.endswith(name[-1]):
                    with self.subTest(name=name, option=option):
                        self.assert_refused(*self.files[:2], "/dev/null", "--" + option, name, says=reason,
                                            pass_fds=[old.fileno()])
        for name in "/dev/fd/99999999999999", "/dev/fd/9":
            self.assert_refused(name, self.stream, self.output, says="is closed")
            self.assert_refused(self.batch, name, self.output, says="is closed")

    def test_standard_input_that_is_closed(self):
        for name in "/dev/stdin", "/dev/fd/0":
            self.assert_refused(name, self.stream, self.output, says="standard input is closed",
                                preexec_fn=partial(os.close, 0))
        for name in "/dev/stdin", "-":
            self.assert_refused(self.batch, name, self.output, says="standard input is closed",
                                preexec_fn=partial(os.close, 0))

    @unittest.skipIf(os.geteuid(), "only root can become somebody else")
    def test_files_that_may_not_be_written(self):
        """As `>` refuses them: one without the right to write, somebody else's in a folder like /tmp."""
        os.chmod(self.folder, 0o777)
        os.chown(self.output, 65534, 65534)
        os.chmod(self.output, 0o444)
        os.mkdir(self.path("tmp"))
        os.chmod(self.path("tmp"), 0o1777)
        self.write("tmp/theirs", OLD)
        for name in "output", "tmp/theirs":
            self.assert_refused(self.batch, self.stream, self.path(name), says="cannot be written: Permission denied",
                                **NOBODY)
            self.assertEqual(self.read(name), OLD)

    def test_a_glob_of_logs(self):
        """`*.json` is batch, flagged, stream once there are flags: the stream would be replaced."""
        for name, data in ("batch.json", BATCH), ("flagged.json", FLAGGED), ("stream.json", STREAM):
            self.write(name, data)
        files = [self.path(name) for name in ("batch.json", "flagged.json", "stream.json")]
        self.assert_refused(*files, says="stream.json: is a log, which OUTPUT would replace")
        for log in BATCH, STREAM, b"\xef\xbb\xbf" + STREAM, HEADER, friendship("1", "2"), gzip.compress(BATCH * 5000):
            held = self.write("held", log)
            for option in "output", "notify", "verdicts", "report", "snapshot":
                with self.subTest(log=log[:30], option=option):
                    others = ["--output", "/dev/null"] * (option != "output")
                    self.assert_refused("--batch-log", self.batch, "--stream-log", self.stream, *others,
                                        "--" + option, held, says="is a log, which")

    def test_files_that_earlier_runs_wrote(self):
        """They are replaced, whatever they hold; a snapshot replaces snapshots only."""
        options = {name: self.path("my " + name) for name in ("rejects", "notify", "verdicts", "report", "snapshot")}
        words = [word for name, path in options.items() for word in ("--" + name, path)]
        self.write("stream", STREAM + HEADER + b"x\n")
        for _ in range(2):
            self.do("--quiet", *self.files, *words)
        self.write("my rejects", HEADER + b"x\n")       # a batch log's second header was rejected
        self.do("--quiet", *self.files, *words)
        self.assert_refused(self.batch, self.stream, options["snapshot"], says="is a log")
        self.assert_refused(*self.files, "--rejects", options["snapshot"], says="is a log")
        self.do("--quiet", self.batch, self.stream, "-", "--snapshot", self.output)     # flags are no log

    def test_inputs_are_never_outputs(self):
        for same in self.batch, self.path("./batch"):
            self.assert_refused(self.batch, same, self.output, says="is given to both STREAM and BATCH")
        os.link(self.state, self.path("other name"))
        self.assert_refused("--resume", "--snapshot", self.path("other name"), self.state, self.stream, self.output,
                            says="is given to both --snapshot and BATCH")
        os.symlink("state", self.path("link"))
        self.do("--quiet", "--resume", "--snapshot", self.path("link"), self.state, self.stream, self.output)
        self.assertNotEqual(self.read("state"), BATCH)
        self.assertTrue(os.path.islink(self.path("link")))

    def test_standard_output_twice(self):
        for names in ("-", "/dev/stdout"), ("/dev/fd/1", "-"):
            self.assert_refused(self.batch, self.stream, names[0], "--notify", names[1],
                                says="standard output is given to both --notify and OUTPUT")

    def test_a_state_that_another_run_is_using(self):
        process = self.monitor()
        self.feed(process, LINES[:3])
        self.lines_arriving(process.stdout)
        said = self.do(*self.again, self.stream, self.output, status=2)[1]
        self.assertIn("%s: another run is using it" % self.state, said)
        self.assert_one_line(said)
        self.assertEqual(self.read("output"), OLD)
        self.signal(process)
        self.assertEqual(process.returncode, 143)
        self.do(*self.again, "-", self.output, data=b"".join(LINES))
        self.assertEqual(self.read("output"), answered(LINES[3:]))


class Strict(EndingTest):

    def test_a_live_stream_ends_before_the_malformed_line(self):
        """It is rejected, but not counted as read, so the next run ends at it again."""
        lines, rejects = LINES[:3] + [b"bad\n"] + LINES[3:6], self.path("rejects")
        for _ in range(3):
            out, said = self.do(*self.again, "-", "-", "--strict", "--rejects", rejects, data=b"".join(lines), status=1)
            self.assertIn("standard input:4: not JSON", said)
            self.assertIn("; ended after line 3 of standard input; what was judged is written\n", said)
            self.assertEqual((out, self.read("rejects")), (answered(LINES[:3]) if _ == 0 else b"", b"bad\n"))
            self.assertIn(b'"stream_lines":"3"', self.read("state"))
        out, said = self.do(*self.again, "-", "-", data=b"".join(lines))
        self.assertEqual(out, answered(LINES[3:6]))


class TrackedTest(EndingTest):

    def test_a_snapshot_claims_what_its_purchases_bear_out(self):
        """At most the T of the snapshot that it came from."""
        wide = HEADER.replace(b"50", b"3") + b"".join(purchase("1", "%d.00" % n) for n in range(10)) + friendship("1", "2")
        self.write("batch", wide)
        self.do("--quiet", "--snapshot", self.path("first"), self.batch, self.stream, self.output)
        for tracked, claimed in ("50", b"3"), ("50", b"3"), ("2", b"2"):
            out, said = self.do("--snapshot", self.path("next"), "-T", tracked, self.path("first"), self.stream, self.output)
            self.assertEqual("holds only the last 3 purchases" in said, tracked == "50")
            self.assertIn(b'"T":"%s"' % claimed, self.read("next").split(b"\n")[0])
            os.replace(self.path("next"), self.path("first"))


class WhichLog(EndingTest):
    """--resume goes on with the log that was read before, and with no other."""

    def setUp(self):
        super().setUp()
        self.before = b"".join(LINES[:20])
        self.write("stream", self.before)
        self.do(*self.again, self.stream, self.output)
        self.assertEqual(self.read("output"), answered(LINES[:20]))
        self.write("output", OLD)

    def resume(self, log, piped, *options, status=0):
        """Go on with a log, through a pipe or from a file; return (flags, what is said)."""
        if piped:
            return self.do(*self.again, "-", "-", *options, data=log, status=status)
        return self.do(*self.again, self.write("stream", log), "-", *options, status=status)

    def test_the_same_log_that_has_grown(self):
        state = self.read("state")
        for piped, options in product((False, True), ([], ["--jobs", "3"])):
            self.write("state", state)
            self.assertEqual(self.resume(b"".join(LINES), piped, *options)[0], answered(LINES[20:]))
        self.write("state", state)
        with patch("anomaly_detection.PART", 1):
            out, said = self.do("--resume", self.state, self.write("stream", b"".join(LINES)), "-", "--shard", "3/3",
                                "--snapshot", self.path("third"))
            shards = [self.do("--resume", self.state, self.stream, "-", "--shard", "%d/3" % k)[0] for k in (1, 2)]
        self.assertEqual(b"".join([*shards, out]), answered(LINES[20:]))
        self.assertIn("after 20 lines read before", said)
        self.do("--quiet", *self.again, self.stream, "-")
        self.assertEqual(self.read("third"), self.read("state"))

    def test_another_log(self):
        """Rotated and regrown; another first line; another last line; shorter; or `tail` without `-n +1`."""
        state, other = self.read("state"), [purchase(amount="%d.00" % n) for n in range(2000, 2060)]
        logs = {"rotated": other, "first": other[:1] + LINES[1:], "last": LINES[:19] + other[:1] + LINES[20:],
                "shorter": LINES[:19], "empty": [], "tail": LINES[10:], "cut": LINES[:19] + [LINES[19][:-9]],
                "half read": LINES[5:40]}
        for (name, log), piped, options in product(logs.items(), (False, True), ([], ["--jobs", "3"], ["--shard", "2/2"])):
            if piped and options:
                continue
            with self.subTest(name=name, piped=piped, options=options):
                out, said = self.resume(b"".join(log), piped, *options, status=2)
                self.assertIn("this is not the log that was read before", said)
                self.assertIn("over the rest of the old log, then without --resume over this one", said)
                self.assert_one_line(said)
                self.assertEqual((out, self.read("state")), (b"", state))
        out, said = self.do("--quiet", "--snapshot", self.state, self.state, self.write("stream", b"".join(other)), "-")
        self.assertEqual(out, answered(other))      # as the message says
        self.assertIn(b'"stream_lines":"60"', self.read("state"))

    def test_the_same_log_again_without_resume(self):
        """It is judged, as a new log, and a warning asks for --resume."""
        for log, warned in (LINES, True), (LINES[5:], False):
            out, said = self.do("-q", self.state, self.write("stream", b"".join(log)), "-")
            self.assertEqual(out, answered(log))
            self.assertEqual("begins like the log that %s covers: was it judged before" % self.state in said, warned)

    def test_a_pipe_is_told_at_its_first_line(self):
        process = self.monitor()
        self.feed(process, [purchase(amount="77.00")])
        self.assertIn("line 1 is not the one read before", self.said(process, 2))

    def test_a_last_line_that_was_not_finished(self):
        """It was judged, and may have grown since; but not changed."""
        part = LINES[20].rstrip(b"\n")
        for piped in False, True:
            self.do("--snapshot", self.path("new state"), self.batch, "-", "-", data=self.before + part)
            unfinished = self.read("new state")
            self.assertIn(b'"stream_lines":"21"', unfinished)
            for rest in b" \r\n", b"\n":
                self.write("state", unfinished)
                self.assertEqual(self.resume(self.before + part + rest + b"".join(LINES[21:]), piped)[0], answered(LINES[21:]))
            self.write("state", unfinished)
            self.assertIn("line 21 is not the one", self.resume(self.before + part[:-5] + b"\n" + LINES[22], piped, status=2)[1])

    def test_a_last_line_that_has_grown(self):
        """Half a line is malformed, and counted as such; when the rest has come, it is judged."""
        for piped in False, True:
            self.do("--snapshot", self.path("new state"), self.batch, "-", "-", data=self.before + LINES[20][:60])
            self.write("state", self.read("new state"))
            self.assertEqual(self.resume(b"".join(LINES), piped)[0], answered(LINES[20:]))
            self.assertEqual(self.resume(b"".join(LINES), piped)[0], b"")

    def test_a_snapshot_of_version_1_2(self):
        """It has a count and no checksums: nothing is compared."""
        old = self.read("state").split(b"\n", 1)
        for piped in False, True:
            self.write("state", b'{"D":"3", "T":"50", "stream_lines":"20"}\n' + old[1])
            self.assertEqual(self.resume(b"".join(LINES), piped)[0], answered(LINES[20:]))
            self.assertIn(b'"stream_last":"', self.read("state"))
            self.assertEqual(self.resume(b"".join(LINES), piped)[0], b"")


if __name__ == "__main__":
    unittest.main()
