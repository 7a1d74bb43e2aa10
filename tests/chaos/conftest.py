"""What the chaos tests ask for."""

import socket

import pytest


@pytest.fixture
def free_port() -> int:
    """A port that is free now, for a gateway that comes back at the same address after each kill."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
