"""Links that a page may follow."""

from __future__ import annotations

from urllib.parse import urlsplit


def is_link(text: str) -> bool:
    """Whether a page may follow it: nothing that runs, nothing that leaves by a trick."""
    if not text.isprintable() or text.strip() != text:
        return False
    if text.startswith("/"):
        return not text.startswith(("//", "/\\"))
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.netloc)
