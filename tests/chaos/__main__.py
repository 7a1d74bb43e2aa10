"""`python -m tests.chaos`: rounds of chaos at full length, each on another seed, SQLite and PostgreSQL in turns; then a
table of what was done and seen, as it stands in docs/reliability.md.

CHAOS_ROUNDS (2), CHAOS_SEED (of the first round) and CHAOS_FLOW_S (a round's length) are read from the environment.
`python -m tests.chaos record` makes the recording that the judge is tested with.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos import recording
from tests.chaos.round import Outcome, play
from tests.chaos.shape import CALM, FULL


def main() -> None:
    """Play; the exit code says whether every rule held."""
    logging.basicConfig(level="CRITICAL")  # the clients' complaints about a broker that is killed
    if sys.argv[1:] == ["record"]:
        with tempfile.TemporaryDirectory() as empty:
            asyncio.run(play(Path(empty), "sqlite", 1, CALM, keep=recording.save))
        return
    seed, rounds = int(os.environ.get("CHAOS_SEED", "1")), int(os.environ.get("CHAOS_ROUNDS", "2"))
    flow_s = float(os.environ.get("CHAOS_FLOW_S", FULL.flow_s))
    shape = dataclasses.replace(
        FULL,
        flow_s=flow_s,
        **{name: round(getattr(FULL, name) * flow_s / FULL.flow_s) for name in ("directs", "changes", "strangers")},
    )
    outcomes = []
    for index in range(rounds):
        kind = ("sqlite", "postgresql")[index % 2]
        folder = Path(tempfile.mkdtemp(prefix=f"tidings-chaos-{seed + index}-"))
        print(f"round {index + 1} of {rounds}: seed {seed + index}, {kind}, logs in {folder}", flush=True)  # noqa: T201
        outcomes.append(asyncio.run(play(folder, kind, seed + index, shape)))
        shutil.rmtree(folder)  # it stays where a rule was broken
        print(table(outcomes[-1:]), flush=True)  # noqa: T201
    print(table(outcomes))  # noqa: T201


def table(outcomes: list[Outcome]) -> str:
    """Markdown: a line for each thing that was counted, a column for each round, and the sum."""
    names = list(dict.fromkeys(name for o in outcomes for name in o.counts))
    head = ["", *(f"seed {o.seed}, {o.database}" for o in outcomes), "all"]
    lines = [
        [name, *(str(o.counts.get(name, 0)) for o in outcomes), str(sum(o.counts.get(name, 0) for o in outcomes))]
        for name in names
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])


if __name__ == "__main__":
    main()
