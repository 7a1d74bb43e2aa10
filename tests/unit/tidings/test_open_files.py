"""A gateway has as many open files as it may, and `doctor` tells when that is too few."""

import resource

import pytest

from tidings.examination import open_files
from tidings.roles.gateway import most_connections


@pytest.mark.parametrize(("hard", "connections"), [(100_000, 99_000), (11_000, 10_000), (4_096, 3_096), (600, 300)])
def test_the_limit_is_raised_as_far_as_it_may_be(monkeypatch: pytest.MonkeyPatch, hard: int, connections: int) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: asked.append(both))
    assert most_connections() == connections
    assert asked == [(hard, hard)]
    told = open_files()
    assert (told is None) is (connections >= 10_000)
    assert told is None or f"can hold {connections} connections" in told
