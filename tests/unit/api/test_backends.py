"""An address is the settings' base and path and an id that can't leave its segment; a circuit rests and probes."""

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.expand.backends import Backend, BadId
from api.expand.circuit import FAILURES, REST_S, Circuit


def backend(**given: Any) -> Backend:
    return Backend.model_validate({"url": "https://panel.test/api/", "paths": ["/{type}/{id}"]} | given)


def test_an_address_is_base_and_path_and_an_encoded_id() -> None:
    assert backend().target("/{type}/{id}", "vm", "17") == "/api/vm/17"
    assert backend().target("/vm/x{id}.json", "vm", "a/b?c#d é;%") == "/api/vm/xa%2Fb%3Fc%23d%20%C3%A9%3B%25.json"


def test_an_id_that_names_a_path_is_not_taken_for_one() -> None:
    assert backend().target("/{type}/{id}", "vm", "{type}") == "/api/vm/%7Btype%7D"


@pytest.mark.parametrize(
    "entity_id",
    [
        *("..", ".", "", "../admin", "a/../b", "a//b", "a/", "..\\x", "%2e%2e", "%252e%252e", "x%2F..%2Fy"),
        *("a\nb", "\x7f", "%0d%0a", "\ud800", "a" * 1_001),
    ],
)
def test_an_id_that_could_leave_its_segment_is_refused(entity_id: str) -> None:
    with pytest.raises(BadId):
        backend().target("/{type}/{id}", "vm", entity_id)


@given(st.text())
def test_whatever_the_id_the_path_keeps_its_segments(entity_id: str) -> None:
    try:
        target = backend().target("/vm/{id}/disks", "vm", entity_id)
    except BadId:
        return
    assert target.isascii()
    assert target.isprintable()
    assert target.count("/") == 4
    assert unquote(target.split("/")[3]) == entity_id


@pytest.mark.parametrize(
    "path",
    [
        *("", "vm/{id}", "/", "//x", "/vm/", "/../x", "/vm/./{id}", "/vm/{name}", "/vm/{id", "http://other/{id}"),
        *("/vm?id={id}", "/a#b", "/a%2e", "/a b", "/a\\b", "/a\n"),
    ],
)
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="is no path"):
        backend(paths=[path])


@pytest.mark.parametrize(
    "given",
    [
        {"url": "ftp://panel"},
        {"url": "panel:80"},
        {"url": "http://"},
        {"url": "http://user:word@panel"},
        {"url": "http://panel?x=1"},
        {"url": "http://panel/#x"},
        {"url": "http://panel/../x"},
        {"url": "http://panel/{id}"},
        {"url": "http://pa\\nel"},
        {"url": "http://panel\n"},
        {"url": "http://panel:99999"},
        {"url": "http://169.254.169.254/"},
        {"url": "http://[fe80::1]/"},
        {"url": "http://[::ffff:169.254.169.254]/"},
        {"url": "http://0.0.0.0/"},
        {"paths": []},
        {"auth": "subscriber", "token": "t"},
        {"token": "a\r\nb"},
        {"timeout": 0},
        {"timeout": "soon"},
        {"concurrency": 0},
        {"redirects": True},
    ],
)
def test_what_can_not_be_meant_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        backend(**given)


def test_metadata_addresses_need_a_word_and_private_ones_none() -> None:
    plain, meant = backend(), backend(link_local=True)
    for address in ("10.0.0.1", "127.0.0.1", "::1", "192.0.2.7", "fd00::1"):
        assert plain.allows(address)
    for address in ("169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200"):
        assert not plain.allows(address)
        assert meant.allows(address)
    assert not meant.allows("224.0.0.1")


def test_a_token_is_not_shown() -> None:
    assert "hush" not in repr(backend(token="hush"))


def test_a_circuit_opens_after_failures_in_a_row_and_lets_one_probe_through_at_a_time() -> None:
    circuit = Circuit()
    for _ in range(FAILURES - 1):
        circuit.failed(0)
    circuit.succeeded()
    assert [circuit.failed(0) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    assert circuit.open
    assert [circuit.admits(t) for t in (0, REST_S - 1, REST_S, REST_S, 2 * REST_S - 1)] == [
        False,
        False,
        True,
        False,
        False,
    ]
    circuit.failed(REST_S + 1)
    assert [circuit.admits(t) for t in (2 * REST_S, 2 * REST_S + 1)] == [False, True]
    circuit.succeeded()
    assert not circuit.open
    assert circuit.admits(2 * REST_S + 1)
