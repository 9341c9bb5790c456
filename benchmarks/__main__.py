"""``python -m benchmarks``: measure, print the table, and write ``benchmarks/latest.json``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

from . import database
from .measure import Amount, Plan, Row, amounts_table, say, table

PARTS = ["writers", "readers", "web", "streams", "idle", "tuning", "sweeps"]
LATEST = Path(__file__).parent / "latest.json"


def main() -> int:
    """Run what is asked for; fail only where something broke, not where an aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this")
    parser.add_argument("--rounds", type=int, default=7, help="rounds whose median counts (7)")
    parser.add_argument("--scale", type=float, default=1.0, help="how many calls a round, as a factor (1)")
    options = parser.parse_args()
    began = time.monotonic()
    say("Setting up a PostgreSQL database …")
    with database.database() as url:
        os.environ |= {"BENCH_DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "benchmarks.settings"}
        facts = database.settings(url)
        every = list(measure(options.only, Plan(max(5, options.rounds), options.scale), began))
    rows = [row for row in every if isinstance(row, Row)]
    amounts = [row for row in every if isinstance(row, Amount)]
    tables = [rows and table(rows), amounts and amounts_table(amounts)]
    print("\n" + "\n\n".join(filter(None, [about(facts), *tables])) + "\n")
    missed = [row for row in rows if row.is_met is False]
    aimed = [row for row in rows if row.aim is not None]
    print(f"{len(aimed) - len(missed)} of {len(aimed)} aims met, in {time.monotonic() - began:.0f} s.")
    LATEST.write_text(json.dumps([row.as_dict() for row in every], indent=1) + "\n")
    return 0


def measure(only: list[str] | None, plan: Plan, began: float) -> list[Row | Amount]:
    """Run the parts and tell each row when it is there."""
    import django
    from django.db import connections

    django.setup()
    from . import idle, readers, streams, sweeps, tuning, web, writers

    rows = []
    for name, module in zip(PARTS, (writers, readers, web, streams, idle, tuning, sweeps), strict=True):
        if only and name not in only:
            continue
        say(f"[{time.monotonic() - began:4.0f} s] {name} …")
        for row in module.measure(plan):
            say(f"[{time.monotonic() - began:4.0f} s]   {row.told}")
            rows.append(row)
    connections.close_all()
    return rows


def about(facts: dict[str, str]) -> str:
    """Return on what it was measured."""
    import django
    import psycopg
    import rest_framework

    versions = {
        "Python": platform.python_version(),
        "Django": django.__version__,
        "Django REST framework": rest_framework.__version__,
        "psycopg": psycopg.__version__,
        "PostgreSQL": facts.pop("server_version"),
    }
    words = [f"{name} {version}" for name, version in versions.items()]
    words += [f"{os.cpu_count()} cores", platform.platform(), *(f"{name} {value}" for name, value in facts.items())]
    return "; ".join(words)


if __name__ == "__main__":
    sys.exit(main())
