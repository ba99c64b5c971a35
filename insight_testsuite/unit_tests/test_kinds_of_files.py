"""Logs that are no JSON lines: what they are said to be, and what the command that is named makes of them.

Every row of KINDS has a sample here. Its command is run by a shell, and the program judges what it gives.
"""

import bz2
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import unittest
import zipfile
from unittest.mock import patch

from support import OLD, ROOT, MainTest
import anomaly_detection
from anomaly_detection import KINDS, kind_of_file

# Users with quotes, braces, backslashes and letters beyond ASCII, all of them friends of user 1.
NAMES = "2", 'a "quoted" {one}, [two]', "na\u00efve", "back\\slash"
FRIENDSHIPS = [{"event_type": "befriend", "id1": "1", "id2": name} for name in NAMES]
BATCH = [{"D": "1", "T": "50"}, *FRIENDSHIPS] + [
    {"event_type": "purchase", "timestamp": "2017-06-13 11:33:01", "id": "1", "amount": amount}
    for amount in ("16.83", "59.28", "11.20")]
PURCHASES = [{"event_type": "purchase", "timestamp": "2017-06-13 11:33:%02d" % n, "id": name, "amount": "1601.83"}
             for n, name in enumerate(NAMES * 6, 2)]
STREAM = FRIENDSHIPS + PURCHASES


# --- forms of a log: functions of its objects ---------------------------------

def plain(objects):
    return each("{}".format)(objects)


def each(form, between="\n", end="\n", indent=None):
    """All objects in one form: a function of the JSON text of an object."""
    return lambda objects: between.join(form(json.dumps(fields, indent=indent)) for fields in objects) + end


def array(**options):
    return lambda objects: json.dumps(objects, **options)


def fields(form):
    """All objects as JSON lines of other fields: a function of an object's fields."""
    return lambda objects: plain([form(dict(one)) for one in objects])


def timed(write):
    """The timestamps written by a function of their number of seconds."""
    return fields(lambda one: {**one, "timestamp": write(1497353580 + int(one["timestamp"][-2:]))}
                  if "timestamp" in one else one)


def table(separator, mark="", end="\n"):
    """The purchases as a table whose columns are separated so."""
    def form(objects):
        rows = [PURCHASES[0], *(one.values() for one in objects if "amount" in one)]
        return mark + "".join(separator.join('"%s"' % value.replace('"', '""') for value in row) + end for row in rows)
    return form


def utf_16(order, mark):
    return lambda objects: mark + plain(objects).encode("utf-16-" + order)


def zipped(objects):
    """A zip file of one log a line."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, one in enumerate(objects):
            archive.writestr("%d.json" % n, plain([one]))
    return file.getvalue()


def tar(mode):
    """A tar file of one log a line."""
    def form(objects):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode) as archive:
            for n, one in enumerate(objects):
                member, log = tarfile.TarInfo("%d.json" % n), plain([one]).encode()
                member.size = len(log)
                archive.addfile(member, io.BytesIO(log))
        return file.getvalue()
    return form


def zstd(objects):
    if not shutil.which("zstd"):
        return b"\x28\xb5\x2f\xfd"
    return subprocess.run(["zstd", "-c"], input=plain(objects).encode(), stdout=subprocess.PIPE, check=True).stdout


ARRAY, CR, CSV = "a JSON array", "lines that end in CR", "CSV"
SEVERAL, RECORDS = "JSON of several lines each", "JSON with record separators"
FIELD, QUOTED, NESTED = ("JSON with events " + kind for kind in ("as text in a field", "as text", "nested in a field"))
JOINED, COMMAS = "JSON without newlines between the objects", "JSON with commas between the objects"
LISTED, TEXT = "JSON with commas between the lines", "JSON with text before the objects"
COPY = "JSON with doubled backslashes, as of Postgres COPY"
EPOCH = "JSON with timestamps in seconds or milliseconds since 1970"
SAMPLES = [
    ("bzip2", lambda objects: bz2.compress(plain(objects).encode())),
    ("xz", lambda objects: lzma.compress(plain(objects).encode())),
    ("zstd", zstd), ("a zip file", zipped), ("a tar file", tar("w:")), ("a tar file", tar("w:gz")),
    ("UTF-16", utf_16("le", b"\xff\xfe")), ("UTF-16", utf_16("be", b"\xfe\xff")),
    ("UTF-16", utf_16("le", b"")), ("UTF-16", utf_16("be", b"")),
    (ARRAY, array()), (ARRAY, array(indent=0)), (ARRAY, array(indent=2)),
    (ARRAY, lambda objects: "\ufeff\n [\n" + json.dumps(objects)[1:]),
    (ARRAY, lambda objects: "[\n" + each("{}".format, ",\n")(objects) + "]\n"),
    (ARRAY, lambda objects: "[" + each("{}".format, "\n,", "]")(objects)), (ARRAY, each("[{}]".format)),
    (CR, each("{}".format, "\r", "\r")),
    *((CSV, table(separator, *more)) for separator in ",;\t" for more in ((), ("\ufeff", "\r\n"))),
    *((SEVERAL, each("{}".format, indent=indent)) for indent in (0, 1, 4)),
    (SEVERAL, each(lambda text: text.replace(', "', ',\n  "'))),
    *((RECORDS, each("\x1e{}".format, indent=indent)) for indent in (None, 2)),
    (FIELD, fields(lambda one: {"log": plain([one]), "stream": "stdout", "time": "2017-06-13T11:33:02.1Z"})),      # docker
    (FIELD, fields(lambda one: {"_PID": "7", "MESSAGE": json.dumps(one)})),                             # journald
    (FIELD, fields(lambda one: {"events": [{"labels": {"app": "shop"}, "message": json.dumps(one)}, {"message": "x"}]})),
    (QUOTED, each(json.dumps)), *((JOINED, each("{}".format, between)) for between in ("", " ", "\t")),
    (COMMAS, each("{}".format, ",")), (COMMAS, each("{}".format, ", ", ",\n")),
    (LISTED, each("{},".format)), (LISTED, each("{} ,\r".format)), (LISTED, each(",{}".format)),
    *((TEXT, each((prefix + "{}").format)) for prefix in (
        "2021-03-01T09:00:00.1Z stdout F ",                                     # containerd (CRI)
        "[pod/shop-1/app] ", "shop-1  | ",                                      # kubectl --prefix, docker compose
        "Mar 01 09:00:00 web shop[7]: ", "<134>Mar  1 09:00:00 web shop: ",     # journald, syslog
        "2017-06-13T11:33:01+00:00\tshop.events\t",                             # fluentd
        "[2017-06-13 11:33:01] INFO - ", "2017-06-13 11:33:01,123 a, b, c, ", "2017;06;13;", "data: ")),
    (TEXT, each("[2017-06-13 11:33:01] {} end\r".format)),
    *((NESTED, fields(form)) for form in (
        lambda one: {"event": one, "offset": 7}, lambda one: {"a": {"b": 1, "c": [{"x": []}, one]}},
        lambda one: {"_source": {"note": "}", **one}})),
    (COPY, lambda objects: plain(objects).replace("\\", "\\\\")),
    *((EPOCH, timed(write)) for write in (
        int, str, lambda seconds: seconds + 0.123456, lambda seconds: 1000 * seconds + 7, "{}000".format)),
]
# Only purchases have these forms, so the friendships and the batch log's header are as always.
PURCHASES_ONLY = CSV, COPY, EPOCH


def encoded(log):
    return log if isinstance(log, bytes) else log.encode()


def command(said, kind):
    """The command that a message names for a kind."""
    return re.search("this is %s; (.*) turns it into JSON lines" % re.escape(kind), said)[1]


def missing(command):
    """The tools that a command names and this machine lacks.

    >>> missing("cat FILE | no-tool '1 | 2'")
    ['no-tool']
    """
    tools = re.findall(r"(?:^|\| )(\S+)", re.sub("'[^']*'", "", command))
    return [tool for tool in tools if not shutil.which(tool)]


class CommandTest(MainTest):
    """A test that runs commands that make JSON lines of a log, and judges what they give."""

    def flags(self, batch, stream):
        """The flagged purchases, as they are found in the objects of two logs, and the lines that were skipped."""
        self.main("-q", batch, stream, self.path("flags"), "--rejects", self.path("rejects"))
        flags = [json.loads(line) for line in self.read("flags").splitlines()]
        return [{name: one[name] for name in (*PURCHASES[0], "mean", "sd")} for one in flags], self.read("rejects")

    def converted(self, said, kind, path):
        """What the command that is named makes of a file, run by a shell; None if the tool is missing."""
        there = command(said, kind)
        if missing(there):
            print("not run: %s, for lack of %s" % (there, ", ".join(missing(there))), file=sys.stderr)
            return None
        there = there.replace("FILE", path).replace("python3", sys.executable)
        return subprocess.run(["sh", "-c", there], stdout=subprocess.PIPE, check=True).stdout


class Commands(CommandTest):
    """The program says what a log is, and the command makes a log of it."""

    def test_streams(self):
        batch = self.write("batch", plain(BATCH).encode())
        for kind, form in SAMPLES:
            objects = [*FRIENDSHIPS, *PURCHASES[1:2] * 30] if kind == COPY else STREAM
            expected, _ = self.flags(batch, self.write("plain", plain(objects).encode()))
            self.assertGreater(len(expected), 20)
            log = encoded(form(objects))
            with self.subTest(kind, log=log[:60]):
                self.write("stream", log)
                self.write("output", OLD)
                said = self.main("-q", batch, self.stream, self.output, status=1)
                self.assertEqual(self.read("output"), OLD)
                given = self.converted(said, kind, self.stream)
                if given is not None:
                    found, rejects = self.flags(batch, self.write("given", given))
                    self.assertNotIn(b"event_type", rejects)
                    for one, wanted in zip(found, expected):
                        if one["timestamp"] != wanted["timestamp"]:         # of epoch seconds
                            self.assertEqual(one["timestamp"][:19].replace("T", " "), wanted["timestamp"])
                            one["timestamp"] = wanted["timestamp"]
                    self.assertEqual(found, expected)

    def test_batch_logs(self):
        stream = self.write("stream", plain(STREAM).encode())
        expected, _ = self.flags(self.write("plain", plain(BATCH).encode()), stream)
        for kind, form in SAMPLES:
            if kind in PURCHASES_ONLY:
                continue
            log = encoded(form(BATCH))
            with self.subTest(kind, log=log[:60]):
                self.write("batch", log)
                said = self.main("-q", self.batch, stream, self.output, status=2)
                given = self.converted(said, kind, self.batch)
                if given is not None:
                    self.assertEqual(self.flags(self.write("given", given), stream)[0], expected)

    def test_good_lines_among_the_others_stay(self):
        """Of a log of which only a part has another form."""
        batch = self.write("batch", plain(BATCH).encode())
        expected, _ = self.flags(batch, self.write("plain", plain(STREAM).encode()))
        for kind, form in SAMPLES:
            if kind in (FIELD, NESTED, TEXT, LISTED, EPOCH):
                log = encoded(plain(STREAM[:2]) + form(STREAM[2:-2]).rstrip("\n") + "\n" + plain(STREAM[-2:]))
                with self.subTest(kind, log=log[:60]):
                    self.write("stream", log)
                    said = self.main("-q", batch, self.stream, self.output, status=1)
                    given = self.converted(said, kind, self.stream)
                    if given is not None:
                        self.assertEqual(len(self.flags(batch, self.write("given", given))[0]), len(expected))

    def test_other_lines_before_the_first_event(self):
        """They are left out where events have a text before them, too."""
        batch = self.write("batch", plain(BATCH).encode())
        log = "[2017-06-13 11:33:01] server {started}\n[2017-06-13] done\n" + each("[2017-06-13 11:33:02] {}".format)(STREAM)
        said = self.main("-q", batch, self.write("stream", log.encode()), self.output, status=1)
        given = self.converted(said, TEXT, self.stream)
        self.assertEqual(self.flags(batch, self.write("given", given))[1], b"{started}\n")

    def test_fractions_of_a_second_are_kept(self):
        for write, fraction in ((lambda seconds: seconds * 1000 + 7, "007000"), ("{}.5".format, "500000"),
                                (lambda seconds: seconds + 0.123456, "123456")):
            log = timed(write)(STREAM).encode()
            given = self.converted(kind_of_file(b"", "", log), EPOCH, self.write("stream", log))
            if given is not None:
                self.assertEqual(set(re.findall(rb'"timestamp":"[^"]*\.(.*?)"', given)), {fraction.encode() + b"Z"})


class Readme(CommandTest):
    """Every command of the table "From your own system"."""

    SAMPLES = {
        "a JSON array": array(indent=1), "objects of several lines": each("{}".format, indent=1),
        "events in a field": fields(lambda one: {"event": one}),
        "events as text in a field": fields(lambda one: {"log": plain([one]), "stream": "stdout"}),
        "text before the objects": each("2021-03-01T09:00:00.1Z stdout F {}".format), "CSV": table(","),
        "fields with other names": lambda objects: plain(
            [{"user": one["id"], "price": float(one["amount"]), "time": 1497353580 + int(one["timestamp"][-2:])}
             for one in objects]),
        "xz": lambda objects: lzma.compress(plain(objects).encode())}

    def test_table(self):
        with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
            section = re.search("(?s)\n## From your own system\n(.*?)\n## ", file.read())[1]
        rows = re.findall(r"(?m)^\| (.*?) \| `(.*)` \|$", section)
        self.assertEqual(section.count("\n|"), len(rows) + 2)
        self.assertLessEqual(len(rows), 8)
        batch, kinds = self.write("batch", plain(BATCH).encode()), set(self.SAMPLES)
        expected, _ = self.flags(batch, self.write("plain", plain(PURCHASES).encode()))
        for text, there in rows:
            kind = next(kind for kind in kinds if text.startswith(kind))
            kinds.remove(kind)
            with self.subTest(text):
                stream = self.write("stream", encoded(self.SAMPLES[kind](PURCHASES)))
                given = self.converted("this is x; %s turns it into JSON lines" % there.replace(r"\|", "|"), "x", stream)
                if given is not None:
                    found, rejects = self.flags(batch, self.write("given", given))
                    times = [(one.pop("timestamp")[:19].replace("T", " "), str(one.pop("amount"))) for one in found]
                    self.assertEqual(times, [(one["timestamp"], one["amount"]) for one in expected])
                    self.assertEqual([(one["id"], one["sd"]) for one in found], [(one["id"], one["sd"]) for one in expected])
                    self.assertEqual(rejects, b"")
        self.assertEqual(kinds, set())


class Kinds(unittest.TestCase):

    def test_every_row_has_a_sample(self):
        logs = [encoded(form(objects)) for _, form in SAMPLES for objects in (STREAM, PURCHASES[1:2] * 9)]
        for row in KINDS:
            with patch.object(anomaly_detection, "KINDS", [row]):
                self.assertTrue(any(kind_of_file(log, "", log) for log in logs), row)

    def test_what_is_not_certain(self):
        """Only the reason is given."""
        event = json.dumps(PURCHASES[0])
        for log in ('{"a": 1}\n', '{"a": 1}', "x\n", "", "\0\0\n\n", '{"D": 3, "T": 50}\n{"a": 1, "b": 2, "c": 3}\n',
                    "Mar 1 a, b, c\nMar 1 d\n", '{"event_type":"purchase", "times', '{"event_type":"purchase", "times\n',
                    "[2017-06-13 11:33:01] server started\n", "[2017-06-13] a {b}\n", "[[1, 2]]\n", "[1]\n", "<a>\n", "a: b\n",
                    "purchase,ann,bob\npurchase,cy,dan\n", "1,2,3\n4,5,6\n", "a, b, c\nd, e, f\n", "a,b\n1,2\n",
                    "PK\3\4" + "\0" * 26 + "[Content_Types].xml", "PK\3\4" + "\0" * 26 + "xl/workbook.xml",
                    "PAR1", "SQLite format 3\0", "\xff\xfe\0\0{\0\0\0", event[:-1] + "\n", event[:40] + "\n" + event[40:] + "\n",
                    'id=7 {"a": 1}\n', '{user} ' + event, "id=7 amount=5\n", '[0] shop: [1, {"event_type"=>"purchase"}]\n',
                    '{"type": "purchase", "user": {"id": 7}}\n', event.replace("2017-06-13 11:33:02", "13/06/2017 11:33"),
                    event[:-1] + ', "x": {"a": 1}, "y": "C:\\\\"', '{"log": "{a}"}\n', '{"log": "x", "y": {"a": 1}}\n',
                    event.replace('"2017-06-13 11:33:02"', "1497353582000000"), '{"a": [{"b": 1}, {"c": 2}]}\n'):
            data = log.encode("latin-1")
            self.assertEqual(kind_of_file(data, "that reason", data), "that reason", log)
        one_of_many = "".join("%d is not JSON\n" % n for n in range(19)) + "[pod/shop-1/app] " + event + "\n"
        self.assertEqual(kind_of_file(one_of_many.encode(), "that reason", one_of_many.encode()), "that reason")
        head, arrays = plain(PURCHASES).encode(), json.dumps(PURCHASES).encode()        # arrays in the midst of a log
        self.assertEqual(kind_of_file(head, "that reason", arrays), "that reason")

    def test_hostile_ones_cost_nothing(self):
        started = time.process_time()
        for piece in "{", "[", ",", '"', "\\", "\r", "\t", "\0", "\ufeff", "a,", '{"', '"a":', "{},", '{"a":{', 'x{"event_type',\
                '"event_type":', "\\\\\"", '{"timestamp":1', ' {"', "a ":
            log = (piece * (1 << 16)).encode()[:1 << 16]
            for start in b"", b"[", b'{"a":"{', b'x{"', b"a,b,c":
                kind_of_file(start + log, "", b"\n".join([start + log[:2000]] * 20))
                kind_of_file(start + log + b"\n" + log, "", start + log[:2000])
        self.assertLess(time.process_time() - started, 10)


if __name__ == "__main__":
    unittest.main()
