#!/usr/bin/env python3
"""Make the logs of a benchmark workload: the same bytes on every machine and every Python.

    python3 insight_testsuite/generate.py WORKLOAD DIR [--scale-down F]

writes DIR/batch_log.json and DIR/stream_log.json. 78 % of the events are purchases, 20 % befriend
and 2 % unfriend (any current friendship is equally likely to end). Amounts are gamma-like with a
median near 58; one in 500 is ten times what it would have been, so that there is something to flag.

Random numbers come from `random.Random(seed).random()` alone: its sequence is promised to stay the
same, while the ways of `randrange`, `choice` and `gammavariate` have changed between versions.
"""
import argparse
import json
import os
import re
from collections import namedtuple
from datetime import datetime, timedelta
from itertools import islice
from math import log
from random import Random
from zlib import crc32

Workload = namedtuple('Workload', 'users batch stream degrees graph late rate spelling', defaults=[str])
Workload.__doc__ = """How many users, and events in each log; the degrees (D) to run it with, the header's
first; the kind of graph; by how many seconds 5 % of the purchases may be late; events per second; a
function that writes a line as another program would."""


def compact(line):
    """The line without blanks between its fields."""
    return line.replace('": "', '":"').replace('", "', '","')


def numbers(line):
    """The line with numbers for ids and amounts.

    >>> numbers('{"id": "7", "timestamp":"2017-06-13 11:33:01", "amount": "16.83"}')
    '{"id": 7, "timestamp":"2017-06-13 11:33:01", "amount": 16.83}'
    """
    return re.sub(r'"([0-9.]+)"', r'\1', line)


def zoned(line):
    """The line with its timestamp as in ISO 8601, on the clock of another zone."""
    return re.sub('"timestamp":"([0-9-]+) ([0-9:]+)"', r'"timestamp":"\1T\2+02:00"', line)


def ordered(line):
    """The line with its fields in the order of their names."""
    return json.dumps(json.loads(line), sort_keys=True) + '\n'


def extra(line):
    """The line with three more fields in its middle: a text, a number and null.

    >>> extra('{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "7", "amount": "16.83"}')
    '{"event_type":"purchase", "session_id": "93838189", "items": 7, "coupon": null, "timestamp":"2017-06-13 11:33:01", "id": "7", "amount": "16.83"}'
    """
    number = crc32(line.encode())
    return line.replace(', ', ', "session_id": "%08x", "items": %d, "coupon": null, ' % (number, number % 9), 1)


def mixed(line):
    """The line as two programs write in turns of 10 seconds, which are 10,000 lines: `extra` and `ordered`."""
    return (extra, ordered)[int(re.search(r'[0-9]:([0-9])[0-9]"', line)[1]) % 2](line)


def alternating(line):
    """The line as one of two programs writes it, chosen at random: with the fields in the challenge's order, or `ordered`."""
    return ordered(line) if crc32(line.encode()) % 2 else line


def optional(line):
    """The line with none, one or both of two more fields."""
    number = crc32(line.encode())
    fields = '"currency": "USD", ' * (number & 1) + '"coupon": "%x", ' % number * (number >> 1 & 1)
    return line.replace(', ', ', ' + fields, 1)


WORKLOADS = {
    'sample': Workload(10000, 500000, 1000, (2,), 'random', 0, 1000),
    'stream': Workload(10000, 500000, 50000, (2, 1, 3, 4, 6), 'random', 0, 1000),
    'young': Workload(10000, 100000, 100000, (2, 3), 'random', 0, 1000),
    'hubs': Workload(10000, 500000, 50000, (2, 3), 'hubs', 0, 1000),
    'ring': Workload(10000, 500000, 50000, (2, 6), 'ring', 0, 1000),
    'late': Workload(10000, 500000, 50000, (2,), 'random', 30, 1000),
    'scale': Workload(1000000, 3000000, 100000, (2,), 'random', 0, 1000),
    **{spelling.__name__: Workload(10000, 500000, 1000, (2,), 'random', 0, 1000, spelling)
       for spelling in (compact, numbers, zoned, ordered, extra, mixed, alternating, optional)},
    'medium': Workload(500, 20000, 2000, (2,), 'random', 3, 20),
}

TRACKED = 50
START = datetime(2017, 6, 13, 11, 33, 1)
PURCHASE = '{"event_type":"purchase", "timestamp":"%s", "id": "%d", "amount": "%d.%02d"}\n'
FRIENDS = '{"event_type":"%s", "timestamp":"%s", "id1": "%d", "id2": "%d"}\n'


def anyone(random, users):
    """Two users, all equally likely."""
    return int(random() * users), int(random() * users)


def hubs(random, users):
    """Two users, low numbers far likelier: the degree of the k-th falls like a power of k."""
    one, two = random(), random()
    return int(one * one * one * users), int(two * two * two * users)


def ring(random, users):
    """A user and one of the four who follow in a circle of all users."""
    user = int(random() * users)
    return user, (user + 1 + int(random() * 4)) % users


GRAPHS = {'random': anyone, 'hubs': hubs, 'ring': ring}


def scaled(workload, fraction):
    """The workload with this fraction of its users and events.

    >>> scaled(WORKLOADS['young'], 0.05)[:3]
    (500, 5000, 5000)
    """
    users, batch, stream = (max(10, round(n * fraction)) for n in workload[:3])
    return workload._replace(users=users, batch=batch, stream=stream)


def events(workload, active):
    """Yield the lines of both logs, without header; set active[user] of who buys or befriends.

    Lateness has random numbers of its own, so that a late log differs from the one in order by its
    timestamps only.
    """
    random, lateness = Random(2017).random, Random(50).random
    users, two_users = workload.users, GRAPHS[workload.graph]
    friendships, place = [], {}  # all friendships, and where each is in that list
    for number in range(workload.batch + workload.stream):
        second, rest = divmod(number, workload.rate)
        if rest == 0:
            now = START + timedelta(seconds=second)
            timestamp = str(now)
        kind = random()
        if kind < 0.78:
            user = int(random() * users)
            active[user] = 1
            cents = 1 + int(-3456 * log((1 - random()) * (1 - random())))
            if random() < 0.002:
                cents *= 10
            when = timestamp
            if workload.late and lateness() < 0.05:
                when = str(now - timedelta(seconds=1 + int(lateness() * workload.late)))
            yield PURCHASE % (when, user + 1, cents // 100, cents % 100)
        elif kind < 0.98 or not friendships:
            one, two = two_users(random, users)
            while one == two:
                one, two = two_users(random, users)
            active[one] = active[two] = 1
            pair = (one, two) if one < two else (two, one)
            if pair not in place:
                place[pair] = len(friendships)
                friendships.append(pair)
            yield FRIENDS % ('befriend', timestamp, one + 1, two + 1)
        else:
            pair = friendships[int(random() * len(friendships))]
            last = friendships.pop()  # takes the place of the one that ends
            hole = place.pop(pair)
            if last is not pair:
                friendships[hole] = last
                place[last] = hole
            yield FRIENDS % ('unfriend', timestamp, pair[0] + 1, pair[1] + 1)


def write_logs(name, directory, fraction=1.0):
    """Write a workload's two logs into a directory; return how many users bought or befriended."""
    workload = scaled(WORKLOADS[name], fraction)
    active = bytearray(workload.users)
    lines = map(workload.spelling, events(workload, active))
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, 'batch_log.json'), 'w', encoding='ascii', newline='\n') as batch:
        batch.write('{"D":"%d", "T":"%d"}\n' % (workload.degrees[0], TRACKED))
        batch.writelines(islice(lines, workload.batch))
    with open(os.path.join(directory, 'stream_log.json'), 'w', encoding='ascii', newline='\n') as stream:
        stream.writelines(lines)
    return sum(active)


def main(arguments=None):
    parser = argparse.ArgumentParser(description='Make the logs of a benchmark workload.')
    parser.add_argument('workload', choices=WORKLOADS)
    parser.add_argument('directory', help='where batch_log.json and stream_log.json go')
    parser.add_argument('--scale-down', type=float, default=1.0, metavar='F',
                        help='divide the numbers of users and events by F')
    options = parser.parse_args(arguments)
    if not options.scale_down >= 1:
        parser.error('--scale-down must be at least 1')
    active = write_logs(options.workload, options.directory, 1 / options.scale_down)
    print(active, 'users bought or befriended')


if __name__ == '__main__':
    main()
