"""The gateway's HTTP side as the command line and the demo call it: JSON in and out over one connection that is kept.

The standard library is enough for this, and starts at once.
"""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any, Self
from urllib.parse import urlsplit


class Refused(Exception):
    """The gateway said no; `problem` is its problem details (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status, self.problem = status, problem
        super().__init__(str(problem.get("detail") or problem.get("title") or f"the gateway answered {status}"))


class Unreachable(Exception):
    """No gateway answers there."""


class GatewayClient:
    """Calls with one token. Blocks; not for several threads at once."""

    def __init__(self, url: str, token: str = "", *, timeout: float = 15) -> None:
        parts = urlsplit(url)
        self._url, self._timeout = url, timeout
        self._https, self._where = parts.scheme == "https", (parts.hostname or "", parts.port)
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The answer's JSON, null where there is none. Refused, Unreachable."""
        sent = json.dumps(body) if body is not None else None
        while True:
            kept = self._connection is not None
            try:
                return self._once(method, path, sent, headers or {})
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if not kept:  # one that was kept may have been closed at the other end since
                    why = str(error) or type(error).__name__
                    raise Unreachable(f"no gateway answers at {self._url}: {why}") from error

    def close(self) -> None:
        """Give the connection up; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _once(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Any:
        if self._connection is None:
            host, port = self._where
            self._connection = (
                http.client.HTTPSConnection(host, port, timeout=self._timeout, context=ssl.create_default_context())
                if self._https
                else http.client.HTTPConnection(host, port, timeout=self._timeout)
            )
        self._connection.request(method, path, body.encode() if body is not None else None, self._headers | headers)
        answer = self._connection.getresponse()
        text = answer.read()
        try:
            found = json.loads(text) if text else None
        except ValueError:
            found = {"title": text[:200].decode(errors="replace")}
        if answer.status >= 400:
            raise Refused(answer.status, found if isinstance(found, dict) else {})
        return found
