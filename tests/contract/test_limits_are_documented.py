"""The tables of docs/security.md have every limit, with its default, and every scope."""

import re
from dataclasses import asdict
from pathlib import Path

from api.live.pushes import CLOSE_CODES
from api.problems import CODES
from api.settings import Limits
from tests.integration.documented import calls

TEXT = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
ROW = re.compile(r"^\| `TIDINGS_LIMIT_([A-Z_]+)` \| ([\d,]+)(?: (KiB|MiB|s))? \| .+ \| (.+) \|$", re.MULTILINE)
UNITS = {"": 1, "KiB": 1024, "MiB": 1024 * 1024, "s": 1}


def test_every_limit_stands_there_with_its_default() -> None:
    told = {name.lower(): int(number.replace(",", "")) * UNITS[unit] for name, number, unit, _ in ROW.findall(TEXT)}
    assert told == asdict(Limits())


def test_every_scope_stands_there() -> None:
    needed = {call.operation.scope for call in calls() if call.operation.scope}
    told = set(
        re.findall(r"^\| `([a-z:A-Z]+)` \| .+ \|$", TEXT.partition("## Scopes")[2].partition("##")[0], re.MULTILINE)
    )
    assert told == {scope.replace("{type}", "TYPE") for scope in needed if scope}


def test_what_happens_over_it_is_something_that_can_happen() -> None:
    for *_, over in ROW.findall(TEXT):
        assert {code for code in re.findall(r"`(\w+)`", over) if "_" in code} - {"expand_error"} <= CODES.keys(), over
        assert {int(code) for code in re.findall(r"\b4\d{3}\b", over)} <= CLOSE_CODES.keys(), over
