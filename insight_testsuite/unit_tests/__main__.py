"""Runs the unit tests beside this file: `python3 unit_tests [NAME ...]`.

The same as `python3 -m unittest discover`, but standard output ends with a
line of two numbers, tests passed and tests failed, for run_tests.sh to add to
its own. A test of which several sub-tests fail is one failed test; a test that
is skipped is neither. NAMEs select tests as `unittest -k` does.
"""

import os
import sys
import unittest


class CountingResult(unittest.TextTestResult):
    """Knows the tests that succeeded, of which unittest keeps no count."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.succeeded = set()

    def addSuccess(self, test):
        super().addSuccess(test)
        self.succeeded.add(test.id())

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.succeeded.add(test.id())

    def failed(self):
        """The ids of tests that failed, each once."""
        tests = [test for test, _ in self.failures + self.errors] + self.unexpectedSuccesses
        return {getattr(test, "test_case", test).id() for test in tests}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    loader = unittest.TestLoader()
    if sys.argv[1:]:
        loader.testNamePatterns = ["*%s*" % name for name in sys.argv[1:]]
    result = unittest.TextTestRunner(resultclass=CountingResult).run(loader.discover(here))
    failed = len(result.failed())
    passed = len(result.succeeded - result.failed())
    if passed + failed == 0:
        failed = 1                  # no tests at all is no success
    print(passed, failed, flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
