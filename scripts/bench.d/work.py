"""A Python program of dicts, lists and JSON: work.py ROUNDS. Prints a sum that must be the same under every tool."""
import json
import sys

total = 0
kept = []
for turn in range(int(sys.argv[1])):
    rows = [{"id": row, "name": f"user {row}", "tags": [str(row % 7), str(row % 11)], "score": row * 1.5} for row in range(4000)]
    text = json.dumps(rows)
    back = json.loads(text)
    by_name = {row["name"]: row for row in back}
    by_tag = {}
    for row in back:
        for tag in row["tags"]:
            by_tag.setdefault(tag, []).append(row)
    kept.append(sorted(by_tag, key=lambda tag: (len(by_tag[tag]), tag)))
    total += len(text) + len(by_name) + sum(map(len, by_tag.values()))
print(total, len(kept))
