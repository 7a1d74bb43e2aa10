"""How soon `up` is there, and how much memory the whole set takes (PSS: shared pages count once)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.site import site


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        for children in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            todo += [int(c) for c in children.read_text().split()]
    return found


def pss(pid: int) -> tuple[str, float]:
    """What it is, and its proportional set size in MB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    name = "broker" if "java" in command[0] else " ".join(Path(c).name for c in command[1:4] if c)
    return name or command[0], kilobytes / 1024


def main() -> None:
    """Cold (empty directory), warm (the same again), and memory with the demo running."""
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as folder:
        data = Path(folder) / "data"
        with site(data) as cold:
            first = cold.started_s
        with site(data) as warm:
            sizes = [pss(p) for p in family(warm.process.pid)]
            print(
                "| start | seconds to the printed URL |\n|---|---|\n"
                f"| cold, empty directory | {first:.1f} |\n| warm | {warm.started_s:.1f} |\n"
            )
        print("| process | PSS (MB) |\n|---|---|")
        for name, size in sizes:
            print(f"| `{name}` | {size:.0f} |")
        print(f"| sum | {sum(s for _, s in sizes):.0f} |\n")
