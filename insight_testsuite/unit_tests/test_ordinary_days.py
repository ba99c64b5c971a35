"""What happens on ordinary days: dropped connections, rotated files, full disks, closed pipes.

Nothing is lost or doubled in silence, and what the last message says is true.
"""

import contextlib
import gzip
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import unittest
from unittest.mock import patch

from support import (
    BATCH, EVENTS, FLAGGED, HEADER, OLD, PROGRAM, STREAM, FolderTest, answered, friendship, is_full, purchase)
import anomaly_detection
from torture.common import PYTHON

PAGE_VIEW = b'{"event_type":"page_view", "timestamp":"2017-06-13 11:33:02", "id": "2"}\n'


def many(number, first=1):
    """Flagged purchases, each with another amount."""
    return [purchase("2", "%d.00" % (10000 + n)) for n in range(first, first + number)]


# Friends of user 0, who have all bought something.
CROWD = b"".join(friendship("0", "u%d" % n) + purchase("u%d" % n, "5.00") for n in range(3000))


class DaysTest(FolderTest):

    def arriving(self, process, number):
        """So many lines from a process's standard output."""
        lines = b""
        while lines.count(b"\n") < number:
            lines += self.lines_arriving(process.stdout)
        return lines


class LiveTest(DaysTest):
    """A live stream that is stopped ends with everything written."""

    def monitor(self, *arguments, lines=3, **options):
        """A live run that has judged some lines."""
        process = self.start(*arguments, **options)
        process.stdin.write(b"".join(many(lines)))
        process.stdin.flush()
        return process

    def test_a_stopped_live_run_writes_its_flags_without_a_snapshot(self):
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
            with self.subTest(number):
                process = self.monitor("--notify", "-", self.batch, "-", self.output)
                self.arriving(process, 3)
                process.send_signal(number)
                _, said = self.finish(process, status=128 + number)
                self.assertEqual(self.read("output"), answered(many(3)))
                summary, stopped = said.splitlines()
                self.assertIn("stream 3 events (0 skipped), 3 judged, 3 flagged", summary)
                self.assertIn("stopped by %s after line 3 of standard input; what was judged is written"
                              % number.name, stopped)

    def test_every_kind_of_pipe_is_live(self):
        os.mkfifo(self.path("fifo"))
        for stream in "/dev/stdin", self.path("fifo"):
            with self.subTest(stream):
                process = self.start("--notify", "-", self.batch, stream, self.output)
                pipe = process.stdin if stream == "/dev/stdin" else open(stream, "wb")
                pipe.write(b"".join(many(2)))
                pipe.flush()
                self.arriving(process, 2)
                process.terminate()
                self.finish(process, status=143)
                self.assertEqual(self.read("output"), answered(many(2)))
                if stream != "/dev/stdin":
                    pipe.close()

    def test_under_nohup_a_hangup_stays_ignored(self):
        process = self.monitor(
            self.batch, "-", self.output, "--notify", "-",
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.lines_arriving(process.stdout)
        process.send_signal(signal.SIGHUP)
        process.stdin.close()
        process.stdin = None
        self.finish(process, status=0)
        self.assertEqual(self.read("output"), answered(many(3)))

    def test_a_stop_does_not_wait_for_a_backlog(self):
        """A signal is looked at every ten lines or so, however much has arrived."""
        self.write("batch", b'{"D":"2", "T":"1000000"}\n' + CROWD)
        process = self.start(self.batch, "-", self.output, "--notify", "-")
        os.set_blocking(process.stdin.fileno(), False)
        process.stdin.raw.write(purchase("u1", "1000000.00") * 600)     # as many as the pipe holds
        self.assertTrue(process.stdout.readline())
        process.terminate()
        process.stdin.close()
        process.stdin = None
        _, said = self.finish(process, status=143)
        self.assertLess(int(re.search("after line ([0-9]+) of", said)[1]), 300)

    def test_a_second_signal_gives_up_on_an_output_that_nobody_reads(self):
        """The flags that nobody read are judged again by the next run: the snapshot is not written."""
        reader, writer = os.pipe()
        process = self.start("--snapshot", self.path("state"), self.batch, "-", "-", stdout=writer)
        process.stdin.write(b"".join(many(900)))      # their flags are more than a pipe holds
        process.stdin.close()
        process.stdin = None
        self.wait_until(lambda: is_full(reader))
        process.terminate()
        time.sleep(0.1)
        self.assertIsNone(process.poll())
        process.terminate()
        _, said = self.finish(process, status=1)
        os.close(reader)
        os.close(writer)
        self.assertIn("standard output: nobody reads it; no output file is changed, but standard output may hold part "
                      "of the results; no snapshot is written, so the next run judges these lines again", said)
        self.assertNotIn("state", self.snapshot())

    def test_a_reader_who_is_gone_costs_its_output_only(self):
        reader, writer = os.pipe()
        os.close(reader)
        try:
            _, said = self.do(self.batch, self.stream, "-", "--notify", self.path("told"),
                              stdout=writer, status=1)
            self.assertIn("standard output: Broken pipe", said)
            self.assertTrue(self.read("told").startswith(FLAGGED[:-2]))
        finally:
            os.close(writer)

    def test_standard_output_that_does_not_block_is_waited_for(self):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        lines = many(3000)
        self.write("stream", b"".join(lines))
        process = self.start(self.batch, self.stream, "-", stdout=writer)
        os.close(writer)
        self.wait_until(lambda: is_full(reader))
        with open(reader, "rb") as file:
            self.assertEqual(file.read(), answered(lines))
        self.finish(process)

    def test_a_pipe_with_a_large_descriptor(self):
        code = ("import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096));"
                "os.dup2(0, 2000, True); os.execv(sys.argv[1], sys.argv[1:])")
        out = subprocess.run(
            [sys.executable, "-c", code, *PYTHON, PROGRAM, "--quiet", self.batch, "/dev/fd/2000", "-"],
            input=STREAM, stdout=subprocess.PIPE, close_fds=False, check=True).stdout
        self.assertEqual(out, FLAGGED)


def open_files(process):
    """The paths of the files that a process has open."""
    folder, paths = "/proc/%d/fd" % process.pid, set()
    for number in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            paths.add(os.readlink(os.path.join(folder, number)))
    return paths


class OneFileTest(FolderTest):
    """A log is opened once, and read up to the size that it then had."""

    @unittest.skipUnless(os.path.isdir("/proc/self/fd"), "no list of open files here")
    def test_a_stream_renamed_or_growing_while_the_batch_log_loads(self):
        os.mkfifo(self.path("fifo"))
        lines = many(40)
        for *options, flagged in [("--jobs", "1", lines), ("--jobs", "2", lines), ("--jobs", "3", lines),
                                  ("--shard", "1/2", lines[:20]), ("--shard", "2/2", lines[20:])]:
            with self.subTest(options):
                self.write("stream", b"".join(lines))
                process = self.start(*options, self.path("fifo"), self.stream, self.output)
                with open(self.path("fifo"), "wb") as pipe:
                    pipe.write(BATCH)
                    pipe.flush()
                    self.wait_until(lambda: self.stream in open_files(process))
                    with open(self.stream, "ab") as log:
                        log.write(purchase("2", "77777.00"))
                    os.rename(self.stream, self.path("stream.1"))
                    self.write("stream", purchase("2", "88888.00") * 50)
                self.finish(process)
                self.assertEqual(self.read("output"), answered(flagged))

    def test_standard_input_that_is_a_file_is_read_like_a_file(self):
        """In parts, and from where it stands."""
        lines = many(30)
        self.write("stream", b"x\n" + b"".join(lines))
        for options in ["--jobs", "1"], ["--jobs", "3"], ["--jobs", "2", "--shard", "1/1"]:
            with open(self.stream, "rb", buffering=0) as file:
                file.seek(2)
                self.assertNotIn("skipped:", self.do(*options, self.batch, "-", self.output, stdin=file)[1])
            self.assertEqual(self.read("output"), answered(lines))
        parts = b""
        for k in "123":
            with open(self.stream, "rb") as file:
                parts += self.do("--shard", k + "/3", self.batch, "-", "-", stdin=file)[0]
        self.assertEqual(parts, answered(lines))

    def test_a_hole(self):
        """300 MB of NULs before a line, as a log has them that is truncated while it is written: none is lost."""
        lines, limit = many(6), 200 << 20
        for size, options in (300 << 20, {"program": PROGRAM,
                                          "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
                                          }), (30 << 20, {}):
            self.write("stream", b"".join(lines[:3]))
            os.truncate(self.stream, size)
            with open(self.stream, "ab") as log:
                log.write(b"".join(lines[3:]))
            _, said = self.do("--jobs", "1" if options else "3", *self.files, **options)
            self.assertEqual(self.read("output"), answered(lines))
            self.assertIn("stream 6 events (0 skipped)", said)
        self.do("--resume", self.write("state", BATCH.replace(b"}", b', "stream_lines": "4"}', 1)), self.stream,
                self.output)
        self.assertEqual(self.read("output"), answered(lines[4:]))

    def test_compressed_logs(self):
        for jobs in "1", "2":
            batch = self.write("batch.gz", gzip.compress(BATCH))
            stream = self.write("stream.gz", gzip.compress(STREAM * 30))
            self.do("--jobs", jobs, batch, stream, self.output)
            self.assertEqual(self.read("output"), FLAGGED * 30)

    def test_all_members_of_a_compressed_log(self):
        """Each log of a day may be a member; a tape pads them with NULs."""
        lines = many(6)
        members = [gzip.compress(b"".join(lines[n:n + 2])) for n in (0, 2, 4)]
        for between in b"", b"\0", b"\0" * 70000:
            self.write("stream.gz", between.join(members) + between)
            self.do(self.batch, self.path("stream.gz"), self.output)
            self.assertEqual(self.read("output"), answered(lines))

    def test_a_damaged_compressed_log(self):
        """Wherever a byte is lost or another one, no line of it is judged."""
        members = gzip.compress(b"".join(many(40)), mtime=0), gzip.compress(STREAM, mtime=0)
        whole = b"".join(members)
        place = len(members[0])
        damaged = [whole[:-1], whole[:-10], whole[:place + 5], whole + b"x", whole + b"\0x", members[0] + b"\0\0" + STREAM,
                   members[0] + members[1][1:], gzip.compress(os.urandom(5000))[:-20]]
        for k in (20, place // 2, place - 5, place - 1, place + 15, place + 25, len(whole) - 6, len(whole) - 1):
            damaged.append(whole[:k] + bytes([whole[k] ^ 85]) + whole[k + 1:])
        for log in damaged:
            said = self.assert_fails(2, self.batch, self.write("stream.gz", log), self.output)
            self.assertIn("stream.gz: cannot be unpacked (gzip): ", said)

    @unittest.skipUnless(os.path.exists("/proc/self/cmdline"), "no /proc here")
    def test_a_file_whose_size_is_given_as_0(self):
        """Such as those of /proc: here the name by which a process was called."""
        lines = many(40)
        with subprocess.Popen([b"".join(lines)], executable=shutil.which("cat"), stdin=subprocess.PIPE) as process:
            stream = "/proc/%d/cmdline" % process.pid
            self.wait_until(lambda: open(stream, "rb").read().startswith(lines[0]))
            self.assertEqual(os.stat(stream).st_size, 0)
            for jobs in "1", "3":
                self.do("--jobs", jobs, self.batch, stream, self.output)
                self.assertEqual(self.read("output"), answered(lines))
            parts = b""
            for k in "123":
                with open(stream, "rb") as file:
                    parts += self.do("--shard", k + "/3", self.batch, "-", "-", stdin=file)[0]
            self.assertEqual(parts, answered(lines))
            process.stdin.close()

    def test_an_empty_stream_is_an_empty_log(self):
        """It ends at once, and the outputs are files, as of any other log."""
        self.write("stream", b"")
        for options in [], ["--jobs", "2"], ["--shard", "1/2"], ["--resume"]:
            self.write("output", OLD)
            _, said = self.do(*options, "--report", self.path("page"), *self.files)
            self.assertEqual(self.read("output"), b"")
            self.assertIn("stream 0 events (0 skipped), 0 judged, 0 flagged", said)
            self.assertNotIn(b"refresh", self.read("page"))


class ResumeTest(DaysTest):
    """`--resume` goes on after the lines that the snapshot stands for, any number of times."""

    def test_stopping_and_going_on_over_a_growing_file(self):
        lines = many(30)
        self.write("state", BATCH)
        flags = b""
        for count in 7, 7, 19, 30:
            self.write("stream", b"".join(lines[:count]) + lines[count % 30][:20])  # the next line has begun
            self.do("--resume", "--snapshot", self.path("state"), self.path("state"), self.stream, self.output,
                    "--jobs", str(count % 3 + 1))
            flags += self.read("output")
            self.assertIn(b'"stream_lines":"%d"' % count, self.read("state").split(b"\n")[0])
        self.assertEqual(flags, answered(lines))
        whole = self.write("whole", b"".join(lines))
        self.do("--snapshot", self.path("once"), self.batch, whole, self.output)
        self.assertEqual(self.read("once"), self.read("state"))

    def test_going_on_over_compressed_logs(self):
        """Each day another one, which holds those of before, too."""
        lines = many(9)
        self.write("state", gzip.compress(BATCH))
        flags = b""
        for count in 4, 4, 9:
            self.write("stream", gzip.compress(b"".join(lines[:count])))
            self.do("--resume", "--snapshot", self.path("state"), self.path("state"), self.stream, self.output,
                    "--jobs", str(count % 3 + 1))
            flags += self.read("output")
        self.assertEqual(flags, answered(lines))

    def test_going_on_over_nuls(self):
        """They are no line of their own, however many there are, and wherever the runs before them ended."""
        lines = [b"\0" * (n % 3 * 40000) + line for n, line in enumerate(many(12))]
        for source in self.stream, "-":
            self.write("state", BATCH)
            flags = b""
            for count in 1, 2, 3, 8, 12:
                log = b"".join(lines[:count]) + b"\0" * 5000
                self.write("stream", log)
                out, said = self.do("--resume", "--snapshot", self.path("state"), self.path("state"), source, "-",
                                    data=log)
                self.assertNotIn("skipped:", said)
                flags += out
            self.assertEqual(flags, answered(many(12)))

    def test_a_monitor_stopped_five_times(self):
        lines = many(60)
        self.write("state", BATCH)
        flags = b""
        for stop in range(10, 61, 10):
            process = self.start("--resume", "--snapshot", self.path("state"), self.path("state"), "-", "-")
            process.stdin.write(b"".join(lines[:stop]))
            process.stdin.flush()
            flags += self.arriving(process, stop - flags.count(b"\n"))
            if stop == 30:                  # killed: goes on from the snapshot before
                process.kill()
                process.wait()
                flags = answered(lines[:20])    # their flags were written, and will be again
                continue
            process.terminate()
            out, _ = self.finish(process, status=143)
            flags += out
        self.assertEqual(flags, answered(lines))

    def test_a_shorter_stream_was_rotated(self):
        self.write("stream", b"".join(many(9)))
        self.do("--snapshot", self.path("state"), self.batch, self.stream, self.output)
        self.write("stream", b"".join(many(3)))
        arguments = "--resume", "--snapshot", self.path("state"), self.path("state")
        said = self.assert_fails(2, *arguments, self.stream, self.output)
        self.assertIn("it ends after line 3, so this is not the log that was read before", said)
        said = self.assert_fails(2, *arguments, "-", self.output, data=b"".join(many(3)))
        self.assertIn("standard input: it ends after line 3, so this is not the log that was read before", said)

    def test_without_resume_a_snapshot_is_not_written_over_its_batch_log(self):
        said = self.assert_fails(2, "--snapshot", self.batch, *self.files)
        self.assertIn("is a log, which --snapshot would replace", said)

    def test_a_larger_window_than_the_snapshot_s_is_warned_of(self):
        self.do("--snapshot", self.path("state"), *self.files)
        _, said = self.do("-q", "-T", "60", self.path("state"), self.stream, self.output)
        self.assertIn("holds only the last 50 purchases of each user", said)
        self.assertEqual(self.do("-q", "-T", "60", *self.files)[1], "")


class OutputsTest(FolderTest):
    """An output that fails is reported and dropped; the others take their places."""

    def test_an_output_that_names_an_open_descriptor(self):
        for path in "/dev/fd/1", "/proc/self/fd/1", "/dev/stdout", self.path("link"):
            with self.subTest(path):
                if path == self.path("link") and not os.path.islink(path):
                    os.symlink("/dev/stdout", path)
                self.write("log", b"kept\n")
                with open(self.path("log"), "ab") as log:
                    self.do(self.batch, self.stream, path, stdout=log)
                self.assertEqual(self.read("log"), b"kept\n" + FLAGGED)

    def test_rejects_on_standard_error(self):
        self.write("stream", STREAM + b"x\n")
        with open(self.write("log", b"kept\n"), "ab") as log:
            self.do("-q", "--rejects", "/dev/stderr", *self.files, stderr=log)
        self.assertRegex(self.read("log"), rb"\Akept\nx\n[^\n]+skipped 1[^\n]+\n\Z")
        with open(self.write("log", b""), "ab") as log:         # it is still open for the error
            self.do("--strict", "--rejects", "/dev/stderr", *self.files, stderr=log, status=1)
        self.assertRegex(self.read("log"), rb"\Ax\n[^\n]+:2: [^\n]+--strict[^\n]+\n\Z")
    def test_a_temporary_file_that_a_cleaner_removed(self):
        os.mkfifo(self.path("fifo"))
        os.mkdir(self.path("tmp"))
        process = self.start("--snapshot", self.path("state"), self.path("fifo"), self.stream, self.path("tmp/flags"))
        with open(self.path("fifo"), "wb") as pipe:
            pipe.write(BATCH)
            pipe.flush()
            self.wait_until(lambda: os.listdir(self.path("tmp")))
            for name in os.listdir(self.path("tmp")):
                os.unlink(self.path("tmp/" + name))
        _, said = self.finish(process)
        self.assertIn("tmp/flags: cannot be replaced, so it was written into", said)
        self.assertEqual(self.read("tmp/flags"), FLAGGED)
        self.assertIn(b"stream_lines", self.read("state"))


class UsageTest(FolderTest):
    """Wrong command lines change nothing and say what is meant."""

    def test_a_batch_log_and_a_stream_that_are_swapped(self):
        said = self.assert_fails(2, self.stream, self.batch, self.output)
        self.assertIn("%s:1: is this the batch log?" % self.stream, said)
        self.assertIn("; %s has them: were the logs swapped?" % self.batch, said)
        self.assertNotIn("swapped", self.assert_fails(2, self.stream, self.write("other", STREAM), self.output))

    def test_none_or_all_three_files(self):
        for files in self.files[:1], self.files[:2], self.files + ["more"]:
            said = self.assert_fails(2, *files)
            self.assertIn('give BATCH STREAM OUTPUT ("-": standard output), not %d of them by place and 0 by name'
                          % len(files), said)

    def test_messages(self):
        for arguments, text in (
                (["--shard", "2"], "'2' is not K/N"),
                (["-D", "9" * 23], "is not a whole number from 1 to 10^18 - 1"),
                (["--repot", "r.html"], "there is no option --repot (see --help)"),
                (["-d", "3"], "there is no option -d: D and T are capitals (see --help)"),
                (["-t50"], "there is no option -t: D and T are capitals (see --help)"),
                (["--report"], "anomaly_detection: --report needs a value (see --help)"),
                (["--report", "--quiet"], "anomaly_detection: --report needs a value (see --help)"),
                (["--help=3"], "anomaly_detection: -h/--help takes no value (see --help)"),
                (["-D", "-2"], "-D/--degree: '-2' is not a whole number from 1 to"),
                (["-T", "2.0"], "-T/--tracked: '2.0' is not a whole number from 2 to"),
                (["--shard", "3/2"], "--shard: '3/2' is not K/N"),
                (["--notify", "-", "--output", "-"], "standard output is given to both --notify and OUTPUT"),
                (["--sd", "-1"], "'-1' is not a decimal number from 0 up"),
                (["--sd", "x"], "'x' is not a decimal number from 0 up"),
                (["--sd", ""], "'' is not a decimal number from 0 up"),
                (["--sd", "1e400"], "'1e400' is not a decimal number from 0 up"),
                (["--sd", "nan"], "'nan' is not a decimal number from 0 up")):
            with self.subTest(arguments):
                files = [] if "--output" in arguments else [self.output]
                said = self.assert_fails(2, "--batch-log", self.batch, "--stream-log", self.stream,
                                         *(["--output", self.output] if files else []), *arguments)
                self.assertIn(text, said)

    def test_help_that_cannot_be_written(self):
        with open("/dev/full", "wb") as full:
            self.do("--help", stdout=full, status=1)
        reader, writer = os.pipe()
        os.close(reader)
        _, said = self.do("--help", stdout=writer, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        os.close(writer)
        self.assertEqual(said, "")

    def test_help_fits_80_columns(self):
        out, _ = self.do("--help")
        self.assertLessEqual(max(map(len, out.decode().split("\n"))), 80)
        self.assertEqual(self.do("-V"), self.do("--version"))


class LogKindTest(DaysTest):
    """A log with lines and not one event ends the run; malformed lines are told by kind."""

    def test_a_tar_file(self):
        """Of each log in it only the first line cannot be read: all others are events."""
        self.write("stream", b"".join(many(60)))
        with tarfile.open(self.path("logs.tar.gz"), "w:gz", format=tarfile.USTAR_FORMAT) as archive:
            archive.add(self.stream, "stream.json")
        said = self.assert_fails(1, "-q", self.batch, self.path("logs.tar.gz"), self.output)
        self.assertIn("only 59 of 60 lines are events: this is a tar file; tar -xOf FILE turns it into JSON lines", said)

    def test_a_log_without_an_event_is_no_result(self):
        self.write("stream", PAGE_VIEW * 3)
        for options in [], ["--quiet"], ["--shard", "1/2"], ["--snapshot", self.path("state")], ["--jobs", "2"]:
            with self.subTest(options):
                said = self.do(*options, *self.files, status=1)[1].split("\n")[-2]
                self.assertRegex(said, "stream: no line is an event: .*page_view.*; no output file is changed")
                self.assertEqual(self.read("output"), OLD)
                self.assertFalse(os.path.exists(self.path("state")))
        _, said = self.do(self.batch, "-", self.output, data=PAGE_VIEW, status=1)
        self.assertIn("standard input: no line is an event: ", said)
        self.write("batch", HEADER + PAGE_VIEW)
        self.write("stream", STREAM)
        self.assertIn("batch: no line is an event: ", self.do(*self.files, status=1)[1])
        self.assertEqual(self.read("output"), OLD)

    def test_what_is_no_batch_log(self):
        """What it is instead is said, and what makes a log of it."""
        csv = b"id,timestamp,amount\n2,2017-06-13 11:33:02,5.00\n"
        for batch, number, text in [
                (b"", 1, "it is empty"), (b"\n\n \r\n", 3, "it is empty"), (csv, 1, "this is CSV; python3 -c "),
                (b"\n" + csv.replace(b",", b"\t"), 2, "this is CSV; python3 -c "), (EVENTS, 1, ""),
                (b'[{"D":"3", "T":"50"}]\n', 1, "this is a JSON array; jq "), (b"x\n", 1, "not JSON"),
                (BATCH.decode().encode("utf-16"), 1, "this is UTF-16; iconv "),
                (b"\x28\xb5\x2f\xfd\0\0", 1, "this is zstd; zstd "),
                (b'{\n  "D": 3,\n  "T": 50\n}\n', 1, "this is JSON of several lines each; jq ")]:
            with self.subTest(batch[:20]):
                self.write("batch", batch)
                said = self.assert_fails(2, *self.files)
                self.assertIn("%s:%d: is this the batch log? its first line has no valid D and T: %s" % (
                    self.batch, number, text), said)
        self.write("batch", BATCH)
        for stream, text in [(csv, "this is CSV; python3 -c "), (b"[\n" + STREAM + b"]\n", "this is a JSON array; jq "),
                             (STREAM.decode().encode("utf-16"), "this is UTF-16; iconv ")]:
            self.write("stream", stream)
            for arguments, data in (self.files, None), ([self.batch, "-", self.output], stream):
                if b"[" in stream and data:          # one of its lines is an event, so what is live goes on
                    continue
                said = self.do("-q", *arguments, data=data, status=1)[1]
                self.assertRegex(said, "(no line is an event|only 1 of 3 lines are events): " + text)

    def array(self, number):
        """A JSON array with one purchase a line: the last has no comma, so it is an event."""
        return b"[\n" + b",\n".join(line.strip() for line in many(number)) + b"\n]\n"

    def test_a_log_of_which_most_lines_cannot_be_read_is_no_result(self):
        half = [b'{"event": %s}\n' % line.strip() for line in many(30)]
        state = BATCH.replace(b"}", b', "stream_lines": "1"}', 1)
        for stream, events, kind in [
                (self.array(1), "1 of 3", "this is a JSON array; jq -c '.[]' FILE turns it into JSON lines"),
                (self.array(2), "1 of 4", "this is a JSON array"), (self.array(999), "1 of 1001", "this is a JSON array"),
                (b"".join(many(29) + half), "29 of 59", "this is JSON with events nested in a field"),
                (b"".join(half[:15] + many(19) + half[15:]), "19 of 49", "this is JSON with events nested in a field"),
                (PAGE_VIEW * 50 + b"x\n" * 20 + b"".join(many(19)), "19 of 89", "not JSON: Expecting value"),
                (b"".join(many(19)) + STREAM[:50] * 20, "19 of 20", None)]:
            self.write("stream", stream)
            if kind is None:                # one long line is one line
                self.do("-q", *self.files)
                self.write("output", OLD)
                continue
            for options in [], ["--jobs", "3"], ["--shard", "1/1"], ["--snapshot", self.path("state")]:
                with self.subTest(stream[:40], options=options):
                    said = self.do("-q", *options, *self.files, status=1)[1]
                    self.assertIn("stream: only %s lines are events: %s" % (events, kind), said)
                    self.assertTrue(said.endswith("; no output file is changed\n"), said)
                    self.assertEqual(self.read("output"), OLD)
                    self.assertFalse(os.path.exists(self.path("state")))
            for n in 2, 3, 5:
                ended = [self.finish(self.start("-q", "--shard", "%d/%d" % (k, n), *self.files[:2], "-"), status=None)[1]
                         for k in range(1, n + 1)]
                self.assertTrue(any("only %s lines are events: %s" % (events, kind) in said for said in ended), ended)
            number = int(events.split(" of ")[1])
            if number > 40:                 # and from the second line on, as far as it is new
                said = self.do("-q", "--resume", self.write("resumed", state), *self.files[1:], status=1)[1]
                self.assertRegex(said, "stream: only [0-9]+ of %d lines are events: " % (number - 1))
                self.assertEqual(self.read("output"), OLD)
        self.write("batch", HEADER + b"".join(half) + EVENTS)
        self.write("stream", STREAM)
        self.assertIn("batch: only 6 of 36 lines are events: this is JSON with events nested in a field",
                      self.do("-q", *self.files, status=1)[1])

    def test_the_first_bytes_of_a_pipe_come_in_pieces(self):
        """All of them tell its kind: the last ones alone look like lines with commas between."""
        for number in 30, 999:
            data = self.array(number).replace(b"}\n]", b"},\n]")
            said = self.do("-q", self.files[0], "-", self.files[2], data=data, status=1)[1]
            for line in said.splitlines():      # warned at once, and told at the end
                self.assertIn("standard input: no line is an event: this is a JSON array; ", line)

    def test_a_log_with_some_lines_that_cannot_be_read_is_a_result(self):
        for stream in (b"x\n" * 19 + STREAM, b"x\n" * 30 + STREAM * 30, PAGE_VIEW * 90 + STREAM * 10,
                       PAGE_VIEW * 900 + b"x\n" * 100 + STREAM * 100, b"[\n" + STREAM * 3 + b"]\n",
                       b"[2017-06-13 11:33:01] server started\nx\n" + STREAM, b"[1]\n" * 3 + STREAM):
            self.write("stream", stream)
            for options in [], ["--jobs", "3"]:
                self.do(*options, *self.files)
                self.assertEqual(self.read("output"), FLAGGED * stream.count(STREAM))
            parts = [self.do("--shard", shard, *self.files[:2], "-")[0] for shard in ("1/3", "2/3", "3/3")]
            self.assertEqual(b"".join(parts), FLAGGED * stream.count(STREAM))
        resumed = self.write("state", BATCH.replace(b"}", b', "stream_lines": "30"}', 1))
        self.write("stream", STREAM * 30 + b"x\n" * 19)        # few lines are new: whether most are events is unknown
        self.do("--resume", resumed, *self.files[1:])

    def test_strict_ends_at_the_first_line_of_an_array(self):
        self.write("stream", self.array(99))
        self.assertIn("stream:1: not JSON: Expecting value at character 2 (--strict)", self.do("--strict", *self.files, status=1)[1])

    def test_a_live_stream_of_which_most_lines_cannot_be_read_is_warned_of_twice(self):
        """As soon as it is so, and at its end; all that can be judged is."""
        bad = b"".join(b"Jun 13 shop: " + line for line in many(30))
        for first, then, events in ((b"".join(many(5)) + bad, b"".join(many(9, 6)), ("[56]", 14)),
                                    (self.array(40), b"".join(many(9)), ("0", 10))):
            for stop in False, True:
                process = self.start("-q", self.batch, "-", "-")
                process.stdin.write(first)
                process.stdin.flush()
                warned = self.lines_arriving(process.stderr).decode()
                process.stdin.write(then)
                process.stdin.flush()
                flags = b"" if b"[" in first[:1] else self.arriving(process, 14)
                if stop and flags:
                    process.terminate()
                out, said = self.finish(process, status=143 if stop and flags else 0)
                says = "only %s of [0-9]+ lines are events" % events[0] if events[0] != "0" else "no line is an event"
                self.assertRegex(warned + said, says + ": this is (JSON with text before the objects|a JSON array); ")
                self.assertEqual((warned + said).count("; no output"), 0)
                self.assertEqual(said.count("this is "), 1)
                self.assertIn("standard input: only %d of " % events[1], said)
                self.assertEqual((flags + out).count(b"\n"), events[1])

    def test_a_pipe_must_carry_plain_lines(self):
        said = self.do("-q", self.batch, "-", self.output, data=gzip.compress(STREAM), status=1)[1]
        self.assertIn("standard input: no line is an event: this is gzip; gzip -dc FILE turns it into JSON lines", said)

    def test_a_shard_without_an_event_is_no_failure_if_the_log_has_one(self):
        self.write("stream", PAGE_VIEW * 5 + STREAM)
        self.do("--shard", "1/2", *self.files)
        self.assertEqual(self.read("output"), b"")
        self.write("stream", STREAM + PAGE_VIEW * 5)
        self.do("--shard", "2/2", *self.files)
        self.assertEqual(self.read("output"), b"")

    def test_malformed_lines_by_kind(self):
        bad = purchase(amount="5,000.00")
        self.write("stream", PAGE_VIEW * 40 + bad * 2 + STREAM)
        _, said = self.do(*self.files)
        self.assertEqual(said.count("page_view"), 4)
        self.assertEqual(len(re.findall("stream:4[12]: skipped: amount '5,000.00'", said)), 2)
        self.assertIn('stream: skipped 42: 40 event_type "page_view", 2 amount\n', said)
        _, said = self.do("--quiet", *self.files)
        self.assertEqual(said, 'anomaly_detection: %s: skipped 42: 40 event_type "page_view", 2 amount\n' % self.stream)

    def test_more_kinds_than_are_shown(self):
        views = [PAGE_VIEW.replace(b"page", b"page%d" % n) * (14 - n) for n in range(1, 13)]
        self.write("stream", b"".join(reversed(views)) + STREAM)
        for options in [], ["--jobs", "3"]:
            said = self.do(*options, *self.files)[1].splitlines()
            self.assertEqual(len(said), 3 * 10 - 1 + 2)         # of the rarest there are only two
            self.assertRegex(said[-2], 'stream: skipped 90: 13 event_type "page1_view", 12 event_type "page2_view", '
                                       '.*, 4 event_type "page10_view", 5 others$')

    def test_more_kinds_than_are_counted(self):
        self.write("stream", b"".join(PAGE_VIEW.replace(b"page", b"page%d" % n) for n in range(5)) + STREAM)
        with patch.object(anomaly_detection.Totals, "kinds_counted", 2):
            _, said = self.do("--quiet", *self.files)
        self.assertTrue(said.endswith(
            'skipped 5: 3 of other kinds, 1 event_type "page0_view", 1 event_type "page1_view"\n'), said)


class SummaryTest(FolderTest):
    """The closing line names what was written and when the stream was."""

    def test_a_stream_that_was_judged_before_is_warned_of(self):
        later = purchase(when="2017-06-14 00:00:00")
        self.write("batch", BATCH + later)
        _, said = self.do("-q", *self.files)
        self.assertIn("all of %s is older than the newest purchase of %s" % (self.stream, self.batch), said)
        self.write("stream", STREAM + purchase(when="2017-06-15 00:00:00") + STREAM)
        for options in [], ["--jobs", "3"], ["--shard", "2/2"]:
            self.assertEqual(self.do("-q", *options, *self.files)[1], "")

    def test_it_names_files_and_timestamps(self):
        self.write("stream", STREAM + purchase(when="2017-06-15 00:00:00") + STREAM)
        for jobs in "1", "2":
            _, said = self.do("--jobs", jobs, "--snapshot", self.path("state"), *self.files)
            self.assertIn("2017-06-13 11:33:02 to 2017-06-15 00:00:00", said)
            self.assertTrue(said.endswith("; %s, %s\n" % (self.output, self.path("state"))), said)


class WorkersTest(FolderTest):
    """A part's findings are complete only if their end says so."""

    def test_a_killed_worker_is_noticed_where_its_end_is_not_signalled(self):
        """SIGCHLD may be ignored by inheritance; then nobody can wait for a worker's status."""
        self.write("batch", b'{"D":"2", "T":"100000"}\n' + CROWD)
        self.write("stream", purchase("u1", "1000000.00") * 600)
        process = self.start("--jobs", "2", *self.files,
                             preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
        children = "/proc/%d/task/%d/children" % (process.pid, process.pid)

        def worker():
            try:
                with open(children) as file:
                    return file.read().split()
            except OSError:
                return None
        os.kill(int(self.wait_until(worker)[0]), signal.SIGKILL)
        _, said = self.finish(process, status=1)
        self.assertIn("a worker process died", said)
        self.assertEqual(self.read("output"), OLD)

    def test_many_jobs_are_capped(self):
        started = time.monotonic()
        self.write("stream", b"".join(many(50)))
        self.do("--jobs", str(10 ** 18 - 1), *self.files)
        self.assertEqual(self.read("output"), answered(many(50)))
        self.assertLess(time.monotonic() - started, 20)


if __name__ == "__main__":
    unittest.main()
