"""A real SMTP server that keeps a book: when it took which Message-ID, and for whom."""

from __future__ import annotations

import time
from collections import defaultdict
from email import message_from_bytes
from typing import Any


class Post:
    """The book. Nothing is ever refused: what is not taken was never handed over."""

    def __init__(self) -> None:
        self.taken: defaultdict[str, list[float]] = defaultdict(list)
        self.to: dict[str, str] = {}
        self.text: dict[str, str] = {}

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        mail = message_from_bytes(envelope.content)
        identity = str(mail["Message-ID"])
        self.to[identity] = ",".join(envelope.rcpt_tos)
        self.text[identity] = str(mail["Subject"])
        self.taken[identity].append(time.time())
        return "250 taken"
