"""The public keys that tokens are checked with: a JWKS file, or a JWKS URL of an identity provider.

Looked at again now and then, and when a token names a key that is not known, but no more often than every REFETCH_S.
While the source is away or says nonsense, the keys that were there hold on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import jwt
from jwt.exceptions import PyJWTError

from api.problems import Problem

log = logging.getLogger(__name__)
LARGEST = 256 * 1024  # bytes
FETCH_S = 5.0
REFETCH_S = 30.0  # between looks for a key that is not known
REFRESH_S = 300.0  # between looks at a URL
FILE_S = 5.0  # between looks at a file
RETRY_S = 2.0  # while there are no keys at all


class KeySet:
    """`source` is a path or a URL; `changed` is called when other keys hold. ValueError for a file that is none, and
    for a URL that is neither https nor of this machine.
    """

    def __init__(self, source: str, changed: Callable[[], None] = lambda: None) -> None:
        self._source, self._changed = source, changed
        self._is_url = "://" in source
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._text = b""
        self._looked_at = float("-inf")
        self._failed = False
        self._wanted = asyncio.Event()
        if not self._is_url:
            try:
                self._take(self._read())
            except (OSError, ValueError) as error:
                raise ValueError(f"{source} is no readable JWKS file: {error}") from error
        elif (fault := wrong_url(source)) is not None:
            raise ValueError(fault)

    @property
    def ready(self) -> bool:
        """Whether there are keys."""
        return bool(self._keys)

    def key(self, kid: str | None) -> jwt.PyJWK:
        """The key that a token names; the only one there is for a token that names none, or if it has no name itself.

        KeyError; Problem `keys_away` while it may yet be found.
        """
        if kid in self._keys:
            return self._keys[kid]
        if len(self._keys) == 1 and (kid is None or None in self._keys):
            return next(iter(self._keys.values()))
        if kid is not None and time.monotonic() - self._looked_at >= REFETCH_S:
            self._looked_at = time.monotonic()
            self._wanted.set()
        if not self._keys or (kid is not None and (self._failed or self._wanted.is_set())):
            raise Problem("keys_away")
        raise KeyError(kid)

    async def follow(self) -> None:
        """Keep them current, as long as this is not cancelled."""
        while True:
            self._looked_at = time.monotonic()
            try:
                self._take(await self._fetch() if self._is_url else await asyncio.to_thread(self._read))
                self._failed = False
            except Exception as error:  # noqa: BLE001 - whatever goes wrong out there, the keys that were there hold on
                self._failed = True
                log.warning("keys of tokens can't be read error=%s reason=%s", type(error).__name__, str(error)[:200])
            self._wanted.clear()
            pause = (REFRESH_S if self._is_url else FILE_S) if self._keys else RETRY_S
            try:
                await asyncio.wait_for(self._wanted.wait(), pause)
            except TimeoutError:
                continue

    def _take(self, text: bytes) -> None:
        """Other keys, if it is another text. ValueError if it is none, or has no public key."""
        if text == self._text:
            return
        try:
            given = json.loads(text)
            found = jwt.PyJWKSet(given.get("keys") if isinstance(given, dict) else None).keys  # type: ignore[arg-type]
        except (ValueError, PyJWTError) as error:
            raise ValueError(f"no JSON Web Key Set: {error}") from error
        # A shared secret among public keys would let whoever reads them sign tokens.
        keys = {k.key_id: k for k in found if k.key_type != "oct" and k.public_key_use in (None, "sig")}
        if not keys:
            raise ValueError("it holds no public key for signatures")
        self._text, self._keys = text, keys
        log.info("keys of tokens read keys=%d", len(keys))
        self._changed()

    def _read(self) -> bytes:
        with Path(self._source).open("rb") as file:
            return _bounded(file.read(LARGEST + 1))

    async def _fetch(self) -> bytes:
        import httpx  # noqa: PLC0415 - only gateways with a URL need it

        trust_env = urlsplit(self._source).scheme == "https"  # no proxy stands before this machine
        headers, text = {"accept": "application/json", "accept-encoding": "identity"}, b""
        async with (
            asyncio.timeout(FETCH_S),
            httpx.AsyncClient(follow_redirects=False, trust_env=trust_env, headers=headers) as client,
            client.stream("GET", self._source) as answer,
        ):
            if answer.status_code != 200:
                raise ValueError(f"it answered {answer.status_code}")
            async for part in answer.aiter_raw():
                text = _bounded(text + part)
        return text


def wrong_url(source: str) -> str | None:
    """What is wrong with the URL of a JWKS, if it is one and anything is."""
    if "://" not in source:
        return None
    try:
        parts = urlsplit(source)
        if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname))):
            return None
    except ValueError as error:
        return f"this is no URL: {error}"
    return "a JWKS comes from a file, by https, or by http from this machine itself"


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bounded(text: bytes) -> bytes:
    if len(text) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    return text
