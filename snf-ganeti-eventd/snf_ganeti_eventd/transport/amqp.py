"""Messages to an AMQP 0-9-1 broker (RabbitMQ): persistent, mandatory, each confirmed."""

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Sequence
from pathlib import Path

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import AMQPError, ChannelAccessRefused, DeliveryError, PublishError
from pamqp.commands import Basic
from yarl import URL

from snf_ganeti.errors import SettingsError
from snf_ganeti_eventd.messages.message import Message
from snf_ganeti_eventd.settings import AmqpSettings, parse_host, read_password
from snf_ganeti_eventd.transport import Outcome, TransportError

log = logging.getLogger(__name__)

_HEARTBEAT = 30
_CLOSE_SECONDS = 5.0
_PERSISTENT = 2
# What the library raises besides its own errors while a connection breaks.
_TROUBLE = (AMQPError, OSError, EOFError, RuntimeError, asyncio.CancelledError, TimeoutError)


class _Connection(aiormq.Connection):
    """With room for a batch on its way to the socket: the library's own, for ten, has each
    message wait for its turn several times."""

    FRAME_BUFFER_SIZE = 512


class AmqpTransport:
    """One connection with one channel, to the first host that answers, another one than before
    if it can be: a broker that only accepts connections is not come back to at once."""

    def __init__(self, settings: AmqpSettings) -> None:
        self._settings = settings
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._host = ", ".join(settings.hosts)
        self.problem = ""
        # It logs each frame, and each error that we report ourselves.
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)

    @property
    def address(self) -> str:
        scheme = "amqps" if self._settings.tls else "amqp"
        return f"{scheme}://{self._host}, exchange {self._settings.exchange}"

    @property
    def is_open(self) -> bool:
        return (
            self._connection is not None
            and self._channel is not None
            and not self._connection.is_closed
            and not self._channel.is_closed
        )

    async def open(self) -> None:
        await self.close()
        hosts = random.sample(self._settings.hosts, k=len(self._settings.hosts))
        hosts.sort(key=lambda host: host == self._host)  # the one that was left comes last
        reasons = []
        for host in hosts:
            try:
                async with asyncio.timeout(self._settings.connect_timeout):
                    await self._connect(host)
            except TimeoutError:
                seconds = self._settings.connect_timeout
                reasons.append(f"{host}: no answer within {seconds:g} s")
            except (AMQPError, OSError, EOFError, RuntimeError) as error:
                reasons.append(f"{host}: {describe(error)}")
            else:
                self._host = host
                return
            await self.close()
        self.problem = "; ".join(reasons)
        raise TransportError(f"no broker: {self.problem}")

    async def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        channel = self._channel
        if not isinstance(channel, aiormq.Channel) or not self.is_open:
            self.problem = self.problem or "the connection is closed"
            return [Outcome.UNCONFIRMED] * len(batch)
        tasks = [asyncio.create_task(self._publish(channel, message)) for message in batch]
        _, late = await asyncio.wait(tasks, timeout=self._settings.confirm_timeout)
        for task in late:
            task.cancel()
        outcomes = await asyncio.gather(*tasks)
        if late:
            seconds = self._settings.confirm_timeout
            self.problem = f"{self._host} took a message and did not confirm it in {seconds:g} s"
            await self.close()
        return outcomes

    async def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(*_TROUBLE):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await connection.close()

    async def _connect(self, host: str) -> None:
        settings = self._settings
        url = make_url(settings, host)
        self._connection = connection = (
            _Connection(url, context=make_tls(settings)) if settings.tls else _Connection(url)
        )
        await connection.connect()
        try:
            self._channel = await self._connection.channel(on_return_raises=True)
            await self._channel.exchange_declare(
                settings.exchange, exchange_type="topic", durable=True
            )
        except ChannelAccessRefused:  # this user may only write: the exchange has to be there
            self._channel = await self._connection.channel(on_return_raises=True)
            await self._channel.exchange_declare(settings.exchange, passive=True)
        if settings.queue:
            await self._channel.queue_declare(
                settings.queue, durable=True, arguments={"x-queue-type": "quorum"}
            )
            await self._channel.queue_bind(settings.queue, settings.exchange, routing_key="#")

    async def _publish(self, channel: aiormq.Channel, message: Message) -> Outcome:
        try:
            await channel.basic_publish(
                message.encode(),
                exchange=self._settings.exchange,
                routing_key=message.key,
                mandatory=True,
                properties=make_properties(message),
                wait=False,
            )
        except PublishError:
            return Outcome.UNROUTABLE
        except DeliveryError:
            self.problem = f"{self._host} refuses messages (nack): a queue is full or unavailable"
            return Outcome.UNCONFIRMED
        except _TROUBLE as error:
            if not isinstance(error, asyncio.CancelledError):
                self.problem = f"{self._host}: {describe(error)}"
            return Outcome.UNCONFIRMED
        return Outcome.CONFIRMED


def make_url(settings: AmqpSettings, text: str) -> URL:
    """What the library wants to know of one host. Raises SettingsError."""
    host, port = parse_host(text, tls=settings.tls)
    return URL.build(
        scheme="amqps" if settings.tls else "amqp",
        host=host,
        port=port,
        user=settings.username,
        password=read_password(Path(settings.password_file)),
        path="/" if settings.vhost == "/" else f"/{settings.vhost}",
        query={"heartbeat": str(_HEARTBEAT), "name": "snf-ganeti-eventd"},
    )


def make_tls(settings: AmqpSettings) -> ssl.SSLContext:
    """TLS 1.2 or newer that checks the broker's certificate and name. Raises SettingsError."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file or None)
    except OSError as error:
        raise SettingsError(f"the files of amqp.ca_file, cert_file, key_file: {error}") from None
    return context


def make_properties(message: Message) -> Basic.Properties:
    return Basic.Properties(
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=_PERSISTENT,
        message_id=message.id,
        message_type=str(message.body.get("type")),
        app_id="snf-ganeti-eventd",
    )


def describe(error: BaseException) -> str:
    """A failure of the library in words; it quotes no credentials."""
    text = " ".join(str(each) for each in error.args if each) or type(error).__name__
    return " ".join(text.split())[:200]
