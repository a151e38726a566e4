"""Makes a Markdown table of lines of JSON."""

import json
import sys

rows: dict[str, dict[str, dict[str, int]]] = {}
days: dict[str, None] = {}
for line in sys.stdin:
    row = json.loads(line)
    rows.setdefault(row["client"], {})[row["day"]] = row
    days[row["day"]] = None
heads = ("expired tokens handed out", "errors while there was a live token", "calls to AWS")
for day in days:
    print(f"{day}:\n\n| client | {' | '.join(heads)} |\n| --- | ---: | ---: | ---: |")
    for client in sorted(rows, key=lambda name: not name.startswith("this")):
        row = rows[client][day]
        print(f"| {client} | {row['expired']:,} | {row['errors']:,} | {row['calls']:,} |")
    print()
