"""--notify: who is to be told of each flagged purchase, held against a literal computation."""

import json
import os
import unittest
from random import Random

from support import (
    BATCH, FLAGGED, HEADER, OLD, STREAM, FolderTest, MainTest, answered, drawn_log, flagged, friendship, purchase,
    with_odd_ids)
import random_logs
import reference

SHAPES = [shape for shape in dict.fromkeys(random_logs.SHAPES) if shape is not random_logs.nobody]


# --- the literal computation --------------------------------------------------

def distances(friendships, user):
    """How far everybody is: going from one to the other costs one step, until nothing gets nearer."""
    far = {user: 0}
    nearer = True
    while nearer:
        nearer = False
        for one, other in friendships:
            if one in far and far[one] + 1 < far.get(other, len(friendships) + 1):
                far[other] = far[one] + 1
                nearer = True
    return far


def to_be_told(friendships, user, degree):
    """(feed, recommend) by the words of the specification; friendships are pairs, each in both orders."""
    far = distances(friendships, user)
    friends = {other for one, other in friendships if one == user}

    def in_common(other):
        return sum((other, friend) in friendships for friend in friends)

    recommend = [other for other in far if 2 <= far[other] <= degree]
    return sorted(friends), sorted(recommend, key=lambda other: (far[other], -in_common(other), other))


def as_json(ids):
    """A list of JSON strings in which only what JSON and UTF-8 do not allow is escaped."""
    return json.dumps(ids, ensure_ascii=False).encode(errors="backslashreplace")


def with_told(line, feed, recommend):
    """A flagged line with the two fields at its end."""
    return line[:-2] + b', "feed": %s, "recommend": %s}\n' % (as_json(feed), as_json(recommend))


def literally(batch, stream, degree):
    """[(flagged line, feed, recommend)] of the flagged purchases of two logs, with D given."""
    header, *batch_lines = reference.lines_of(batch)
    rule = reference.Rule(degree, int(json.loads(header[1])["T"]))
    friendships, answers = set(), []
    for judged, lines in (False, batch_lines), (True, reference.lines_of(stream)):
        for _, line in lines:
            try:
                event = reference.read_event(line)
            except ValueError:
                continue
            if event.type == "purchase":
                user, = event.users
                verdict = judged and reference.verdict(event.amount, rule.window(user))
                if verdict:
                    answers.append((reference.flagged_line(line, *verdict),
                                    *to_be_told(friendships, user, degree)))
                rule.purchase(user, event.when, event.amount)
                continue
            both = {event.users, event.users[::-1]}
            if event.type == "befriend":
                friendships |= both
                rule.befriend(*event.users)
            else:
                friendships -= both
                rule.unfriend(*event.users)
    return answers


# --- the tests ----------------------------------------------------------------

class NotifyTest(MainTest):

    def setUp(self):
        super().setUp()
        self.notify = self.path("notify")

    def told(self, *options):
        """Run in this process; return what is in the output and in the notify file."""
        self.main("--quiet", *self.files, "--notify", self.notify, *options)
        return self.read("output"), self.read("notify")

    def flags_alone(self, *options):
        """Run in this process without --notify; return what is in the output."""
        self.main("--quiet", *self.files, *options)
        return self.read("output")

    def write_logs(self, logs):
        for name, log in zip(("batch", "stream"), logs):
            self.write(name, log)


class Literal(NotifyTest):
    """Random logs: the same bytes as the literal computation gives."""

    def compare(self, logs, degree, how):
        """Hold one log at one D against the literal computation; return its answers."""
        self.write_logs(logs)
        answers = literally(*logs, degree)
        output, notify = self.told("-D", degree, "--jobs", 1)
        self.assertEqual(notify.splitlines(True), [with_told(*answer) for answer in answers], how)
        self.assertEqual(output, b"".join(line for line, _, _ in answers), how)
        return answers

    def test_every_degree_and_shape(self):
        """D from 1 to 6; hubs, rings, stars and the others; friendships that come and go."""
        several = distant = in_common = by_id = 0
        for degree in range(1, 7):
            told = 0
            for number, shape in enumerate(SHAPES * 3):
                seed = 100 * degree + number
                logs = drawn_log(seed, degree=degree, shape=shape, users=(6, 8, 12, 20)[number % 4],
                                 churn=(0.05, 0.3)[number % 2])
                for _, feed, recommend in self.compare(logs, degree, (seed, shape.__name__)):
                    self.assertTrue(feed)
                    self.assertTrue(degree > 1 or not recommend)
                    told += bool(recommend)
                    several += len(feed) > 1
                    distant += len(recommend) > 5
                    in_common += recommend != sorted(recommend)
                    by_id += sorted(recommend, key=int) != sorted(recommend)
            self.assertTrue(told > 25 or degree == 1, "too few lines recommend at D = %d" % degree)
        self.assertGreater(min(several, distant, in_common, by_id), 80, "the order is hardly put to the test")

    def test_odd_ids(self):
        """Quotes, control characters, lone surrogates, numbers, all of JSON's spellings of one id."""
        escaped = raw = 0
        for seed in range(48):
            logs = with_odd_ids(seed, *drawn_log(seed, users=20, churn=0.1))
            for line, feed, recommend in self.compare(logs, 1 + seed % 6, seed):
                ids = as_json(feed + recommend)
                escaped += b"\\ud" in ids
                raw += not ids.isascii()
            for line in self.read("notify").splitlines():
                fields = json.loads(line)
                self.assertEqual(list(fields)[-4:], ["mean", "sd", "feed", "recommend"])
        self.assertGreater(min(escaped, raw), 30)

    def test_malformed_and_odd_lines(self):
        """A flagged line stays as it was, however it looks; a damaged one befriends nobody."""
        lines = sum(len(self.compare(random_logs.random_log(Random(seed), 0.15), 1 + seed % 6, seed))
                    for seed in range(60))
        self.assertGreater(lines, 120)

    def test_a_large_network(self):
        """One that the program does not list for its verdicts: hubs in a random graph, thousands of friendships."""
        rng = Random(3)
        names = ["%d" % k for k in range(700)]
        friends = {tuple(rng.sample(names, 2)) for _ in range(1400)} | {
            (hub, other) for hub in names[:2] for other in rng.sample(names[2:], 200)}
        batch = HEADER + b"".join(friendship(*pair) for pair in sorted(friends))
        batch += b"".join(purchase(user, "10.%02d" % rng.randint(0, 99)) for user in names)
        stream = b"".join(purchase(user, "999.00") for user in rng.sample(names, 3))
        for degree in 2, 4:
            answers = self.compare((batch, stream), degree, degree)
            self.assertGreater(len(answers), 1)
        self.assertGreater(len(answers[0][2]), 400)


class Line(NotifyTest):
    """One line, in every byte."""

    def answer(self, batch, stream=STREAM, *options):
        self.write_logs((batch, stream))
        return self.told(*options)[1]

    def test_the_example(self):
        batch = BATCH.replace(friendship("1", "3", "unfriend"), b"")
        for degree in "2", "3", "1000000000":
            self.assertEqual(self.answer(batch, STREAM, "-D", degree),
                             b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:02", "id": "2", '
                             b'"amount": "1601.83", "mean": "29.10", "sd": "21.46", '
                             b'"feed": ["1"], "recommend": ["3"]}\n')
        self.assertEqual(self.answer(batch, STREAM, "-D", "1"),
                         FLAGGED[:-2] + b', "feed": ["1"], "recommend": []}\n')

    def test_ids_are_escaped_as_little_as_json_allows(self):
        """Also those that the log escaped; a lone surrogate has no other way to be written."""
        spelled = [b'"\\u00eb\\u65E5\xe6\x9c\xac\\/"', b'"\\"\\\\"', b'"\\n\\u0009\\u0000"', b'"\\ud800"',
                   b'"\\ud83d\\uDE00"', b'1.50', b'" "', b'"7.0"', b'70e-1']
        batch = HEADER + purchase("1", "5.00") * 2 + friendship("1", "2") + b"".join(
            friendship("2", "X").replace(b'"X"', spelling) for spelling in spelled)
        expected = (br'"feed": ["\n\t\u0000", " ", "\"\\", "1", "1.5", "7", "7.0", "%s", "\ud800", "%s"], "recommend": []}'
                    % ("\xeb\u65e5\u672c/".encode(), "\U0001f600".encode()))
        self.assertEqual(self.answer(batch), flagged(STREAM, "5.00", "0.00")[:-2] + b", " + expected + b"\n")

    def test_an_odd_line_stays_as_it_was(self):
        """But for a field of a name that is added."""
        odd = (b' {"amount" : 1601.83,"id":2, "feed": "x", "timestamp": "2017-06-13 11:33:02", '
               b'"event_type": "purchase" \t} \r\n')
        expected = odd.replace(b' "feed": "x",', b"").rstrip()[:-1] + b', "mean": "29.10", "sd": "21.46", "feed": ["1"], "recommend": []}\n'
        self.assertEqual(self.answer(BATCH, odd), expected)
        self.assertEqual(self.answer(BATCH, odd.rstrip()), expected)        # no newline at the end

    def test_the_order_of_those_to_recommend_to(self):
        """Nearest first, then most friends in common, then by id as text: 10 before 9."""
        pairs = [("2", "1"), ("2", "4"), ("2", "5"),                        # friends
                 ("1", "9"), ("4", "10"), ("1", "11"), ("5", "11"),         # one in common, but 11 has two
                 ("1", "30"), ("4", "30"), ("5", "30"),                     # three
                 ("9", "100"), ("10", "100"), ("30", "12"), ("11", "12")]   # further away nobody has any
        batch = HEADER + purchase("1", "5.00") * 2 + b"".join(friendship(*pair) for pair in pairs)
        for degree, further in ("2", []), ("3", ["100", "12"]), ("6", ["100", "12"]):
            self.assertEqual(json.loads(self.answer(batch, STREAM, "-D", degree))["recommend"],
                             ["30", "11", "10", "9"] + further)

    def test_friendships_of_that_moment(self):
        """Not those of the end, nor those of the beginning; the buyer's own are not changed by being asked."""
        changes = [(b"", ["1"], []), (friendship("2", "3"), ["1", "3"], []),
                   (friendship("3", "4") + friendship("1", "4"), ["1", "3"], ["4"]),
                   (friendship("3", "2", "unfriend"), ["1"], ["4", "3"]),
                   (friendship("2", "4"), ["1", "4"], ["3"]),
                   (friendship("4", "1", "unfriend") + friendship("3", "4", "unfriend"), ["1", "4"], [])]
        stream = b"".join(before + STREAM for before, _, _ in changes) + friendship("2", "7")
        expected = b"".join(with_told(FLAGGED, feed, recommend) for _, feed, recommend in changes)
        for jobs in 1, 4:
            self.assertEqual(self.answer(BATCH, stream, "--jobs", jobs), expected)


class Beside(NotifyTest):
    """--notify beside the other files of a run."""

    def test_nothing_flagged_leaves_an_empty_file(self):
        for stream in b"", purchase(amount="1.00"), b"x\n" + friendship("8", "9"):
            self.write("stream", stream)
            self.write("notify", OLD)
            self.assertEqual(self.told(), (b"", b""))


class Live(FolderTest):
    """Each verdict's line is there before the next line of the log is."""

    def lines_and_answers(self):
        """Lines of a stream, each with who is to be told if it is flagged, from the friendships of that moment."""
        for k in range(4):
            line = purchase(amount="%d.00" % (1000 + k))
            yield (friendship("2", str(10 + k)) + b"malformed\n" + line, answered([line]),
                   with_told(answered([line]), ["1"] + [str(10 + j) for j in range(k + 1)], []))

    def test_to_standard_output(self):
        """The flags go to a file, which takes its place in the end."""
        process = self.start(self.batch, "-", self.output, "--notify", "-", "--quiet", bufsize=0)
        flags = b""
        for line, flag, told in self.lines_and_answers():
            process.stdin.write(line)
            self.assertEqual(self.lines_arriving(process.stdout), told)
            self.assertEqual(self.read("output"), OLD)
            flags += flag
        self.assertEqual(self.finish(process)[0], b"")
        self.assertEqual(self.read("output"), flags)

    def test_both_live(self):
        """The flags to standard output, and whom to tell to a named pipe."""
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        process = self.start(self.batch, "-", "-", "--notify", fifo, "--quiet", bufsize=0)
        for line, flag, told in self.lines_and_answers():
            process.stdin.write(line)
            self.assertEqual(self.lines_arriving(process.stdout), flag)
            self.assertEqual(self.lines_arriving(reader), told)
        self.assertEqual(self.finish(process)[0], b"")

    def test_from_files(self):
        self.write("stream", b"".join(line for line, _, _ in self.lines_and_answers()))
        for jobs in "1", "3":
            out, said = self.do(*self.files, "--notify", "-", "--jobs", jobs)
            self.assertEqual(out, b"".join(told for _, _, told in self.lines_and_answers()))
            self.assertEqual(self.read("output"), b"".join(flag for _, flag, _ in self.lines_and_answers()))


if __name__ == "__main__":
    unittest.main()
