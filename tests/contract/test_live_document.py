"""docs/live.md has the codes that live channels know, with what they mean for a client, and no others."""

import re
from pathlib import Path

from api.problems import CODES, Problem
from api.pushes import CLOSE_CODES
from api.sse import routes

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "live.md").read_text()
SAID = re.compile(r"^\| `(\w+)` \| (\d{3}) \| (yes|no) \| .+ \|$", re.MULTILINE)
LIVE = (
    *("admission", "channels", "conversation", "entity_channel", "filters", "inbox_channel", "live_inbox", "live_log"),
    *("marks", "protocol", "ranges", "sse", "tail", "tokens", "websocket", "database"),
)


def test_every_code_stands_there_as_it_is() -> None:
    said = {code: (int(status), retry == "yes") for code, status, retry in SAID.findall(TEXT)}
    assert said == {code: (CODES[code][0], Problem(code).retry) for code in said}


def test_no_code_is_missing() -> None:
    raised = {c for name in LIVE for c in re.findall(r'Problem\("(\w+)"', (ROOT / "api" / f"{name}.py").read_text())}
    assert raised
    stream = {*routes()[0].operation.problems}
    assert {code for code, _, _ in SAID.findall(TEXT)} >= raised | stream | {"internal", "too_slow"}


def test_every_close_code_stands_there() -> None:
    assert {int(code) for code in re.findall(r"^\| (4\d{3}) \|", TEXT, re.MULTILINE)} == CLOSE_CODES.keys()
