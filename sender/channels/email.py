"""E-mail by SMTP. Every attempt of a delivery is the same bytes with the same Message-ID, so that a repeat can be told
by its receiver.

A server's 5xx about the message is final; anything about the connection, the login or for a while (4xx) is tried again.
The last look at the deadline is right before DATA, the step that can't be taken back.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, parseaddr
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from sender.channels.channel import Rejected, Result, RetryLater, Sent
from sender.delivery import clock_s
from sender.message import Message
from sender.settings import SenderSettings

log = logging.getLogger(__name__)

IDLE_S = 5.0  # a connection is kept so long for the next mail
ABOUT_US = (421, 454, 530, 534, 535, 538)  # log-in wanted or refused: a fault of the settings, not of the mail
PORTS = {"smtp": 25, "smtps": 465}
_address = re.compile(r"[^\s@<>()\[\],;:\\\"\x00-\x1f\x7f]+@[^\s@<>()\[\],;:\\\"\x00-\x1f\x7f]+")


def open_channel(settings: SenderSettings) -> EmailChannel:
    """The channel to the settings' SMTP server. ValueError where the URL is none."""
    return EmailChannel(settings.smtp, settings.mail_from)


class EmailChannel:
    """Keeps connections of finished mails for a few seconds, so that a batch shares them."""

    def __init__(self, url: str | None, mail_from: str) -> None:
        self._connect = connection_settings(url) if url else None
        self._from = mail_from
        self._idle: list[tuple[SMTP, float]] = []
        self._sweep: asyncio.TimerHandle | None = None

    async def deliver(self, message: Message, deadline_s: float) -> Result:
        """See Channel."""
        until = clock_s() + deadline_s
        if not _address.fullmatch(message.address):
            return Rejected(f"“{message.address}” is no e-mail address")
        if self._connect is None:
            return RetryLater("no SMTP server is set: give its URL in TIDINGS_SMTP")
        smtp: SMTP | None = None
        try:
            async with asyncio.timeout(deadline_s):
                smtp = await self._session(message.address)
                if clock_s() >= until:
                    return RetryLater("the time for this attempt was over before the mail was handed over")
                answer = await smtp.data(as_bytes(message, self._from))
            self._keep(smtp)
            smtp = None
            return Sent(f"{answer.code} {answer.message}")
        except (SMTPSenderRefused, SMTPRecipientRefused, SMTPDataError) as error:
            return _refusal(error)
        except SMTPResponseException as error:
            return RetryLater(f"{error.code} {error.message}")
        except (SMTPException, TimeoutError, OSError, ValueError) as error:
            return RetryLater(
                f"{type(error).__name__}: {error}" if str(error) else f"no answer within {deadline_s:.0f} s"
            )
        finally:
            if smtp is not None:
                smtp.close()

    async def close(self) -> None:
        """Say good-bye on the idle connections."""
        if self._sweep:
            self._sweep.cancel()
        while self._idle:
            smtp, _ = self._idle.pop()
            smtp.close()

    async def _session(self, address: str) -> SMTP:
        """A connection on which the envelope has been accepted. One that was idle may have died meanwhile: then a new
        one.
        """
        sender = parseaddr(self._from)[1]
        while self._idle:
            smtp, _ = self._idle.pop()
            try:
                await _envelope(smtp, sender, address)
            except (SMTPResponseException, OSError) as error:
                smtp.close()
                if isinstance(error, SMTPResponseException) and error.code != 421:  # closing; the others are answers
                    raise
                continue
            except BaseException:
                smtp.close()
                raise
            return smtp
        assert self._connect is not None  # noqa: S101 - deliver() looked
        smtp = SMTP(**self._connect)
        try:
            await smtp.connect()
            await _envelope(smtp, sender, address)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _keep(self, smtp: SMTP) -> None:
        self._idle.append((smtp, clock_s()))
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_S, self._close_idle)

    def _close_idle(self) -> None:
        old = clock_s() - IDLE_S
        for smtp, at in self._idle:
            if at <= old:
                smtp.close()
        self._idle = [(smtp, at) for smtp, at in self._idle if at > old]
        self._sweep = asyncio.get_running_loop().call_later(IDLE_S, self._close_idle) if self._idle else None


def connection_settings(url: str) -> dict[str, Any]:
    """The arguments of aiosmtplib for such a URL. ValueError with what is wrong, without the password."""
    parts = urlsplit(url)
    starttls = dict(parse_qsl(parts.query, keep_blank_values=True)).get("starttls")
    try:
        known, port = parts.scheme in PORTS and parts.hostname, parts.port
    except ValueError:
        known, port = None, None
    if not known:
        raise ValueError("TIDINGS_SMTP has to be smtp://[user:password@]host[:port][?starttls] or smtps://…")
    return {
        "hostname": parts.hostname,
        "port": port or (587 if starttls == "" else PORTS[parts.scheme]),
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "use_tls": parts.scheme == "smtps",
        "start_tls": None if starttls is None else starttls not in ("no", "false", "0"),
        "local_hostname": socket.gethostname(),  # else aiosmtplib asks the DNS for it, which can take seconds
        "timeout": None,  # the attempt's deadline covers all steps
        "tls_context": ssl.create_default_context(),
    }


def as_bytes(message: Message, mail_from: str) -> bytes:
    """The mail: the same bytes at every attempt. No value can add a header: line ends become spaces, the policy refuses
    the rest.
    """
    mail = EmailMessage(policy=SMTP_POLICY.clone(cte_type="7bit", utf8=not message.address.isascii()))
    mail["From"] = mail_from
    local, _, domain = message.address.rpartition("@")
    mail["To"] = Address(" ".join((message.name or "").split()), username=local, domain=domain)
    mail["Subject"] = message.subject
    mail["Date"] = format_datetime(message.requested)
    mail["Message-ID"] = _message_id(message.message_id)
    mail["List-Id"] = f"<{_token(message.alert or 'direct')}.tidings>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Tidings-Notice"] = _token(message.notice_id)
    mail.set_content(message.plain_text(), subtype="plain", charset="utf-8")
    return mail.as_bytes()


async def _envelope(smtp: SMTP, sender: str, address: str) -> None:
    utf8 = not address.isascii()
    if utf8 and not smtp.supports_extension("smtputf8"):
        raise SMTPRecipientRefused(550, "the SMTP server takes no addresses outside ASCII", address)
    await smtp.mail(sender, options=["SMTPUTF8"] if utf8 else None, encoding="utf-8" if utf8 else "ascii")
    await smtp.rcpt(address, encoding="utf-8" if utf8 else "ascii")


def _refusal(error: SMTPResponseException) -> Result:
    text = f"{error.code} {error.message}"
    final = error.code >= 500 and error.code not in ABOUT_US and not isinstance(error, SMTPAuthenticationError)
    return Rejected(text) if final else RetryLater(text)


def _message_id(id: str) -> str:
    """As the event has it if it has the right form, else made from it."""
    return id if re.fullmatch(r"<[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+>", id) else f"<{_token(id)}@tidings>"


def _token(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "-", text)
