"""What a raw address of a channel looks like: enough to catch a typing error, never a promise that it exists."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_email = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}")
_telegram = re.compile(r"@[A-Za-z][\w-]{1,63}|-?\d{3,20}", re.ASCII)
_slack = re.compile(r"[#@][\w.-]{1,80}|[CDGUW][A-Z0-9]{6,20}")


def is_address(channel: str, text: str) -> bool:
    """Whether `text` may be an address of `channel`; the inbox has none, there are only users."""
    if not 1 <= len(text) <= 500 or not text.isprintable() or text.strip() != text:
        return False
    match channel:
        case "inbox":
            return False
        case "email":
            return len(text) <= 254 and _email.fullmatch(text) is not None
        case "telegram":
            return _telegram.fullmatch(text) is not None
        case "slack":
            return _slack.fullmatch(text) is not None
        case "webhook":
            return _is_https(text)
    return True


def _is_https(text: str) -> bool:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return False
    return url.scheme == "https" and bool(url.hostname) and url.username is None and port != 0
