"""Events without end through a pipe: flat memory, and each verdict at once.

This protects the use as a monitor, which never ends, and shows a page all the time: it may not grow
with the number of events, and may not keep a verdict until other events come.
"""

import io
import os
import re
import subprocess
import time

from .common import FRIENDS, HEADER, PURCHASE, befriend, child, ended, moment, read, well_formed, write


class Live:
    """The program as a live monitor, a pipe at each end."""

    def __init__(self, folder, distinct):
        self.distinct = distinct    # no two times are the same
        batch, self.page, self.told = (os.path.join(folder, name) for name in ("batch", "report", "notify"))
        self.process = child(write(batch, self.batch().encode()), "-", "-", "--report", self.page,
                             "--notify", self.told, stdin=subprocess.PIPE, bufsize=0)
        self.out = io.BufferedReader(self.process.stdout)
        self.latencies = []

    users, probes = 300, 20

    def batch(self):
        """A town where all have bought twice, and users who each have one friend there, no other's."""
        pairs = [(k, (k + 1 + j * j) % self.users) for k in range(self.users) for j in range(3)]
        pairs += [("probe %d" % k, k * 5) for k in range(self.probes)]
        bought = [(k, amount) for k in range(self.users) for amount in ("9.00", "11.00")]
        return "".join([HEADER % (2, 20), *(befriend(*pair) for pair in pairs),
                        *(PURCHASE % (self.time(0), *purchase) for purchase in bought),
                        PURCHASE % ("9999-12-31 23:59:59", "from the future", "1.00")])

    def time(self, number):
        return moment(number // 1000) + (".%06d" % (number % 10 ** 6) if self.distinct else "")

    def events(self, rng, start, count):
        """Events as they come: purchases, also late ones and of loners, churn, bad lines."""
        for number in range(start, start + count):
            kind = rng.random()
            one, other = rng.sample(range(self.users), 2)
            if kind < 0.6:
                late = rng.randrange(60000) if kind < 0.03 else 0
                amount = "%d.%02d" % divmod(rng.randrange(900, 1100), 100)
                yield PURCHASE % (self.time(max(0, number - late)), one, amount)
            elif kind < 0.8:
                yield PURCHASE % (self.time(number), "loner %d" % one, "5.00")
            elif kind < 0.98:
                yield FRIENDS % (rng.choice(("befriend", "unfriend")), "churn %d" % one, "churn %d" % (one + 1))
            else:
                yield "bad line %d\n" % number

    def probe(self, number):
        """Send an outlier; return how long its verdict takes when nothing else is sent."""
        name = '"probe %d"' % (number % self.probes)
        line = PURCHASE % (self.time(number), name[1:-1], "99999.99")
        started = time.perf_counter()
        self.process.stdin.write(line.encode())
        while True:
            verdict = self.out.readline()
            if not verdict:
                raise RuntimeError("no verdict: " + repr(self.process.stderr.read()))
            if name.encode() in verdict:
                break
        return time.perf_counter() - started

    def memory(self):
        """The resident bytes of the process."""
        with open("/proc/%d/statm" % self.process.pid) as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def close(self):
        status, _, errors = ended(self.process)
        return status, errors


def run(trial, events=10 ** 6, every=200):
    with trial.one("%d events" % events):
        monitor = Live(trial.folder, events > 500000)   # enough to fill the memos in the first half
        resident = []
        for start in range(0, events, every):
            monitor.process.stdin.write("".join(monitor.events(trial.rng, start, every - 1)).encode())
            monitor.probe(start)                    # all before it is done: it idles
            monitor.latencies.append(monitor.probe(start))
            resident.append(monitor.memory())
            if start % (every * 20) == 0:
                page = read(monitor.page)
                trial.expect(well_formed(page) and b'"refresh"' in page, "not a page that goes on")
        status, errors = monitor.close()
        trial.expect(status == 0, "exit status %s: %s" % (status, errors))
        flagged = re.search(b" judged.*, ([0-9]+) flagged", errors)
        trial.expect(flagged, "no summary: %s" % errors)
        trial.expect(int(flagged[1]) == read(monitor.told).count(b"\n"), "not all flags are told")
        page = read(monitor.page)
        trial.expect(well_formed(page) and b'"refresh"' not in page, "not a page that is the last")
        warm, end = max(resident[:len(resident) // 2]), max(resident[len(resident) // 2:])
        trial.expect(end - warm <= 3 << 20, "memory grows after warm-up: %s" % resident[::len(resident) // 10])
        slow = sorted(monitor.latencies)
        trial.expect(slow[len(slow) // 2] < 0.005 and slow[-1] < 1, "verdicts are late: %s" % slow[-3:])
        trial.measured("%d events, %.1f MB in the first half, %.1f MB in the second" % (events, warm / 1e6, end / 1e6))
        trial.measured("latency of %d verdicts: p50 %.2f ms, p99 %.2f ms, max %.2f ms" % (
            len(slow), *(slow[int(share * (len(slow) - 1))] * 1e3 for share in (0.5, 0.99, 1))))
