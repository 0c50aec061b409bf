"""A day of Python's standard library: for each line on stdin one round of work, and one line of what came out of it."""

import argparse
import asyncio
import collections
import concurrent.futures
import configparser
import csv
import datetime
import decimal
import difflib
import fractions
import hashlib
import html.parser
import io
import json
import pickle
import queue
import random
import re
import sqlite3
import string
import sys
import tarfile
import textwrap
import threading
import uuid
import weakref
import xml.etree.ElementTree
import zlib

WORDS = [hashlib.md5(str(n).encode()).hexdigest()[: 3 + n % 9] for n in range(2000)]


def texts():
    """Text and its readers and writers."""
    table = io.StringIO()
    writer = csv.DictWriter(table, ["word", "length"])
    writer.writeheader()
    writer.writerows({"word": word, "length": len(word)} for word in WORDS)
    table.seek(0)
    rows = list(csv.DictReader(table))
    tree = xml.etree.ElementTree.Element("words")
    for row in rows:
        xml.etree.ElementTree.SubElement(tree, "word", row).text = row["word"]
    markup = xml.etree.ElementTree.tostring(tree)
    again = [word.text for word in xml.etree.ElementTree.fromstring(markup)]
    parser = html.parser.HTMLParser()
    parser.feed(markup.decode())
    settings = configparser.ConfigParser()
    settings.read_dict({"words": {word: word.upper() for word in WORDS[:200]}})
    settings.write(table)
    found = re.findall(r"(?P<letters>[a-f]+)(?P<digits>\d+)", " ".join(again))
    difference = list(difflib.unified_diff(WORDS[:300], sorted(WORDS[:300])))
    return [table.getvalue(), json.loads(json.dumps(rows)), found, difference, textwrap.fill(" ".join(again))]


def numbers():
    """Numbers larger and finer than a machine's."""
    decimal.getcontext().prec = 200
    root = decimal.Decimal(2).sqrt()
    sums = [fractions.Fraction(1, n) + fractions.Fraction(n, 7) for n in range(1, 200)]
    dates = [datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=n) for n in range(500)]
    return [str(root), str(sum(sums)), [date.isoformat() for date in dates], 3**5000 % 10**50]


def stores():
    """What packs and keeps."""
    database = sqlite3.connect(":memory:")
    database.execute("create table words(word text, length int)")
    database.executemany("insert into words values (?, ?)", [(word, len(word)) for word in WORDS])
    lengths = database.execute("select length, count(*) from words group by length order by length").fetchall()
    database.close()
    packed = zlib.compress(pickle.dumps([collections.Counter(WORDS), lengths]))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        entry = tarfile.TarInfo("words")
        entry.size = len(packed)
        tar.addfile(entry, io.BytesIO(packed))
    with tarfile.open(fileobj=io.BytesIO(archive.getvalue())) as tar:
        packed = tar.extractfile("words").read()
    return [lengths, sorted(pickle.loads(zlib.decompress(packed))[0].items())]


def threads():
    """Threads, executors and tasks."""
    todo, done = queue.Queue(), queue.Queue()

    def worker():
        while (word := todo.get()) is not None:
            done.put(hashlib.sha256(word.encode()).hexdigest())

    workers = [threading.Thread(target=worker) for _ in range(4)]
    for thread in workers:
        thread.start()
    for word in WORDS[:400]:
        todo.put(word)
    for _ in workers:
        todo.put(None)
    for thread in workers:
        thread.join()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        sums = list(pool.map(zlib.crc32, [word.encode() for word in WORDS[:400]]))

    async def ask(number, answers):
        await asyncio.sleep(0)
        answers.append(number * number)

    async def all_of_them():
        answers = []
        await asyncio.gather(*(ask(number, answers) for number in range(300)))
        return answers

    return [sorted(done.get() for _ in range(400)), sums, asyncio.run(all_of_them())]


def objects():
    """Cycles, weak references, generators, classes made at run time, errors."""

    class Node:
        """One of a ring."""

        def __init__(self, name):
            self.name, self.next = name, self

    seen = []
    for number in range(300):
        first, second = Node(number), Node(-number)
        first.next, second.next = second, first
        weakref.finalize(first, seen.append, number)
    kinds = [type(f"Kind{n}", (Node,), {"value": n, "twice": lambda self: 2 * self.value}) for n in range(50)]
    values = [kind("x").twice() for kind in kinds]
    for word in WORDS[:300]:
        try:
            argparse.ArgumentParser(prog="real", exit_on_error=False).parse_args([])
            int(word + "x")
        except ValueError as error:
            seen.append(str(error)[:10])
    generator = random.Random(7)
    ids = [str(uuid.UUID(int=generator.getrandbits(128), version=4)) for _ in range(200)]
    return [values, ids, string.Template("$a and $b").substitute(a=len(kinds), b=1)]


for line in sys.stdin:
    results = [part() for part in (texts, numbers, stores, threads, objects)]
    print(hashlib.sha256(repr(results).encode()).hexdigest(), flush=True)
