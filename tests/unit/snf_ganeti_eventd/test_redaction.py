"""What is held back, and how it is cut out of texts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_ganeti_eventd.messages.redaction import (
    MARK,
    TEXT_LIMIT,
    Changes,
    Each,
    Fields,
    Keep,
    cut_secrets,
    filter_value,
    find_dropped,
    make_secrets,
    strip_url,
)


def find_secrets(spec: Any, value: Any) -> frozenset[str]:
    return make_secrets(find_dropped(spec, value))


NIC = Fields.of("name", "ip")


@pytest.mark.parametrize(
    ("spec", "value", "kept"),
    [
        (NIC, {"name": "eth0", "password": "x"}, {"name": "eth0"}),
        (NIC, {"name": {"nested": "x"}}, {"name": None}),
        (NIC, "text", None),
        (Each(NIC), [{"ip": "192.0.2.1"}, "x"], [{"ip": "192.0.2.1"}, None]),
        (Changes(NIC), [["add", {"ip": "1", "key": "x"}]], [["add", {"ip": "1"}]]),
        (Changes(NIC), [["modify", "uuid", {"name": "a"}]], [["modify", "uuid", {"name": "a"}]]),
        (Changes(NIC), [[0, {"name": "a"}, {"x": "y"}, "z"]], [[0, {"name": "a"}, {}]]),
        (Changes(NIC), [{"name": "a", "x": "y"}], [{"name": "a"}]),
        (Keep(), 7, 7),
        (Keep(), ["x"], None),
        (Keep(), "y" * 10_000, "y" * TEXT_LIMIT),
        (None, "x", None),
    ],
)
def test_only_what_is_named_is_kept(spec: Any, value: Any, kept: Any) -> None:
    assert filter_value(spec, value) == kept


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("http://user:pw@host/a.iso", "http://host/a.iso"),
        ("https://host/a.iso?X-Signature=abc", "https://host/a.iso"),
        ("https://host/a#secret", "https://host/a"),
        ("see rbd://k@h/x and http://a:b@c/d?e=f now", "see rbd://h/x and http://c/d now"),
        ("/srv/images/a@b.iso", "/srv/images/a@b.iso"),
        ("pool/image@snap?", "pool/image@snap?"),
    ],
)
def test_urls_lose_their_credentials(text: str, stripped: str) -> None:
    assert strip_url(text) == stripped


def test_secrets_are_cut_however_they_are_quoted() -> None:
    secret = 'pass"word\\ä\n'
    inside = {"osparams": {"img_properties": json.dumps({"PIN": 123456, "KEY": "innermost"})},
              "osparams_private": {"img_passwd": secret}}  # fmt: skip
    secrets = find_secrets(Fields.of("name"), inside)
    shown = f"{secret!r} {json.dumps(secret)} {secret} innermost 123456 abc"
    cut = cut_secrets(shown, secrets)
    for each in ("pass", "innermost", "123456"):
        assert each not in cut
    assert cut.endswith("abc") and MARK in cut


def test_what_is_kept_is_no_secret() -> None:
    assert find_secrets(Fields.of("name"), {"name": "instance"}) == frozenset()
    assert find_secrets(Fields({"reason": None}), {"reason": [["gnt:user", "because"]]}) == set()
    assert cut_secrets("add instance", find_secrets(NIC, {"x": "add"})) == "add instance"


def test_credentials_of_a_kept_url_are_secrets() -> None:
    value = {"name": "http://user:hunter2@host/a.iso"}
    assert filter_value(NIC, value) == {"name": "http://host/a.iso"}
    assert "hunter2" not in cut_secrets("can't log in as user:hunter2", find_secrets(NIC, value))


def test_what_is_held_back_is_counted() -> None:
    assert len(find_dropped(NIC, {"name": "a", "b": "secret", "c": ["x", "y"], "d": None})) == 3


@given(st.text(min_size=4, max_size=40).filter(lambda text: len(text.strip()) >= 4))
def test_any_secret_is_cut(secret: str) -> None:
    secrets = find_secrets(NIC, {"osparams_secret": {"p": secret}})
    for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
        assert secret not in cut_secrets(f"<{form}>", secrets) or secret in MARK
