"""`/asyncapi.json` (AsyncAPI 3.0), made from the models that check clients' frames, the types of what the gateway says,
the problem codes and the limits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from api.documents.openapi import problems
from api.documents.schemas import schemas
from api.live.protocol import ClientFrame
from api.live.pushes import ANSWERS, CLOSE_CODES, PUSHES
from api.problems import CODES
from api.settings import Limits

_ABOUT = (
    "JSON text frames. A client authenticates, subscribes to `entities/<type>` or `inbox`, and is told every change in "
    "the order of the log. Each push has a `position`; `since` resumes there exactly, at any gateway."
)


def asyncapi(limits: Limits) -> dict[str, Any]:
    """The document."""
    said = {**ANSWERS, **PUSHES}
    shapes, named = schemas((ClientFrame, *said.values()))
    named["Fault"]["properties"]["code"]["enum"] = list(CODES)
    frame = named.pop("ClientFrame")
    requests = [name for name in ClientFrame.model_fields if name != "id"]
    messages = {name: _request(name, frame["properties"], named) for name in requests}
    messages |= {
        name: {"summary": " ".join(shape.__doc__.split()), "payload": shapes[shape]} for name, shape in said.items()
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Tidings, live", "version": version("tidings"), "description": _ABOUT},
        "defaultContentType": "application/json",
        "channels": {
            "ws": {
                "address": "/v1/ws",
                "summary": "A WebSocket",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            },
            "sse": {
                "address": "/v1/sse",
                "summary": "An event stream of one channel; each event's data is a frame, its id the position",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in said},
            },
        },
        "operations": {
            "ask": _operation("receive", "What a client asks", "ws", requests)
            | {"reply": {"channel": {"$ref": "#/channels/ws"}, "messages": _messages("ws", ANSWERS)}},
            "tell": _operation("send", "What the gateway tells whoever has subscribed", "ws", PUSHES),
            "stream": _operation("send", "The answer, then what the gateway tells", "sse", said),
        },
        "components": {
            "messages": messages,
            "schemas": named,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        "x-close-codes": {str(code): means for code, means in CLOSE_CODES.items()},
        "x-problems": problems(),
        "x-limits": asdict(limits),
    }


def _request(name: str, members: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """A client's frame with one request."""
    asked = next(choice for choice in members[name]["anyOf"] if "$ref" in choice)
    payload = {
        "type": "object",
        "properties": {"id": members["id"], name: asked},
        "required": ["id", name],
        "additionalProperties": False,
    }
    return {"summary": named[asked["$ref"].rpartition("/")[2]]["description"], "payload": payload}


def _operation(action: str, summary: str, channel: str, messages: Iterable[str]) -> dict[str, Any]:
    return {
        "action": action,
        "summary": summary,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": _messages(channel, messages),
        "security": [{"$ref": "#/components/securitySchemes/token"}],
    }


def _messages(channel: str, names: Iterable[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]
