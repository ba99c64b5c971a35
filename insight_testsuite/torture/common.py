"""What the parts share: counting what is tried, files, running the program, its thresholds, lines of logs."""

import contextlib
import gc
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import namedtuple
from datetime import datetime, timedelta
from fractions import Fraction
from html.parser import HTMLParser
from operator import attrgetter
from random import Random

SUITE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(SUITE), "src"))
import anomaly_detection as detector
import reference

# As run.sh, without the site packages: starting takes a quarter of the time.  What notes the
# lines that are run comes by PYTHONPATH, and needs them.
PYTHON = [sys.executable] if os.environ.get("PYTHONPATH") else [sys.executable, "-S"]
LOGS = "batch_log.json", "stream_log.json"
MORE = "notify", "verdicts", "evidence", "report", "snapshot"  # options: what a run may write beside flags and rejects


# ------------------------------------------------------------ counting what is tried

def name_of(part):
    """What a part (a module beside this one) is called."""
    return part.__name__.rpartition(".")[2]


class Trial:
    """One part's run: gives out numbered cases, keeps count of what goes wrong.

    It ends after some seconds or a number of cases, whichever is given.
    """

    def __init__(self, part, seed=1, seconds=None, cases=None):
        self.part, self.seed, self.seconds, self.limit = part, seed, seconds, cases
        self.cases = self.mismatches = self.crashes = 0
        self.case, self.rng = "", None
        self.complaints, self.figures = [], []

    def repeat(self, case):
        """Call case(trial) until it is enough; `rng` is another one each time."""
        started = time.monotonic()
        while self.cases != self.limit and (
                self.seconds is None or time.monotonic() < started + self.seconds):
            with self.one(self.cases):
                case(self)
        return self.cases / (time.monotonic() - started)

    @contextlib.contextmanager
    def one(self, name):
        """Count a case, give it a `folder`; an exception that leaves it is a crash."""
        self.case = "%s --seed %s, case %s" % (self.part, self.seed, name)
        self.rng = Random(self.case)
        self.cases += 1
        with scratch() as self.folder:
            try:
                yield
            except Exception:
                self.crash(traceback.format_exc())

    def expect(self, good, complaint):
        if not good:
            self.mismatches += 1
            self.complain(complaint)

    def crash(self, complaint):
        self.crashes += 1
        self.complain(complaint)

    def complain(self, complaint):
        complaint = "%s: %s" % (self.case, complaint)
        self.complaints.append(complaint)
        print(complaint[:2000], file=sys.stderr)

    def measured(self, text):
        self.figures.append(text)
        print("  " + text, flush=True)

    def closing(self):
        return "%d cases tried, %d mismatches, %d crashes" % (
            self.cases, self.mismatches, self.crashes)


# ----------------------------------------------------------------------------- files

@contextlib.contextmanager
def scratch():
    """A folder that anybody may enter, in memory where there is such a place."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="torture-", dir=memory) as folder:
        os.chmod(folder, 0o755)
        yield folder


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path


def read(path):
    """The bytes of a file; None if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


# -------------------------------------------------------------- running the program

Ran = namedtuple("Ran", "status said flagged rejects notify verdicts evidence report snapshot")


def program(trial, batch, stream, *options, more=()):
    """Run the program's main() on two logs (bytes), with more outputs; return what came of it, as Ran."""
    *logs, output = (os.path.join(trial.folder, name) for name in (*LOGS, "output"))
    for path, log in zip(logs, (batch, stream)):
        write(path, log)
    paths = {name: os.path.join(trial.folder, name) for name in ("rejects", *more)}
    given = [word for name, path in paths.items() for word in ("--" + name, path)]
    for path in [output, *paths.values()]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = detector.main([*logs, output, *given, "--jobs", "1", *options])
    return Ran(status, said.getvalue(), read(output), *(
        read(paths[name]) if name in paths else None for name in Ran._fields[3:]))


def start(*arguments, program=None, preexec_fn=None, env=None, pass_fds=(), **options):
    """Start the program's command line as a process; return its subprocess.Popen.

    With `program`, the path of the program's file, a new Python runs it. Without, a forked copy
    of this process calls main(), which takes one tenth of the time; what is patched here is
    patched there. Its streams, descriptors, signals and exit status are as in a new Python.
    """
    if program:
        return subprocess.Popen([*PYTHON, program, *arguments], preexec_fn=preexec_fn, env=env,
                                pass_fds=pass_fds, **options)

    def instead_of_another_program():
        if preexec_fn:
            preexec_fn()
        status = 1
        try:
            become_new(env, pass_fds)
            status = detector.main(list(arguments))
        except SystemExit as end:           # argparse's, after --help
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, AttributeError):
                sys.stdout.flush()
            os._exit(status)
    return subprocess.Popen(["anomaly_detection.py", *arguments], pass_fds=pass_fds,
                            preexec_fn=instead_of_another_program, **options)


def become_new(env, pass_fds):
    """Put this forked process into the state in which the program's main() finds a new one."""
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN, None):
            signal.signal(number, signal.SIG_DFL)
    for number in signal.SIGPIPE, signal.SIGXFSZ:       # as Python does
        signal.signal(number, signal.SIG_IGN)
    for fd in map(int, os.listdir("/dev/fd")):
        if fd > 2 and fd not in pass_fds:
            with contextlib.suppress(OSError):          # the one that listed them
                os.close(fd)
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    tempfile.tempdir = None
    gc.disable()
    warnings.simplefilter("ignore")
    sys.stdin, sys.stdout, sys.stderr = (
        standard(0, "r"), standard(1, "w"), standard(2, "w", 1, errors="backslashreplace"))


def standard(fd, *how, **options):
    """Return a standard stream as Python opens it at its start; None if it is closed."""
    try:
        return open(fd, *how, closefd=False, **options)
    except OSError:
        return None


def child(*arguments, prepare=None, **options):
    """Start the program's command line; `prepare` is called in the child first."""
    for name in "stdin", "stdout", "stderr":
        options.setdefault(name, subprocess.DEVNULL if name == "stdin" else subprocess.PIPE)
    return start(*arguments, preexec_fn=prepare, **options)


def ended(process, stdin=None):
    """Wait for a child; return (exit status, stdout, stderr)."""
    try:
        out, errors = process.communicate(stdin, timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError("it hangs")
    return process.returncode, out or b"", errors or b""


def limited(kind, value):
    """What a child has to do to live under a resource limit."""
    return lambda: resource.setrlimit(kind, (value, value))


def is_no_log(result, batch, stream):
    """Tell whether one of the two logs (bytes), whose Result is the reference's, has lines and no event, or mostly
    lines that cannot be read: at least 20, or of what begins like a JSON array."""
    return any(is_other_kind(skipped, len(reference.lines_of(log)) - header - len(skipped), log)
               for skipped, log, header in zip(result[1:3], (batch, stream), (1, 0)))


def is_other_kind(skipped, events, log):
    if not events:
        return bool(skipped)
    unreadable = sum(not has_other_type(line) for _, line in skipped)
    array = re.match(rb"(\xef\xbb\xbf|[\0\s])*\[\s*([{]|\]\s*\Z)", log)
    return unreadable > events and (unreadable >= 20 or bool(array))


def has_other_type(line):
    """Is a line (bytes) an object whose event type is another text or number?  Then it is none of ours, but can be read."""
    try:
        kind = reference.json_object(line).get("event_type")
    except ValueError:
        return False
    is_value = not isinstance(kind, (bool, type(None), list, dict))
    return is_value and kind not in ("", "purchase", "befriend", "unfriend")


def agrees(trial, ran, batch, stream, deviations=3):
    """Expect a run over two logs (bytes) to have done what the reference does; return its Result.

    A run over a log that has lines and not one event is refused. NULs at the beginning of a
    line are no part of it: copying a file that is being truncated leaves holes of them.
    """
    notify, verdicts, evidence = [], [], []
    result = reference.judge_logs(
        batch, stream, notify=notify, deviations=deviations, verdicts=verdicts, evidence=evidence)
    if is_no_log(result, batch, stream):
        trial.expect(ran.status == 1 and re.search("no line is an event: |lines are events: ", ran.said),
                     "%s %s" % ran[:2])
        trial.expect({*ran[2:]} == {None}, "an output of a run that is refused")
        return result
    skipped = b"".join(line.lstrip(b"\0") + b"\n" for _, line in result.batch_skipped + result.stream_skipped)
    trial.expect(ran.status == 0, "exit status %s: %s" % (ran.status, ran.said))
    trial.expect(ran.flagged == result.flagged, "not the reference's flags")
    trial.expect(ran.rejects == skipped, "not the reference's rejects")
    trial.expect(ran.notify in (None, b"".join(notify)), "not whom the reference tells")
    trial.expect(ran.verdicts in (None, b"".join(verdicts)), "not the reference's verdicts")
    trial.expect(ran.evidence in (None, b"".join(evidence)), "not the reference's evidence")
    if ran.verdicts is not None and ran.evidence is not None:
        trial.expect(sums_agree(ran.verdicts, ran.evidence), "the evidence has other sums than the verdicts")
    return result


def sums_agree(verdicts, evidence):
    """Do the purchases in the evidence (bytes) have the size, the mean and the sd of the verdicts (bytes)?"""
    judged, flagged = ([json.loads(line, parse_int=str, parse_float=str) for line in lines.split(b"\n")[:-1]]
                       for lines in (verdicts, evidence))
    windows = [[Fraction(purchase["amount"]) for purchase in line["purchases"]] for line in flagged]
    figures = [(len(window), reference.truncated(mean), reference.truncated_root(variance))
               for window in windows for mean, variance in [reference.mean_and_variance(window)]]
    return figures == [(int(line["window"]), line["mean"], line["sd"]) for line in judged if line["flagged"]]


def without_place(snapshot):
    """Return a snapshot (bytes) without what it says of the stream: how far it was read, and which it is."""
    return re.sub(rb', "stream_(lines|first|last)":"[0-9a-f/]*"', b"", snapshot or b"", 3)


def well_formed(page):
    """Is it a whole page (bytes), every element closed, and none that only an id could have brought in?"""
    opened, elements, parser = [], set(), HTMLParser()

    def start(tag, attributes):
        if tag != "meta":
            opened.append(tag)

    def end(tag):
        elements.add(tag if opened[-1:] == [tag] else "not open")
        del opened[-1:]

    parser.handle_starttag, parser.handle_endtag = start, end
    parser.feed(page.decode())
    parser.close()
    return page.endswith(b"</html>\n") and not opened and not {"script", "not open"} & elements


# ------------------------------------------------- the thresholds of the short-cuts

KNOBS = {       # every short-cut's threshold, and values that make small logs cross it
    ("RecentPurchases", "page_size"): (1, 2, 3, 7, 2048),
    ("RecentPurchases", "capacity"): (5, 8, 30, 2048 * 8),
    ("Detector", "search_to_list"): (0, 1, 4),
    ("Detector", "look_up_to_walk"): (0, 1, 6, 10 ** 6),
    (None, "CHUNK"): (1, 20, 300, 1 << 16),
    ("Memo.__init__", "__defaults__"): ((1,), (2,), (5,), (1 << 16,)),
    ("Report", "dots"): (1, 5, 500),
}


def owner_of(name):
    """What a dotted name in the program stands for; None: the program."""
    return attrgetter(name)(detector) if name else detector


@contextlib.contextmanager
def changed(values):
    """Let {(class name or None, attribute): value} hold for a while."""
    before = {key: getattr(owner_of(key[0]), key[1]) for key in values}
    try:
        for (owner, name), value in values.items():
            setattr(owner_of(owner), name, value)
        yield
    finally:
        for (owner, name), value in before.items():
            setattr(owner_of(owner), name, value)


def knobs(rng):
    """Random thresholds; often all of them as they are."""
    return {key: rng.choice(values) for key, values in KNOBS.items() if rng.random() < 0.6}


# --------------------------------------------------------------------- lines of logs

HEADER = '{"D":"%d", "T":"%d"}\n'
PURCHASE = '{"event_type":"purchase", "timestamp":"%s", "id": "%s", "amount": "%s"}\n'
FRIENDS = '{"event_type":"%s", "timestamp":"2017-06-13 11:33:01", "id1": "%s", "id2": "%s"}\n'


def befriend(one, other):
    return FRIENDS % ("befriend", one, other)


def moment(second, year=2017):
    return str(datetime(year, 1, 1) + timedelta(seconds=second))
