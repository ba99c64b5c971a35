"""What holds for every file that a run writes: it is whole or as it was, and in the right place."""

import errno
import os
import shlex
import stat
import subprocess
import unittest
from contextlib import nullcontext
from functools import partial
from itertools import combinations, product
from random import Random
from unittest.mock import patch

from support import BATCH, OLD, PROGRAM, STREAM, FolderTest, MainTest, purchase
from torture.common import PYTHON
from random_logs import random_log
import anomaly_detection

# In the order in which they take their places.
OUTPUTS = "output", "rejects", "notify", "verdicts", "evidence", "report", "snapshot"
STDOUT = "-", "/dev/stdout"


class OutputsTest(MainTest):
    """A run that writes all outputs, none of them empty; `new` is what it makes of them."""

    def setUp(self):
        super().setUp()
        self.write("stream", STREAM + b"x\n")
        self.said = self.main("--quiet", *self.arguments())
        self.new = {name: self.read(name) for name in OUTPUTS}
        self.put_old()

    def put_old(self):
        """Put old outputs in place of all."""
        for name in OUTPUTS:
            self.write(name, OLD)
        self.files = sorted(self.snapshot())

    def arguments(self, *names, **paths):
        """The command line's arguments for outputs (default: all), some of them at other paths."""
        names = names or OUTPUTS
        paths = {**{name: self.path(name) for name in names}, **paths}
        return ["--batch-log", self.batch, "--stream-log", self.stream,
                *(word for name, path in paths.items() for word in ("--" + name, path))]

    def now(self):
        return {name: self.read(name) for name in OUTPUTS}

    def assert_others(self, name, *possible):
        """All outputs but one are each as in one of these, and there are no other files than before."""
        for other in OUTPUTS:
            if other != name:
                self.assertIn(self.read(other), [outputs[other] for outputs in possible], other)
        self.assertEqual(sorted(self.snapshot()), self.files)


class Places(OutputsTest):
    """Where outputs go, and with which permissions."""

    def test_the_help_names_every_output(self):
        """An output that these tests do not know would not be tested."""
        out, said = self.do("--help")
        for name in OUTPUTS:
            self.assertIn(b"--%s FILE" % name.encode(), out)
        self.assertEqual(out.count(b" FILE "), len(OUTPUTS) + 2)

    def test_nothing_else_is_left_behind(self):
        for jobs in "1", "3":
            self.put_old()
            self.main("--quiet", "--jobs", jobs, *self.arguments())
            self.assertEqual((self.now(), sorted(self.snapshot())), (self.new, self.files))

    def test_missing_folders_are_created(self):
        self.main("--quiet", *self.arguments(**{name: self.path("a/b/" + name) for name in OUTPUTS}))
        self.assertEqual({name: self.read("a/b/" + name) for name in OUTPUTS}, self.new)

    def test_a_link_and_permissions(self):
        """A link's target is what gets replaced, and keeps its permissions; new files have those of any new file."""
        for target, mode in ("target", 0o644), ("new", 0o640):
            for name in OUTPUTS:
                os.symlink(target + "-" + name, self.path("link-%s-%s" % (target, name)))
                if target == "target":
                    os.chmod(self.write("target-" + name, OLD), mode)
            self.do(*self.arguments(**{name: self.path("link-%s-%s" % (target, name)) for name in OUTPUTS}),
                    preexec_fn=partial(os.umask, 0o027))
            for name in OUTPUTS:
                self.assertTrue(os.path.islink(self.path("link-%s-%s" % (target, name))))
                self.assertEqual(self.read(target + "-" + name), self.new[name])
                self.assertEqual(stat.S_IMODE(os.stat(self.path(target + "-" + name)).st_mode), mode)

    def test_standard_output(self):
        """Any one of them, through a pipe or into a file."""
        for name in OUTPUTS:
            for path in STDOUT:
                self.put_old()
                self.assertEqual(self.do("--quiet", *self.arguments(**{name: path})), (self.new[name], self.said))
                self.assert_others(name, self.new)
                with open(self.path(name), "wb") as file:
                    self.do("--quiet", *self.arguments(**{name: path}), stdout=file)
                self.assertEqual(self.read(name), self.new[name])

    def test_each_is_the_same_whatever_else_is_written(self):
        flagged = 0
        for seed in range(12):
            for name, log in zip(("batch", "stream"), random_log(Random(seed), 0.1)):
                self.write(name, log)
            self.main("--quiet", *self.arguments())
            together = self.now()
            flagged += together["output"].count(b"\n")
            for pair in (("output", name) for name in OUTPUTS[1:]):
                self.put_old()
                self.main("--quiet", "--jobs", 1 + seed % 3, *self.arguments(*pair))
                self.assertEqual({**together, **{name: self.read(name) for name in pair}}, together, (seed, pair))
        self.assertGreater(flagged, 30)

    def test_a_device(self):
        self.main("--quiet", *self.arguments(**dict.fromkeys(OUTPUTS, os.devnull)))
        self.assertTrue(stat.S_ISCHR(os.stat(os.devnull).st_mode))

    def test_a_named_pipe(self):
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        for name in OUTPUTS:
            self.main("--quiet", *self.arguments(**{name: fifo}))
            self.assertEqual(os.read(reader, 1 << 16), self.new[name])
            self.assertTrue(stat.S_ISFIFO(os.stat(fifo).st_mode))


class OnDisk(OutputsTest):

    def test_each_is_on_the_disk_before_any_takes_its_place(self):
        """In the order of OUTPUTS: a run that dies midway can be run again from the snapshot of before."""
        steps, replace = [], os.replace

        def sync(fd):
            steps.append(("on disk", os.fstat(fd).st_ino))

        def place(source, target):
            steps.append(("in place", os.stat(source).st_ino))
            replace(source, target)

        with patch("os.fsync", sync), patch("os.replace", place):
            self.main("--quiet", *self.arguments())
        files, folder = [os.stat(self.path(name)).st_ino for name in OUTPUTS], os.stat(self.folder).st_ino
        *others, snapshot = files
        last = [step for file in others for step in (("in place", file), ("on disk", folder))] + [
            ("on disk", snapshot), ("in place", snapshot), ("on disk", folder)]
        self.assertEqual(steps[-len(last):], last)      # each before the next one
        self.assertLessEqual({("on disk", file) for file in others}, set(steps[:-len(last)]))

    def test_what_is_written_into_is_on_the_disk(self):
        """As at a mount point, which nothing can replace."""
        synced = {}

        def sync(fd):
            synced[os.fstat(fd).st_ino] = os.fstat(fd).st_size

        with patch("os.fsync", sync), patch("os.replace", side_effect=OSError(errno.EBUSY, "busy")):
            self.main("--quiet", *self.arguments())
        self.assertEqual(self.now(), self.new)
        for name in OUTPUTS:
            status = os.stat(self.path(name))
            self.assertEqual(synced.get(status.st_ino), status.st_size, name)


class Refused(OutputsTest):
    """A line, status 2, and everything as it was."""

    def assert_refused(self, *arguments, **options):
        """The command line is refused, in this process unless options tell how to start another; return the line."""
        if options:
            return self.assert_fails(2, *arguments, **options)
        before, said = self.snapshot(), self.main(*arguments, status=2)
        self.assert_one_line(said)
        self.assertEqual(self.snapshot(), before)
        return said

    def test_a_file_of_the_run(self):
        """The batch log, the stream or another output, by whatever name; standard output, twice."""
        for name in "batch", "stream":
            os.symlink(name, self.path("symlink to " + name))
            os.link(self.path(name), self.path("hard link to " + name))
            for same in name, "symlink to " + name, "hard link to " + name, "./" + name:
                for output in OUTPUTS:
                    with self.subTest(same=same, output=output):
                        self.assert_refused(*self.arguments(**{output: self.path(same)}))
        os.symlink("nowhere", self.path("symlink to nowhere"))
        os.symlink("output", self.path("symlink to output"))
        os.link(self.path("output"), self.path("hard link to output"))
        for pair in combinations(OUTPUTS, 2):
            for paths in (("./output", "output"), ("symlink to output", "hard link to output"),
                          ("nowhere", "./nowhere"), ("nowhere", "symlink to nowhere")):
                with self.subTest(pair=pair, paths=paths):
                    self.assert_refused(*self.arguments(*pair, **dict(zip(pair, map(self.path, paths)))))
            for paths in ("--", ("-", "/dev/stdout")):
                self.assert_refused(*self.arguments(*pair, **dict(zip(pair, paths))))

    def test_standard_streams_that_are_files_of_the_run(self):
        for name in OUTPUTS:
            with open(self.path(name), "rb") as same:
                self.assert_refused(*self.arguments(name), "--stream-log", "-", stdin=same)
            for same in self.stream, self.path(OUTPUTS[name == OUTPUTS[0]]):
                with open(same, "ab") as file:
                    self.assert_refused(*self.arguments(**{name: "-"}), stdout=file)

    def test_what_cannot_be_written(self):
        os.mkdir(self.path("folder"))
        for name in OUTPUTS:
            for wrong in self.path("folder"), os.path.join(self.stream, "x"), "/proc/no-such-folder/x", "/dev/fd/999":
                with self.subTest(name=name, path=wrong):
                    self.assertIn(wrong, self.assert_refused(*self.arguments(**{name: wrong})))
            self.assert_refused(*self.arguments(**{name: ""}))
            self.assert_refused(*self.arguments(), "--" + name)

    def test_a_closed_standard_output(self):
        for name in OUTPUTS:
            said = self.assert_refused(*self.arguments(**{name: "-"}), preexec_fn=partial(os.close, 1))
            self.assertIn("standard output is closed", said)


class Midway(OutputsTest):
    """A run that fails midway."""

    def test_the_logs(self):
        """A malformed line with --strict, or a batch log without a header: all outputs stay as they were."""
        self.assert_fails(1, *self.arguments(), "--strict")
        self.assert_fails(1, *self.arguments(), "--strict", "--jobs", "2")
        self.write("batch", b"{}\n")
        self.assert_fails(2, *self.arguments())

    def assert_reported(self, name, reason, said):
        """One output failed: it is named and as it was, the others have taken their places, but for the snapshot."""
        self.assertEqual(said, "anomaly_detection: %s; this output is given up\n%s"
                         "anomaly_detection: no snapshot is written, so the next run judges these lines again\n"
                         % (reason, self.said))
        self.assertEqual(self.read(name), OLD)
        self.assert_others(name, {**self.new, "snapshot": OLD})

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full here")
    def test_a_full_device(self):
        for name in OUTPUTS:
            for jobs in "1", "2":
                self.put_old()
                out, said = self.do(*self.arguments(**{name: "/dev/full"}), "--quiet", "--jobs", jobs, status=1)
                self.assert_reported(name, "/dev/full: No space left on device", said)
        self.write("stream", b"")
        self.do(*self.arguments("output", notify="/dev/full", rejects="/dev/full"))    # nothing to write: no error

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full here")
    def test_all_outputs_fail(self):
        """The last one to fail is told as the failure of the run."""
        out, said = self.do(*self.arguments("output", output="/dev/full"), status=1)
        self.assertIn(": /dev/full: No space left on device; no output file is changed", said.splitlines()[-1])
        out, said = self.do(*self.arguments("output", "notify", output="/dev/full", notify="/dev/full"),
                            "--quiet", status=1)
        self.assertRegex(said, r"\A[^\n]*is given up[^\n]*\n[^\n]*no output file is changed[^\n]*\n\Z")
        self.assertEqual(self.snapshot()["output"], OLD)

    def test_a_failure_at_each_stage(self):
        """To write, to complete, to replace: whichever output it befalls, and in any number of processes.

        A worker's failure is none of an output's.
        """
        for (stage, name), jobs in product(product(("take", "complete", "replace"), OUTPUTS), ("1", "2")):
            if (stage, name) == ("take", "snapshot"):
                continue        # it takes nothing
            kind = next(kind for kind in anomaly_detection.OUTPUTS if kind.name == name)

            def fail(output, *arguments, act=getattr(kind, stage)):
                if output.name == name:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                act(output, *arguments)         # another output that inherits it

            with self.subTest(stage=stage, name=name, jobs=jobs), patch.object(kind, stage, fail):
                self.put_old()
                said = self.main("--quiet", "--jobs", jobs, *self.arguments(), status=1)
                self.assert_reported(name, "%s: Input/output error" % self.path(name), said)

    def test_a_full_disk(self):
        """As a limit on the size of files shows it: nothing half-written stays."""
        import resource
        for name in OUTPUTS:
            self.put_old()
            others = dict.fromkeys(set(OUTPUTS) - {name}, os.devnull)
            limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (1, 1))
            out, said = self.do(*self.arguments(**others), "--quiet", status=1, preexec_fn=limit)
            self.assertIn("anomaly_detection: %s: File too large; this output is given up\n" % self.path(name), said)
            self.assertEqual(self.now(), dict.fromkeys(OUTPUTS, OLD))

    def test_a_reader_who_has_enough(self):
        """The others take their places all the same; status 1 says that one is not whole."""
        self.write("batch", BATCH + b"".join(purchase("u%d" % n, "5.00") for n in range(2000)))
        self.write("stream", (STREAM + b"x" * 80 + b"\n") * 2500)      # all outputs are more than a pipe holds
        self.said = self.main("--quiet", *self.arguments())
        self.new = self.now()
        for name in set(OUTPUTS) - {"report"}:      # which is written in one piece
            self.put_old()
            process = self.start(*self.arguments(**{name: "-"}), "--quiet")
            process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read().decode()
            self.assertEqual(process.wait(), 1)
            self.assert_reported(name, "standard output: Broken pipe", said)


@unittest.skipIf(os.geteuid(), "only root can become somebody else, and mount")
class WrittenInto(OutputsTest):
    """What cannot be replaced is written into, and a line says so."""

    def as_nobody(self):
        """What a child does to have no rights of root, and a folder where it can make no file."""
        os.chmod(self.folder, 0o755)
        return {"preexec_fn": partial(os.setuid, 65534)}

    def test_a_folder_without_rights(self):
        nobody = self.as_nobody()
        for name in OUTPUTS:
            os.chmod(self.path(name), 0o666)
        for refused in None, FileNotFoundError(errno.ENOENT, "No usable temporary directory found"):
            for name in OUTPUTS:
                self.write(name, OLD * 1000)
            with patch("tempfile.TemporaryFile", side_effect=refused) if refused else nullcontext():
                out, said = self.do("--quiet", *self.arguments(), **nobody)
            self.assertEqual(sorted(said.splitlines()), sorted(
                ["anomaly_detection: %s: cannot be replaced, so it was written into" % self.path(name)
                 for name in OUTPUTS] + self.said.splitlines()))
            self.assertEqual((self.now(), sorted(self.snapshot())), (self.new, self.files))
            self.assertEqual(stat.S_IMODE(os.stat(self.output).st_mode), 0o666)

    def test_one_that_may_not_be_written_either(self):
        for name in OUTPUTS:
            os.chmod(self.path(name), 0o666)
        os.chmod(self.path("report"), 0o644)
        os.mkdir(self.path("locked"))
        nobody = self.as_nobody()
        for wrong in self.path("report"), self.path("locked/new"):
            said = self.assert_fails(2, *self.arguments(report=wrong), **nobody)
            self.assertIn("%s: cannot be written: Permission denied" % wrong, said)

    def test_a_run_that_fails_leaves_it_as_it_was(self):
        for name in OUTPUTS:
            os.chmod(self.path(name), 0o666)
        self.assert_fails(1, *self.arguments(), "--strict", **self.as_nobody())

    def test_a_mounted_file(self):
        """As a single file in a container is."""
        self.files = sorted([*self.files, os.path.basename(self.write("source", OLD * 100))])
        run = " ".join(map(shlex.quote, [*PYTHON, PROGRAM, *self.arguments(), "--quiet"]))
        done = subprocess.run(["unshare", "-m", "sh", "-c", "mount --bind source output && %s" % run],
                              cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if b"unshare" in done.stderr or b"mount:" in done.stderr:
            self.skipTest("no mount here")
        self.assertEqual(done.stderr.decode(), "anomaly_detection: %s: cannot be replaced, so it was written into\n%s" % (
            self.output, self.said))
        self.assertEqual((done.returncode, self.read("source")), (0, self.new["output"]))
        self.assert_others("output", self.new)


@unittest.skipUnless(os.access("/dev/shm", os.W_OK), "no /dev/shm here")
class BelowDev(FolderTest):

    def test_a_regular_file_in_dev_shm(self):
        """It is a file like any other: replaced when it is complete, or left as it was."""
        import tempfile
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            output = os.path.join(folder, "output")
            with open(output, "wb") as file:
                file.write(OLD)
            self.write("stream", STREAM + b"x\n")
            for options, status, whole in (["--strict"], 1, False), ([], 0, True):
                self.do(self.batch, self.stream, output, *options, status=status)
                self.assertEqual(os.listdir(folder), ["output"])
                self.assertEqual(self.read(output) != OLD, whole)


if __name__ == "__main__":
    unittest.main()
