"""Handshakes: every version and security type, the bytes cut everywhere, and hostile bytes."""

import itertools
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.cutting import cut_randomly
from testbed.rfb_peers import CASES, PASSWORD, converse, judge, settle
from vncauthproxy.protocol.client_handshake import Demand, connect
from vncauthproxy.protocol.handshake import Check, Handshake, Login, StartTls
from vncauthproxy.protocol.rfb import ProtocolError, Security, Subtype, Version
from vncauthproxy.protocol.server_handshake import Offer, serve
from vncauthproxy.protocol.vnc_auth import make_response

SOAK = bool(os.environ.get("SNF_SOAK"))
STREAMS = 100_000 if SOAK else 10_000
GREETING = b"RFB 003.008\n"
RESULT_OK = bytes(4)


def cut_whole(data: bytes) -> Iterator[bytes]:
    yield data


def cut_to_bytes(data: bytes) -> Iterator[bytes]:
    yield from (data[at : at + 1] for at in range(len(data)))


@pytest.mark.parametrize("name", CASES)
def test_both_sides_agree_however_the_bytes_are_cut(name: str) -> None:
    offer, demand = CASES[name]
    for cut in (cut_whole, cut_to_bytes):
        served, opened, tls = converse(offer, demand, cut)
        assert served.version is opened.version is Version.V3_8
        assert opened.security is offer.security
        assert tls == ([name.startswith("TLS")] * 2 if offer.subtypes else [])


@given(st.sampled_from(sorted(CASES)), st.randoms(use_true_random=False))
def test_both_sides_agree_on_random_cuts(name: str, source: random.Random) -> None:
    def cut(data: bytes) -> Iterator[bytes]:
        return cut_randomly(data, source, len(data))

    converse(*CASES[name], cut)


# What a client of each version sends, as RFC 6143 and rfbproto have it, and what it must be sent.
NONE_SERVED = {
    b"RFB 003.003\n": (b"\1", GREETING + b"\0\0\0\1"),
    b"RFB 003.005\n": (b"\1", GREETING + b"\0\0\0\1"),
    b"RFB 003.007\n": (b"\1\1", GREETING + b"\1\1"),
    b"RFB 003.008\n": (b"\1\1", GREETING + b"\1\1" + RESULT_OK),
    b"RFB 003.889\n": (b"\1\1", GREETING + b"\1\1" + RESULT_OK),
}


@pytest.mark.parametrize("greeting", NONE_SERVED)
def test_server_sends_what_the_version_asks_for_on_every_cut(greeting: bytes) -> None:
    rest, expected = NONE_SERVED[greeting]
    stream = greeting + rest + b"beyond"
    for at in range(len(stream) + 1):
        server = Handshake(serve(Offer(Security.NONE)))
        server.receive(stream[:at])
        server.receive(stream[at:])
        assert server.done
        assert server.take_output() == expected
        assert server.take_unread() == b"beyond"


CLIENT_SAW = {
    # server's stream: what the client must answer
    b"RFB 003.003\n" + b"\0\0\0\1": b"RFB 003.003\n" + b"\1",
    b"RFB 003.007\n" + b"\1\1": b"RFB 003.007\n" + b"\1\1",
    b"RFB 003.008\n" + b"\3\x10\2\1" + RESULT_OK: b"RFB 003.008\n" + b"\1\1",
    b"RFB 003.003\n" + b"\0\0\0\2" + bytes(16) + RESULT_OK: (
        b"RFB 003.003\n" + make_response(PASSWORD, bytes(16)) + b"\1"
    ),
    b"RFB 003.007\n" + b"\1\2" + bytes(16) + RESULT_OK: (
        b"RFB 003.007\n" + b"\2" + make_response(PASSWORD, bytes(16)) + b"\1"
    ),
}


@pytest.mark.parametrize("stream", CLIENT_SAW)
def test_client_answers_each_version_on_every_cut(stream: bytes) -> None:
    demand = Demand(PASSWORD if b"\2" in stream[12:17] and b"\1" not in stream[13:] else None)
    if bytes(16) in stream:
        demand = Demand(PASSWORD)
    for at in range(len(stream) + 1):
        client = Handshake(connect(demand))
        client.receive(stream[:at])
        client.receive(stream[at:])
        assert client.done
        assert client.take_output() == CLIENT_SAW[stream]


def test_vnc_authentication_is_that_of_other_programs() -> None:
    """OpenSSL's DES with the key 8c4ccc2cac6cec1c, which is "12345678" with its bits reversed."""
    challenge = bytes(range(16))
    assert make_response(b"", challenge) != make_response(b"a", challenge)
    assert make_response(b"12345678", challenge) == make_response(b"123456789", challenge)
    assert make_response(b"12345678", challenge).hex() == "83dd2b4dbd04367f28578fdd5b142740"


def test_wrong_password_is_told_with_a_reason() -> None:
    server = Handshake(serve(Offer(Security.VNC, challenge=bytes(16))))
    server.receive(GREETING + b"\2" + b"x" * 16)
    assert isinstance(server.pending, Check)
    with pytest.raises(ProtocolError, match="no"):
        server.answer(judge(server.pending.proof))
    assert server.take_output().endswith(b"\0\0\0\1\0\0\0\2no")


def test_plain_login_carries_a_whole_ticket() -> None:
    server = Handshake(serve(Offer(Security.VENCRYPT, (Subtype.X509_PLAIN,))))
    server.receive(GREETING + b"\x13" + b"\0\2" + b"\0\0\1\6")
    assert server.pending == StartTls(anonymous=False)
    server.answer()
    server.receive(b"\0\0\0\4\0\0\0\5" + b"userword!" + b"\1")
    assert isinstance(server.pending, Check)
    assert server.pending.proof == Login("user", b"word!")
    assert "word!" not in repr(server.pending)
    server.answer(None)
    assert server.done


REFUSED_CLIENTS = {
    "GET / HTTP/1": b"GET / HTTP/1.1\r\n\r\n",
    "not offered": GREETING + b"\2",
    "VeNCrypt .*0.1": GREETING + b"\x13\0\1",
    "subtype 257": GREETING + b"\x13\0\2\0\0\1\1",
    "before TLS": GREETING + b"\x13\0\2\0\0\1\6\x16\3\1",
    "no VeNCrypt": b"RFB 003.003\n",
}


@pytest.mark.parametrize("reason", REFUSED_CLIENTS)
def test_clients_that_are_refused(reason: str) -> None:
    server = Handshake(serve(Offer(Security.VENCRYPT, (Subtype.X509_PLAIN,))))
    with pytest.raises(ProtocolError, match=reason):
        server.receive(REFUSED_CLIENTS[reason])


def test_login_beyond_all_measure_is_not_waited_for() -> None:
    server = Handshake(serve(Offer(Security.VENCRYPT, (Subtype.X509_PLAIN,))))
    server.receive(GREETING + b"\x13\0\2\0\0\1\6")
    server.answer()
    with pytest.raises(ProtocolError, match="beyond all measure"):
        server.receive(b"\0\0\0\1\xff\xff\xff\xff")


REFUSED_SERVERS = {
    "does not speak RFB.*SSH": b"SSH-2.0-OpenSSH_9.2",
    "refused us: 'go away'": GREETING + b"\0" + b"\0\0\0\7go away",
    "refused us: 'old'": b"RFB 003.003\n" + bytes(4) + b"\0\0\0\3old",
    "wants a password": GREETING + b"\1\2",
    "types 16, 30": GREETING + b"\2\x10\x1e",
    "refused us: 'full'": GREETING + b"\1\1" + b"\0\0\0\1\0\0\0\4full",
    "VeNCrypt 0.1": GREETING + b"\1\x13" + b"\0\1",
    "subtypes 263": GREETING + b"\1\x13" + b"\0\2" + b"\0" + b"\1" + b"\0\0\1\7",
    "subtypes , none": GREETING + b"\1\x13" + b"\0\2" + b"\0" + b"\0",
}


@pytest.mark.parametrize("reason", REFUSED_SERVERS)
def test_servers_that_are_refused(reason: str) -> None:
    client = Handshake(connect(Demand(subtypes=(Subtype.X509_NONE,))))
    with pytest.raises(ProtocolError, match=reason):
        client.receive(REFUSED_SERVERS[reason])


def test_clear_servers_are_refused_where_tls_is_demanded() -> None:
    client = Handshake(connect(Demand(subtypes=(Subtype.X509_NONE,), clear=False)))
    with pytest.raises(ProtocolError, match="has no TLS"):
        client.receive(GREETING + b"\2\1\2")


def test_reason_without_end_is_cut() -> None:
    client = Handshake(connect(Demand()))
    with pytest.raises(ProtocolError, match="refused us: 'xxx"):
        client.receive(GREETING + b"\0" + b"\xff\xff\xff\xff" + b"x" * 5000)


FRAGMENTS = (
    *(GREETING, b"RFB 003.003\n", b"RFB 003.007\n", b"\1\1", b"\1\2", b"\1\x13", b"\0\2"),
    *(b"\x13", b"\0\0\1\4", b"\0\0\0\5", RESULT_OK, b"\xff", bytes(16)),
)


def make_stream(source: random.Random) -> bytes:
    """Bytes of which some are those of a handshake, so that they come further than the first."""
    pieces = [GREETING] if source.random() < 0.8 else []
    for _ in range(source.randrange(10)):
        known = source.random() < 0.7
        pieces.append(source.choice(FRAGMENTS) if known else source.randbytes(source.randrange(30)))
    return b"".join(pieces)


def test_any_stream_ends_in_a_result_a_refusal_or_a_wait() -> None:
    """And what comes of it is the same however it was cut."""
    seen = set()
    for seed in range(STREAMS):
        source = random.Random(seed)
        stream, name, as_server = make_stream(source), source.choice(NAMES), source.random() < 0.5
        at = source.randint(0, len(stream))
        whole = feed(name, as_server, [stream])
        assert whole == feed(name, as_server, [stream[:at], stream[at:]]), seed
        assert whole == feed(name, as_server, list(cut_to_bytes(stream))), seed
        seen.add(whole[0])
    assert seen == {"refused", "done", "waits"}


NAMES = sorted(CASES)


Side = Handshake[Any]


def feed(name: str, as_server: bool, pieces: list[bytes]) -> tuple[object, ...]:
    """What a side makes of bytes up to its TLS or its end."""
    offer, demand = CASES[name]
    offer = Offer(offer.security, offer.subtypes, bytes(16))
    side = Side(serve(offer)) if as_server else Side(connect(demand))
    try:
        for piece in pieces:
            if side.pending or side.done:
                break
            side.receive(piece)
            settle(side)
    except ProtocolError:
        # What was sent before it is not compared: a cut decides how much of it was taken.
        return ("refused",)
    if isinstance(side.pending, StartTls):
        return ("refused",)  # cut otherwise, the bytes after it would have been too early
    return ("done" if side.done else "waits", side.take_output())


def test_cases_cover_all_security_types() -> None:
    kinds = set(itertools.chain.from_iterable(offer.subtypes for offer, _ in CASES.values()))
    assert {offer.security for offer, _ in CASES.values()} == set(Security) - {Security.INVALID}
    assert kinds == {subtype for subtype in Subtype if not subtype.name.endswith("PLAIN")}
