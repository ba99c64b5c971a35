"""One-line faults put into copies of the program: the suite fails for each.

This protects the tests: what they catch today, they still catch when they are rewritten. The
program as it is comes first and has to pass. Copies are tested side by side, one per processor.
Of each the tests that should notice are run first, and all others only if these do not.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from multiprocessing.pool import ThreadPool

from .common import SUITE, read, scratch, write

ROOT = os.path.dirname(SUITE)
PROGRAM = "src/anomaly_detection.py"
DEADLINE = 400      # seconds after which a suite counts as hanging, which is a failure too

# A text that occurs exactly once in the program, the text that takes its place, what that breaks,
# and the tests that should notice: they are tried first.
Fault = namedtuple("Fault", "text replacement breaks tests")
FAULTS = [Fault(*fault) for fault in (
    ("", "", "nothing: the program as it is", ""),

    # ---- values
    ("return cents.numerator if cents.denominator == 1 else cents", "return int(cents)",
     "amounts finer than a cent", "test_values"),
    (r'r"(-?[0-9]{1,15})(?:\.', r'r"(-?[0-9]{1,16})(?:\.', "amounts have at most 15 digits", "test_values"),
    ("int(exponent or 0) - len(decimals)", "abs(int(exponent or 0)) - len(decimals)",
     "an exponent has its sign", "test_values"),
    ("[.,]([0-9]{1,9})", "[.]([0-9]{1,9})", "a fraction of a second may follow a comma", "test_values"),
    ("([0-9]{1,9})", "([0-9]{1,6})", "a fraction of a second has up to 9 digits", "test_values"),
    ("second -= timedelta(", "second += timedelta(", "a zone east of UTC is ahead of it", "test_values"),
    ("minutes=int(hours[0] + minutes)", "minutes=int(minutes)", "a zone's minutes have its sign", "test_values"),
    ("except (AttributeError, ValueError, OverflowError):", "except (AttributeError, OverflowError):",
     "the 30th of February is malformed", "test_values"),
    ('return f"{second}.{fraction}".rstrip("0").rstrip(".")', 'return f"{second}.{fraction}"',
     "two spellings of one timestamp are one", "test_values"),
    ('plain = plain.rstrip("0").rstrip(".")', "pass",
     "two spellings of a number are one id", "test_values"),
    ("exponent = max(len(whole) - 15, 0) + min(30 - len(decimals), 0)", "exponent = 0",
     "a snapshot's amounts can be read", "test_values"),
    (r'r"-?([0-9]{1,100})', r'r"-?([0-9]{1,15})', "ids have up to 100 digits", "test_values"),
    ("if sum(map(str.isdigit, plain)) <= 100 else", "if True else", "1e999 is an id of five characters", "test_values"),
    ("{Decimal(text) or Decimal(0):f}", "{Decimal(text):f}", "the ids -0.0 and 0 are one user", "test_values"),
    ("(?: UTC| ?(?:Z|", "(?: ?(?:Z|", "a timestamp may end in UTC", "test_values"),
    ("{'-' if cents < 0 else ''}", "", "negative amounts have a sign", "test_values"),
    ('.rjust(decimals + 1, "0")', "", "5 cents are 0.05", "test_values"),
    ("len(text) <= 60 else text[:57]", "len(text) <= 60000 else text[:57]", "messages are short", "test_values"),
    ("c if c.isprintable() else ascii(c)[1:-1]", "c", "messages move no cursor", "test_values"),
    ("if len(self) >= self.limit:", "if False:", "a memo is bounded", "test_values"),

    # ---- social network
    ("self.friends[user].remove(friend)", "pass", "unfriend ends a friendship", "test_social_network"),
    ("if not self.friends[user]:", "if False:", "users without friends are absent", "test_social_network"),
    ("self.neighbors.pop(id1, None)", "pass", "the search knows the first one's new friend", "test_social_network"),
    ("self.neighbors.pop(id2, None)", "pass", "the search knows the second one's new friend", "test_social_network"),
    ("seen, ring = {user}, self", "seen, ring = set(), self",
     "a buyer is not at distance 2 of themselves", "test_social_network"),
    ("while ring and degree:", "while ring and degree > 1:",
     "the network reaches to distance D", "test_social_network"),
    ("hops_left, neighbors_of = degree - 1,", "hops_left, neighbors_of = degree,",
     "the network ends at distance D", "test_social_network"),
    ("if ball is ring or hops_left == 1:", "if True:", "a long path takes linear time", "test_social_network"),
    ("                ball.discard(user)\n", "", "nobody is in their own network", "test_social_network"),
    ("        self[user] = False\n", "", "nobody is a member of their own network", "test_social_network"),
    ("self.social.rings(v, self.hops_left - 1)", "self.social.rings(v, self.hops_left)",
     "a member is near enough", "test_social_network"),
    ("or self.hops_left > 1 and", "or self.hops_left > 2 and",
     "a member two steps away is one", "test_social_network"),
    ('raise Malformed("id1 and id2"', 'print("id1 and id2"', "nobody is their own friend", "test_social_network"),
    ("key=common.__getitem__, reverse=True)", "key=common.__getitem__)",
     "most friends in common come first", "Audience"),
    ("sorted(sorted(ring), key", "sorted(ring, key", "equals come by id", "Audience"),
    ("return sorted(friends), recommend", "return list(friends), recommend", "the friends come by id", "Audience"),

    ("elif sys.getsizeof(self.friends[user], 0) > 256 * len(self.friends[user]):", "elif False:",
     "a hub that lost its friends costs what the others do", "test_loading"),
    ("        self.neighbors.clear()\n", "", "the search knows the friends loaded at once", "test_loading"),

    # ---- purchase history
    ("purchase = (timestamp, self.recorded,", "purchase = (timestamp, -self.recorded,",
     "of equal timestamps the later line is newer", "test_purchase_history"),
    ("insort(purchases, purchase)", "purchases.append(purchase)",
     "a late purchase takes its place", "test_purchase_history"),
    ("if purchase[0] >= last[0][0]:", "if True:",
     "the pages lack no purchase newer than their first", "test_loading"),
    ("if self.later or self.waiting and", "if self.waiting and",
     "of single purchases and columns the later ones are newer", "test_loading"),
    ('or lines.count("\\n") != len(amounts) - 1:', ":", "two amounts in one text are malformed", "test_loading"),
    ("        self._recent_purchases = None       # building", "        pass        # building",
     "the pages have what was loaded at once", "test_loading"),
    ("if len(purchases) > self.tracked:", "if len(purchases) >= self.tracked:",
     "a user's last T purchases are kept", "test_purchase_history"),
    ("purchases.popleft()", "purchases.pop()", "the oldest purchase goes", "test_purchase_history"),
    ("key=itemgetter(-1))", "key=itemgetter(0))", "the users who bought last are merged", "test_purchase_history"),
    ("if sum(map(len, histories)) <= count:", "if True:",
     "no more than T purchases are the last", "test_purchase_history"),
    ("place = bisect(self.purchases, purchase)", "place = 0", "a page is in order", "test_purchase_history"),
    ("if purchase >= page.since:", "if purchase <= page.since:", "a purchase is on its page", "test_purchase_history"),
    ("= page.halves()", "= page.halves()[::-1]", "the halves of a page are in order", "test_purchase_history"),
    ("del self.pages[:-(self.capacity // self.page_size)]", "pass", "the pages are bounded", "test_purchase_history"),
    ("for page in self.pages[:-4:-1])", "for page in self.pages[-3:])",
     "the newest page comes first", "test_short_cuts"),
    ("found = [purchases[-count:]", "found = [purchases[:count]",
     "of a user who buys much the last purchases count", "test_purchase_history"),
    ("            count -= there\n", "", "of the last page only the newest purchases count", "test_short_cuts"),

    # ---- verdict
    ("b * size * over * over <= known", "b * size * over * over < known",
     "exactly mean + 3 sd is not flagged", "test_verdict"),
    ("over <= 0 or b * size", "b * size", "what is far below the mean is not flagged", "test_verdict"),
    ("known = (a + b) * n", "known = (a + 2 * b) * n", "an early acquittal is certain", "test_verdict"),
    ("return known >= 0 and (", "return (", "too small a part of a window acquits nobody", "test_verdict"),
    ("over = n * amount - total", "over = total - n * amount", "what is above the limit is flagged", "test_verdict"),
    ("deviations.denominator ** 2", "deviations.denominator", "2.5 sd are 5/2 of it", "test_verdict"),
    ("if n < 2 or", "if n < 1 or", "two purchases are needed", "test_short_cuts"),
    ("return Flag(mean if total >= 0 else -mean", "return Flag(int(total // n)",
     "means are truncated, not floored", "test_values"),
    ("isqrt(int(n * squares - total * total)) // n", "round((n * squares - total * total) ** .5 / n)",
     "sd is exact and truncated", "test_values"),
    ("islice(source, found, self.tracked)", "islice(source, self.tracked)",
     "no purchase is in a window twice", "test_short_cuts"),

    # ---- logs
    (r'MARKS = "\ufeff\0"', r'MARKS = "\0"', "a byte-order mark is no part of a line", "test_spellings"),
    (r'yield re.sub(rb"(?m)^\0+", b"", whole) if b"\0" in whole else whole', "yield whole",
     "NULs before a line are dropped", "test_command_line.Dirt"),
    (r'rest if incomplete else rest.lstrip(b"\0")', "rest", "NULs before a last line take no memory", "test_a_hole"),
    ("nesting(line) > NESTING:", "False:", "deep nesting is malformed", "test_spellings"),
    ("> NESTING and nesting(line) > NESTING:", "> NESTING:", "brackets in strings nest nothing", "test_spellings"),
    ('raise Malformed("not UTF-8")', "pass", "bytes that are not UTF-8 are malformed", "test_spellings"),
    ("parse_constant=_no_constant", "parse_constant=str", "NaN is malformed", "test_spellings"),
    ('"(0|-?[1-9][0-9]{0,14})"', '"(-?[0-9]{1,15})"', "01 is no number", "test_spellings"),
    (r'[^"\\\x00-\x1f\ud800-\udfff]', r'[^"\\\x00-\x1f]', "a shape takes UTF-8 only", "test_spellings"),
    ("not len(values) == len(fields) <= 20", "not len(fields) <= 20",
     "of a field that comes twice the last value counts", "test_loading"),
    ("and 4 * number >= len(self.last)", "", "few expressions are compiled", "test_loading"),
    ("if expression and name not in COLUMNS else", "if False else",
     "fields that come and go need one shape", "test_loading"),
    ("if self.unknown >= due:", "if True:", "few lines are examined for shapes", "test_loading"),
    ("        if any(map(eq, ids1, ids2)):\n", "        if False:\n",
     "nobody is their own friend in a chunk", "test_loading"),
    ("    if any(columns[-1]):\n        return None\n", "", "no line of a chunk is left out", "test_loading"),
    ('repeat(b"\\n" * CHUNK, number // CHUNK)', '[b"\\n" * CHUNK] if number // CHUNK else []',
     "lines have their numbers after many blank ones", "test_loading"),
    ('yield bytes(incomplete) + b"\\n"', "return", "a last line needs no newline", "test_command_line"),
    ("if incomplete and not self.growing:", "if incomplete:",
     "--resume leaves a line that is not complete", "ResumeTest"),
    ("self.file.read(self.piece) if wait_for(self.file) else None", "self.file.read(self.piece)",
     "time passes while a pipe is empty", "test_report.Live"),
    ('while (data := self.read(position, stop, on_read)) != b"":', "while data := self.read(position, stop, on_read):",
     "another may read the same pipe", "test_command_line.Standard"),
    ("        self.start -= len(rest)\n", "", "--resume begins where a line does", "ResumeTest"),
    ("        self.unread = rest\n", "", "--resume goes on in the midst of what a pipe gave", "ResumeTest"),
    ("[*map(self.line_start, offsets), self.line_start(end)]", "[*offsets, end]",
     "parts begin where lines do", "test_parallel"),
    ("if data == b\"\" and position < stop:", "if False:",
     "a log that is truncated meanwhile is an error", "Trust.test_faults"),
    ("(?:%b%b){2,}", "(?:%b%b){3,}", "CSV of three columns is told from a log", "LogKindTest"),
    ('encoding=\\"utf-8-sig\\"', 'encoding=\\"utf-8\\"', "CSV may begin with a mark", "test_kinds_of_files"),
    (r"(?:\xfe\xff|\xff\xfe(?!", r"(?:\xff\xfe(?!", "UTF-16 has four spellings", "test_kinds_of_files"),
    (r"[^{\w\n]*\w[^{\n]*", r"[^{\n]*", "what one command makes of an array, another spoils", "test_kinds_of_files"),
    ("4 * len(found) > lines", "40 * len(found) > lines", "one line tells not what the others are", "test_kinds_of_files"),
    (". * 1e3 end", ". * 1e6 end", "milliseconds are no seconds", "test_kinds_of_files"),
    ("FILE | jq -c '.[]'", "FILE", "objects with commas between become lines", "test_kinds_of_files"),
    ("(gzip.open(file) if is_gzip else file)", "file", "logs may be compressed", "OneFileTest"),
    ("(os.fstat(file.fileno()).st_size or not magic)", "True", "a file in /proc has content", "OneFileTest"),
    ("self.head += data", "self.head = data", "the head of a pipe comes in pieces", "LogKindTest"),
    ('whole_number(header.get("T"), 2, "T ")', 'whole_number(header.get("T"), 1, "T ")',
     "T is at least 2", "test_command_line.Settings"),
    ("                number, failure = place, error\n                break\n        except NO_MEMORY", "                number, failure = place, error\n        except NO_MEMORY",
     "--strict names the first malformed line", "test_parallel.Failures"),
    ("                number, failure = place, error\n                break\n        except NO_MEMORY", "                number, failure = place + 1, error\n                break\n        except NO_MEMORY",
     "a malformed line at which --strict ends is not read", "test_ending.Strict"),
    ("for place, expected in (0, self.first), (self.lines - 1, self.last):", "for place, expected in [(0, self.first)]:",
     "the last line read before is compared", "test_ending.WhichLog"),
    ("for place, expected in (0, self.first), (self.lines - 1, self.last):",
     "for place, expected in [(self.lines - 1, self.last)]:",
     "another log is told at its first line", "test_ending.WhichLog"),
    ("if self.summary(lines[place - before], length) != expected:", "if self.summary(lines[place - before]) != expected:",
     "an unfinished last line may grow", "test_ending.WhichLog"),
    ("                position.first = position.first or position.summary(whole[0])   # of version 1.2\n", "",
     "what went on from a snapshot of version 1.2 knows its log", "test_ending.WhichLog"),
    ("self.lines += findings.lines", "self.lines = findings.lines", "a snapshot counts all lines read", "test_snapshot"),
    ("                number, failure = place, error\n                break\n", "                pass\n",
     "nothing is judged after memory is lacking", "test_command_line.Errors"),

    # ---- outputs
    ("            sync(self.file.fileno())", "            pass",
     "an output is on the disk before it takes its place", "OnDisk"),
    ("OUTPUTS = FlaggedPurchases, Rejects, Notify, Verdicts, Evidence, Report, Snapshot",
     "OUTPUTS = Snapshot, FlaggedPurchases, Rejects, Notify, Verdicts, Evidence, Report",
     "the snapshot takes its place last", "OnDisk"),
    ("                sync(target.fileno())", "                pass",
     "what is written into is on the disk", "OnDisk"),
    ("                target.truncate()\n", "", "nothing old is left where a file is written into", "WrittenInto"),
    ("os.dup(self.number)", "self.number",
     "a run closes no descriptor that it did not open", "test_ending.TakingItsPlace"),
    ("(os.fchown, *owner), (os.fchmod, mode):", "(os.fchown, *owner):",
     "a file that is replaced keeps its permissions", "test_outputs"),
    ("self.target = os.path.realpath(path)", "self.target = os.path.abspath(path)",
     "a link's target is replaced", "test_outputs"),
    ("os.makedirs(folder, exist_ok=True)", "pass", "missing folders are made", "test_outputs"),
    ("                os.unlink(self.temporary)\n", "                pass\n",
     "nothing is left behind", "test_outputs"),
    ("    if part:            # at least", "    if False:           # at least",
     "a shard without an event is one of a log with some", "LogKindTest"),
    ("(bad >= 20 or array or part)", "(bad >= 20 or array)", "shards with few lines each are one log", "LogKindTest"),
    ("(bad >= 20 or array or part)", "(bad >= 20 or part)", "a short JSON array is no log", "LogKindTest"),
    ("if not (none or tar or bad > events and", "if not (none or False and", "a log with one event can be another kind", "LogKindTest"),
    ("if not kind.startswith('event_type \"'): ", "if True: ", "events of other types can be read", "LogKindTest"),
    ("none = ended and totals.reason and not log.start and", "none = ended and totals.reason and",
     "of the rest of a log, few lines tell nothing", "LogKindTest"),
    ("if kind not in self.kinds and len(self.kinds) >= self.kinds_counted:", "if False:",
     "the kinds of malformed lines are bounded", "LogKindTest"),
    ("if self.kinds[kind] <= self.lines_told", "if self.kinds[kind] < self.lines_told",
     "three malformed lines of a kind are shown", "test_command_line.Dirt"),
    ('self.counts["events"] or not self.log.is_file:', 'self.counts["events"]:',
     "malformed lines of a pipe are told at once", "test_snapshot.Stopped"),
    ("{blanks}{brace}{text}{added}", "{brace}{text}{added}",
     "a flagged line is as it was", "test_command_line.Dirt"),
    ('if "\\\\" in text or any(', "if any(", "a name that is escaped is the same name", "AlreadyJudged"),
    ('if piece[0] == "," and not depth:', 'if piece[0] == ",":', "a nested field is left alone", "AlreadyJudged"),
    ("[0] not in fields)", '[0] != "mean")', "all fields that an output adds are replaced", "AlreadyJudged"),
    ('self.write(malformed.line + "\\n", "surrogateescape")', 'self.write(malformed.line + "\\n")',
     "rejects are byte for byte", "test_command_line.Dirt"),
    ("    rows.sort(key=lambda row: row[0][1])\n", "",
     "a snapshot keeps the order of equal timestamps", "test_snapshot"),

    ('os.environ.get("TERM", "dumb") == "dumb"', "False",
     "no escape sequences for a dumb terminal", "test_command_line.Messages"),
    ("file == \"/dev/tty\" or os.path.exists(file)", "False",
     "no progress on a terminal beside an output", "test_command_line.Messages"),
    ("1 if path == \"-\" else path for path in self.outputs", "path for path in self.outputs",
     "standard output may be the terminal", "test_command_line.Messages"),
    ("{line[:width - 1]}", "{line}", "a narrow terminal gets a short line", "test_command_line.Messages"),
    ("[(purchase, buyer) for buyer in buyers", "[(purchase, user) for buyer in buyers",
     "the evidence names the buyers", "test_evidence"),
    ("key=lambda buyer: by_user[buyer][-1])", "key=lambda buyer: by_user[buyer][0])",
     "the evidence is of the users who bought last", "test_evidence"),
    ("return nlargest(self.tracked, purchases)", "return nlargest(50, purchases)",
     "the evidence is the last T purchases", "test_evidence"),
    ("        too_few += n < 2\n", "", "purchases with too few to be judged by are counted", "TooFew"),
    ("if n > 1 and not whole and", "if not whole and",
     "a purchase with one to be judged by is counted", "TooFew"),
    ("        too_few = 0\n", "", "each purchase with too few to be judged by is counted once", "TooFew"),
    ("if few == judged >= 20:", "if few >= 20:", "ids agree if some purchases can be judged", "TooFew"),

    ("if above <= 0 or above ** 2", "if above ** 2", "an amount far below the mean is normal", "test_verdict"),

    # ---- report
    ("return escape(text if", "return str(text if", "no id is markup", "SelfContained"),
    ("if self.farthest and most > max(2,", "if self.farthest and most < max(2,",
     "the charts are over time if that tells purchases apart", "test_report.Axes"),
    ("Row(flag.mean - amount, before + 1,", "Row(flag.mean - amount, before,",
     "the first line is line 1", "test_report.Figures"),
    ("                del self.farthest[self.dots:]\n", "", "the page is bounded", "test_report"),
    ("if n > self.size and n % self.size == 0)", "if n > self.size)",
     "an interval is made of whole ones", "test_report.Bounded"),
    (">= self.size * self.limit:", "> self.size * self.limit:", "the intervals are bounded", "test_report"),
    ("if item[1][column] > 1]", "if item[1][column]]", "no ranking in which every count is 1", "test_report.Figures"),
    ('sd if flags[0] > 1 else ""', "sd", "no sd of one purchase", "test_report.Figures"),
    ("zip(heads.split(\", \"), *rows) if any(column[1:])]", "zip(heads.split(\", \"), *rows)]",
     "no column that says nothing", "test_report"),
    ("pause = max(2, 50 * (end - begin))", "pause = 2",
     "live pages take 2 % of the time", "test_report.Live"),

    # ---- files
    ("            self.copy()\n", "            raise\n", "what cannot be renamed is copied", "test_ending.TakingItsPlace"),
    ("if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):", "if True:",
     "a file system need not offer fsync", "test_ending.TakingItsPlace"),
    ("if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):", "if False:",
     "a broken disk is an error", "test_ending.TakingItsPlace"),
    ("                kept, self.temporary = self.temporary, None\n", "                kept = self.temporary\n", "the complete temporary file of a failed copy stays", "test_ending.TakingItsPlace"),
    ("                for start in size, 0:\n", "                for start in [0]:\n",
     "a full disk leaves what is written into as it was", "test_ending.TakingItsPlace"),
    ("group, owner = (-1, status.st_gid), (status.st_uid, -1)", "group = owner = (status.st_uid, status.st_gid)",
     "the group is kept although the owner is not", "test_ending.TakingItsPlace"),
    ('open(self.target, "r+b", buffering=0)', 'open(self.target, "rb", buffering=0)',
     "a file without the right to write is refused", "test_ending.Refused"),
    ("            os.stat(self.target)        # again", "            pass        # again",
     "too long a name below a missing folder is refused", "test_ending.Refused"),
    ('if os.path.basename(self.path) in ("", ".", "..") or', "if", "a name of a folder is no file's", "test_ending.Refused"),
    ("            if self.number is not None:\n                raise Failure", "            if False:\n                raise Failure",
     "a descriptor is open when the run starts", "test_ending.Refused"),
    ("if not fcntl.fcntl(self.number, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR):", "if False:",
     "an output can be written", "test_ending.Refused"),
    ("fcntl.flock(self.old, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", "two runs on one state are one too many",
     "test_ending.Refused"),
    ("if self.number is not None and self.number == earlier.number:", "if False:",
     "standard output is one output", "test_ending.Refused"),
    ("and os.path.samestat(self.status, earlier.status))", "and False)",
     "an output is no other file of the run", "test_outputs.Refused"),

    # ---- signals
    ("for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:", "for number in signal.SIGINT, signal.SIGTERM:",
     "a hangup stops a run", "test_ordinary_days.LiveTest"),
    ("if signal.getsignal(number) is not signal.SIG_IGN:", "if True:",
     "what is ignored stays so", "test_ordinary_days.LiveTest"),
    ("raise Stopped(self.received[0])", "raise Stopped(self.received[-1])",
     "the first signal is the status", "test_command_line.Errors"),
    ("self.status = 128 + number", "self.status = 1",
     "a stopped run says so in its status", "test_ordinary_days.LiveTest"),
    ("elif len(self.signals.received) > outlasted:", "elif False:",
     "a second signal gives up an output that nobody reads", "test_ending.CommitRecord"),
    ("            self.ended = True\n", "", "a signal ends no run that writes", "test_ending.SignalsTest"),
    ("                    raise\n            self.waiting()\n", "                    raise\n",
     "a signal ends the wait for a FIFO's reader", "test_ending.SignalsTest"),
    ("        look()\n        when, cents", "        when, cents", "a signal ends the judging within a chunk", "test_ending.SignalsTest"),
    ("            self.signals.look()\n        self.signals.look()\n", "        self.signals.look()\n",
     "a signal ends the joining of findings", "test_ending.SignalsTest"),
    ("        self.signals.look()\n        self.require_events(totals)\n", "        self.require_events(totals)\n",
     "a signal at the end of the stream counts", "test_ending.SignalsTest"),

    # ---- workers
    ('raise Failure("a worker process died, "\n'
     '                      "perhaps for lack of memory or disk space") from None',
     "return", "a run fails with its worker", "test_parallel.Failures"),
    ("        mark = Failure(explained(error))\n", "        pass\n",
     "an error in a worker ends the run", "test_parallel.Failures"),
    ("    pickle.dump(mark, file)\n", "", "a worker tells that it has done all", "test_parallel.Jobs"),
    ("            while not wait_for(worker.sentinel):\n                signals.look()\n", "", "a worker's findings are complete when they are read", "test_parallel"),
    ("if os.getppid() != self.parent:", "if False:", "a worker ends with its parent", "test_parallel.Failures"),
    ('pickle.dump(RuntimeError("in a worker process: " + traceback.format_exc()), file)', "pass",
     "a worker's programming error is shown", "test_ending.SignalsTest"),
    ("for _ in replay(log.chunks(boundaries[0], start), detector):", "for _ in ():",
     "a part is judged in the state before it", "test_parallel.Jobs"),
    ("return min(jobs, 4 * processors())", "return min(jobs, 40 * processors())",
     "many jobs are capped", "test_parallel.Quota"),
    ("min(number, -(-quota // period))", "min(number, quota // period)",
     "half a processor is one", "test_parallel.Quota"),

    ("            self.take_back(done)\n", "            pass\n", "a torn line spoils no other", "test_ending.CommitRecord"),
    ("                if create and size is not None:\n                    os.unlink(self.target)\n",
     "                if False:\n                    pass\n", "a copy that fails leaves no empty file", "test_ending.TakingItsPlace"),
    ("if number == position.lines and position.has_grown(whole[-1]):", "if False:",
     "an unfinished last line is read again when it has grown", "test_ending.WhichLog"),
    ("none or tar or bad", "none or bad", "a tar file of logs is told from a log", "LogKindTest"),
    ("    if isinstance(line, bytes):\n", "    if False:\n", "a line can be bytes", "test_library"),
    ("os.fspath(path)", "path", "a path can be any path", "test_library"),
    # ---- run
    ("self.first_covered == stream.position.first):", "False):", "the same log again is warned of", "test_ending.WhichLog"),
    (r'if head.startswith(b"\x1f\x8b"):', "if False:", "a compressed log is a log", "test_ending.Refused"),
    ('if first_kinds(head)[0] == "header":', "if False:", "swapped logs are told as such", "test_a_batch_log"),
    ("        self.require_events(totals)\n        self.newest", "        self.newest", "a batch log has an event", "LogKindTest"),
    ("        warned = not self.live\n", "        warned = True\n", "a live stream is warned of at once", "LogKindTest"),
    ("        self.signals.look()\n        self.require_events(totals)\n", "        self.signals.look()\n", "a stream has an event", "LogKindTest"),
    ("part = self.args.shard[1] > 1 and totals is self.context.stream_totals", "part = False",
     "a shard without an event is one of a log with some", "LogKindTest"),
    ("if output not in self.failures:\n                try:", "if True:\n                try:",
     "an output that failed is written no more", "test_outputs"),
    ("self.failures[output] = error.with_traceback(None)", "pass", "a run that loses an output has failed", "test_outputs"),
    ("commits = snapshot and not failures and not", "commits = snapshot and not",
     "a snapshot stays if an output failed", "test_ending.Table"),
    ("commits = snapshot and not failures and not isinstance(error, NO_MEMORY)", "commits = snapshot and not failures",
     "a snapshot stays if memory was lacking", "test_ending.Table"),
    ("            elif self.snapshot and not self.context.stream_totals.log.is_file:\n", "            elif False:\n",
     "a live run with a snapshot ends with its first output", "test_ending.CommitRecord"),
    ("            self.each(lambda output: output.check_reader(), self.outputs)\n", "            pass\n",
     "a reader that has gone meanwhile is noticed", "test_ending.CommitRecord"),
    ("            if placed:\n                parts.append", "            if True:\n                parts.append",
     "nothing is said to be written that is not", "test_ending.CommitRecord"),
    ("                refuse_log(output)\n", "                pass\n", "no output replaces a log", "test_ending.Refused"),
    ("replaces_batch and place.target == earlier.target):", "replaces_batch):",
     "a snapshot does not replace one of BATCH's two names", "test_ending.Refused"),
    ("            detector.least_tracked = min(tracked, whole_number(header.get(\"T\"), 2))\n", "            pass\n",
     "a snapshot claims the T that it bears out", "test_ending.Tracked"),
    ("return Ending(False, False, 0 if readers_gone and not snapshot else 1)", "return Ending(False, False, 1)",
     "a closed pipe is no error", "test_command_line.Standard"),
    ("if self.args.strict and findings.malformed:", "if False:",
     "--strict ends at a malformed line", "test_command_line.Dirt"),
    ("            stream_log.skip(position)\n", "", "--resume goes on after what was judged", "ResumeTest"),
    ("stream.position, self.lines_before = position, position.lines", "self.lines_before = position.lines",
     "a snapshot counts the lines read before", "ResumeTest"),
    ("if detector.least_tracked < detector.tracked:", "if detector.least_tracked > detector.tracked:",
     "a window larger than a snapshot's is warned of", "ResumeTest"),
    ("            totals.position.add(findings)       #", "            pass       #",
     "a shard's lines have the numbers of the log", "test_snapshot"),
    ("take=self.args.shard[0] == 1", "take=True", "only the first shard rejects lines of the batch log", "Shards"),
    ("    if error and not live:\n", "    if False:\n",
     "an error midway changes no file", "test_outputs.Midway"),
    ('status = getattr(error, "status", 1) if error else 0', 'status = getattr(error, "status", 0)',
     "a live stream that fails has a status", "test_ending.Table"),

    # ---- command line
    ("if files and len(files) != len(unnamed):", "if len(files) > len(unnamed):",
     "all three files are given, or none", "UsageTest"),
    ("options.update(zip(unnamed, files or", "options.update(zip(FILES, files or",
     "places are those of the files without a name", "test_command_line.Files"),
    ("parse_intermixed_args(arguments[:end])", "parse_intermixed_args(arguments)",
     "names may begin with a dash", "test_command_line.Files"),
    ("parse_intermixed_args(arguments[:end])", "parse_args(arguments[:end])",
     "options may stand between names", "test_command_line.Files"),
    ("if self.target == path and not os.path.isabs(path):", "if False:", "a deleted working folder is named", "test_command_line.Files"),
    ("if self.number is None:\n                self.target", "if True:\n                self.target",
     "standard input needs no working folder", "test_command_line.Files"),
    ('(r"option -([dt]).*", ', '("option -D.*", ', "-d is told from -D", "UsageTest"),
    ('(": expected one argument$", " needs a value")', '("$", "")', "what is missing is told in plain words", "UsageTest"),
    ('(see --help)", 2', '(see --help)", 1',
     "usage errors have status 2", "test_command_line.Errors"),
    ("if args.snapshot and args.shard[0] < args.shard[1]:", "if False:",
     "a snapshot stands for the whole stream", "test_snapshot"),
    ("allow_abbrev=False", "allow_abbrev=True", "options are not guessed", "test_command_line"),
)]


def run(trial):
    program = read(os.path.join(ROOT, PROGRAM)).decode()
    with ThreadPool(os.cpu_count()) as pool:
        outcomes = pool.imap(lambda fault: outcome_of(program, fault), FAULTS)
        for number, (fault, outcome) in enumerate(zip(FAULTS, outcomes)):
            with trial.one(fault.breaks):
                trial.expect(outcome.startswith("caught" if number else "not caught"), outcome)
                trial.measured("%-60s %s" % (fault.breaks, outcome))


def outcome_of(program, fault):
    """Return how the suite fares with the program (its text) once the fault is in it, in words."""
    count = program.count(fault.text)
    if fault.text and count != 1:
        return "the text %r occurs %d times in the program" % (fault.text, count)
    faulty = program.replace(fault.text, fault.replacement, bool(fault.text))
    compile(faulty, PROGRAM, "exec")        # a program that cannot be run is caught by every test
    with scratch() as folder:
        copy = os.path.join(folder, "copy")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(
            ".git", "__pycache__", "temp", "results.txt"))
        write(os.path.join(copy, PROGRAM), faulty.encode())
        started = time.monotonic()
        failed = fault.tests and first_failure(copy, sys.executable, "insight_testsuite/unit_tests", fault.tests)
        failed = failed or first_failure(copy, "bash", "insight_testsuite/run_tests.sh")
        seconds = time.monotonic() - started
    if not failed:
        return "not caught, in %.0f s" % seconds
    if "_FailedTest" in failed:
        return "the program cannot be imported"
    return "caught in %.0f s by %s" % (seconds, failed)


def first_failure(folder, *command):
    """Run a copy's tests up to the first failure; return which test it is, if there is one."""
    tests = subprocess.Popen(
        [*command, "--fail-fast", "--jobs", "1"], cwd=folder,
        env=dict(os.environ, PYTHON=sys.executable, PYTHONDONTWRITEBYTECODE="1"), start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        said, _ = tests.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        os.killpg(tests.pid, signal.SIGTERM)        # the runner ends its processes
        tests.communicate()
        return "its end: it hangs"
    said = said.decode(errors="replace")
    if tests.returncode == 0 or "\n0 tests in " in "\n" + said:         # none has the name
        return None
    failed = re.search(r"^(?:\[FAIL\]|FAIL|ERROR): (\S+(?: \(\S+\))?)|^(\S+: its process died)", said, re.MULTILINE)
    return (failed[1] or failed[2]) if failed else repr(said[-300:])
