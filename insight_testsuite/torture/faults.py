"""Signals at random moments, full disks, missing rights, closed streams, scarce memory.

This protects the files: whatever befalls a run, all old outputs are intact or all new ones complete, but
for those that fail themselves and the snapshot, which then stays; an error is one clear line, and nothing
is left behind but by SIGKILL, where it disturbs no later run. A monitor that is stopped has written all
that it has judged, and what goes on from its snapshot misses no line. It judges none twice, unless an
output failed, and never takes another log for the one that it has read.
"""

import contextlib
import errno
import io
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, namedtuple
from itertools import combinations, product
from random import Random
from unittest.mock import patch

import reference
from benchmark import DETECTOR

from .common import (
    LOGS, MORE, changed, child, detector, limited, program, read, scratch, well_formed,
    without_place, write)
from .common import ended as ended_with_all_said

OLD = b"what an earlier run wrote\n"
AGAIN = b"no snapshot is written, so the next run judges these lines again"
Signal = namedtuple("Signal", "number status")
SIGNALS = (Signal(signal.SIGKILL, -9), Signal(signal.SIGTERM, 143), Signal(signal.SIGINT, 130),
           Signal(signal.SIGHUP, 129))


def ended(process, stdin=None):
    """Wait for a child; return (exit status, stdout, stderr but for the counts of skipped lines)."""
    status, out, errors = ended_with_all_said(process, stdin)
    return status, out, without_counts(errors)


def without_counts(errors):
    return re.sub(rb"(?m)^anomaly_detection: .*: skipped [0-9]+: .*\n", b"", errors)


class Stage:
    """Two logs in a folder, old outputs of every kind, and what a good run makes of them."""

    def __init__(self, folder, events=1500, users=40):
        self.folder = folder
        self.logs = [self.path(name) for name in LOGS]
        batch, stream = busy_logs(Random(4), events, users)
        for path, log in zip(self.logs, (batch, stream)):
            write(path, log)
        self.stream = stream
        self.outputs = {name: self.path(name) for name in ("output", "rejects", *MORE)}
        self.options = [word for name, path in self.outputs.items() for word in ("--" + name, path)]
        status, _, errors = self.run()
        if status:
            raise RuntimeError(errors)
        self.new = self.now()
        self.before()

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def before(self):
        """Have the old outputs there again, and no other files than those that are there now."""
        for path in self.outputs.values():
            write(path, OLD)
        self.files = sorted(os.listdir(self.folder))

    def now(self):
        """{name: bytes} of the outputs, in the order in which they take their places."""
        return {name: read(path) for name, path in self.outputs.items()}

    def start(self, *options, logs=None, **how):
        """Start a run with all outputs; an option that is given again counts."""
        return child("--quiet", *(logs or self.logs), *self.options, *options, cwd=self.folder, **how)

    def run(self, *options, **how):
        return ended(self.start(*options, **how))


def busy_logs(rng, events, users):
    """Logs (bytes) of a network in which much is flagged and some lines are bad."""
    lines = [b'{"D":"2", "T":"20"}']
    for number in range(events):
        one, other = rng.sample(range(users), 2)
        when = "2017-06-13 %02d:%02d:%02d" % (number // 3600 % 24, number // 60 % 60, number % 60)
        if number < 60 or number % 50 == 0:
            line = '{"event_type":"befriend", "timestamp":"%s", "id1": "%d", "id2": "%d"}' % (when, one, other)
        else:
            line = '{"event_type":"purchase", "timestamp":"%s", "id": "%d", "amount": "%d.%02d"}' % (
                when, one, rng.choice((9, 9, 9, 9, 99999)), rng.randrange(100))
        lines.append(line.encode() if number % 200 else b"bad line")
    half = len(lines) // 2
    return tuple(b"".join(line + b"\n" for line in part) for part in (lines[:half], lines[half:]))


def refused(trial, stage, done, statuses=(1,), says=b""):
    """Expect a run to have ended with one clear line and to have left everything alone."""
    status, out, errors = done
    trial.expect(status in statuses, "exit status %s: %s" % (status, errors))
    trial.expect(errors.count(b"\n") == 1 and b"Traceback" not in errors and says in errors,
                 "not one clear line: %s" % errors)
    trial.expect({*stage.now().values()} == {OLD}, "an old output was touched")
    left_clean(trial, stage)


def lost(trial, stage, done, names, says=b""):
    """Expect a run over files to have given up the named outputs, each with a line, and written the others.

    The snapshot is not even begun if another one is lost, and a last line tells that it stays.
    """
    status, out, errors = done
    trial.expect(status == 1, "exit status %s: %s" % (status, errors))
    *lines, last = errors.splitlines() or [b""]
    trial.expect(len(lines) == len({*names} - {"snapshot"} or names)
                 and all(says in line and line.endswith(b"; this output is given up") for line in lines)
                 and last == b"anomaly_detection: " + AGAIN, "%s lost, but said is: %s" % (names, errors))
    for name, data in stage.now().items():
        wanted = OLD if name in {*names, "snapshot"} else stage.new[name]
        trial.expect(data == wanted, "wrong %s, lost: %s" % (name, names))
    left_clean(trial, stage)


def succeeded(trial, stage, done, wanted=None):
    """Expect a run to have done its work silently, and to have left nothing else behind."""
    trial.expect(done == (0, b"", b""), "exit status %s: %s%s" % done)
    now = stage.now()
    for name, data in (wanted or stage.new).items():
        trial.expect(now[name] == data, "wrong " + name)
    trial.expect(now["report"] == stage.new["report"] or well_formed(now["report"]), "not a page")
    left_clean(trial, stage)


def left_clean(trial, stage, killed=False):
    for name in set(os.listdir(stage.folder)) - set(stage.files):
        if killed and name.startswith(".flagged-"):
            os.unlink(stage.path(name))
    left = sorted(os.listdir(stage.folder))
    trial.expect(left == stage.files, "left behind: %s" % sorted(set(left) ^ set(stage.files)))


def file_size_limit(trial, stage):
    """Outputs that are too large are lost; in several processes also what a worker records may be."""
    sizes = {name: len(data) for name, data in stage.new.items()}
    for jobs, size in product("12", (0, 1, 1000, *(size - 1 for size in sizes.values()))):
        stage.before()
        done = stage.run("--jobs", jobs, prepare=limited(resource.RLIMIT_FSIZE, size))
        if jobs == "1" or b"given up" in done[2]:
            lost(trial, stage, done, [name for name in sizes if sizes[name] > size], b"File too large")
        else:
            refused(trial, stage, done)


def full_disk(trial, stage):
    with open("/dev/full", "wb") as full:
        for name in stage.outputs:
            for path in "-", "/dev/full":
                stage.before()
                lost(trial, stage, stage.run("--" + name, path, stdout=full), [name], b"No space left")
        stage.before()
        succeeded(trial, stage, stage.run(stderr=full))


def reader_gone(trial, stage):
    """The reader of a live run's output reads some of it and goes: the run ends, the others hold what was judged."""
    for name in set(stage.outputs) - {"snapshot", "report"}:        # those that are written at once
        stage.before()
        process = stage.start("--" + name, "-", logs=(stage.logs[0], "-"), stdin=subprocess.PIPE)
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:       # it may have ended before
            pipe.write(stage.stream[:len(stage.stream) // 2])
            pipe.flush()
            process.stdout.read(10)
            process.stdout.close()
            pipe.write(stage.stream[len(stage.stream) // 2:])
        process.stdin = process.stdout = None
        (status, _, errors), now = ended(process), stage.now()
        said = re.fullmatch(rb"anomaly_detection: standard output: Broken pipe; ended after line ([0-9]+) of standard "
                            rb"input; what was judged is written to (.*); " + AGAIN + rb"\n", errors)
        if name == "rejects" and b"no output file is changed" in errors:       # those of the batch log were enough
            trial.expect(status == 1 and {*now.values()} == {OLD}, "exit status %s: %s" % (status, errors))
            continue
        trial.expect(status == 1 and said, "%s lost: exit status %s: %s" % (name, status, errors))
        placed = {*stage.outputs} - {name, "snapshot"}
        trial.expect(said and {*said[2].decode().split(", ")} == {stage.outputs[other] for other in placed}, errors)
        lines = b"".join(stage.stream.splitlines(True)[:said and int(said[1])])
        judged = program(trial, read(stage.logs[0]), lines, "--quiet", more=MORE)
        for other, data in now.items():
            wanted = getattr(judged, "flagged" if other == "output" else other) if other in placed else OLD
            trial.expect(data == wanted or other == "report" and well_formed(data) and b'"refresh"' not in data,
                         "wrong %s, lost: %s" % (other, name))
        left_clean(trial, stage)


def unreadable_inputs(trial, stage):
    for bad in (stage.path("none"), stage.folder, stage.path("output", "below"), "", "/proc/self/mem"):
        for logs in ((bad, stage.logs[1]), (stage.logs[0], bad)):
            refused(trial, stage, stage.run(logs=logs), (1, 2))


def as_nobody(trial, stage):
    """Without rights to the input, or to an output's folder."""
    copy = shutil.copy(DETECTOR, stage.folder)
    stage.before()

    def run(*arguments):
        how = {"preexec_fn": lambda: os.setuid(65534)} if os.getuid() == 0 else {}
        return ended(subprocess.Popen([python, copy, *arguments], stdout=-1, stderr=-1, **how))

    for python in sys.executable, "/usr/bin/python3":
        with contextlib.suppress(OSError):      # out of nobody's reach
            if run("--version")[0] == 0:
                break
    else:
        return
    os.chmod(stage.folder, 0o555)
    for name, path in (*stage.outputs.items(), ("output", stage.path("new", "out"))):
        done = run(*stage.logs, "--output", os.devnull, "--" + name, path)
        refused(trial, stage, done, (2,), b"Permission denied")
    os.chmod(stage.logs[1], 0)
    refused(trial, stage, run(*stage.logs, *stage.options), (2,), b"Permission denied")
    os.chmod(stage.folder, 0o755)


def impossible_outputs(trial, stage):
    for bad in (stage.folder, stage.path("output", "below"), "/proc/none/out", "/proc/version/out",
                stage.path("x" * 300), "/", "."):
        for name in "output", trial.rng.choice(("rejects", *MORE)):
            stage.before()
            refused(trial, stage, stage.run("--" + name, bad), (2,))


def another_option(trial):
    return "--" + trial.rng.choice(("rejects", *MORE))


def output_is_an_input(trial, stage):
    os.symlink(stage.logs[0], stage.path("symlink"))
    os.link(stage.logs[1], stage.path("hardlink"))
    stage.before()
    before = list(map(read, stage.logs))
    for bad in (*stage.logs, stage.path("symlink"), stage.path("hardlink"), stage.path(".", LOGS[0])):
        refused(trial, stage, stage.run("--output", bad), (2,))
        refused(trial, stage, stage.run(another_option(trial), bad), (2,))
    for one, other in combinations(stage.outputs, 2):
        refused(trial, stage, stage.run("--" + one, stage.outputs[other]), (2,))
    trial.expect(list(map(read, stage.logs)) == before, "a log was changed")


def closed_streams(trial, stage):
    def closing(*numbers_):
        return lambda: [os.close(number) for number in numbers_]

    for numbers_ in ((1,), (2,), (1, 2), (0,), (0, 1, 2)):
        for jobs in "12":
            stage.before()
            succeeded(trial, stage, stage.run("--jobs", jobs, prepare=closing(*numbers_)))
    stage.before()
    refused(trial, stage, stage.run("--output", "-", prepare=closing(1)), (1, 2))
    refused(trial, stage, stage.run(logs=(stage.logs[0], "-"), prepare=closing(0)), (1, 2))
    status, _, errors = stage.run("--output", "-", prepare=closing(1, 2))
    trial.expect(status in (1, 2) and not errors, "closed stdout and stderr: %s" % status)
    left_clean(trial, stage)
    stage.before()
    done = stage.run("--jobs", "1", "--output", "-", prepare=closing(2))
    trial.expect(done == (0, stage.new["output"], b""), "output - with stderr closed")
    stage.before()
    reading, writing = os.pipe()
    os.close(reading)
    done = ended(child("--quiet", *stage.logs, "-", stdout=writing))
    trial.expect(done == (0, b"", b""), "a closed pipe does not end quietly")
    lost(trial, stage, stage.run("--output", "-", stdout=writing), ["output"], b"Broken pipe")
    os.close(writing)


def fifo_byte_by_byte(trial, stage):
    """Both logs through FIFOs."""
    fifos = [stage.path("fifo" + name) for name in LOGS]
    for fifo in fifos:
        os.mkfifo(fifo)

    stage.before()
    feeders = [threading.Thread(target=feed, args=(fifo, read(log), 1 if log == stage.logs[1] else 777), daemon=True)
               for fifo, log in zip(fifos, stage.logs)]
    for feeder in feeders:
        feeder.start()
    wanted = {name: data for name, data in stage.new.items() if name != "report"}   # which names the logs
    succeeded(trial, stage, stage.run(logs=fifos), wanted)
    for feeder in feeders:
        feeder.join(10)


def truncated_input(trial, stage):
    """The stream log cut anywhere in its last line, or elsewhere."""
    batch, last = read(stage.logs[0]), stage.stream.rstrip(b"\n").rfind(b"\n") + 1
    for size in {last, last + 1, len(stage.stream) - 1, len(stage.stream) - 2,
                 trial.rng.randrange(last, len(stage.stream)), trial.rng.randrange(last)}:
        part = write(stage.path("part"), stage.stream[:size])
        stage.before()
        done, notify, verdicts = stage.run("--jobs", trial.rng.choice("12"), logs=(stage.logs[0], part)), [], []
        flagged = reference.judge_logs(batch, stage.stream[:size], notify=notify, verdicts=verdicts).flagged
        succeeded(trial, stage, done, {
            "output": flagged, "notify": b"".join(notify), "verdicts": b"".join(verdicts)})


def rotated_while_read(trial, stage):
    """The stream is renamed, replaced, truncated or truncated and written anew between two reads of it."""
    path, pread = stage.path("rotated"), os.pread
    other = stage.stream[len(stage.stream) // 3:].replace(b'"amount": "9.', b'"amount": "8.')

    def rotate(how):
        if how == "renamed":
            os.rename(path, path + ".1")
        elif how == "replaced":
            os.replace(write(path + ".1", other), path)
        else:
            with open(path, "r+b") as file:
                file.truncate(0)
                file.write(other if how == "rewritten" else b"")    # which is shorter than before

    for how, jobs, place in product(("renamed", "replaced", "truncated", "rewritten"), "12", (2, 3, 9)):
        stage.before()
        write(path, stage.stream)
        left = [place]

        def reading(fd, size, position):
            data = pread(fd, size, position)
            if os.fstat(fd).st_ino == inode:
                left[0] -= 1
                with contextlib.suppress(FileNotFoundError):        # another process has done it
                    if left[0] == 0:
                        rotate(how)
            return data

        inode, said = os.stat(path).st_ino, io.StringIO()
        with changed({("os", "pread"): reading, (None, "CHUNK"): 10000}), contextlib.redirect_stderr(said):
            status = detector.main(["--quiet", stage.logs[0], path, *stage.options, "--jobs", jobs])
        now, what = stage.now(), "%s after read %d, --jobs %s: exit status %s: %s" % (
            how, place, jobs, status, said.getvalue()[-500:])
        for name in path, path + ".1":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        if status and how in ("truncated", "rewritten"):
            trial.expect({*now.values()} == {OLD} and "Traceback" not in what, "an old output was touched; " + what)
        else:
            trial.expect(now["verdicts"] == stage.new["verdicts"], "not all is judged; " + what)
        left_clean(trial, stage)


def stream_that_is_replaced(trial, stage):
    """A stream that is shorter than when its snapshot was made is refused, however short."""
    state = stage.path("state")
    write(state, stage.new["snapshot"])
    last = stage.stream.rstrip(b"\n").rfind(b"\n") + 1
    for size in 0, 1, last // 2, last - 1, last:
        part = write(stage.path("part"), stage.stream[:size])
        stage.before()
        refused(trial, stage, stage.run("--resume", logs=(state, part)), (2,), b"rotated")
    part = write(stage.path("part"), stage.stream)
    succeeded(trial, stage, stage.run("--resume", logs=(state, part)), {
        "output": b"", "rejects": b"", "verdicts": b"", "snapshot": stage.new["snapshot"]})


def two_at_once(trial, stage):
    """Two runs over different logs write the same outputs: each is either's. Of the same state one is refused."""
    logs = [stage.logs, (stage.logs[0], write(stage.path("other"), stage.stream[:len(stage.stream) // 2]))]
    stage.run(logs=logs[1])
    other = stage.now()
    for snapshot in (True, False) * 3:
        stage.before()
        options = [] if snapshot else ["--snapshot", os.devnull]
        ends = [ended(run) for run in [stage.start(*options, logs=both) for both in logs]]
        refusals = [done for done in ends if done != (0, b"", b"")]
        trial.expect(len(refusals) <= snapshot and all(
            done[0] == 2 and done[2].endswith(b"snapshot: another run is using it\n") and done[2].count(b"\n") == 1
            for done in refusals), "two runs at once: %s" % ends)
        for name, data in stage.now().items():
            trial.expect(data in (stage.new[name], other[name]) or name == "snapshot" and not snapshot,
                         "a mixture of two runs: " + name)
        left_clean(trial, stage)


def left_over(trial, stage):
    """What a killed run left behind disturbs no later one."""
    write(stage.path(".flagged-0123456789ab.tmp"), b"half a li")
    stage.before()
    succeeded(trial, stage, stage.run())


def memory_limits(trial, stage):
    """RLIMIT_AS from what the start takes, upwards: it works, or says so and leaves all alone.

    A new Python runs the program, since a forked copy of this process has more memory already.
    """
    steps, size = (6, 1) if trial.limit else (60, 4)
    stage = Stage(stage.folder, 5000 * size, 2500 * size)
    needed = next(size for size in range(8 << 20, 1 << 30, 1 << 20)
                  if not ended(child("--version", program=DETECTOR, prepare=limited(resource.RLIMIT_AS, size)))[0])
    statuses = Counter()
    for step in range(steps):
        stage.before()
        limit = needed + (step + 1) * (size * 5 << 20) // steps + trial.rng.randrange(1 << 18)
        done = stage.run("--jobs", trial.rng.choice("12"), program=DETECTOR, prepare=limited(resource.RLIMIT_AS, limit))
        statuses[done[0]] += 1
        if done[0] == 0:
            succeeded(trial, stage, done)
        elif b"given up" in done[2]:        # it lacked for single outputs, as when the state is sorted
            ends = AGAIN + b"\n", b"out of memory; no output file is changed\n"     # after it, or for the run, too
            trial.expect(done[0] == 1 and done[2].count(b"out of memory") + 1 >= done[2].count(b"\n")
                         and done[2].endswith(ends) and stage.now()["snapshot"] == OLD, "lost: %s %s" % done[::2])
            trial.expect(all(data in (OLD, stage.new[name]) for name, data in stage.now().items()), "half an output")
            left_clean(trial, stage)
        else:
            refused(trial, stage, done, says=b"emory")
    trial.measured("RLIMIT_AS from %d MB on: %s" % (needed >> 20, dict(statuses)))


def listens(process):
    """Wait until a child has its handler of SIGTERM, or has ended."""
    caught = 1 << signal.SIGTERM - 1
    while process.poll() is None:
        with open("/proc/%d/status" % process.pid) as file:
            if int(re.search("SigCgt:\\s*([0-9a-f]+)", file.read()).group(1), 16) & caught:
                return


def killed_worker(trial, stage):
    """A worker process that dies takes the run with it, and nothing else."""
    stage = Stage(stage.folder, 5000 if trial.limit else 20000)
    for delay in 0, 0.02, 0.05, 0.1:
        stage.before()
        process = stage.start("--jobs", "3")
        children = "/proc/%d/task/%d/children" % (process.pid, process.pid)
        wait_until(lambda: process.poll() is not None or readable(children), 5)
        time.sleep(delay)
        workers = (readable(children) or b"").split()
        for worker in workers[:1]:
            with contextlib.suppress(ProcessLookupError):       # it has just ended
                os.kill(int(worker), signal.SIGKILL)
        done = ended(process)
        if done[0] == 0:        # it came too late
            succeeded(trial, stage, done)
        else:
            refused(trial, stage, done, says=b"worker process died")


def died(trial, stage, seconds):
    """A signal at a random moment: all outputs old or all new, nothing left but after SIGKILL.

    Between two outputs SIGKILL may come, and then the first ones are new. One signal in eight
    comes while Python starts, which the program has no say in.
    """
    stage.before()
    sent, jobs, early = trial.rng.choice(SIGNALS), trial.rng.choice("12"), trial.rng.random() < 0.125
    process = stage.start("--jobs", jobs, program=early and DETECTOR)
    if early:
        time.sleep(trial.rng.uniform(0, 0.1))
    else:
        listens(process)
        time.sleep(trial.rng.uniform(0, seconds))
    process.send_signal(sent.number)
    status, _, errors = ended(process)
    what = "%s, --jobs %s: exit status %s: %s" % (sent.number.name, jobs, status, errors)
    new = replaced(trial, stage, what)
    if not early:
        too_late = status == -sent.number and new == len(stage.new)
        trial.expect(status in (0, sent.status) or too_late, what)
        trial.expect(errors.count(b"\n") == (status > 0) or too_late, what)
    trial.expect(new in (0, len(stage.new)) or status == -signal.SIGKILL, "%d are new; %s" % (new, what))
    trial.expect(status or new, "nothing is written; " + what)
    left_clean(trial, stage, killed=status == -signal.SIGKILL)
    return sent.number.name + " in start-up" * early, "%d new outputs" % new, status


def replaced(trial, stage, what):
    """Expect the outputs to be new up to one, and old from then on; return how many are new."""
    now = stage.now()
    new = sum(now[name] == stage.new[name] for name in now)
    wanted = [*stage.new.values()][:new] + [OLD] * (len(now) - new)
    trial.expect([*now.values()] == wanted, "a mixture; " + what)
    return new


def monitor_stopped(trial, stage, seconds):
    """A signal at a random moment to a monitor, which another one may follow from its snapshot.

    With a snapshot or without, all outputs are those of the lines up to the one that is told.
    """
    stage.before()
    sent, snapshot = trial.rng.choice(SIGNALS), trial.rng.random() < 0.5
    reading, writing = os.pipe()
    options = stage.options[:None if snapshot else -2]
    process = child("--quiet", stage.logs[0], "-", *options, stdin=reading, cwd=stage.folder)
    feeder = threading.Thread(target=feed, args=(writing, stage.stream, trial.rng.choice((900, 5000))), daemon=True)
    endless = os.dup(writing)
    feeder.start()
    listens(process)
    time.sleep(trial.rng.uniform(0, seconds))
    process.send_signal(sent.number)
    status, _, errors = ended(process)
    os.close(endless)
    with open(reading, "rb") as pipe:
        unread = len(pipe.read())
    feeder.join()
    now, killed = stage.now(), status == -signal.SIGKILL
    what = "%s to a monitor: exit status %s: %s" % (sent.number.name, status, errors)
    trial.expect(status == sent.status and errors.count(b"\n") == (status > 0), what)
    trial.expect(now["report"] == OLD or well_formed(now["report"]), "not a page; " + what)
    trial.expect(killed or b'"refresh"' not in now["report"], "a page without end; " + what)
    left_clean(trial, stage, killed)
    taken = stage.stream.rfind(b"\n", 0, len(stage.stream) - unread) + 1
    line = re.search(rb"stopped by %s after line ([0-9]+) of standard input; what was judged is written\n"
                     % sent.number.name.encode(), errors)
    if line:
        trial.expect(int(line[1]) == stage.stream.count(b"\n", 0, taken), "another line; " + what)
        judged = program(trial, read(stage.logs[0]), stage.stream[:taken], "--quiet", more=MORE)
        for name in ["output", "rejects", "notify", "verdicts", *["snapshot"] * snapshot]:
            trial.expect(now[name] == getattr(judged, "flagged" if name == "output" else name),
                         "not the %s of the lines up to that; %s" % (name, what))
    else:       # it was loading the batch log
        trial.expect({now[name] for name in now if name != "report"} == {OLD} or killed, "a mixture; " + what)
    if now["snapshot"] != OLD:
        rest = program(trial, now["snapshot"], stage.stream[taken:], "--quiet", more=MORE)
        both = (now["output"] + rest.flagged, now["rejects"] + rest.rejects, now["notify"] + rest.notify,
                now["verdicts"] + rest.verdicts)
        trial.expect(both == (*stage.new.values(),)[:4], "a line lost or twice; " + what)
        trial.expect(without_place(rest.snapshot) == without_place(stage.new["snapshot"]), "another snapshot; " + what)
    written = "no" if now["output"] == OLD else "all but the snapshot" if now["snapshot"] == OLD else "all"
    return sent.number.name + " to a monitor", written + " outputs", status


def stop_and_go(trial, stage, seconds):
    """Five runs with --resume that are stopped at random moments, each over its snapshot; then one to the end.

    They read the stream from its beginning, through a pipe, or in a file that grows meanwhile. After
    SIGKILL the chain goes on from the last snapshot. Each purchase is judged once by those that count.
    """
    live, grown = trial.rng.random() < 0.5, 0
    stage.before()
    state, log = stage.path("state"), stage.path("growing")
    write(state, read(stage.logs[0]))
    written, ends = Counter(), []
    for number in range(6):
        before = read(state)
        options = ["--resume", "--snapshot", state, "--jobs", trial.rng.choice("12")]
        grown = len(stage.stream) if number == 5 else trial.rng.randint(grown, len(stage.stream))
        write(log, stage.stream[:grown])
        reading, writing = os.pipe()
        process = stage.start(*options, logs=(state, "-" if live else log), stdin=reading)
        os.close(reading)
        endless = os.dup(writing)
        feeder = threading.Thread(target=feed_while_read, args=(writing, stage.stream, 5000), daemon=True)
        feeder.start()
        listens(process)
        sent = trial.rng.choice(SIGNALS)
        if number < 5:
            time.sleep(trial.rng.uniform(0, seconds))
            process.send_signal(sent.number)
        else:
            os.close(endless)
        status, _, errors = ended(process)
        if number < 5:
            os.close(endless)
        feeder.join()
        what = "run %d over a %s, %s: exit status %s: %s" % (
            number, "pipe" if live else "file", sent.number.name, status, errors)
        too_late = number < 5 and status == -sent.number and read(state) != before     # all was written
        trial.expect(status in ((0, sent.status) if number < 5 else (0,)) or too_late, what)
        trial.expect(errors.count(b"\n") == (status > 0), what)
        left_clean_of(trial, stage, {"state", "growing"}, killed=status == -signal.SIGKILL)
        if read(state) != before:
            for name in "output", "rejects", "notify", "verdicts":
                data = read(stage.outputs[name])
                trial.expect(data != OLD, "no %s beside a snapshot; %s" % (name, what))
                written[name] = written.get(name) or b""
                written[name] += data
        ends.append("killed" if status == -signal.SIGKILL else "stopped" if status else "ended")
        for path in stage.outputs.values():
            write(path, OLD)
    for name in "output", "rejects", "notify", "verdicts":
        trial.expect(written[name] == stage.new[name], "a line lost or twice in %s; %s" % (name, ends))
    trial.expect(read(state) == stage.new["snapshot"], "another snapshot; %s" % ends)
    os.unlink(state)
    os.unlink(log)
    return "stop and go over a " + ("pipe" if live else "file"), ", ".join(
        "%d %s" % (ends.count(end), end) for end in sorted({*ends})), 0


def fail_and_go(trial, stage, seconds):
    """Runs with --resume whose direct output fails, in chains: no flag is lost, although some may come twice.

    The output is a full device, or its reader goes or stalls; a signal or two come; temporaries are deleted.
    """
    stage.before()
    live, state = trial.rng.random() < 0.5, write(stage.path("state"), read(stage.logs[0]))
    appended, verdicts = write(stage.path("appended"), b""), stage.path("verdicts")
    got, ends = Counter(), Counter()
    for number in range(8):
        before, sent = read(state), trial.rng.choice(SIGNALS)
        reader = "reads" if number == 7 else trial.rng.choice(("reads", "goes", "stalls", "full", "appends"))
        outputs = {"full": "/dev/full", "appends": appended}
        out = open(outputs[reader], "ab") if reader in outputs else subprocess.PIPE
        closed = trial.rng.choice([(), (), (2,)] + [(0,)] * (not live)) if number < 7 else ()
        pipe, writing = os.pipe()
        process = child("--quiet", "--resume", "--snapshot", state, state, "-" if live else stage.logs[1], "-",
                        "--verdicts", verdicts, "--jobs", trial.rng.choice("13"), stdin=pipe, stdout=out,
                        prepare=lambda: [os.close(fd) for fd in closed], cwd=stage.folder)
        os.close(pipe)
        endless = os.dup(writing)
        feeder = threading.Thread(target=feed_while_read, args=(writing, stage.stream, 5000), daemon=True)
        feeder.start()
        data, reading = [], None
        if reader in ("reads", "goes"):
            reading = threading.Thread(target=read_some, daemon=True, args=(
                process, data, trial.rng.randrange(1, 3000) if reader == "goes" else None))
            reading.start()
        if number < 7:
            listens(process)
            time.sleep(trial.rng.uniform(0, seconds))
            if trial.rng.random() < 0.4:
                for name in os.listdir(stage.folder):
                    if name.startswith(".flagged-"):
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(stage.path(name))
            process.send_signal(sent.number)
            if reader == "stalls":
                time.sleep(trial.rng.uniform(0, 0.1))
                process.send_signal(sent.number)
        else:
            os.close(endless)
        status = process.wait(60)
        if number < 7:
            os.close(endless)
        feeder.join()
        errors = without_counts(process.stderr.read())
        process.stderr.close()
        if reading:
            reading.join()
        elif reader == "stalls":
            read_some(process, data, None)
        else:
            out.close()
        got.update(line for line in b"".join(data).splitlines(True) if line.endswith(b"}\n"))
        what = "run %d over a %s, %s, %s: exit status %s: %s" % (
            number, "pipe" if live else "file", reader, sent.number.name, status, errors)
        trial.expect(b"Traceback" not in errors and errors.count(b"\n") <= 3, what)
        trial.expect(status in (0, 1, sent.status, -sent.number) and (number < 7 or status == 0), what)
        trial.expect(read(state) == before or status != 1, "a snapshot of a run that failed; " + what)
        trial.expect(status != 1 or closed or AGAIN in errors or b"after line 0 of" in errors, what)
        for name in os.listdir(stage.folder):
            if status == -signal.SIGKILL and name.startswith(".flagged-"):
                os.unlink(stage.path(name))
        ends[reader + " %d" % status] += 1
    got.update(read(appended).splitlines(True))
    missing = Counter(stage.new["output"].splitlines(True)) - got
    trial.expect(not missing, "%d flags are lost over a %s; %s" % (
        sum(missing.values()), "pipe" if live else "file", ends))
    trial.expect(read(state) == stage.new["snapshot"], "another snapshot; %s" % ends)
    for path in state, appended:
        os.unlink(path)
    left_clean(trial, stage)
    return "fail and go over a " + ("pipe" if live else "file"), "8 runs", 0


def read_some(process, data, size):
    """Append to data what a process writes, up to a size; close the pipe."""
    with process.stdout as pipe:
        while size is None or sum(map(len, data)) < size:
            data.append(os.read(pipe.fileno(), size or 1 << 16))
            if not data[-1]:
                return


def feed_while_read(file, log, piece):
    with contextlib.suppress(BrokenPipeError):
        feed(file, log, piece)


def left_clean_of(trial, stage, more, killed):
    """Like left_clean, with more files than those of the stage."""
    stage.files = sorted({*stage.files, *more})
    left_clean(trial, stage, killed)
    stage.files = sorted({*stage.files} - more)


def feed(file, log, piece):
    """Write a log into a pipe or FIFO piece by piece."""
    with open(file, "wb", buffering=0) as pipe:
        for start in range(0, len(log), piece):
            pipe.write(log[start:start + piece])


def between_outputs(trial, stage):
    """When an output is to take its place, SIGTERM is too late. A rename that fails becomes a copy.

    If that fails, too, this output and the snapshot stay, and the complete temporary file is named.
    """
    replace, every = os.replace, len(stage.outputs)
    for number, befalls in product(range(every), ("a signal", "no rename", "no copy either")):
        targets, name = [], [*stage.outputs][number]

        def replacing(temporary, target):
            targets.append(target)
            if len(targets) == number + 1:
                if befalls != "a signal":
                    raise OSError(trial.rng.choice((errno.EXDEV, errno.ENOSYS, errno.EIO, errno.EINVAL)), "renaming")
                os.kill(os.getpid(), signal.SIGTERM)
            replace(temporary, target)

        def copying(source, target):
            if befalls == "no copy either":
                raise OSError(errno.ENOSPC, "broken")
            target.write(source.read())

        stage.before()
        said = io.StringIO()
        with patch("os.replace", replacing), patch("shutil.copyfileobj", copying), \
                contextlib.redirect_stderr(said):
            status = detector.main(["--quiet", *stage.logs, *stage.options])
        errors = re.sub(".*: skipped [0-9]+: .*\n", "", said.getvalue()).encode()
        if befalls == "no copy either":
            kept = re.search(rb"broken; (.*) holds the new content", errors)[1].decode()
            trial.expect(read(kept) == stage.new[name], "not the complete " + name)
            os.unlink(kept)
            lost(trial, stage, (status, b"", errors), [name], b"broken")
        else:
            what = "%s at output %d: exit status %s" % (befalls, number, status)
            trial.expect((status, replaced(trial, stage, what)) == (0, every), what)
            trial.expect(errors.count(b"so it was written into") == errors.count(b"\n") == (befalls != "a signal"), errors)
        left_clean(trial, stage)


def rotated_between_stops(trial, stage):
    """A log is rotated between stops: whole, half read, or regrown; --resume never takes it for the one it read.

    Whoever runs it then does as the message says: first the rest of the old log, then the new one from its start.
    """
    lines, log, state = stage.stream.splitlines(True), stage.path("log"), stage.path("state")
    for number in range(6 if trial.limit else 30):
        pieces = sorted(trial.rng.sample(range(1, len(lines)), 3))
        judged = Counter()
        write(state, read(stage.logs[0]))

        def run(path, *options, statuses=(0,)):
            done = ended(child("--quiet", *options, "--snapshot", state, state, path, os.devnull, "--verdicts", "-",
                               "--jobs", trial.rng.choice("13")))
            trial.expect(done[0] in statuses and done[2].count(b"\n") == (done[0] > 0), "%s: %s" % (pieces, done))
            judged.update(line.rpartition(b', "window"')[0] for line in done[1].splitlines())
            return done[0]

        old, rest = [], ["--resume"]        # whose position is at the stream's start
        for start, end in zip([0, *pieces], [*pieces, None]):
            part = lines[start:end]
            read_before = trial.rng.choice((0, len(old) // 2, len(old)))
            if old and read_before:
                write(log, b"".join(old[:read_before]))
                run(log, *rest)
                write(log, b"".join(part))
                before = read(state)
                if run(log, "--resume", statuses=(2,)) == 2:
                    trial.expect(read(state) == before, "a snapshot of a run that was refused")
                rest = ["--resume"]
            if old:
                write(log + ".1", b"".join(old))
                run(log + ".1", *rest)
                rest = []
            old = part
        write(log, b"".join(old))
        run(log, *rest)
        wanted = Counter(line.rpartition(b', "window"')[0] for line in stage.new["verdicts"].splitlines())
        trial.expect(judged == wanted, "of the purchases of rotated logs %s are lost, %s judged twice; %s" % (
            len(wanted - judged), len(judged - wanted), pieces))


def running(folder):
    """The processes that work in a folder."""
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and place_of(pid) == folder]


def place_of(pid):
    with contextlib.suppress(OSError):
        return os.readlink("/proc/%s/cwd" % pid)


def readable(path):
    with contextlib.suppress(OSError):
        return read(path)


FAULTS = (file_size_limit, full_disk, reader_gone, unreadable_inputs, as_nobody, impossible_outputs,
          output_is_an_input, closed_streams, fifo_byte_by_byte, truncated_input, rotated_while_read,
          stream_that_is_replaced, two_at_once, left_over, killed_worker, memory_limits, between_outputs,
          rotated_between_stops)


def run(trial):
    each_fault(trial)
    random_signals(trial)


def each_fault(trial):
    signal.signal(signal.SIGINT, signal.default_int_handler)    # a background job may have it ignored
    for fault in FAULTS:
        with trial.one(fault.__name__):
            fault(trial, Stage(trial.folder))


def random_signals(trial):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if trial.limit:
        trial.limit += trial.cases
    with scratch() as folder:
        stage = Stage(folder, 5000 if trial.limit else 20000)
        started = time.monotonic()
        stage.run("--jobs", "1")
        seconds = time.monotonic() - started
        ends = Counter()
        trial.repeat(lambda trial: ends.update([
            (died, fail_and_go, monitor_stopped, stop_and_go)[trial.cases % 4](trial, stage, seconds)]))
        wait_until(lambda: not running(folder), 5)
        trial.expect(not running(folder), "worker processes outlive their parent")
    for end, count in sorted(ends.items()):
        trial.measured("%s: %s, exit status %d: %d times" % (*end, count))


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
