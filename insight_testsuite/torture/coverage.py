"""The lines of the program that the suite never runs: none without a reason.

This protects what all tests are worth: nothing can be said of a line that none of them runs.
"""

import dis
import os
import subprocess

from benchmark import DETECTOR

from .common import SUITE, read, scratch, write

# What every Python that is started loads first, to note which lines of the program it runs.
HOOK = """
import atexit, dis, os, sys
missing = {}

def trace(frame, event, argument):
    code = frame.f_code
    if code.co_filename.endswith("anomaly_detection.py"):
        if id(code) not in missing:
            lines = {line for _, line in dis.findlinestarts(code)}
            missing[id(code)] = lines, set(lines)
        return trace_line if missing[id(code)][1] else None

def trace_line(frame, event, argument):
    missing[id(frame.f_code)][1].discard(frame.f_lineno)
    return trace_line

def note(status=None):
    with open(os.path.join(%(folder)r, "ran-%%d-%%s" %% (os.getpid(), os.urandom(4).hex())), "w") as file:
        file.write(" ".join(str(line) for lines, left in list(missing.values()) for line in lines - left))
    if status is not None:
        leave(status)

atexit.register(note)
leave, os._exit = os._exit, note
sys.settrace(trace)
"""
EXCUSED = {         # source line: why the suite may never run it
    "number = os.cpu_count() or 1": "only where a process cannot be bound to processors, as on macOS",
    "number = os.process_cpu_count() or 1": "only from Python 3.13 on",
    "os._exit(1)": "a worker whose parent was killed, just then: by chance, in the long form",
}


def lines_run(*command):
    """The lines of the program that a command and the processes it starts run."""
    with scratch() as folder:
        os.chmod(folder, 0o777)
        write(os.path.join(folder, "sitecustomize.py"), (HOOK % {"folder": folder}).encode())
        subprocess.run(command, env=dict(os.environ, PYTHONPATH=folder), stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return {int(line) for name in os.listdir(folder) if name.startswith("ran-")
                for line in read(os.path.join(folder, name)).split()}


def lines_there():
    """The lines of the program that can be run."""
    codes, lines = [compile(read(DETECTOR), DETECTOR, "exec")], set()
    for code in codes:
        lines.update(line for _, line in dis.findlinestarts(code) if line)
        codes += [value for value in code.co_consts if hasattr(value, "co_code")]
    return lines


def run(trial):
    with trial.one("run_tests.sh"):
        there = lines_there()
        never = there - lines_run(os.path.join(SUITE, "run_tests.sh"))
        source = read(DETECTOR).decode().split("\n")
        for line in sorted(never):
            text = source[line - 1].strip()
            trial.expect(text in EXCUSED, "line %d is never run: %s" % (line, text))
            trial.measured("%4d  %s  (%s)" % (line, text, EXCUSED.get(text, "no reason")))
        trial.measured("%d of %d lines run" % (len(there - never), len(there)))
