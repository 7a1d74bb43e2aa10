"""docs/live.md has the codes that live channels know, with what they mean for a client, and no others."""

import re
from pathlib import Path

from api.live.pushes import CLOSE_CODES
from api.live.sse import CALLS
from api.problems import CODES, Problem

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "live.md").read_text()
SAID = re.compile(r"^\| `(\w+)` \| (\d{3}) \| (yes|no) \| .+ \|$", re.MULTILINE)
LIVE = [
    *(ROOT / "api/live").glob("*.py"),
    *(ROOT / "api/access").glob("*.py"),
    *(ROOT / f"api/{n}.py" for n in ("marks", "database")),
]


def test_every_code_stands_there_as_it_is() -> None:
    said = {code: (int(status), retry == "yes") for code, status, retry in SAID.findall(TEXT)}
    assert said == {code: (CODES[code][0], Problem(code).retry) for code in said}


def test_no_code_is_missing() -> None:
    raised = {c for file in LIVE for c in re.findall(r'Problem\("(\w+)"', file.read_text())}
    assert raised
    stream = {*CALLS[0].operation.problems}
    assert {code for code, _, _ in SAID.findall(TEXT)} >= raised | stream | {"internal", "too_slow"}


def test_every_close_code_stands_there() -> None:
    assert {int(code) for code in re.findall(r"^\| (4\d{3}) \|", TEXT, re.MULTILINE)} == CLOSE_CODES.keys()
