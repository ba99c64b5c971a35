"""Try to make the detector wrong, hang, end with a traceback or lose data.

    python3 insight_testsuite/torture [--seed N] [--seconds S] [--list] [PART ...]

Each part goes on for S seconds (or through its list of cases, if it has one), says what
it measured, and ends with a line of figures: cases tried, mismatches, crashes. The exit
status is 1 if there was any. Everything random follows from the seed and the number of the
case, which a complaint names. The unit tests run short forms of the same parts.
"""

import argparse
import os
import sys

# In place of this folder, whose modules are to be found as the package's only.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
from torture import coverage, differential, faults, hostile, live, metamorphic, mutation, seeded
from torture.common import Trial, name_of

PARTS = {name_of(part): part for part in (
    differential, metamorphic, mutation, faults, hostile, live, coverage, seeded)}


def main(arguments=None):
    parser = argparse.ArgumentParser("torture", description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="which parts (default: all)")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--seconds", type=float, default=60, metavar="S",
                        help="how long each part of random cases goes on (default: 60)")
    parser.add_argument("--list", action="store_true", help="tell the parts and end")
    options = parser.parse_args(arguments)
    if options.list:
        for name, part in PARTS.items():
            print("%-13s %s" % (name, part.__doc__.split("\n")[0]))
        return 0
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error("no such part: %s" % ", ".join(sorted(unknown)))
    trials = []
    for name in options.parts or PARTS:
        print(name, flush=True)
        trials.append(Trial(name, options.seed, options.seconds))
        PARTS[name].run(trials[-1])
        print("  " + trials[-1].closing(), flush=True)
    total = [sum(getattr(trial, figure) for trial in trials)
             for figure in ("cases", "mismatches", "crashes")]
    print("%d cases tried, %d mismatches, %d crashes" % tuple(total))
    return 1 if any(total[1:]) else 0


if __name__ == "__main__":
    sys.exit(main())
