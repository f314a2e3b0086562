"""Both sides of a handshake, run against each other in memory, with the bytes cut anywhere."""

from collections.abc import Callable, Iterator
from typing import Any

from vncauthproxy.protocol.client_handshake import Demand, Opened, connect
from vncauthproxy.protocol.handshake import Check, Handshake, Login, Proof, StartTls
from vncauthproxy.protocol.rfb import Security, Subtype
from vncauthproxy.protocol.server_handshake import Offer, Served, serve

PASSWORD = b"sesame12"
CASES: dict[str, tuple[Offer, Demand]] = {
    "none": (Offer(Security.NONE), Demand()),
    "vnc": (Offer(Security.VNC), Demand(PASSWORD)),
    **{
        subtype.name: (
            Offer(Security.VENCRYPT, (subtype,)),
            Demand(PASSWORD if subtype.name.endswith("VNC") else None, (subtype,)),
        )
        for subtype in Subtype
        if not subtype.name.endswith("PLAIN")
    },
}


def judge(proof: Proof) -> str | None:
    if isinstance(proof, Login):
        return None if proof.password == PASSWORD else "no"
    return None if proof.matches(PASSWORD) else "no"


def settle(side: Handshake[Any]) -> bool:
    """Answer a check; tells whether there was one."""
    if isinstance(side.pending, Check):
        side.answer(judge(side.pending.proof))
        return True
    return False


def converse(
    offer: Offer, demand: Demand, cut: Callable[[bytes], Iterator[bytes]]
) -> tuple[Served, Opened, list[bool]]:
    """Let a client and a server talk until both are done. Raises ProtocolError.

    TLS begins when both want it, and when all that was said before has arrived.
    """
    server, client = Handshake(serve(offer)), Handshake(connect(demand))
    sides: tuple[Handshake[Any], Handshake[Any]] = (server, client)
    tls: list[bool] = []
    while not (server.done and client.done):
        moved = False
        for source, sink in (sides, sides[::-1]):
            output = source.take_output()
            for piece in cut(output):
                sink.receive(piece)
            moved = moved or bool(output) or settle(source)
        if not moved:
            for side in sides:
                assert isinstance(side.pending, StartTls), "both sides wait"
                tls.append(side.pending.anonymous)
                side.answer()
    assert server.result and client.result
    return server.result, client.result, tls
