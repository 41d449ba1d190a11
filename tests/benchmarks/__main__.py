"""`make bench`: figures beside the machine's own limits, each the median of several runs. Nothing is asserted.

The server runs on core 0 and the load on core 1 where the machine has two, over loopback, so a rate is that of one
core. "of limit" puts a figure beside the wall that it runs into: the empty ASGI answer for documents (which those
that are ready pass, being answered before ASGI), durable commits and RSA for the inbox and deliveries. What bounds
each row is said in CONTRIBUTING.md. The load of the machine is told at the end of each part: a figure taken beside
other work says little.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from statistics import median

from rich.console import Console
from rich.table import Table
from tests.benchmarks import archives, deliveries, documents, drain, inbox, limits, queue, verification
from tests.benchmarks.scene import Figure


def main() -> None:
    if sys.argv[1:2] == ["queue"]:
        # Apart from the rest: it fills a ledger, which takes minutes.
        queue.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", help="limits, verification, documents, inbox, deliveries, drain or archives")
    parser.add_argument("--json", help="also write the figures to this file")
    given = parser.parse_args()
    console = Console(width=110)
    console.print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    parts: dict[str, Callable[[], list[Figure]]] = {
        "limits": limits.measure,
        "verification": verification.measure,
        "documents": documents.measure,
        "inbox": inbox.measure,
        "deliveries": deliveries.measure,
        "drain": drain.measure,
        "archives": archives.measure,
    }
    known: dict[str, float] = {}
    table = Table("figure", "median", "lowest", "highest", "of limit", title=f"median of {given.runs} runs")
    for name, part in parts.items():
        if given.only and name not in (given.only, "limits"):
            continue
        runs = [part() for _ in range(given.runs)]
        for rows in zip(*runs, strict=True):
            what, _, unit, limit = rows[0]
            values = [row[1] for row in rows]
            middle = median(values)
            known[what] = middle
            share = f"{middle / known[limit]:.0%} of {limit}" if limit in known else ""
            table.add_row(what, f"{middle:,.0f} {unit}", f"{min(values):,.0f}", f"{max(values):,.0f}", share)
        console.print(f"measured: {name} (load average {os.getloadavg()[0]:.1f})")
    console.print(table)
    if given.json:
        with open(given.json, "w") as file:
            json.dump(known, file, indent=1)


if __name__ == "__main__":
    main()
