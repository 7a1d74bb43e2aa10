"""The demo: what a sample of this machine holds, and that only the gateway can ask for mail and stress."""

import asyncio
from typing import Any

import pytest

from tidings.demo.hooks import Asker, Hooks
from tidings.demo.host import Host


def test_a_sample_of_this_machine_has_what_the_alerts_look_at() -> None:
    sample = Host().sample()
    assert 0 <= sample["cpu"] <= 100 * sample["cpus"]
    assert 0 < sample["memory"] < 100
    assert len(sample["load"]) == 3
    assert any(disk["mount"] == "/" and 0 <= disk["percent"] <= 100 for disk in sample["disks"])


async def test_the_page_asks_and_whoever_lacks_the_word_gets_nothing() -> None:
    asked = []

    async def mail() -> Any:
        return [{"id": "1"}]

    async def stress() -> Any:
        asked.append("stress")
        return {}

    hooks = Hooks({"mail": mail, "stress": stress})
    address = await hooks.start()
    try:
        gateway = Asker(address)
        assert gateway.answered == {"mail", "stress"}
        assert await gateway.mail() == [{"id": "1"}]
        stranger = Asker(address.replace("?", "x?"))
        with pytest.raises(ConnectionError):
            await stranger.stress()
        assert asked == []
        await gateway.stress()
        assert asked == ["stress"]
    finally:
        await asyncio.wait_for(hooks.stop(), 5)
