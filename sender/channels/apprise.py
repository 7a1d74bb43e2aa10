"""Every other channel through Apprise: the settings hold its URL with `{address}` where the receiver's address belongs.

Apprise takes 60 MB at its first URL, so it is imported at the first message. Its call blocks: it runs in a thread of
its own that is left behind, and the message tried again, when the time is over.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from sender.channels.channel import Rejected, Result, RetryLater, Sent
from sender.message import Message

SEVERITIES = {"info": "info", "warning": "warning", "error": "failure", "critical": "failure"}


class AppriseChannel:
    """One name, one URL."""

    def __init__(self, name: str, url: str) -> None:
        self._name, self._url = name, url

    async def deliver(self, message: Message, deadline_s: float) -> Result:
        """See Channel. Apprise says only yes or no: a no is tried again until the message's deadline."""
        answer: Future[Result] = Future()
        answer.set_running_or_notify_cancel()  # who no longer waits for it can't take it from the thread

        def work() -> None:
            try:
                answer.set_result(self._notify(message, deadline_s))
            except Exception as error:  # noqa: BLE001 - handed over to the one who waits
                answer.set_exception(error)

        threading.Thread(target=work, name=f"apprise-{self._name}", daemon=True).start()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), deadline_s)
        except TimeoutError:
            return RetryLater(f"{self._name} did not answer within {deadline_s:.0f} s")

    async def close(self) -> None:
        """Nothing is kept."""

    def _notify(self, message: Message, deadline_s: float) -> Result:
        import apprise  # noqa: PLC0415 - loaded only where it is used

        service = apprise.Apprise.instantiate(filled(self._url, message.address, deadline_s), suppress_exceptions=True)
        if not isinstance(service, apprise.NotifyBase):
            return Rejected(
                f"the URL of channel {self._name} with address “{message.address}” is none that Apprise knows"
            )
        kind = apprise.NotifyType(SEVERITIES.get(message.severity, "info"))
        taken = service.notify(body=message.plain_text(), title=message.subject, notify_type=kind)
        return Sent("taken") if taken else RetryLater(f"{self._name} did not take it; Apprise's log says why")


def filled(url: str, address: str, deadline_s: float) -> str:
    """The URL for one address, with time limits on Apprise's sockets that together stay below the attempt's own."""
    parts = urlsplit(url.replace("{address}", quote(address, safe="")))
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query.setdefault("cto", f"{deadline_s / 3:.1f}")
    query.setdefault("rto", f"{deadline_s / 2:.1f}")
    return urlunsplit(parts._replace(query=urlencode(query)))
