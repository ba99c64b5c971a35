"""Loads made to be slow: processor time and memory within stated multiples of a bare JSON loop's.

This protects the speed: no network, no order of times, no setting, no kind of damage and no file full
of nothing may make the program slow or large out of proportion to its logs.
"""

import gzip
import os
import re
import subprocess
from collections import namedtuple
from itertools import chain, repeat

from benchmark import DETECTOR, FLOOR

from .common import FRIENDS, HEADER, LOGS, PURCHASE, PYTHON, befriend, moment, read, well_formed

BILLION = 10 ** 9


def price(number):
    return "%d.%02d" % (number * 7919 % 9973, number % 100)


def outlier(number):
    """One in 20 is large, so that it is flagged."""
    return price(number) if number % 20 else "999999999999999.99"


def purchase(number, user, year=2017, amount=price):
    return PURCHASE % (moment(number, year), user, amount(number))


def somebody(number, users):
    return number * 7919 % users


def star(friends, purchases, buyer, judged, amount=price):
    """User 0 is the centre."""
    batch = [(befriend(0, leaf) for leaf in range(1, friends)),
             (purchase(k, somebody(k, friends)) for k in range(purchases))]
    return batch, (purchase(purchases + k, buyer(k), amount=amount) for k in range(judged))


def clique(users, purchases, judged):
    batch = [(befriend(one, other) for one in range(users) for other in range(one)),
             (purchase(k, somebody(k, users)) for k in range(purchases))]
    return batch, (purchase(purchases + k, somebody(k, users)) for k in range(judged))


def path(users, judged):
    batch = [(befriend(k, k + 1) for k in range(users)),
             (purchase(k, somebody(k, users)) for k in range(users))]
    return batch, (purchase(users + k, somebody(k, users)) for k in range(judged))


def on_and_off(times):
    return [], (FRIENDS % (("befriend", "unfriend")[k % 2], 1 + k % 3 // 2, 2 - k % 3 // 2) for k in range(times))


def one_buyer(times, when=moment, judged=20):
    """User 1 buys, then friend 2 does."""
    batch = [[befriend(1, 2)], (PURCHASE % (when(k), 1, price(k)) for k in range(times))]
    return batch, (purchase(k, 2) for k in range(judged))


def town(users, purchases, judged, when=moment, amount=price, name=str):
    """Everybody has some ten friends."""
    def bought(k):
        return PURCHASE % (when(k), name(somebody(k, users)), amount(k))
    batch = [(befriend(name(k % users), name((k % users + 1 + k * 7919 % (users - 1)) % users))
              for k in range(5 * users)), map(bought, range(purchases))]
    return batch, map(bought, range(purchases, purchases + judged))


def crowded_future(friends, outsiders, judged):
    """Outsiders who buy in the year 9999 are the most recent buyers of all."""
    batch, stream = star(friends, friends, lambda k: k % 2 * k, judged)
    return [*batch, (purchase(k, "outsider %d" % k, 9999) for k in range(outsiders))], stream


def backwards(second):
    return moment(200000000 - second)


BARE = '{"event_type":"purchase", "timestamp":"%s", "id": %s, "amount": %s}\n'


def huge_numbers(times):
    """One amount in ten is sound, and bought by a user whose id is a huge number."""
    batch, stream = one_buyer(10, judged=10)
    amounts = "1e999999999", '"1e999999999"', '"-1E-999999999"', '"%s"' % ("9" * 100), "1.5"
    return batch, chain(stream, (BARE % (moment(k), ("1", "1e999999999")[k % 5 > 3], amounts[k % 5])
                                 for k in range(times)))


def exponents(times):
    """User 1 buys for more than all the world has, and for less than can be seen."""
    batch = [[befriend(1, 2)], (PURCHASE % (moment(k), 1, ("7e99", "3e-99")[k % 2]) for k in range(100))]
    return batch, (PURCHASE % (moment(k), 1 + k % 2, "%de%d" % (k, k % 199 - 99)) for k in range(times))


def event_types(times):
    batch, stream = one_buyer(10, judged=10)
    return batch, chain(stream, (FRIENDS % ("type %d" % k, 1, 2) for k in range(times)))


def hole_in(path):
    """Put 300 MB of NULs between two lines, as copying a log that is truncated does."""
    log = read(path)
    place = log.find(b"\n", len(log) // 2) + 1
    with open(path, "wb") as file:
        file.write(log[:place])
        file.seek(300 << 20, os.SEEK_CUR)
        file.write(log[place:])


def compressed(path):
    log = read(path)
    with gzip.open(path, "wb") as file:
        file.write(log)


# What is written beside the flags; limits as multiples of the floor's time and memory; how many lines
# of the stream are skipped (a function of the scale); what is done to the stream once the floor is known.
Load = namedtuple("Load", "degree tracked logs seconds memory more skipped change",
                  defaults=[(), lambda scale: 0, None])
LOADS = {
    "star, D=1, the centre buys": Load(1, 50, lambda s: star(200000 * s, 200000 * s, lambda k: 0, 2000 * s), 6, 25),
    "star, D=2, the leaves buy": Load(2, 50, lambda s: star(200000 * s, 200000 * s, lambda k: k + 1, 2000 * s), 6, 25),
    "star, D=2, the centre buys": Load(2, 50, lambda s: star(200000 * s, 200000 * s, lambda k: 0, 2000 * s), 6, 25),
    "star, D=2, T=10**9": Load(2, BILLION, lambda s: star(200000 * s, 200000 * s, lambda k: k % 2, 20), 25, 30),
    "clique, D=1": Load(1, 50, lambda s: clique(2000 * s, 20000 * s, 2000 * s), 3, 40),
    "clique, D=3": Load(3, 50, lambda s: clique(2000 * s, 20000 * s, 2000 * s), 3, 40),
    "path, D=50": Load(50, 50, lambda s: path(200000 * s, 1000 * s), 6, 25),
    "path, D=10**9": Load(BILLION, 50, lambda s: path(200000 * s, 20), 20, 30),
    "one pair, on and off": Load(3, 50, lambda s: on_and_off(10 ** 6 * s), 3, 4),
    "one buyer": Load(2, 50, lambda s: one_buyer(10 ** 6 * s), 5, 6),
    "one buyer, T=10**9": Load(2, BILLION, lambda s: one_buyer(10 ** 6 * s), 9, 35),
    "one buyer, T=10**9, backwards": Load(2, BILLION, lambda s: one_buyer(200000 * s, backwards), 30, 12),
    "a town, D=10**9": Load(BILLION, 50, lambda s: town(10000 * s, 200000 * s, 2000 * s), 9, 12),
    "a town, T=10**9": Load(2, BILLION, lambda s: town(1000 * s, 200000 * s, 50), 9, 12),
    "a town, all amounts and times distinct": Load(2, 50, lambda s: town(
        1000 * s, 10 ** 6 * s, 2000 * s,
        lambda k: moment(k) + ".%06d" % (k % 10 ** 6), lambda k: "%d.%02d" % (k, k % 100)), 6, 7),
    "a town, backwards": Load(2, 50, lambda s: town(1000 * s, 100 * s, 200000 * s, backwards), 80, 8),
    "a crowded future": Load(2, 50, lambda s: crowded_future(200000 * s, 40000 * s, 50 * s), 40, 35),
    "star, D=2, the leaves buy, all are told": Load(2, 50, lambda s: star(
        200000 * s, 200000 * s, lambda k: k + 1, 400, outlier), 20, 25, ["notify"]),
    "star, D=2, the centre buys, all are told": Load(2, 50, lambda s: star(
        200000 * s, 200000 * s, lambda k: 0, 400, outlier), 20, 25, ["notify"]),
    "a page of a million times": Load(2, 50, lambda s: town(
        1000 * s, 10000 * s, 10 ** 6 * s, amount=outlier), 30, 10, ["report"]),
    "a page of long names and amounts": Load(1, 20, lambda s: town(
        1000, 1000, 12000, lambda k: moment(k) + ".%06d" % (k + 1), lambda k: outlier(k) + "%013d" % (k + 1),
        lambda user: "&" * 60 + str(user)), 50, 5, ["report"]),
    "a snapshot of a town, T=10**9": Load(2, BILLION, lambda s: town(
        1000 * s, 10 ** 6 * s, 50), 12, 30, ["snapshot"]),
    "every verdict of a town": Load(2, 50, lambda s: town(
        1000 * s, 10000 * s, 200000 * s, amount=outlier), 60, 6, ["verdicts"]),
    "1e999999999 for numbers": Load(2, 50, lambda s: huge_numbers(500000 * s), 20, 4,
                                    skipped=lambda s: 4 * len(range(500000 * s)) // 5),
    "amounts of 1e99 and 1e-99": Load(2, 50, lambda s: exponents(20000 * s), 80, 6),
    "a million event types": Load(2, 50, lambda s: event_types(10 ** 6 * s), 12, 4,
                                  skipped=lambda s: 10 ** 6 * s),
    "a hole of 300 MB": Load(2, 50, lambda s: town(1000 * s, 10 ** 6 * s, 1000 * s), 7, 6, change=hole_in),
    "a log that compresses 300 times": Load(2, 50, lambda s: (
        one_buyer(100)[0], repeat(purchase(200, 2), 10 ** 6 * s)), 12, 4, change=compressed),
}


class Scale(int):
    """What a load's numbers are multiplied by; a fraction 1/Scale."""

    def __rmul__(self, number):
        return max(10, number // int(self))


START_UP = 0.15     # seconds that are not the load's
MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def run(trial, shrink=1, slack=1, names=""):
    """Measure the loads whose name matches a regular expression."""
    for name, load in LOADS.items():
        if re.search(names, name):
            with trial.one(name):
                measure_load(trial, name, load, Scale(shrink), slack)


def measured(*command):
    """Run Python with these arguments; return (exit status, seconds of a processor, peak KB, what it said).

    A small process in between starts it: Linux counts a child's peak from its parent's memory.
    """
    done = subprocess.run([*PYTHON, "-c", MEASURE, *PYTHON, *command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
    status, seconds, peak = done.stdout.split()
    return int(status), float(seconds), int(peak), done.stderr.decode("utf-8", "replace")


def measure_load(trial, name, load, scale, slack):
    batch, stream = load.logs(scale)
    logs = [os.path.join(trial.folder, log) for log in LOGS]
    for log, parts in zip(logs, ([[HEADER % (load.degree, load.tracked)], *batch], [stream])):
        with open(log, "w") as file:
            for part in parts:
                file.writelines(part)
    output, *more = (os.path.join(trial.folder, name) for name in ("flagged", *load.more))
    options = [word for name, path in zip(load.more, more) for word in ("--" + name, path)]
    _, floor, floor_peak, _ = measured("-c", FLOOR, *logs)
    if load.change:
        load.change(logs[1])
    status, seconds, peak, said = measured(DETECTOR, "--jobs", "1", *logs, output, *options)
    skipped = load.skipped(scale)
    trial.expect(status == 0 and re.findall(r"\((\d+) skipped\)", said) == ["0", str(skipped)], said)
    older = "was it judged before?" in said         # rightly: in some loads the stream is
    trial.expect(said.count("\n") <= (32 if skipped else 1) + older and len(said) < 10000, said)
    times, memory = max(0, seconds - START_UP) / floor, peak / floor_peak
    trial.expect(times <= load.seconds * slack, "%s: %.1f times the floor's time" % (name, times))
    trial.expect(memory <= load.memory, "%s: %.1f times the floor's memory" % (name, memory))
    for path in more if "report" in load.more else ():
        trial.expect(os.path.getsize(path) < 500000 and well_formed(read(path)), "not a page, or a large one")
    trial.measured("%-40s floor %5.2f s; time x %5.1f (limit %2d), %4.0f MB, memory x %4.1f (limit %2d)" % (
        name, floor, times, load.seconds, peak / 1e3, memory, load.memory))
