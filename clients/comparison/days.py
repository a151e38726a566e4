#!/usr/bin/env python3
"""Writes ../days.json: two days of one connection, by the connector's rules. All times are seconds of the day.

The tests of each client and the comparison live through them.
"""

import json
import random
from pathlib import Path

LIFE = 3599  # what Entra grants an app by default
WINDOW = 1800
SWEEP_EVERY = 300
DAY = 86400


def day(name: str, entra_refuses: tuple[int, int], failing: list[tuple[int, int]]) -> dict[str, object]:
    rng = random.Random(name)
    stored = [(-700, LIFE - 701)]
    due = 0.0
    for sweep in range(rng.randrange(SWEEP_EVERY), DAY, SWEEP_EVERY):
        left = stored[-1][1] - sweep
        latest = min(WINDOW, LIFE / 2)
        due = due or latest + rng.uniform(0, latest / 4)  # up to a quarter sooner
        if left < due and not entra_refuses[0] <= sweep < entra_refuses[1]:
            requested = sweep + rng.randrange(1, 20)  # a sweep does one connection after another
            stored.append((requested + 1, requested + LIFE))
            due = 0.0
    return {"name": name, "life": LIFE, "stored": stored, "failing": failing}


def now_and_then(rng: random.Random) -> list[tuple[int, int]]:
    """Twenty times a day Secrets Manager does not answer for up to two minutes, once for ten."""
    starts = sorted(rng.sample(range(1200, DAY - 1200), 20))
    return [(at, at + rng.randrange(20, 120)) for at in starts] + [(50400, 51000)]


failing = now_and_then(random.Random("failing"))
days = [
    day("An ordinary day", (0, 0), failing),
    day("A day on which Entra refuses for two hours", (32400, 39600), failing),
]
lines = ",\n".join(json.dumps(d) for d in days)
Path(__file__).parent.parent.joinpath("days.json").write_text(f"[\n{lines}\n]\n")
