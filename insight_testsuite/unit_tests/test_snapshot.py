"""--snapshot: a batch log that stands for all that was read, and live runs that go on from it."""

import errno
import io
import json
import os
import re
import select
import signal
import unittest
import zlib
from contextlib import redirect_stderr
from functools import partial
from itertools import islice, product
from random import Random
from unittest.mock import patch

from support import (
    BATCH, DEADLINE, FLAGGED, HEADER, OLD, STREAM, FolderTest, MainTest, drawn_log, friendship, purchase, with_odd_ids)
import anomaly_detection
import random_logs
import reference

QUICK = BATCH.replace(b'"50"', b'"5"')     # judged sooner
KINDS = list(product(dict.fromkeys(random_logs.CLOCKS), dict.fromkeys(random_logs.AMOUNTS)))


# --- the literal computation --------------------------------------------------

def read_literally(log):
    """(D, T, friendships, purchases) of a batch log: frozensets of two users; all purchases,
    as they arrived, the malformed lines left out."""
    header, *lines = reference.lines_of(log)
    fields = json.loads(header[1])
    friendships, purchases = set(), []
    for _, line in lines:
        try:
            event = reference.read_event(line)
        except ValueError:
            continue
        if event.type == "purchase":
            purchases.append((event.users[0], event.when, event.amount))
        elif event.type == "befriend":
            friendships.add(frozenset(event.users))
        else:
            friendships.discard(frozenset(event.users))
    return int(fields["D"]), int(fields["T"]), friendships, purchases


def state_literally(log):
    """What a snapshot has to hold: D, T, the friendships, and of every user the last T purchases,
    everybody's in the order of their timestamps, equal ones in that of their arrival."""
    degree, tracked, friendships, purchases = read_literally(log)
    purchases = sorted(purchases, key=lambda purchase: purchase[1])     # this keeps the order of equal ones
    kept = []
    for place, purchase in enumerate(purchases):
        later = sum(other[0] == purchase[0] for other in purchases[place + 1:])
        if later < tracked:
            kept.append(purchase)
    return degree, tracked, friendships, kept


def state(snapshot):
    """A snapshot without the fields of its header that tell how far the stream was read, and which it is."""
    header, newline, lines = snapshot.partition(b"\n")
    return re.sub(rb', "stream_(lines|first|last)": ?"?[0-9a-f/]*"?', b"", header) + newline + lines


# --- the tests ----------------------------------------------------------------

class SnapshotTest(MainTest):

    def run_logs(self, batch, stream, *options, take=True):
        """Run in this process; return (flags, snapshot)."""
        self.write("batch", batch)
        self.write("stream", stream)
        if take:
            options += "--snapshot", self.path("snapshot")
        self.main("--quiet", *self.files, *options)
        return self.read("output"), state(self.read("snapshot")) if take else None

    def taken(self, batch, stream=b"", *options):
        """The snapshot of two logs."""
        return self.run_logs(batch, stream, *options)[1]


def events_of(seed, kind, odd=False, **chosen):
    """A random log as (header, lines), with a clock and amounts of that kind."""
    clock, amount = kind
    batch, stream = drawn_log(seed, clock=clock, amount=amount, **chosen)
    log = batch + stream
    if odd:
        log, = with_odd_ids(seed, log)
    header, *lines = log.splitlines(True)
    return header, lines


def cut(rng, lines, parts):
    """The lines in that many parts, cut anywhere, so that some may be empty."""
    places = [0, *sorted(rng.randint(0, len(lines)) for _ in range(parts - 1)), len(lines)]
    return [b"".join(lines[start:end]) for start, end in zip(places, places[1:])]


class Cuts(SnapshotTest):
    """Wherever a log is cut, its parts are judged as the whole."""

    def test_parts_are_judged_as_the_whole(self):
        """One run over everything; two and three runs, each from the snapshot of the one before.

        For every way of the clock and kind of amounts, half of them with odd ids.
        """
        flagged = 0
        for seed, kind in enumerate(KINDS * 2):
            rng = Random(seed)
            header, lines = events_of(seed, kind, odd=seed >= len(KINDS), churn=rng.choice((0.05, 0.4)))
            first, *parts = cut(rng, lines, rng.choice((3, 4)))
            flags, state = [], header + first
            for part in parts:
                found, state = self.run_logs(state, part)
                flags.append(found)
            whole = self.run_logs(header + first, b"".join(parts))
            self.assertEqual((b"".join(flags), state), whole, (seed, kind))
            if seed % 3 == 0:
                literal = reference.judge_logs(header + first, b"".join(parts))
                self.assertEqual(b"".join(flags), literal.flagged, (seed, kind))
            flagged += len(b"".join(flags[1:]).splitlines())
        self.assertGreater(flagged, 150, "too few flags behind a snapshot")

    def test_another_degree_and_a_smaller_tracked(self):
        """A snapshot answers for any D, and any T that is not larger than its own."""
        flagged = 0
        for seed, kind in enumerate(KINDS):
            rng = Random(seed)
            header, lines = events_of(seed, kind, odd=seed % 2, churn=0.2)
            past, present, future = cut(rng, lines, 3)
            snapshot = self.taken(header + past, present)
            tracked = json.loads(snapshot.splitlines()[0])["T"]
            for degree in rng.sample(range(1, 7), 2):
                options = "-D", degree, "-T", rng.randint(2, int(tracked))
                whole = self.run_logs(header + past + present, future, *options)
                self.assertEqual(self.run_logs(snapshot, future, *options), whole, (seed, kind, options))
                flagged += whole[0].count(b"\n")
        self.assertGreater(flagged, 80)

    def test_the_reference_goes_on_from_it_too(self):
        """Every line is one that the literal rule accepts, and it finds the same flags."""
        flagged = 0
        for seed, kind in enumerate(KINDS):
            rng = Random(seed)
            header, lines = events_of(seed, kind, odd=True, churn=0.2)
            past, present, future = cut(rng, lines, 3)
            snapshot = self.taken(header + past, present)
            literal = reference.judge_logs(snapshot, future)
            self.assertEqual((literal.batch_skipped, literal.stream_skipped), ([], []))
            self.assertEqual(literal.flagged, reference.judge_logs(header + past + present, future).flagged, seed)
            flagged += literal.flagged.count(b"\n")
        self.assertGreater(flagged, 50)

    def test_a_late_line_after_the_cut(self):
        """It takes its place among those kept, and puts out none that it would not have put out before."""
        header = b'{"D":"1", "T":"2"}\n' + friendship("1", "2")
        at = "2017-06-13 11:33:%02d"
        past = [purchase("1", "%d.00" % second, at % second) for second in (10, 20, 30)]
        for when in 5, 10, 15, 20, 25, 30, 35:
            rest = purchase("1", "99.00", at % when) + purchase("2", "1000.00", at % 40)
            snapshot = self.taken(header, b"".join(past))
            self.assertEqual(self.run_logs(snapshot, rest, take=False)[0],
                             self.run_logs(header + b"".join(past), rest, take=False)[0], when)

    def test_a_large_state(self):
        """More purchases than are kept in one piece anywhere, cut twice."""
        rng = Random(5)
        names = [str(k) for k in range(300)]
        header = b'{"D":"2", "T":"60"}\n' + b"".join(
            friendship(*rng.sample(names, 2)) for _ in range(600))
        lines = [purchase(rng.choice(names), "%d.%02d" % (rng.choice((5, 6, 7)) if k % 31 else 900, rng.randint(0, 99)),
                          "2017-06-13 %02d:%02d:00" % (min(k // 900 + rng.randint(0, 1), 23), rng.randint(0, 59)))
                 for k in range(18000)]
        past, present, future = (b"".join(part) for part in (lines[:17000], lines[17000:17500], lines[17500:]))
        whole = self.run_logs(header + past, present + future)
        first, snapshot = self.run_logs(header + past, present)
        second, snapshot = self.run_logs(snapshot, future, "--jobs", 2)
        self.assertEqual((first + second, snapshot), whole)
        self.assertGreater(whole[0].count(b"\n"), 20)


class Contents(SnapshotTest):
    """What is in a snapshot."""

    def random_states(self, number, dirt=0):
        """(seed, whole log, its snapshot) of random logs, with odd ids."""
        for seed in range(number):
            clock, amount = KINDS[seed * 7 % len(KINDS)]
            batch, stream = with_odd_ids(seed, *drawn_log(seed, dirt, clock=clock, amount=amount, churn=0.3))
            yield seed, batch + stream, self.taken(batch, stream)

    def test_the_example(self):
        """In every byte."""
        when = '"timestamp":"2017-06-13 11:33:%s"'
        bought = '{"event_type":"purchase", %s, "id": "%%s", "amount": "%%s"}' % when
        self.assertEqual(self.taken(BATCH, STREAM).decode().splitlines(), [
            '{"D":"3", "T":"50"}',
            '{"event_type":"befriend", %s, "id1": "1", "id2": "2"}' % when % "01",
            *(bought % ("01", "1", amount) for amount in ("16.83", "59.28", "11.20")),
            bought % ("02", "2", "1601.83")])
        self.assertEqual(self.taken(HEADER), HEADER)

    def assert_position(self, stream, lines):
        """The header holds the number of lines of a stream, and checksum and length of the first and last."""
        whole = [line.lstrip(b"\0") for line in stream.split(b"\n")[:lines]]
        first, last = (b"%08x/%d" % (zlib.crc32(line), len(line)) for line in (whole[0], whole[-1])) if whole else (b"", b"")
        self.assertEqual(self.read("snapshot").split(b"\n")[0], b'{"D":"3", "T":"50", "stream_lines":"%d", '
                         b'"stream_first":"%s", "stream_last":"%s"}' % (lines, first, last))

    def test_the_lines_of_the_stream_that_it_stands_for(self):
        """All of them, whatever they are; another stream has a count of its own."""
        for stream, lines in [(b"", 0), (STREAM, 1), (STREAM[:-1], 1), (b"\n\0\nx\n\xff\n" + STREAM + b"\n", 6),
                              (friendship("8", "9") * 3000, 3000)]:
            for jobs in 1, 3:
                self.run_logs(BATCH, stream, "--jobs", jobs)
                self.assert_position(stream, lines)
            self.run_logs(BATCH, stream, "--shard", "2/2")
            self.assert_position(stream, lines)
        for lines in 2, 3, 4:
            self.run_logs(self.read("snapshot") if lines > 2 else BATCH, STREAM * lines)
            self.assert_position(STREAM * lines, lines)

    def test_a_last_line_without_a_newline_is_one_of_them(self):
        """It is not judged again when the stream goes on behind it."""
        later = purchase(amount="9000.00")
        self.run_logs(BATCH, STREAM + later[:-1])
        for stream, flags in (STREAM + later[:-1], 0), (STREAM + later, 0), (STREAM + later + STREAM, 1):
            found, _ = self.run_logs(self.read("snapshot"), stream, "--resume")
            self.assertEqual(found.count(b"\n"), flags)

    def test_headers_that_no_snapshot_has(self):
        for lines, tracked in (b'"x"', b'"50"'), (b"-1", b"50"), (b"null", b"50"), (b'""', b"50"), (b'"1"', b'"?"'):
            self.write("batch", b'{"D":"3", "T":%s, "stream_lines":%s}\n' % (tracked, lines))
            self.assertIn(self.batch, self.assert_fails(2, *self.files, "--resume", "-T", "50"))

    def test_random_logs_literally(self):
        """D, T, each friendship once, and of every user the last T purchases in their order: exact values."""
        full = 0
        for seed, log, snapshot in self.random_states(60):
            degree, tracked, friendships, purchases = state_literally(log)
            self.assertEqual(read_literally(snapshot), (degree, tracked, friendships, purchases), seed)
            kinds = re.findall(rb'^\{"event_type":"(\w+)"', snapshot, re.MULTILINE)
            self.assertEqual(kinds, [b"befriend"] * len(friendships) + [b"purchase"] * len(purchases), seed)
            users = [user for user, _, _ in purchases]
            counts = [users.count(user) for user in set(users)]
            self.assertLessEqual(max(counts, default=0), tracked)
            full += tracked in counts
        self.assertGreater(full, 15, "hardly anybody bought more than T times")

    def test_the_degree_and_tracked_of_the_run(self):
        for options, header in ([], (3, 50)), (["-D", 5], (5, 50)), (["-T", 2], (3, 2)), (["-D", 1, "-T", 9], (1, 9)):
            state = read_literally(self.taken(BATCH, STREAM, *options))
            self.assertEqual(state[:2], header)
        self.assertEqual([float(amount) for user, _, amount in read_literally(self.taken(BATCH, STREAM, "-T", 2))[3]
                          if user == "1"], [59.28, 11.20])

    def test_its_own_snapshot_is_itself(self):
        """With an empty stream, whatever the number of processes and D; every line is accepted."""
        for seed, log, snapshot in self.random_states(48):
            self.assertEqual(self.taken(snapshot, b"", "--strict", "--jobs", 1 + seed % 3), snapshot, seed)
            self.assertTrue(snapshot.endswith(b"}\n"))
            self.assertEqual(reference.judge_logs(snapshot, b"").batch_skipped, [])

    def test_with_a_smaller_tracked_it_is_the_smaller_snapshot(self):
        for seed, log, snapshot in self.random_states(20):
            self.assertEqual(self.taken(snapshot, b"", "-T", 2), self.taken(log, b"", "-T", 2), seed)

    def test_malformed_lines_leave_no_trace(self):
        """As if they had not been there: nobody comes to be by a purchase or a friendship that is damaged."""
        bad = [purchase("7", "x"), purchase("7", "1.00", "2017-02-30 11:33:01"), purchase("7")[:-3] + b"\n",
               friendship("7", "7"), friendship("7", "8", "defriend"), friendship("7", "")[:-1] + b"\n",
               b'"7"\n', b"\xff" + purchase("7"), purchase("7")[:-1] + b" x\n", b"\n", b"\x00\n"]
        clean = self.taken(BATCH, STREAM)
        self.assertEqual(self.taken(BATCH + b"".join(bad), b"".join(bad) + STREAM + b"".join(bad)), clean)
        skipped = 0
        for seed in range(40):
            batch, stream = random_logs.random_log(Random(seed), 0.3)
            result = reference.judge_logs(batch, stream)
            skipped += len(result.batch_skipped + result.stream_skipped)
            snapshot = self.taken(batch, stream)
            self.assertEqual(read_literally(snapshot), state_literally(batch + stream), seed)
            header, *lines = reference.lines_of(batch)
            bad = {"batch": {n for n, _ in result.batch_skipped}, "stream": {n for n, _ in result.stream_skipped}}
            good = [header[1]] + [line for n, line in lines if n not in bad["batch"]]
            rest = [line for n, line in reference.lines_of(stream) if n not in bad["stream"]]
            self.assertEqual(self.taken(b"\n".join(good), b"\n".join(rest)), snapshot, seed)
        self.assertGreater(skipped, 200)

    def test_a_befriend_line_has_a_timestamp_that_is_one(self):
        """Also where there is no purchase to take it from."""
        snapshot = self.taken(HEADER + friendship("1", "2"))
        when = json.loads(snapshot.splitlines()[1])["timestamp"]
        self.assertTrue(reference.read_event(purchase("1", "1.00", when)))

    def test_users_who_are_no_longer_friends_and_never_bought(self):
        self.assertEqual(self.taken(BATCH, friendship("8", "9") + friendship("9", "8", "unfriend")), self.taken(BATCH))


class SameState(SnapshotTest):
    """The same state gives the same bytes, by whatever way it came about."""

    def other_way(self, rng, header, lines):
        """Other lines that lead to the same state."""
        _, tracked, friendships, purchases = read_literally(header + b"".join(lines))
        pairs = {tuple(sorted(pair)) for pair in friendships}
        users = sorted({user for user, _, _ in purchases} | {user for pair in pairs for user in pair})
        changes = []
        for one, other in sorted(pairs):
            pair = rng.choice(((one, other), (other, one)))
            verbs = rng.choice(("befriend", "befriend befriend", "befriend unfriend befriend", "unfriend befriend"))
            changes.append([friendship(*pair, verb) for verb in verbs.split()])
        for _ in range(3):
            one, other = rng.sample(users, 2) if len(users) > 1 else ("x", "y")
            if tuple(sorted((one, other))) not in pairs:
                changes.append([friendship(one, other), friendship(other, one, "unfriend")])
        # What is older than T others of the same buyer is of no account.
        for user in users:
            if sum(other == user for other, _, _ in purchases) >= tracked:
                changes.append([purchase(user, "1.00", "1999-12-31 23:59:59.5")])
        by_time = {}
        for line in lines:
            if b"purchase" in line:
                event = reference.read_event(line)
                by_time.setdefault(event.when, []).append(line)
        changes += by_time.values()         # equal timestamps keep the order of their arrival
        rng.shuffle(changes)
        mixed = []
        while changes:                      # each change's lines in their order, all of them mixed
            one = rng.choice(changes)
            mixed.append(one.pop(0))
            if not one:
                changes.remove(one)
        return [self.spelled_otherwise(rng, line) for line in mixed]

    def spelled_otherwise(self, rng, line):
        kind = rng.randrange(5)
        if kind == 0:
            return random_logs.reordered(rng, line[:-1]) + b"\r\n"
        if kind == 1:
            return random_logs.spaced(rng, line)
        if kind == 2:
            return random_logs.numbers(rng, line)
        if kind == 3:
            return re.sub(rb'("amount": "-?\d+\.\d{1,10})"', rb'\g<1>0"', line) + b"\n"
        return line

    def test_other_logs_with_the_same_state(self):
        for seed in range(60):
            header, lines = events_of(seed, KINDS[seed % len(KINDS)], churn=0.3)
            rng = Random(seed)
            other = self.other_way(rng, header, lines)
            place, otherplace = rng.randint(0, len(lines)), rng.randint(0, len(other))
            snapshot = self.taken(header + b"".join(lines[:place]), b"".join(lines[place:]))
            self.assertEqual(self.taken(header + b"".join(other[:otherplace]), b"".join(other[otherplace:])),
                             snapshot, seed)

    def test_the_last_shard(self):
        """It reads all of the stream, and its snapshot is that of the whole run; no other one may take any."""
        for seed in range(8):
            batch, stream = random_logs.random_log(Random(seed), 0.1)
            whole = self.taken(batch, stream)
            for shards in 1, 2, 3:
                self.assertEqual(self.taken(batch, stream, "--shard", "%d/%d" % (shards, shards),
                                            "--jobs", 1 + seed % 2), whole, (seed, shards))
        for shard in "1/2", "1/3", "2/3":
            self.assert_fails(2, *self.files, "--snapshot", self.path("snapshot"), "--shard", shard)


class Files(FolderTest):
    """Runs that go on from one another's snapshot."""

    def test_a_run_every_day(self):
        """From where yesterday ended: the snapshot is the batch log, another one is written."""
        days = [b"".join(purchase(user, "%d.00" % (1000 * day + k)) for k, user in enumerate("12212"))
                for day in range(1, 4)]
        flags = b""
        yesterday = self.batch
        for day, log in enumerate(days):
            today = self.path("after-%d" % day)
            self.do("--snapshot", today, yesterday, self.write("log-%d" % day, log), self.path("flagged-%d" % day))
            flags += self.read("flagged-%d" % day)
            yesterday = today
        self.write("stream", b"".join(days))
        self.do(*self.files, "--snapshot", self.path("snapshot"))
        self.assertEqual((flags, state(self.read(yesterday))), (self.read("output"), state(self.read("snapshot"))))
        self.assertTrue(flags)

    def test_the_flags_take_their_place_first(self):
        """If the snapshot then fails, the run can simply be run again: the old one is still that of the batch log."""
        target, yesterday = self.write("snapshot", OLD), self.path("yesterday")
        self.do(*self.files, "--snapshot", yesterday)
        self.write("output", OLD)
        files = [yesterday, self.stream, self.output, "--snapshot", target, "--quiet"]
        def fail(*arguments):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        with patch.object(anomaly_detection.Snapshot, "replace", fail), redirect_stderr(io.StringIO()) as said:
            self.assertEqual(anomaly_detection.main(files), 1)
        self.assertRegex(said.getvalue(), r"\A[^\n]*snapshot: Input/output error; this output is given up\n"
                         r"[^\n]*stream begins like the log that [^\n]*\n[^\n]*no snapshot is written, so the next run judges these lines again\n\Z")
        flags = self.read("output")
        self.assertEqual((flags, self.read("snapshot")), (FLAGGED, OLD))
        self.do(*files)
        self.assertEqual(self.read("output"), flags)
        self.do(self.batch, self.write("stream", STREAM * 2), self.output, "--snapshot", self.path("other"))
        self.assertEqual(state(self.read("snapshot")), state(self.read("other")))
        self.assertEqual(sorted(self.snapshot()), ["batch", "other", "output", "snapshot", "stream", "yesterday"])


class LiveTest(FolderTest):

    signals = (signal.SIGINT, 130), (signal.SIGTERM, 143)

    def setUp(self):
        super().setUp()
        self.target = self.write("snapshot", OLD)

    def start_live(self, batch, output, *options, quiet=True, **kwargs):
        """Start a run whose stream is a pipe that stays open."""
        return self.start(batch, "-", output, *options, *(["--quiet"] if quiet else []), bufsize=0,
                          preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL), **kwargs)

    def ended(self, process, status):
        """Wait for the end while the stream stays open; return what was written to both outputs."""
        stdin, process.stdin = process.stdin, None
        if stdin:
            self.addCleanup(stdin.close)
        return self.finish(process, status=status)

    def whole(self, batch, stream, *options):
        """(flags, snapshot) of one run over two logs (bytes)."""
        logs = self.write("whole batch", batch), self.write("whole stream", stream)
        self.do(*logs, self.path("whole output"), "--snapshot", self.path("whole snapshot"), "--quiet", *options)
        return self.read("whole output"), state(self.read("whole snapshot"))


class Stopped(LiveTest):
    """SIGTERM or Ctrl-C: what has been read is judged, and the snapshot says up to where."""

    def lines(self, number):
        """A stream in which friendships come and go, some purchases are late, and half of all are flagged."""
        rng = Random(number)
        for k in range(number):
            yield friendship("2", str(5 + k % 3), ("befriend", "unfriend")[k // 3 % 2])
            yield purchase(str(5 + k % 3), "%d.%02d" % (10 + k % 7, k % 100),
                           "2017-06-13 11:33:%02d" % rng.randint(0, 59))
            yield purchase("2", "%d.00" % (90000 + k), "2017-06-13 11:34:00")

    def test_a_monitor_that_is_started_again_and_again(self):
        """The flags of all its runs are those of one run over everything; the snapshot is too."""
        for (number, status), output in zip(self.signals, ("-", self.output)):
            with self.subTest(output=output, signal=number):
                batch, flags, sent = self.batch, b"", b""
                lines = self.lines(4)
                for run, events in enumerate((3, 6, 3)):
                    after = self.path("after-%d" % run)
                    process = self.start_live(batch, output, "--snapshot", after,
                                              *([] if output == "-" else ["--notify", "-"]))
                    for _ in range(0, events, 3):
                        part = b"".join(islice(lines, 3))
                        process.stdin.write(part)
                        arrived = self.lines_arriving(process.stdout)
                        sent += part
                        flags += arrived if output == "-" else b""
                    process.send_signal(number)
                    out, said = self.ended(process, status)
                    self.assertEqual(out, b"")
                    self.assert_one_line(said)
                    self.assertIn(signal.Signals(number).name, said)
                    flags += self.read("output") if output != "-" else b""
                    batch = after
                self.assertEqual((flags, state(self.read(batch))), self.whole(BATCH, sent))
                self.assertEqual(flags.count(b"\n"), 4)

    def test_before_any_event_came(self):
        """The snapshot is that of the batch log, and the flags are an empty file."""
        for number, status in self.signals:
            self.write("output", OLD)
            self.write("snapshot", OLD)
            process = self.start_live(self.batch, self.output, "--snapshot", self.target, quiet=False)
            process.stdin.write(b"x\n")
            self.lines_arriving(process.stderr)         # that it is skipped: the batch log is read
            process.send_signal(number)
            self.ended(process, status)
            self.assertEqual((self.read("output"), state(self.read("snapshot"))), self.whole(BATCH, b""))

    def test_an_incomplete_last_line_is_not_taken(self):
        """Who writes it has not finished it, and will write it again to the next run."""
        line = purchase(amount="5000.00")
        for (number, status), place in zip(self.signals * 2, (1, 40, len(line) - 1)):
            with self.subTest(signal=number, place=place):
                process = self.start_live(self.batch, "-", "--snapshot", self.target)
                process.stdin.write(STREAM + line[:place])      # in one piece: a pipe does not tear it
                flags = self.lines_arriving(process.stdout)
                process.send_signal(number)
                out, said = self.ended(process, status)
                self.assert_one_line(said)
                self.assertEqual((flags + out, state(self.read("snapshot"))), self.whole(BATCH, STREAM))
                out, said = self.do(self.target, "-", "-", "--quiet", data=line)
                self.assertEqual(flags + out, self.whole(BATCH, STREAM + line)[0])

    def test_the_end_of_the_stream_is_as_ever(self):
        """Also of a last line without a newline."""
        for stream in STREAM, STREAM + STREAM[:-1], b"":
            out, said = self.do(self.batch, "-", "-", "--snapshot", self.target, "--quiet", data=stream)
            self.assertEqual((out, state(self.read("snapshot")), said), (*self.whole(BATCH, stream), ""))

    def busy(self, number, status, output, seed):
        """Signal a run while its pipe is full; return what it took of the stream."""
        rng = Random(seed)
        stream = b"".join(self.lines(2500))
        end, other = os.pipe()                  # the end stays open here: what the run leaves can be counted
        self.addCleanup(os.close, end)
        self.addCleanup(os.close, other)
        os.set_blocking(other, False)
        process = self.start_live(self.write("batch", QUICK), output, "--snapshot", self.target, stdin=end)
        sent, flags, enough = 0, b"", rng.randint(150000, 500000)
        while True:
            ready, free, _ = select.select([process.stdout], [other], [], DEADLINE)
            self.assertTrue(ready or free, "it does not read on")
            if ready:
                data = os.read(process.stdout.fileno(), 1 << 16)
                self.assertTrue(data, "it ended")
                flags += data
            if free:
                try:
                    sent += os.write(other, stream[sent:sent + rng.randint(1, 4096)])
                except BlockingIOError:
                    pass
                if sent > enough:
                    break
        process.send_signal(number)
        out, said = self.ended(process, status)
        self.assert_one_line(said)
        flags = flags + out if output == "-" else self.read("output")
        os.set_blocking(end, False)
        left = 0
        while True:
            try:
                left += len(os.read(end, 1 << 16))
            except BlockingIOError:
                break
        taken = stream[:sent - left].rpartition(b"\n")
        return taken[0] + taken[1], stream, flags

    def test_in_the_middle_of_a_lot_of_input(self):
        """Each line that was read is judged and in the snapshot, no other one is: the next run has the rest."""
        for seed, ((number, status), output) in enumerate(product(self.signals, ("-", "output"))):
            with self.subTest(signal=number, output=output):
                taken, stream, flags = self.busy(number, status, self.path(output) if output != "-" else "-", seed)
                self.assertEqual((flags, state(self.read("snapshot"))), self.whole(QUICK, taken))
                self.assertTrue(0 < len(taken) < len(stream))
                rest = self.whole(self.read("snapshot"), stream[len(taken):])
                self.assertEqual((flags + rest[0], rest[1]), self.whole(QUICK, stream))

    def test_malformed_lines_are_among_what_was_read(self):
        process = self.start_live(self.batch, self.output, "--snapshot", self.target,
                                  "--rejects", self.path("rejects"), "--notify", "-")
        process.stdin.write(b"x\n" + STREAM + b"y\n")
        told = self.lines_arriving(process.stdout)
        process.send_signal(signal.SIGTERM)
        out, said = self.ended(process, 143)
        self.assertEqual((self.read("output"), state(self.read("snapshot"))), self.whole(BATCH, STREAM))
        self.assertEqual(self.read("rejects"), b"x\ny\n")
        self.assertEqual(told, FLAGGED[:-2] + b', "feed": ["1"], "recommend": []}\n')

    def test_to_standard_output(self):
        process = self.start_live(self.batch, self.output, "--snapshot", "-", "--notify", self.path("notify"),
                                  quiet=False)
        process.stdin.write(STREAM + b"x\n")
        self.lines_arriving(process.stderr)
        process.send_signal(signal.SIGTERM)
        out, said = self.ended(process, 143)
        self.assertEqual((self.read("output"), state(out)), self.whole(BATCH, STREAM))

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full here")
    def test_a_disk_that_is_full_then(self):
        """It is told, beside the signal; the flags are whole; the status is that of the failure."""
        process = self.start_live(self.batch, self.output, "--snapshot", "/dev/full", "--notify", "-")
        process.stdin.write(STREAM)
        self.lines_arriving(process.stdout)
        process.send_signal(signal.SIGTERM)
        out, said = self.ended(process, 1)
        full, stopped = said.splitlines(True)
        self.assertIn("/dev/full: No space left on device", full)
        self.assertIn("stopped by SIGTERM after line 1 of standard input; what was judged is written to", stopped)
        self.assertIn("; no snapshot is written, so the next run judges these lines again", stopped)
        self.assertEqual(self.read("output"), FLAGGED)
        self.assertEqual(sorted(self.snapshot()), ["batch", "output", "snapshot", "stream"])


if __name__ == "__main__":
    unittest.main()
