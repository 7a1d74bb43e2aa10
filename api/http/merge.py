"""JSON Merge Patch (RFC 7396) on texts: what a patch does not name keeps its bytes, a config's `metric` above all."""

from __future__ import annotations

from topics.json_text import compact, joined, members

DEEPEST = 64


def merged(target: str, patch: str, depth: int = 0) -> str:
    """The text of `target` after `patch`; both are valid JSON. ValueError when nested deeper than 64."""
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    if not patch.lstrip().startswith("{"):
        return compact(patch)
    parts = members(target) if target.lstrip().startswith("{") else {}
    for name, text in members(patch).items():
        if text == "null":
            parts.pop(name, None)
        else:
            parts[name] = merged(parts.get(name, "null"), text, depth + 1)
    return joined(parts)
