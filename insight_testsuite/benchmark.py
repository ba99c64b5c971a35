#!/usr/bin/env python3
"""Measure the detector on generated logs, against the least that any Python could need for them.

    python3 insight_testsuite/benchmark.py [options] [WORKLOAD ...]

Every figure comes from the real command line, run as a child process. The **floor** is a child that
does nothing but `for line in file: json.loads(line)` over the same two logs. Each round runs, for
each workload in turn, the floor and then the detector with each setting, so that whatever else the
machine is doing falls on all of them alike; the table shows medians over the rounds. All runs of a
workload must flag the same bytes, else the benchmark fails.
"""
import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections import namedtuple
from statistics import median
from time import perf_counter

from generate import WORKLOADS, scaled

HERE = os.path.dirname(os.path.abspath(__file__))
DETECTOR = os.path.join(os.path.dirname(HERE), 'src', 'anomaly_detection.py')
GENERATE, PLAIN = os.path.join(HERE, 'generate.py'), os.path.join(HERE, 'plain.py')
FLOOR = 'import json, sys\nfor name in sys.argv[1:]:\n for line in open(name): json.loads(line)'
WITH_PLAIN = 'young', 'ring'  # the workloads that --plain runs plain.py on

ROWS = {'%s-D%d' % (workload, degree): (workload, degree)
        for workload in WORKLOADS if workload != 'medium'
        for degree in sorted(WORKLOADS[workload].degrees)}

Logs = namedtuple('Logs', 'paths batch stream users')  # events in each; who bought or befriended
Run = namedtuple('Run', 'seconds peak judged batch stream')  # bytes; the phases' seconds


class Failed(Exception):
    """The benchmark cannot go on; the message says why."""


# ---------------------------------------------------------------- running children

def run_child(*command):
    """Run a command; return its wall seconds, its peak memory in bytes and what it said.

    The peak is that of the largest single process: the child, or one that it waited for. Linux
    counts from the memory of the process that a child was forked from, so this one stays small: the
    logs are made by a child too, and never read here.
    """
    with tempfile.TemporaryFile() as errors:
        started = perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds = perf_counter() - started
        process.returncode = status  # so that nobody waits for it again
        errors.seek(0)
        said = errors.read().decode('utf-8', 'replace')
    if status:
        raise Failed('failed: %s\n%s' % (' '.join(command), said.rstrip()))
    return seconds, usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024), said


def run_detector(program, arguments, logs, degree):
    """Run a detector over the logs; return the Run and the bytes that it flagged."""
    output = os.path.join(os.path.dirname(logs.paths[0]), 'flagged_purchases.json')
    seconds, peak, said = run_child(
        sys.executable, program, *logs.paths, output, '-D', str(degree), *arguments)
    summary = re.search(r'(\d+) judged.* ([0-9.]+) s batch \+ ([0-9.]+) s stream', said)
    if not summary:
        raise Failed('no summary from %s:\n%s' % (program, said))
    judged, batch, stream = summary.groups()
    with open(output, 'rb') as flagged:
        return Run(seconds, peak, int(judged), float(batch), float(stream)), flagged.read()


def make_logs(name, scale_down, directory):
    """Return the Logs of a workload, made in a folder of the directory unless they are there."""
    folder = os.path.join(directory, '%s-%g' % (name, scale_down))
    done = os.path.join(folder, 'users.txt')
    if not os.path.exists(done) or os.path.getmtime(done) < os.path.getmtime(GENERATE):
        print('making the logs of', name, file=sys.stderr)
        command = [sys.executable, GENERATE, name, folder, '--scale-down', str(scale_down)]
        made = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        with open(done, 'wb') as file:
            file.write(made)
    with open(done) as file:
        users = int(file.read().split()[0])
    paths = [os.path.join(folder, log) for log in ('batch_log.json', 'stream_log.json')]
    workload = scaled(WORKLOADS[name], 1 / scale_down)
    return Logs(paths, workload.batch, workload.stream, users)


# ---------------------------------------------------------------- measuring

class Figures:
    """What the rounds measured of one row of the table: a workload and D with one setting."""

    def __init__(self, logs):
        self.logs = logs
        self.runs, self.floors_seconds = [], []  # by round

    def median(self, figure):
        """The median of figure(run, seconds of the floor in the same round)."""
        return median(map(figure, self.runs, self.floors_seconds))

    events = property(lambda self: self.logs.batch + self.logs.stream)
    judged = property(lambda self: self.runs[0].judged)
    seconds = property(lambda self: self.median(lambda run, floor: run.seconds))
    floors = property(lambda self: self.median(lambda run, floor: run.seconds / floor))
    load = property(lambda self: self.median(lambda run, floor: run.batch) / self.logs.batch * 1e6)
    stream = property(lambda self: self.median(lambda run, floor: run.stream))
    verdict = property(lambda self: self.stream / self.judged * 1e6)
    peak = property(lambda self: max(run.peak for run in self.runs) / 1e6)
    per_user = property(lambda self: self.peak * 1e3 / self.logs.users)


def measure(names, settings, rounds, logs):
    """Return {'ROW SETTING': Figures} of the named rows with each of the settings."""
    figures, flagged = {}, {}
    for number in range(1, rounds + 1):
        for name in names:
            workload, degree = ROWS[name]
            floor, _, _ = run_child(sys.executable, '-c', FLOOR, *logs[workload].paths)
            for setting, (program, *arguments) in settings.items():
                if setting == 'plain' and workload not in WITH_PLAIN:
                    continue
                run, output = run_detector(program, arguments, logs[workload], degree)
                if flagged.setdefault(name, output) != output:
                    raise Failed('%s %s: not the bytes that the first run flagged' % (name, setting))
                row = figures.setdefault('%s %s' % (name, setting), Figures(logs[workload]))
                row.runs.append(run)
                row.floors_seconds.append(floor)
                print('round %d of %d: %s %s: %.2f s, floor %.2f s'
                      % (number, rounds, name, setting, run.seconds, floor), file=sys.stderr)
    return figures


# ---------------------------------------------------------------- reporting

MEANING = {
    'floors': 'whole run, in floors',
    'seconds': 'whole run',
    'load': 'batch phase, per event',
    'stream': 'stream phase',
    'verdict': 'stream phase, per judged purchase',
    'per_user': 'peak KB per user who bought or befriended',
}

# What is asked of the detector: a figure of a row, or its ratio to that of another row, and a limit.
TARGETS = [
    ('floors', 'sample-D2 --jobs 1', None, 'at most', 1.25),
    ('floors', 'stream-D1 default', None, 'at most', 2.5),
    ('floors', 'stream-D2 default', None, 'at most', 4),
    ('floors', 'stream-D3 default', None, 'at most', 4.5),
    ('floors', 'stream-D6 default', None, 'at most', 5.5),
    ('floors', 'young-D2 default', None, 'at most', 6),
    ('floors', 'young-D3 default', None, 'at most', 9),
    ('stream', 'stream-D2 --jobs 1', 'stream-D2 default', 'at least', 1.6),
    ('verdict', 'stream-D6 --jobs 1', 'stream-D2 --jobs 1', 'at most', 2.5),
    ('verdict', 'stream-D3 --jobs 1', 'stream-D6 --jobs 1', 'at most', 1),
    ('verdict', 'stream-D4 --jobs 1', 'stream-D6 --jobs 1', 'at most', 1),
    ('verdict', 'hubs-D2 --jobs 1', 'stream-D2 --jobs 1', 'at most', 3),
    ('verdict', 'hubs-D3 --jobs 1', 'stream-D3 --jobs 1', 'at most', 3),
    ('verdict', 'ring-D2 --jobs 1', 'ring-D2 plain', 'at most', 1),
    ('verdict', 'ring-D6 --jobs 1', 'ring-D6 plain', 'at most', 1),
    ('verdict', 'young-D2 plain', 'young-D2 --jobs 1', 'at least', 2),
    ('verdict', 'young-D3 plain', 'young-D3 --jobs 1', 'at least', 2),
    ('seconds', 'late-D2 --jobs 1', 'stream-D2 --jobs 1', 'at most', 1.3),
    ('verdict', 'late-D2 --jobs 1', 'stream-D2 --jobs 1', 'at most', 1.3),
    ('verdict', 'scale-D2 --jobs 1', 'stream-D2 --jobs 1', 'at most', 3),
    ('load', 'scale-D2 --jobs 1', 'stream-D2 --jobs 1', 'at most', 3),
    ('per_user', 'scale-D2 --jobs 1', None, 'at most', 1.2),
    ('load', 'compact-D2 --jobs 1', 'sample-D2 --jobs 1', 'at most', 1.3),
    ('load', 'numbers-D2 --jobs 1', 'sample-D2 --jobs 1', 'at most', 1.5),
    ('load', 'zoned-D2 --jobs 1', 'sample-D2 --jobs 1', 'at most', 1.3),
    ('load', 'ordered-D2 --jobs 1', 'sample-D2 --jobs 1', 'at most', 1.1),
    ('load', 'extra-D2 --jobs 1', 'sample-D2 --jobs 1', 'at most', 1.35),
    ('load', 'mixed-D2 --jobs 1', 'sample-D2 --jobs 1', 'at most', 1.35),
    ('load', 'alternating-D2 --jobs 1', 'sample-D2 --jobs 1', 'at most', 1.4),
    ('load', 'optional-D2 --jobs 1', 'sample-D2 --jobs 1', 'at most', 1.4),
    *(('seconds', row + ' default', row + ' --jobs 1', 'at most', 1.05) for row in ROWS),   # never lose
]


def targets(figures):
    """Yield a line for each of the TARGETS whose rows were measured."""
    for figure, row, other, sense, limit in TARGETS:
        if row in figures and (not other or other in figures):
            value = getattr(figures[row], figure)
            if other:
                row, value = '%s / %s' % (row, other), value / getattr(figures[other], figure)
            met = value <= limit if sense == 'at most' else value >= limit
            yield '%-41s  %-38s  %5.2f  target %s %g: %s' % (
                MEANING[figure], row, value, sense, limit, 'met' if met else 'NOT MET')


def table(figures):
    """Yield the lines of the table of all rows measured."""
    yield ('workload   setting      events  judged  seconds  events/s  us/judged  peak MB  '
           'x floor  x plain')
    for key, row in figures.items():
        name, setting = key.split(' ', 1)
        plain = figures.get(name + ' plain')
        yield '%-10s %-9s %9d %7d %8.2f %9d %10.1f %8.0f %8.2f %8s' % (
            name, setting, row.events, row.judged, row.seconds, row.events / row.seconds,
            row.verdict, row.peak, row.floors,
            '%.2f' % (row.verdict / plain.verdict) if plain else '')


def machine():
    """One line on what this runs on."""
    processor = platform.processor() or platform.machine()
    try:
        with open('/proc/cpuinfo') as file:
            processor = re.search(r'model name\s*: (.*)', file.read()).group(1)
    except (OSError, AttributeError):
        pass  # not Linux, or one that does not name the model
    usable = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return '%s %s, %s, %s, %d usable CPUs, load %.1f' % (
        platform.python_implementation(), platform.python_version(), platform.system(),
        processor, usable, os.getloadavg()[0])


# ---------------------------------------------------------------- the command line

def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description='Measure the detector on generated logs, against json.loads of every line.',
        epilog='Logs of all workloads take 0.6 GB in the temporary directory (TMPDIR) or DIR.')
    parser.add_argument('workloads', nargs='*', metavar='WORKLOAD',
                        help='such as stream, or stream-D3 (default: all)')
    parser.add_argument('--list', action='store_true', help='list the workloads and stop')
    parser.add_argument('--quick', action='store_true',
                        help='a twentieth of each workload, a fiftieth of scale; '
                             'starting Python then weighs heavily on every figure')
    parser.add_argument('--rounds', type=int, default=3, metavar='N',
                        help='show the medians of N rounds (default: 3)')
    parser.add_argument('--jobs', action='append', metavar='N',
                        help="run with --jobs N, or without if N is 'default'; may be repeated "
                             '(default: 1, default)')
    parser.add_argument('--plain', action='store_true',
                        help='run the plain detector, plain.py, on %s too' % ' and '.join(WITH_PLAIN))
    parser.add_argument('--program', default=DETECTOR, metavar='FILE',
                        help='measure another detector')
    parser.add_argument('--keep', metavar='DIR',
                        help='leave the logs in DIR, and use those it has')
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error('--rounds must be at least 1')
    known = {*ROWS, *(workload for workload, _ in ROWS.values())}
    for name in options.workloads:
        if name not in known:
            parser.error('no workload %s; see --list' % name)
    return options


def benchmark(options):
    """Make the logs, run the rounds and print what they measured."""
    names = [name for name, (workload, _) in ROWS.items()
             if not options.workloads or {name, workload} & set(options.workloads)]
    settings = {'default' if jobs == 'default' else '--jobs ' + jobs:
                [options.program] + ([] if jobs == 'default' else ['--jobs', jobs])
                for jobs in options.jobs or ['1', 'default']}
    if options.plain:
        settings['plain'] = [PLAIN]
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix='benchmark-') as temporary:
        logs = {}
        for workload in dict.fromkeys(ROWS[name][0] for name in names):
            scale_down = 1 if not options.quick else 50 if workload == 'scale' else 20
            logs[workload] = make_logs(workload, scale_down, options.keep or temporary)
        figures = measure(names, settings, options.rounds, logs)
    print('', *table(figures), sep='\n')
    print('\nx floor: whole run / json.loads of both logs. x plain: stream phase / plain.py\'s.\n'
          'us/judged: stream phase / purchases judged. peak: the largest single process, which with\n'
          'more than one job is not all of them together.')
    print('', *targets(figures), sep='\n')
    if options.quick:
        print('\nA quick run shows that all works; the targets are for a full one.')


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the logs are removed
    options = parse()
    if options.list:
        for name, (workload, degree) in ROWS.items():
            users, batch, stream, _, graph, late, _, spelling = WORKLOADS[workload]
            print('%-10s D = %d, %7d users, %7d + %6d events, graph: %s' % (
                name, degree, users, batch, stream, graph),
                '(5 %% of purchases up to %d s late)' % late if late else
                'sample, %s' % workload if spelling is not str else '')
        return 0
    try:
        benchmark(options)
    except (Failed, OSError, subprocess.CalledProcessError) as error:
        print('benchmark.py: %s' % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
