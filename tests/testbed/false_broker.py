"""Brokers that misbehave, for what a real RabbitMQ can't be made to do at will.

They speak as much of AMQP 0-9-1 as it takes for a publisher to trust them: frames are built
and parsed by pamqp.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from enum import Enum

import pamqp.frame
from pamqp import commands
from pamqp.base import Frame
from pamqp.common import FieldTable
from pamqp.exceptions import UnmarshalingException
from pamqp.header import ProtocolHeader

from testbed.bed import Bed

_ANSWERS: dict[type[Frame], Frame] = {
    commands.Connection.StartOk: commands.Connection.Tune(0, 131072, 0),
    commands.Connection.Open: commands.Connection.OpenOk(),
    commands.Connection.Close: commands.Connection.CloseOk(),
    commands.Channel.Open: commands.Channel.OpenOk(),
    commands.Channel.Close: commands.Channel.CloseOk(),
    commands.Confirm.Select: commands.Confirm.SelectOk(),
    commands.Exchange.Declare: commands.Exchange.DeclareOk(),
}


class Manner(Enum):
    """SILENT: takes messages and never confirms. MUTE: accepts connections and says nothing."""

    SILENT = 1
    MUTE = 2


class FalseBroker:
    """A server in a thread of this process, on the wire's address."""

    def __init__(self, server: socket.socket, manner: Manner) -> None:
        self._server = server
        self._manner = manner
        self.port: int = server.getsockname()[1]
        self.messages = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._server.accept()
                threading.Thread(target=self._talk, args=(accepted,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        data = b""
        with client, contextlib.suppress(OSError):
            while received := client.recv(65536):
                data += received
                while self._manner is not Manner.MUTE and data:
                    try:
                        size, channel, frame = pamqp.frame.unmarshal(data)
                    except UnmarshalingException:
                        break  # not whole yet
                    data = data[size:]
                    self.messages += isinstance(frame, commands.Basic.Publish)
                    self._answer(client, channel, frame)

    def _answer(self, client: socket.socket, channel: int, frame: object) -> None:
        answer: Frame | None = None
        if isinstance(frame, ProtocolHeader):
            capabilities: FieldTable = {"publisher_confirms": True, "basic.nack": True}
            answer = commands.Connection.Start(
                server_properties={"capabilities": capabilities}, mechanisms="PLAIN"
            )
        elif isinstance(frame, Frame):
            answer = _ANSWERS.get(type(frame))
        if answer is not None:
            client.sendall(pamqp.frame.marshal(answer, channel))


@contextlib.contextmanager
def open_false_broker(bed: Bed, manner: Manner) -> Iterator[FalseBroker]:
    with bed.wire.listen() as server:
        yield FalseBroker(server, manner)
