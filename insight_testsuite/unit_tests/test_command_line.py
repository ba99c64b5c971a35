"""The command line as a user meets it: child processes, their files, their exit status."""

import contextlib
import errno
import io
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest
from functools import partial
from itertools import count, product
from unittest.mock import patch

from support import (
    BATCH, DEADLINE, EVENTS, FLAGGED, OLD, PROGRAM, ROOT, STREAM, FolderTest, answered, friendship, purchase)
import anomaly_detection

SUMMARY = (r"anomaly_detection: batch (\d+) events \((\d+) skipped\), stream (\d+) events \((\d+) skipped\), "
           r"(\d+) judged(?: \(\d+ with fewer than 2 purchases to judge by\))?, (\d+) flagged, \d+\.\d+ s batch \+ \d+\.\d+ s stream; "
           r"above mean \+ 3 sd(?:, \d[^;]* to \d[^;]*)?; (.*)\n")


SIGNALS = (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)
NOT_IGNORED = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)     # as a background job may have it


def many(n):
    """A stream of n purchases that are all flagged."""
    return [purchase(amount="%d.00" % (1000 + k)) for k in range(n)]


class Files(FolderTest):
    """Which files are read and written."""

    def test_positional(self):
        """In a Python of its own, too."""
        for options in {}, {"program": PROGRAM}:
            self.write("output", OLD)
            out, said = self.do(*self.files, **options)
            self.assertEqual((out, self.read("output")), (b"", FLAGGED))

    def test_named(self):
        self.do("--output", self.output, "--stream-log", self.stream, "--batch-log=" + self.batch)
        self.assertEqual(self.read("output"), FLAGGED)

    def test_some_named_and_options_between(self):
        self.do(self.batch, "-D", "3", self.stream, "--quiet", "--output", self.output)
        self.assertEqual(self.read("output"), FLAGGED)

    def test_defaults_are_the_projects_own_wherever_it_is_started(self):
        shutil.copytree(os.path.join(ROOT, "src"), self.path("src"))
        shutil.copytree(os.path.join(ROOT, "log_input"), self.path("log_input"))
        self.do(program=self.path("src/anomaly_detection.py"), cwd="/")
        self.assertEqual(self.read("log_output/flagged_purchases.json"), FLAGGED)

    def test_given_twice(self):
        """A file is given by its place or by its name."""
        for name in "--batch-log", "--stream-log", "--output":
            for arguments in (name, self.path("other"), *self.files), (*self.files, name, self.path("other")):
                self.assertIn("not 3 of them by place and 1 by name", self.assert_fails(2, *arguments))
        self.assertFalse(os.path.exists(self.path("other")))

    def test_places_are_those_of_the_files_without_a_name(self):
        self.do("--output", self.output, self.batch, self.stream)
        self.assertEqual(self.read("output"), FLAGGED)
        self.do("--batch-log", self.batch, self.stream, self.write("output", OLD))
        self.assertEqual(self.read("output"), FLAGGED)

    def test_names_that_begin_with_a_dash(self):
        """After "--" every word is a name; before it, options may stand between names."""
        self.write("-b", BATCH)
        self.write("-s", STREAM)
        for arguments in (["--", "-b", "-s", "--"], ["-q", "--", "-b", "-s", "-D"], ["batch", "-q", "--", "-s", "-f"],
                          ["batch", "-D", "3", "stream", "-q", "--", "-T"], ["--output=-q", "--", "-b", "-s"]):
            with self.subTest(arguments):
                out, said = self.do(*arguments, cwd=self.folder)
                output = "-q" if "--output=-q" in arguments else arguments[-1]
                self.assertEqual(self.read(output), FLAGGED)
                self.assertEqual(said == "", "-q" in arguments)

    def test_the_working_folder_was_deleted(self):
        """It is told if a name is relative to it, and does not matter otherwise."""
        folder = self.path("folder")

        def enter_and_delete():
            os.mkdir(folder)
            os.chdir(folder)
            os.rmdir(folder)

        for place in range(3):
            files = [self.batch, self.stream, self.output]
            files[place] = "relative"
            said = self.assert_fails(2, *files, preexec_fn=enter_and_delete)
            self.assertIn("relative: the working folder has been deleted", said)
        self.assertIn("page: the working folder", self.assert_fails(2, "--report", "page", *self.files,
                                                                    preexec_fn=enter_and_delete))
        out, said = self.do(self.batch, "-", "-", data=STREAM, preexec_fn=enter_and_delete)
        self.assertEqual(out, FLAGGED)

    def test_cannot_be_opened(self):
        missing, folder = self.path("missing"), self.path("folder")
        os.mkdir(folder)
        for wrong in missing, folder:
            self.assertIn(wrong, self.assert_fails(2, wrong, self.stream, self.output))
            self.assertIn(wrong, self.assert_fails(2, self.batch, wrong, self.output))

    def test_nothing_flagged_leaves_an_empty_file(self):
        self.write("stream", b"")
        self.do(*self.files)
        self.assertEqual(self.read("output"), b"")


class Standard(FolderTest):
    """Standard input and output, and what is not a regular file."""

    def test_both(self):
        for output in "-", "/dev/stdout":
            out, said = self.do(self.batch, "-", output, data=STREAM)
            self.assertEqual(out, FLAGGED)

    def test_inputs_that_are_pipes(self):
        """bash's <(...), for instance."""
        fds = []
        for log in BATCH, STREAM:
            end, other = os.pipe()
            os.write(other, log)
            os.close(other)
            self.addCleanup(os.close, end)
            fds.append(end)
        self.do("/dev/fd/%d" % fds[0], "/dev/fd/%d" % fds[1], self.output, pass_fds=fds)
        self.assertEqual(self.read("output"), FLAGGED)

    def test_live(self):
        """Each verdict is there before the next line is written, even when a line comes in pieces."""
        process = self.start(self.batch, "-", "-", "--quiet", bufsize=0)
        for line in many(4):
            process.stdin.write(line[:40])
            time.sleep(0.02)
            process.stdin.write(line[40:] + b"malformed, too\n" + friendship("2", "4") + purchase(amount="1"))
            self.assertEqual(self.lines_arriving(process.stdout), answered([line]))
        self.assertEqual(self.finish(process), (b"", "anomaly_detection: standard input: skipped 4: 4 not JSON\n"))

    def test_live_without_a_last_newline(self):
        out, said = self.do(self.batch, "-", "-", data=STREAM[:-1])
        self.assertEqual(out, FLAGGED)

    def test_non_blocking_standard_input(self):
        """As some parents leave it: not an error, and no busy waiting that gives up."""
        end, other = os.pipe()
        os.set_blocking(end, False)
        process = self.start(self.batch, "-", "-", stdin=end, bufsize=0)
        os.close(end)
        for line in many(2):
            time.sleep(0.1)
            os.write(other, line)
            self.assertEqual(self.lines_arriving(process.stdout), answered([line]))
        os.close(other)
        self.finish(process)

    def test_another_reader_of_the_pipe(self):
        """A pipe that does not block, and is empty after all when it is read, is waited for again."""
        end, other = os.pipe()
        os.set_blocking(end, False)
        waits = iter([lambda: None, lambda: os.write(other, STREAM), lambda: None, lambda: os.close(other)])

        class SaidToBeReady:
            def register(self, file, events):
                self.file = file

            def poll(self, milliseconds):
                next(waits, lambda: None)()
                return [(self.file, select.POLLIN)]

        with patch("select.poll", SaidToBeReady):
            process = self.start(self.batch, "-", self.output, stdin=end, pass_fds=[other])
        os.close(end)
        os.close(other)
        self.finish(process)
        self.assertEqual(self.read("output"), FLAGGED)

    def test_closed_pipe(self):
        """`| head -1` ends quietly: from a file, and live."""
        self.write("stream", b"".join(many(5000)))
        process = self.start(self.batch, self.stream, "-")
        self.assertEqual(process.stdout.readline(), answered(many(1)))
        process.stdout.close()
        self.assertEqual(process.stderr.read(), b"")
        self.assertEqual(process.wait(), 0)

        process = self.start(self.batch, "-", "-", bufsize=0)
        process.stdin.write(STREAM)
        self.assertEqual(self.lines_arriving(process.stdout), FLAGGED)
        process.stdout.close()
        self.assertEqual(self.finish(process, STREAM)[1], "")

    def test_closed_standard_streams(self):
        """An error when it is needed, else none, and no log in its place."""
        for fd, arguments, status in [(0, (self.batch, "-", self.output), 2), (1, (self.batch, self.stream, "-"), 2),
                                      (0, self.files, 0), (1, self.files, 0), (2, self.files, 0)]:
            with self.subTest(fd=fd, status=status):
                self.write("output", OLD)
                out, said = self.do(*arguments, status=status, preexec_fn=partial(os.close, fd))
                self.assertEqual(self.read("output"), OLD if status else FLAGGED)
                if status:
                    self.assert_one_line(said)
                    self.assertIn("standard %s is closed" % ("output" if fd else "input"), said)


class Settings(FolderTest):
    """D and T: in the batch log's first line, or given."""

    def test_headers(self):
        for header in (b'{"D":3,"T":50}', b'{"T":"50", "x":[], "D":"03"}', b' {"D" : "3","T":"50"} \r',
                       b'\n \t\r\n{"D":"3","T":"%s"}' % (b"9" * 18), b'\xef\xbb\xbf{"D":"1000000000", "T":50}',
                       b'{"event_type":"purchase", "D":"3", "T":"50"}',
                       b'{"event_type":"befriend", "id1":"1", "id2":"7", "D":"3", "T":"50"}'):
            with self.subTest(header=header):
                self.write("batch", header + b"\n" + EVENTS)
                out, said = self.do(*self.files)
                self.assertEqual(self.read("output"), FLAGGED)
                self.assertRegex(said, r"\A%s\Z" % SUMMARY)     # the header is no event and not skipped
                self.assertEqual(re.match(SUMMARY, said).groups()[:4], ("6", "0", "1", "0"))

    def test_bad_headers(self):
        for header in (b"", b"x", b"[3, 50]", b'"D"', b"{}", b'{"D":3}', b'{"T":50}', b'{"D":0,"T":50}',
                       b'{"D":3,"T":1}', b'{"D":3,"T":0}', b'{"D":"3 ","T":50}', b'{"D":3.0,"T":50}',
                       b'{"D":"3","T":"5e1"}', b'{"D":"","T":50}', b'{"D":true,"T":50}', b'{"D":null,"T":50}',
                       b'{"D":[3],"T":50}', b'{"D":-1,"T":50}', b'{"D":"+3","T":50}', b'{"D":"1_0","T":50}',
                       b'{"D":"%s","T":50}' % (b"1" * 19), b'{"D":3,"T":50}x', b'{"D":3,"T":50,"x":NaN}',
                       b'{"D":3,"T":50,"x":"\xff"}', b'{"D":"\xef\xbc\x93","T":50}', b'{"d":3,"t":50}',
                       b"\x0b", b'[' * 100000):
            with self.subTest(header=header[:40]):
                self.write("batch", header + b"\n" + EVENTS)
                self.assertIn(self.batch, self.assert_fails(2, *self.files))

    def test_a_bad_header_says_which_number_is_wrong(self):
        for header, told in [(b'{"D":"-2", "T":"50"}', "D '-2' is not a whole number from 1 to"),
                             (b'{"D":2.0, "T":50}', "D '2.0' is not a whole number from 1 to"),
                             (b'{"D":"3", "T":"1"}', "T '1' is not a whole number from 2 to"),
                             (b'{"T":"50"}', "it lacks D"), (b'{"x":1}', "it lacks D and T")]:
            self.write("batch", header + b"\n" + EVENTS)
            self.assertIn(told, self.assert_fails(2, *self.files))

    def test_empty_batch_log(self):
        for empty in b"", b"\n \r\n", b"\xef\xbb\xbf":
            self.write("batch", empty)
            self.assert_fails(2, *self.files)
            self.write("output", OLD)
            self.do(*self.files, "-D", "3", "-T", "50")
            self.assertEqual(self.read("output"), b"")
            self.write("output", OLD)

    def test_one_given(self):
        """The other must be in the header; what the header has in place of the one given is not looked at."""
        for header, options, status in [
                (b'{"D":"?", "T":50}', ("-D", "3"), 0), (b'{"T":50}', ("--degree", "3"), 0),
                (b'{"D":3, "T":1}', ("--tracked=50",), 0), (b'{"D":3}', ("-T50",), 0),
                (b'{"D":3}', ("-D", "3"), 2), (b'{"T":50}', ("-T", "50"), 2), (b'{"D":3, "T":"?"}', ("-D", "3"), 2)]:
            with self.subTest(header=header, options=options):
                self.write("batch", header + b"\n" + EVENTS)
                out, said = self.do(*self.files, *options, status=status)
                self.assertEqual(self.read("output"), OLD if status else FLAGGED)
                self.write("output", OLD)

    def test_they_override_the_header(self):
        """User 3 is two steps from user 1, who alone has bought; T = 2 sees the last two purchases only."""
        self.write("batch", b'{"D":2, "T":50}\n' + EVENTS)
        self.write("stream", friendship("3", "2") + purchase("3", "1601.83"))
        for options, means in [((), [b"29.10"]), (("-D", "1"), []), (("-T", "2"), [b"35.24"])]:
            self.do(*self.files, *options)
            self.assertEqual(re.findall(b'"mean": "(.*?)"', self.read("output")), means)

    def test_both_given_the_header_may_be_absent(self):
        for batch, skipped in [(EVENTS, "0"), (BATCH, "0"), (b'{"D":"?"}\n' + EVENTS, "0"), (b"{}\n" + EVENTS, "1"),
                               (b"\x0b\n" + EVENTS, "1"), (b"\n\n" + EVENTS, "0"), (b"\xef\xbb\xbf" + EVENTS, "0")]:
            with self.subTest(batch=batch[:10]):
                self.write("batch", batch)
                out, said = self.do(*self.files, "-D", "3", "-T", "50", "--rejects", self.path("rejects"))
                self.assertEqual(self.read("output"), FLAGGED)
                self.assertEqual(re.search(SUMMARY, said).groups()[:2], ("6", skipped))
                self.assertEqual(self.read("rejects"), batch.split(b"\n")[0] + b"\n" if skipped > "0" else b"")


class Dirt(FolderTest):
    """Lines as they should not be."""

    def test_windows_files(self):
        """Byte-order mark, \\r\\n, blank lines, no last newline: all of it is fine."""
        self.write("batch", b"\xef\xbb\xbf\r\n" + BATCH.replace(b"\n", b"\r\n \t\r\n")[:-6])
        for stream in STREAM[:-1] + b"\r\n", b"\xef\xbb\xbf" + STREAM, b"\xef\xbb\xbf\n\r\n" + STREAM[:-1] + b" \r":
            self.write("stream", stream)
            out, said = self.do(*self.files)
            self.assertEqual(self.read("output"), FLAGGED)
            self.assertEqual(re.fullmatch(SUMMARY, said).groups()[:6], ("6", "0", "1", "0", "1", "1"))

    def test_lines_are_echoed_as_they_were(self):
        lines = [b' \t{ "note":"na\xc3\xafve \xe2\x80\xa8 \x7f","x":[{"}":null}],"amount" : 1601.83,"id":2, '
                 b'"timestamp":"2017-06-13 11:33:02", "event_type":"\\u0070urchase" }',
                 STREAM[:-2] + b', "amount": "1601.83" }']
        self.write("stream", b"\r\n".join(lines))
        self.do(*self.files)
        self.assertEqual(self.read("output"), answered(line + b"\n" for line in lines))

    def test_skipped_lines(self):
        """Reported, 3 of each kind, with the names as given; counted; kept by --rejects; no harm done.

        NULs before them are dropped.
        """
        bad = [b"{", b"x \r", b'{"event_type":"sale"}', b"\xff", b"[]", STREAM[:-1] + b"x", friendship("1", "1")[:-1],
               purchase(amount="1e")[:-1], purchase(when="2017-02-29 11:33:02")[:-1], b"\xef\xbb\xbfx",
               b'{"a":NaN}', b"\0y", b"[" * 100000]
        self.write("batch", BATCH + b"\n".join(bad))
        self.write("stream", b"\n" + b"\n".join(bad[:4]) + b"\n" + STREAM + b"\r\n" + b"\n".join(bad[4:] * 2) + b"\n"
                   + friendship("8", "9") * 25)         # or most lines could not be read
        out, said = self.do("batch", "stream", "output", "--rejects", "rejects", cwd=self.folder)
        self.assertEqual(self.read("output"), FLAGGED)
        self.assertEqual(self.read("rejects"), b"".join(
            line.lstrip(b"\0") + b"\n" for line in bad + bad[:4] + bad[4:] * 2))
        *reports, in_batch, in_stream, summary = said.splitlines(True)
        self.assertEqual([re.match(r"anomaly_detection: (\w+:\d+): skipped: [^\n]+\n\Z", line).group(1) for line in reports],
                         ["batch:%d" % n for n in (*range(8, 17), 20)] +
                         ["stream:%d" % n for n in (2, 3, 4, 5, 8, 9, 10, 11, 12, 16, 17, 19, 20, 21, 25)])
        self.assertRegex(in_batch, r"\A[^\n]*: batch: skipped 13: 6 not JSON, 1 [^\n]*\n")
        self.assertRegex(in_stream, r"\A[^\n]*: stream: skipped 22: 10 not JSON, 2 [^\n]*\n")
        self.assertEqual(re.fullmatch(SUMMARY, summary).groups(), ("6", "13", "26", "22", "1", "1", "output, rejects"))

    def test_reports_are_short_plain_lines(self):
        """Whatever a line holds: no escape sequences for the terminal, no megabytes."""
        self.write("stream", b"".join(line[:-1].replace(b"1601.83", junk) + b"\n" for line in [STREAM, STREAM + b"x"]
                                      for junk in (b"9" * 10 ** 6, b"\x1b[31m", b"\xc2\x9b" * 10 ** 4,
                                                   b'", "event_type": "\\u001b[31m' + b"x" * 10 ** 5))
                   + STREAM)
        out, said = self.do(*self.files)
        self.assertEqual(said.count(": skipped: "), 7)
        self.assertEqual(len(said.splitlines()), 9)
        self.assertRegex(said, r"\A([ -~]{1,500}\n)*\Z")

    def test_standard_input_has_a_name(self):
        out, said = self.do(self.batch, "-", self.output, data=b"x\n" + STREAM)
        self.assertIn("standard input:1: skipped: ", said)

    def test_nothing_rejected(self):
        self.do(*self.files, "--rejects", self.write("rejects", OLD))
        self.assertEqual(self.read("rejects"), b"")

    def test_strict(self):
        """The first malformed line ends the run; what is only odd does not."""
        self.write("rejects", OLD)
        self.write("stream", STREAM + b"\n" + b"x\ny\n")
        options = "--strict", "--rejects", self.path("rejects")
        self.assertIn("%s:3: " % self.stream, self.assert_fails(1, *self.files, *options))
        self.write("batch", b"\n" + BATCH + b"x\n")
        self.assertIn("%s:9: " % self.batch, self.assert_fails(1, *self.files, *options))
        self.write("batch", b"\xef\xbb\xbf\r\n" + BATCH)
        self.write("stream", b"\n \r\n" + STREAM)
        self.do(*self.files, *options)
        self.assertEqual((self.read("output"), self.read("rejects")), (FLAGGED, b""))


class Messages(FolderTest):
    """Standard error, when all goes well."""

    def test_summary(self):
        self.write("stream", b"".join(many(3)) + friendship("5", "6") + purchase(amount="1") + b"x\n")
        out, said = self.do(*self.files)
        summary = said.splitlines(True)[-1]
        self.assertEqual(re.fullmatch(SUMMARY, summary).groups(), ("6", "0", "5", "1", "4", "3", self.output))

    def test_quiet(self):
        self.write("stream", b"x\n" + STREAM)
        for option in "--quiet", "-q":
            self.assertEqual(self.do(*self.files, option),
                             (b"", "anomaly_detection: %s: skipped 1: 1 not JSON\n" % self.stream))
        self.assertEqual(self.read("output"), FLAGGED)
        self.write("stream", STREAM)
        self.assertEqual(self.do(*self.files, "--quiet"), (b"", ""))
        self.assert_fails(2, "--quiet", self.path("missing"), self.stream, self.output)

    def test_help_comes_before_errors(self):
        for arguments in ["--help", "extra"], ["-h", "--no-such-option"], ["batch", "--help", "-D"]:
            out, said = self.do(*arguments)
            self.assertTrue(out.startswith(b"usage: "))
            self.assertEqual(said, "")

    def test_version(self):
        out, said = self.do("--version")
        self.assertEqual(out, b"anomaly_detection.py %s\n" % anomaly_detection.__version__.encode())

    def test_help(self):
        """It shows every option, an example, and the live monitor."""
        out, said = self.do("--help")
        for word in ("--batch-log", "--stream-log", "--output", "-D", "--degree", "-T", "--tracked", "--rejects",
                     "--strict", "--jobs", "--shard", "--quiet", "--version", "BATCH STREAM OUTPUT",
                     "purchases.log | ", "batch_log.json - -", "live", "exit status"):
            self.assertIn(word, out.decode())

    def open_terminal(self, columns=0):
        """Open a terminal; return the descriptors of its screen's side and the program's side."""
        try:
            import fcntl
            import pty
            import termios
            import tty
        except ImportError:
            self.skipTest("no pseudo-terminals here")
        terminal, end = pty.openpty()
        self.addCleanup(os.close, terminal)
        tty.setraw(end)
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        return terminal, end

    def rest_of(self, terminal):
        """What a terminal still shows, until the program has ended."""
        said = b""
        with contextlib.suppress(OSError):      # Linux' way to say that the other end is closed
            while True:
                data = os.read(terminal, 1000)
                if not data:
                    break
                said += data
        return said.decode()

    def shown_by(self, *arguments, columns=0, stdout=subprocess.PIPE, **environment):
        """What a terminal shows of a live run whose every look at the clock takes 5 seconds."""
        terminal, end = self.open_terminal(columns)
        with patch("time.monotonic", side_effect=count(0, 5)):
            process = self.start(*arguments, stdout=end if stdout is None else stdout, stderr=end,
                                 env=environment, bufsize=0)
        os.close(end)
        for _ in range(3):
            process.stdin.write(STREAM)
            time.sleep(0.02)
        process.stdin.close()
        said = self.rest_of(terminal)
        self.assertEqual(process.wait(DEADLINE), 0)
        return said

    def test_progress_fits_the_terminal(self):
        """A longer line would go on to the next one, and stay.  A terminal of unknown width has 80 columns."""
        for columns in 20, 40, 0:
            said = self.shown_by(self.batch, "-", self.output, columns=columns, TERM="xterm")
            lines = re.findall(r"\r([^\r\x1b]+)\x1b\[K", said)
            if columns:
                self.assertEqual(max(map(len, lines)), columns - 1)
            else:
                self.assertTrue(lines[-1].endswith(" s ago"), lines)
            self.assertRegex(screen(said), r"\A%s\Z" % SUMMARY)

    def test_no_progress_beside_an_output(self):
        """Each line of it is a line of the terminal's, whatever the terminal is called."""
        self.assertIn("ago", self.shown_by(self.batch, "-", "-", TERM="xterm"))      # a pipe takes it
        for arguments in ([self.batch, "-", "-"], [self.batch, "-", "/dev/stderr"],
                          [self.batch, "-", self.output, "--notify", "/dev/stdout"]):
            with self.subTest(arguments):
                said = self.shown_by(*arguments, stdout=None, TERM="xterm")
                self.assertRegex(said, r"\A(\{[^\r\n\x1b]+\}\n){3}%s\Z" % SUMMARY)

    def test_no_progress_without_escape_sequences(self):
        for environment in {"TERM": "dumb"}, {}:
            self.assertRegex(self.shown_by(self.batch, "-", self.output, **environment), r"\A%s\Z" % SUMMARY)

    def test_progress_on_a_terminal_only(self):
        """It comes after a second, and nothing of it stays."""
        terminal, end = self.open_terminal()
        started = time.monotonic()
        shown = self.start(self.batch, "-", self.output, stderr=end, bufsize=0, env={"TERM": "xterm"})
        elsewhere = self.start(self.batch, "-", self.path("other"), bufsize=0)
        os.close(end)
        said = b""
        while b"ago" not in said and time.monotonic() < started + DEADLINE:
            for process in shown, elsewhere:
                process.stdin.write(STREAM)
            if select.select([terminal], [], [], 0.2)[0]:
                said += os.read(terminal, 1000)
        self.assertRegex(said, rb"\A\rstandard input: \d+ lines, \d+ flagged, last line \d+ s ago\x1b\[K[^\n]*\Z")
        self.assertGreater(time.monotonic(), started + 1, "progress was shown at once")
        shown.stdin.close()
        said = said.decode() + self.rest_of(terminal)
        self.assertEqual(shown.wait(DEADLINE), 0)
        self.assertRegex(screen(said), r"\A%s\Z" % SUMMARY)
        out, said = self.finish(elsewhere)
        self.assertRegex(said, r"\A%s\Z" % SUMMARY)

    def test_progress_shows_share_and_time_left(self):
        self.write("batch", BATCH + friendship("8", "9") * 10000)

        class Terminal(io.StringIO):
            def isatty(self):
                return True

        with contextlib.redirect_stderr(Terminal()) as terminal, patch.dict(os.environ, TERM="xterm"), \
                patch("time.monotonic", side_effect=count(0, 0.2)):
            self.assertEqual(anomaly_detection.main(["--jobs", "1", *self.files]), 0)
        progress = re.findall(r"\rbatch: (\d+)%, \d+ s left\x1b\[K", terminal.getvalue())
        self.assertGreater(len(progress), 2)
        self.assertEqual(progress, sorted(progress, key=int))
        self.assertRegex(screen(terminal.getvalue()), r"\A%s\Z" % SUMMARY)


def screen(text):
    """What a terminal shows in the end of text with \\r and "erase to the end of the line" in it.

    >>> screen("50%, long\\r60%\\x1b[K\\r\\x1b[Kdone\\n")
    'done\\n'
    """
    lines, column = [""], 0
    for token in re.findall(r"\r|\n|\x1b\[K|[^\r\n\x1b]+", text):
        if token == "\r":
            column = 0
        elif token == "\n":
            lines.append("")
            column = 0
        elif token == "\x1b[K":
            lines[-1] = lines[-1][:column]
        else:
            lines[-1] = lines[-1][:column] + token + lines[-1][column + len(token):]
            column += len(token)
    return "\n".join(lines)


class Errors(FolderTest):
    """One line, the right exit status, and everything as it was before."""

    def test_usage(self):
        for arguments in [
                ["--no-such-option"], ["--strict=1"], ["--rejects"], ["--batch-log"],
                ["-D", "0"], ["-D", "-3"], ["-D", "x"], ["-D", "1.5"], ["-D", ""], ["-D", "1" * 19], ["-D", "\u0663"],
                ["-T", "1"], ["-T", "1_0"], ["-T", " 5"], ["--jobs", "0"], ["--jobs", "-1"], ["--jobs", "two"],
                ["--shard", "0/2"], ["--shard", "3/2"], ["--shard", "1/"], ["--shard", "/2"],
                ["--shard", "1/2/3"], ["--shard", "x/y"], ["--qui"]]:
            with self.subTest(arguments=arguments):
                self.assert_fails(2, *self.files, *arguments)

    def test_file_names(self):
        self.assert_fails(2, "-", self.stream, self.output, data=BATCH)
        self.assert_fails(2, "--batch-log", "-", "--stream-log", self.stream, "--output", self.output, data=BATCH)
        for empty in range(3):
            self.assert_fails(2, *("" if k == empty else file for k, file in enumerate(self.files)))

    def test_names_that_would_break_a_line(self):
        """An error is one line, whatever the user typed."""
        self.assert_fails(2, *self.files, "--no\nsuch")
        self.assert_fails(2, self.path("no\nsuch"), self.stream, self.output)
        self.assert_fails(1, self.batch, self.write("two\nlines", b"x\n"), self.output, "--strict")

    def test_shards_need_a_file(self):
        self.assert_fails(2, self.batch, "-", self.output, "--shard", "1/2", data=STREAM)
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        writer = os.open(fifo, os.O_RDWR)       # so that opening it to read does not wait
        self.addCleanup(os.close, writer)
        self.assert_fails(2, self.batch, fifo, self.output, "--shard", "1/2")

    @unittest.skipUnless(os.path.exists("/proc/self/mem"), "no /proc/self/mem here")
    def test_reading_fails_at_once(self):
        unreadable = "/proc/self/mem"           # can be opened, and not be read from its start
        self.assertIn(unreadable, self.assert_fails(2, self.batch, unreadable, self.output))
        self.assertIn(unreadable, self.assert_fails(2, unreadable, self.stream, self.output))

    def test_reading_fails_midway(self):
        pread = os.pread

        def failing(fd, length, position):
            if position >= 1 << 16:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return pread(fd, length, position)

        for name, log in ("batch", BATCH + EVENTS * 200), ("stream", STREAM * 2000):
            self.write(name, log)
            for jobs in "1", "3":
                with self.subTest(log=name, jobs=jobs), patch("os.pread", failing):
                    self.assertIn("%s: Input/output error" % self.path(name),
                                  self.assert_fails(1, *self.files, "--jobs", jobs))
            self.write(name, {"batch": BATCH, "stream": STREAM}[name])

    def test_reading_a_live_stream_fails(self):
        """What was judged before is written: a socket's other end is gone, with something unread."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"never read")
            process = self.start(self.batch, "-", self.output, "--notify", "-", stdin=theirs)
            ours.send(STREAM)
            self.lines_arriving(process.stdout)
            ours.close()
            out, said = self.finish(process, status=1)
        self.assertRegex(said.splitlines()[-1], "standard input: Connection reset by peer; .* line 1 .* is written")
        self.assertEqual(self.read("output"), FLAGGED)

    def test_strict_live(self):
        """What was judged before the malformed line is written, and nothing after it."""
        out, said = self.do(self.batch, "-", self.output, "--strict", "--rejects", self.path("rejects"),
                            data=STREAM + b"x\n" + STREAM + b"y\n", status=1)
        self.assertRegex(said.splitlines()[-1], r"standard input:2: .*\(--strict\); .* is written")
        self.assertEqual((self.read("output"), self.read("rejects")), (FLAGGED, b"x\n"))

    def test_a_place_taken_meanwhile(self):
        """By a folder: it is said, the other output is whole, and the content is kept beside it."""
        for taken in "output", "rejects":
            process = self.start_live(self.path("output"))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path(taken))
            os.mkdir(self.path(taken))
            out, said = self.finish(process, status=1)
            kept = re.search(": Is a directory; ([^ ]+) holds the new content; this output is given up", said)[1]
            self.assertIn(self.path(taken) + ": ", said.splitlines()[0])
            os.rmdir(self.path(taken))
            os.rename(kept, self.path(taken))
            self.assertEqual(self.snapshot().get("output", FLAGGED), FLAGGED)
            self.assertEqual(self.snapshot().get("rejects", b"x\n"), b"x\n")
            self.assertLessEqual(set(self.snapshot()), {"batch", "stream", "output", "rejects"})

    def start_live(self, output):
        """Start a run that waits for more of its stream after a malformed line, which it has reported."""
        process = self.start(self.batch, "-", output, "--rejects", self.path("rejects"), bufsize=0,
                             preexec_fn=NOT_IGNORED)
        process.stdin.write(STREAM + b"x\n")
        self.assertTrue(select.select([process.stderr], [], [], DEADLINE)[0])
        self.assertIn(b"skipped", process.stderr.readline())
        return process

    def test_interrupted_while_it_starts(self):
        """Ctrl-C during the program's own imports: it ends, without a traceback."""
        shutil.copy(anomaly_detection.__file__, self.path("program.py"))
        self.write("bisect.py", b"import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
        done = subprocess.run([sys.executable, "-S", self.path("program.py"), *self.files], stderr=subprocess.PIPE,
                              preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler))
        self.assertEqual((done.returncode, done.stderr), (-signal.SIGINT, b""))


    def test_no_memory(self):
        """Whatever Python makes of it: an import can fail of it in three ways."""
        for error, text in [(MemoryError(), "out of memory"), (SystemError("error return"), "out of memory"),
                            (ImportError("x"), "a part of Python cannot be loaded, perhaps for lack of memory: x")]:
            with patch.object(anomaly_detection, "Detector", side_effect=error):
                self.assertEqual(self.assert_fails(1, *self.files),
                                 "anomaly_detection: %s; no output file is changed\n" % text)

    def test_no_memory_in_a_live_stream(self):
        """What was judged before is written, and nothing after it."""
        record, numbers = anomaly_detection.PurchaseHistory.record, count(1)

        def recording(*arguments):
            if next(numbers) == 6:              # three are the batch log's
                raise MemoryError
            record(*arguments)

        with patch.object(anomaly_detection.PurchaseHistory, "record", recording):
            out, said = self.do(self.batch, "-", self.output, data=STREAM * 5, status=1)
        self.assertRegex(said, "out of memory; ended after line 2 of standard input; what was judged is written\n\\Z")
        self.assertEqual(self.read("output"), FLAGGED * 2)

    def test_signals_before_the_run(self):
        """While argparse works, which would fail of it, a signal does what it does without the program."""
        numbers = signal.SIGINT, signal.SIGTERM
        before = list(map(signal.getsignal, numbers))
        for error in KeyboardInterrupt, AssertionError:
            def parse(*arguments, **options):
                self.assertEqual(list(map(signal.getsignal, numbers)), before)
                raise error

            with patch("argparse.ArgumentParser.__init__", parse), self.assertRaises(error):
                anomaly_detection.main(["--quiet"])

    def test_the_first_signal_counts(self):
        signals = anomaly_detection.Signals()
        signals.catch()
        self.addCleanup(signals.restore)
        for number in signal.SIGTERM, signal.SIGINT:
            os.kill(os.getpid(), number)
        self.assertEqual(signals.received, [signal.SIGTERM, signal.SIGINT])
        with self.assertRaises(anomaly_detection.Stopped) as stopped:
            signals.look()
        self.assertEqual((str(stopped.exception), stopped.exception.status), ("stopped by SIGTERM", 143))

    def test_signals(self):
        """Ctrl-C and SIGTERM stop a run over files, or while it loads: a line, 130 or 143, and all is as it was."""
        self.write("stream", STREAM * 5000)         # more than its reader takes: it is still at work
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        before = self.snapshot()
        for (number, status), batch, stream in product(
                SIGNALS, (self.batch, fifo), ("-", self.stream)):
            if (batch, stream) == (self.batch, "-"):
                continue                            # a live run, which finishes
            with self.subTest(signal=number, batch=batch, stream=stream):
                process = self.start(batch, stream, self.output, "--snapshot", self.path("snapshot"),
                                     "--notify", "-", "--quiet", preexec_fn=NOT_IGNORED)
                log = open(batch, "r+b", buffering=0)
                with log:
                    if batch == fifo:
                        log.write(BATCH)
                        self.wait_until(lambda: len(self.snapshot()) == len(before) + 2)    # it is at work on two files
                    else:
                        self.assertTrue(process.stdout.readline())
                    process.send_signal(number)
                    out, said = self.finish(process, status=status)
                self.assertEqual(said, "anomaly_detection: stopped by %s; no output file is changed%s\n" % (
                    number.name, ", but standard output may hold part of the results; no snapshot is written, so the next run "
                    "judges these lines again" * (batch == self.batch)))
                self.assertEqual(self.snapshot(), before)


@unittest.skipUnless(shutil.which("bash"), "no bash here")
class RunSh(FolderTest):
    """run.sh, in a copy that holds what a grader's copy holds."""

    def setUp(self):
        super().setUp()
        self.project = self.path("a copy")
        os.mkdir(self.project)
        for name in "src", "log_input":
            shutil.copytree(os.path.join(ROOT, name), os.path.join(self.project, name))
        shutil.copy(os.path.join(ROOT, "run.sh"), self.project)
        os.mkdir(os.path.join(self.project, "log_output"))

    def run_sh(self, *arguments, cwd="/", status=0, script=None, **environment):
        """Run `bash run.sh` with a relative or absolute path; return what it said."""
        script = os.path.relpath(script or os.path.join(self.project, "run.sh"), cwd)
        done = subprocess.run(["bash", script, *arguments], cwd=cwd, timeout=DEADLINE, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env={**os.environ, "PYTHON": sys.executable, **environment})
        self.assertEqual(done.returncode, status, done.stdout)
        return done.stdout.decode()

    def flagged(self):
        return self.read("a copy/log_output/flagged_purchases.json")

    def test_from_anywhere(self):
        for cwd in self.project, self.folder, "/":
            self.run_sh(cwd=cwd)
            self.assertEqual(self.flagged(), FLAGGED)
            self.write("a copy/log_output/flagged_purchases.json", OLD)

    def test_further_arguments_and_exit_status_are_passed_on(self):
        self.assertEqual(self.run_sh("--quiet", "-D", "1", "-T", "2"), "")
        self.assertIn(b'"mean": "35.24"', self.flagged())
        self.assert_one_line(self.run_sh("--no-such-option", status=2))
        self.write("a copy/log_input/stream_log.json", b"x\n")
        self.assert_one_line(self.run_sh("--strict", status=1))

    def test_another_python(self):
        self.write("python", b"#!/bin/sh\necho this one\n")
        os.chmod(self.path("python"), 0o755)
        self.assertEqual(self.run_sh(PYTHON=self.path("python")), "this one\n")

    def test_relative_names_are_the_callers(self):
        self.run_sh("--report", "page.html", "batch", "stream", "flags", cwd=self.folder)
        self.assertEqual(self.read("flags"), FLAGGED)
        self.assertTrue(os.path.exists(self.path("page.html")))
        self.assertEqual(os.listdir(os.path.join(self.project, "log_output")), [])

    def test_through_symbolic_links(self):
        """An absolute one, a relative one, a chain of them through a linked folder."""
        os.makedirs(self.path("usr/local/bin"))
        os.symlink("usr/local", self.path("opt"))
        os.symlink(os.path.join(self.project, "run.sh"), self.path("absolute"))
        os.symlink("a copy/run.sh", self.path("relative"))
        os.symlink("../../../a copy/run.sh", self.path("usr/local/bin/anomaly"))
        os.symlink("opt/bin/anomaly", self.path("chain"))
        for name, cwd in ("absolute", "/"), ("relative", self.folder), ("relative", "/"), ("chain", self.folder), (
                "chain", self.project), ("opt/bin/anomaly", "/"):
            with self.subTest(name=name, cwd=cwd):
                self.write("a copy/log_output/flagged_purchases.json", OLD)
                self.run_sh(cwd=cwd, script=self.path(name))
                self.assertEqual(self.flagged(), FLAGGED)

    def test_a_cdpath_does_not_lead_astray(self):
        os.mkdir(self.path("elsewhere"))
        os.mkdir(self.path("elsewhere/a copy"))
        self.run_sh("--quiet", cwd=self.folder, CDPATH=self.path("elsewhere"))
        self.assertEqual(self.flagged(), FLAGGED)


if __name__ == "__main__":
    unittest.main()
