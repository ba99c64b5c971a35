#!/usr/bin/env python3
"""The detector in its most straightforward shape, for the benchmark to compare with.

    python3 insight_testsuite/plain.py BATCH STREAM OUTPUT [-D N]

A breadth-first search from the buyer for every purchase judged, `heapq.merge` over the bounded
deque of everybody found, exact integers. No short-cut, and no care for what the generated logs do
not hold: every line is well-formed and every amount has two decimals.
"""
import argparse
import json
import sys
from bisect import insort
from collections import defaultdict, deque
from heapq import merge
from itertools import islice
from math import isqrt
from time import perf_counter


def network(friends, user, degree):
    """Everyone at distance 1..degree from the user.

    >>> sorted(network({1: {2}, 2: {1, 3}, 3: {2, 4}, 4: {3}}, 1, 2))
    [2, 3]
    """
    found, ring = {user}, {user}
    for _ in range(degree):
        ring = {friend for member in ring for friend in friends[member]} - found
        if not ring:
            break
        found |= ring
    found.remove(user)
    return found


def verdict(line, cents, window):
    """The flagged line of a purchase, or nothing if it is no anomaly among the window's amounts."""
    n, total = len(window), sum(window)
    variance = n * sum(x * x for x in window) - total * total
    excess = n * cents - total
    if n > 1 and excess > 0 and excess * excess > 9 * variance:
        mean, sd = total // n, isqrt(variance) // n
        return '%s, "mean": "%d.%02d", "sd": "%d.%02d"}\n' % (
            line.rstrip()[:-1], *divmod(mean, 100), *divmod(sd, 100))
    return ''


def detect(batch, stream, output, degree=None):
    """Write the flagged purchases of the stream.

    After each log, yield how many events were read, judged and flagged so far.
    """
    friends, purchases, number, judged, flagged = defaultdict(set), defaultdict(deque), 0, 0, 0
    header = json.loads(batch.readline())
    degree, tracked = degree or int(header['D']), int(header['T'])
    for log in batch, stream:
        for number, line in enumerate(log, number + 1):
            event = json.loads(line)
            if event['event_type'] == 'befriend':
                friends[event['id1']].add(event['id2'])
                friends[event['id2']].add(event['id1'])
            elif event['event_type'] == 'unfriend':
                friends[event['id1']].discard(event['id2'])
                friends[event['id2']].discard(event['id1'])
            else:
                user, cents = event['id'], int(event['amount'].replace('.', ''))
                if log is stream:
                    members = network(friends, user, degree)
                    newest = merge(*(reversed(purchases[member]) for member in members), reverse=True)
                    found = verdict(line, cents, [cents for _, _, cents in islice(newest, tracked)])
                    output.write(found)
                    judged += 1
                    flagged += bool(found)
                insort(purchases[user], (event['timestamp'], number, cents))
                if len(purchases[user]) > tracked:
                    purchases[user].popleft()
        yield number, judged, flagged


def main():
    parser = argparse.ArgumentParser(description='The detector in its most straightforward shape.')
    parser.add_argument('batch')
    parser.add_argument('stream')
    parser.add_argument('output')
    parser.add_argument('-D', '--degree', type=int)
    options = parser.parse_args()
    times = [perf_counter()]
    with open(options.batch) as batch, open(options.stream) as stream, open(options.output, 'w') as output:
        for number, judged, flagged in detect(batch, stream, output, options.degree):
            times.append(perf_counter())
    print(f'plain: {number} events, {judged} judged, {flagged} flagged, {times[1] - times[0]:.2f} s batch '
          f'+ {times[2] - times[1]:.2f} s stream; {options.output}', file=sys.stderr)


if __name__ == '__main__':
    main()
