"""Run the unit tests beside this file, as many at once as there are processors.

    python3 insight_testsuite/unit_tests [--fail-fast] [--jobs N] [--times] [NAME ...]

NAMEs select tests as `unittest -k` does.  Each test class runs in a process of its own, each
test of the classes in LONG too.  What a process says is printed when it has ended, in one piece.

Standard output holds two numbers, tests passed and tests failed, which run_tests.sh adds to
its own.  A test of which several sub-tests fail is one failed test, a
module that cannot be imported and a process that dies are one failed test each, and a skipped
test counts as neither.
"""

import argparse
import gc
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
import unittest

# The classes with the longest tests, longest first: they start first, so that all processors
# finish at about the same time.
LONG = ["Trust", "ReadmeCommands", "Commands", "Differential", "Bounded", "Live", "Jobs", "Stopped", "ShortCuts",
        "Shards", "Cuts", "CannotBeFlagged"]


class Result(unittest.TestResult):
    """Keeps the names of the tests that passed and how long each test took."""

    def __init__(self):
        super().__init__()
        self.succeeded, self.seconds = set(), {}

    def startTest(self, test):
        super().startTest(test)
        self.seconds[test.id()] = -time.monotonic()

    def stopTest(self, test):
        super().stopTest(test)
        self.seconds[test.id()] += time.monotonic()

    def addSuccess(self, test):
        self.succeeded.add(test.id())

    def addExpectedFailure(self, test, error):
        self.succeeded.add(test.id())

    def failed(self):
        """Return the names of the tests that failed, each once."""
        tests = [test for test, _ in self.failures + self.errors] + self.unexpectedSuccesses
        return {getattr(test, "test_case", test).id() for test in tests}


class Unit:
    """Some tests that one process runs."""

    def __init__(self, tests):
        self.tests = tests
        self.name = tests[0].id() if len(tests) == 1 else tests[0].id().rpartition(".")[0]
        self.module = self.name.split(".")[0]
        name = type(tests[0]).__name__
        self.order = LONG.index(name) if name in LONG else len(LONG)

    def start(self, fail_fast):
        """Run the tests in a forked process; return its process id."""
        self.said, self.report = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            os.setpgid(0, 0)            # one group with all processes that the tests start
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.dup2(self.said.fileno(), 1)
            os.dup2(self.said.fileno(), 2)
            sys.stdout.reconfigure(errors="backslashreplace")
            self.run(fail_fast)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def run(self, fail_fast):
        """Run the tests in this process; write what came of them to `report`."""
        result = Result()
        result.failfast = fail_fast
        unittest.TestSuite(self.tests).run(result)
        for kind, found in ("FAIL", result.failures), ("ERROR", result.errors):
            for test, text in found:
                print("%s\n%s: %s\n%s\n%s" % ("=" * 70, kind, test, "-" * 70, text))
        for test in result.unexpectedSuccesses:
            print("UNEXPECTED SUCCESS: %s" % test)
        failed = result.failed()
        pickle.dump((result.succeeded - failed, failed, result.seconds), self.report)
        self.report.flush()

    def results(self, status):
        """Return (passed, failed, {test: seconds}) of the process, which ended with a status."""
        self.report.seek(0)
        try:
            if status:
                raise EOFError
            return pickle.load(self.report)
        except EOFError:
            print("%s: its process died (wait status %d)" % (self.name, status), file=sys.stderr)
            return set(), {self.name}, {}

    def what_was_said(self):
        """Return the output of the process (bytes)."""
        self.said.seek(0)
        return self.said.read()


def tests_of(suite):
    """Yield the tests of a suite and of the suites in it."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_of(test)
        else:
            yield test


def units_of(tests):
    """Return the Units of the tests, in the order in which to start them."""
    groups = {}
    for test in tests:
        alone = type(test).__name__ in LONG
        groups.setdefault(test.id() if alone else test.id().rpartition(".")[0], []).append(test)
    return sorted(map(Unit, groups.values()), key=lambda unit: unit.order)


def run(units, jobs, fail_fast):
    """Run units, at most `jobs` at once; yield each with its results as it ends."""
    waiting, running = list(reversed(units)), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                unit = waiting.pop()
                running[unit.start(fail_fast)] = unit
            pid, status = os.wait()
            unit = running.pop(pid)
            yield (unit, *unit.results(status))
    finally:
        for pid in running:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def main():
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))     # and end all processes
    parser = argparse.ArgumentParser("unit_tests", description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="run the tests with this in their name")
    parser.add_argument("--fail-fast", action="store_true", help="end at the first failed test")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: the processors)")
    parser.add_argument("--times", action="store_true", help="show the 30 longest tests")
    options = parser.parse_args()

    loader = unittest.TestLoader()
    if options.names:
        loader.testNamePatterns = ["*%s*" % name for name in options.names]
    started = time.monotonic()
    units = units_of(tests_of(loader.discover(os.path.dirname(os.path.abspath(__file__)))))
    gc.freeze()         # collections in the forked processes do not copy what they share
    if options.fail_fast:
        units.reverse()         # the quick ones first
    left = [unit.module for unit in units]
    all_passed, all_failed, seconds = set(), set(), {}
    results = run(units, options.jobs or len(os.sched_getaffinity(0)), options.fail_fast)
    for unit, passed, failed, times in results:
        sys.stderr.write(unit.what_was_said().decode(errors="backslashreplace"))
        all_passed |= passed
        all_failed |= failed
        seconds.update(times)
        left.remove(unit.module)
        if unit.module not in left:
            show_module(unit.module, all_passed, all_failed, seconds)
        if failed and options.fail_fast:
            results.close()
            break
    if options.times:
        for test in sorted(seconds, key=seconds.get, reverse=True)[:30]:
            print("%7.2f s  %s" % (seconds[test], test), file=sys.stderr)
    print("%d tests in %.1f s" % (len(seconds), time.monotonic() - started), file=sys.stderr)
    print(len(all_passed), max(len(all_failed), not all_passed), flush=True)    # no tests: a failure
    return bool(all_failed or not all_passed)


def show_module(module, passed, failed, seconds):
    """Print how many tests of a module passed and failed, and how long they took."""
    def of_module(tests):
        return [test for test in tests if test.split(".")[0] == module]
    print("%-24s %4d passed, %d failed, %5.1f s" % (
        module, len(of_module(passed)), len(of_module(failed)),
        sum(map(seconds.get, of_module(seconds)))), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
