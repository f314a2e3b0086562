"""What jobs change of names, and the queue that a dead name server fills."""

from pathlib import Path

import pytest

from snf_ganeti.errors import InputError, NodeError
from snf_ganeti_hooks.names import ddns_queue
from snf_ganeti_hooks.names.ddns import Key, Names, make_full_name, parse_key
from snf_ganeti_hooks.names.ddns_queue import Queue
from snf_ganeti_hooks.names.hooks import parse_names
from snf_ganeti_hooks.settings import DnsSettings

NIC = {
    "GANETI_INSTANCE_NAME": "web",
    "GANETI_INSTANCE_NIC_COUNT": "2",
    "GANETI_INSTANCE_NIC0_MAC": "aa:00:01:00:00:07",
    "GANETI_INSTANCE_NIC0_IP": "198.51.100.7",
    "GANETI_INSTANCE_NIC0_NETWORK_TAGS": "dns",
    "GANETI_INSTANCE_NIC0_NETWORK_SUBNET6": "2001:db8:1::/64",
    "GANETI_INSTANCE_NIC1_IP": "10.0.0.1",
}
ADDRESSES = ("198.51.100.7", "2001:db8:1:0:a800:1ff:fe00:7")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ({"GANETI_OP_CODE": "OP_INSTANCE_CREATE"}, Names("web", ADDRESSES)),
        ({"GANETI_OP_CODE": "OP_INSTANCE_REMOVE"}, Names("web", ())),
        ({"GANETI_INSTANCE_NEW_NAME": "www"}, Names("www", ADDRESSES, "web")),
        ({"GANETI_INSTANCE_NIC_COUNT": "x" * 300}, Names("web", ())),
        ({"GANETI_INSTANCE_NIC0_IP": "nonsense"}, Names("web", ())),
        ({"GANETI_INSTANCE_NIC0_MAC": "nonsense"}, Names("web", ())),
        ({"GANETI_INSTANCE_NIC0_NETWORK_TAGS": "public"}, Names("web", ())),
    ],
)
def test_names_after_a_job(words: dict[str, str], names: Names) -> None:
    assert parse_names({**NIC, **words}) == names


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("web", "web.cloud.example."),
        ("web.cloud.example", "web.cloud.example."),
        ("web.other.example", None),
        ("a_b", None),
        ("n" * 300, None),
        ("*", None),
        ("web.cloud.example\n", None),
    ],
)
def test_names_that_are_of_the_zone(name: str, full: str | None) -> None:
    found = make_full_name(name, "cloud.example")
    assert (found.to_text() if found else None) == full


def test_key_is_read_and_not_shown() -> None:
    key = parse_key('key "hosts" {\n\talgorithm hmac-sha256;\n\tsecret "c2VjcmV0";\n};\n')
    assert key == Key("hosts", "hmac-sha256", "c2VjcmV0")
    assert "c2VjcmV0" not in repr(key)
    with pytest.raises(ValueError, match="no key"):
        parse_key("nonsense")


def test_queue_keeps_order_and_tries_again(tmp_path: Path) -> None:
    sent: list[str] = []
    now, dead = [0.0], {"web"}

    def publish(names: Names, settings: DnsSettings) -> None:
        if names.name in dead:
            raise NodeError("no answer")
        if names.name == "bad":
            raise InputError("no name")
        sent.append(f"{names.name} {len(names.addresses)}")

    queue = Queue(DnsSettings(), tmp_path, publish, lambda: now[0])
    for names in (
        *(Names("web", ("192.0.2.1",)), Names("web", ()), Names("bad", ())),
        *(Names("www", (), "web"), Names("mail", ())),
    ):
        ddns_queue.put(names, tmp_path)
    (tmp_path / "0.json").write_text("garbage")
    queue.send_due()
    assert sent == ["mail 0"]
    dead.clear()
    queue.send_due()
    assert sent == ["mail 0"]  # it is not due yet
    now[0] = 10.0
    queue.send_due()
    assert sent == ["mail 0", "web 1", "web 0", "www 0"]
    assert list(tmp_path.iterdir()) == []
