"""Where messages go. A transport takes a batch and says, for each message, what became of it."""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from snf_ganeti.errors import NodeError
from snf_ganeti_eventd.messages.message import Message
from snf_ganeti_eventd.settings import Settings


class Outcome(Enum):
    """CONFIRMED: it will not be lost. UNROUTABLE: nobody has asked for such messages.
    UNCONFIRMED: not known, so it has to be sent again."""

    CONFIRMED = 1
    UNROUTABLE = 2
    UNCONFIRMED = 3


class TransportError(NodeError):
    """Nothing can be published now."""


class Transport(Protocol):
    """address: for people, without credentials. problem: why the last message was not
    confirmed. A transport that is closed, by itself too, can be opened again."""

    problem: str

    @property
    def address(self) -> str: ...

    @property
    def is_open(self) -> bool: ...

    async def open(self) -> None:
        """Raises TransportError, SettingsError."""
        ...

    async def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Publish in this order; the outcomes are in the same order. Does not raise."""
        ...

    async def close(self) -> None: ...


def make_transport(settings: Settings) -> Transport:
    """The transport of the settings, not yet open."""
    if settings.transport == "amqp":
        # Only who has a broker pays for its library.
        from snf_ganeti_eventd.transport.amqp import AmqpTransport

        return AmqpTransport(settings.amqp)
    from snf_ganeti_eventd.transport.journal import JournalTransport

    return JournalTransport(settings.log)
