"""Strangers who have read /openapi.json: schemathesis sends what the document allows and what it does not, the same
each time, and holds every answer against it: no 5xx, no undocumented status, nothing without a token.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from api.settings import Limits
from tests.integration.gateway_world import ALL, Site

ROOT = Path(__file__).parents[2]
HOOKS = {"SCHEMATHESIS_HOOKS": "tests.integration.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
PROGRAM = Path(sys.executable).with_name("schemathesis")
OPTIONS = (
    *("--generation-deterministic", "--no-color", "--warnings", "off", "--continue-on-failure"),
    *("--phases", "coverage,fuzzing", "--max-examples", "2"),
    *("--exclude-path", "/v1/sse"),  # a stream has no end; tests of its own look at it
    # The body of the one is that of POST, what the other takes is part of a recipient: the same code, 330 cases less.
    *("--exclude-operation-id", "alert-configs-put", "--exclude-operation-id", "notices-put-preferences"),
    *("--exclude-checks", "positive_data_acceptance"),  # no schema says which recipients there are
)


@pytest.mark.timeout(240)  # 25 s alone
async def test_the_calls_keep_to_their_document(kafka: str, namespace: str, tmp_path: Path) -> None:
    site = Site(kafka, namespace, tmp_path)
    await site.make()
    async with site.working(), site.gateway(limits=Limits(wait=0.2)) as door:
        token = door.token(scopes=(*ALL, "audit", "tokens"))
        command = (PROGRAM, "run", f"{door.base}/openapi.json", "-H", f"Authorization: Bearer {token}", *OPTIONS)
        running = await asyncio.create_subprocess_exec(
            *command,
            cwd=tmp_path,
            env=os.environ | HOOKS,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await running.communicate()
    assert running.returncode == 0, said.decode()
