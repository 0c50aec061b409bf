"""A service that reads JSON by ujson: each line of its stdin is a document, answered by the number of its digits.

documented_ujson.py FOLDER: where ujson 5.11.0 is installed.
"""
import sys

sys.path.insert(0, sys.argv[1])
import ujson

for line in sys.stdin:
    count, document = line.split(maxsplit=1)
    for _ in range(int(count)):
        value = ujson.loads(document)
    print(len(str(value)), flush=True)
