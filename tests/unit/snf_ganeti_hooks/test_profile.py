"""Which profile a NIC gets, and that no mistake opens it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_ganeti_hooks.firewall.profile import (
    BUILT_IN,
    PROTECTED,
    Allow,
    Opening,
    ProfileSettings,
    choose_profile,
    parse_profile,
)
from unit.snf_ganeti_hooks.nics import ROUTED, make_nic

WEB = ProfileSettings("web", allow=(Allow("tcp", ("443", "80", "8000-8100", "81")),))
BROKEN = ProfileSettings("broken", allow=(Allow("tcp", ("http",)),))
SITE = (WEB, BROKEN, ProfileSettings("twice"), ProfileSettings("twice"))


@pytest.mark.parametrize(
    ("tags", "profile", "problem"),
    [
        ("", "unprotected", ""),
        ("other synnefo:network", "unprotected", ""),
        ("synnefo:network:0:limited", "limited", ""),
        ("synnefo:network:1:limited", "unprotected", ""),
        ("synnefo:network:nic-3:limited", "limited", ""),
        ("synnefo:network:0:limited synnefo:network:nic-3:protected", "protected", ""),
        ("synnefo:network:nic-3:protected synnefo:network:7d8f:unprotected", "unprotected", ""),
        ("synnefo:network:0:limited synnefo:network:0:limited", "limited", ""),
        ("synnefo:network:0:web", "web", ""),
        (
            "synnefo:network:0:limited synnefo:network:0:unprotected",
            "protected",
            "its tags name two profiles, limited and unprotected",
        ),
        ("synnefo:network:0:open", "protected", "there is no profile 'open'"),
        ("synnefo:network:0:", "protected", "there is no profile ''"),
        ("synnefo:network:0", "protected", "there is no profile ''"),
        ("synnefo:network:0:unprotected:x", "protected", "there is no profile 'unprotected:x'"),
        ("synnefo:network:0:Unprotected", "protected", "there is no profile 'Unprotected'"),
        ("synnefo:network:0:accept;drop", "protected", "there is no profile 'accept;drop'"),
        (f"synnefo:network:0:{'p' * 300}", "protected", f"there is no profile '{'p' * 32}'"),
        (
            "synnefo:network:0:broken",
            "protected",
            "profile 'broken' is broken: 'http' is not a port or a range of ports",
        ),
        ("synnefo:network:0:twice", "protected", "profile 'twice' is broken: it is there twice"),
    ],
)
def test_tags_choose_the_profile(tags: str, profile: str, problem: str) -> None:
    choice = choose_profile(make_nic(ROUTED, TAGS=tags), SITE, "unprotected")
    assert (choice.profile.name, choice.problem) == (profile, problem)


def test_default_of_the_site() -> None:
    assert choose_profile(make_nic(), SITE, "web").profile.name == "web"
    assert choose_profile(make_nic(), SITE, "nonsense").profile == PROTECTED


@given(st.text(max_size=40))
def test_only_its_name_opens_a_nic(word: str) -> None:
    nic = make_nic(ROUTED, TAGS="x")
    tag = f"synnefo:network:0:{word}".replace(" ", "_")
    choice = choose_profile(
        make_nic(ROUTED, TAGS=tag) if tag.split() == [tag] else nic, (), "protected"
    )
    assert choice.profile == BUILT_IN.get(word, PROTECTED)


def test_openings_are_as_nftables_keeps_them() -> None:
    assert parse_profile(WEB).openings == (Opening("tcp", ((80, 81), (443, 443), (8000, 8100))),)


@pytest.mark.parametrize(
    "settings",
    [
        ProfileSettings("limited"),
        ProfileSettings("a b"),
        ProfileSettings("x" * 33),
        ProfileSettings("x", allow=(Allow("tcp", ("0",)),)),
        ProfileSettings("x", allow=(Allow("tcp", ("65536",)),)),
        ProfileSettings("x", allow=(Allow("tcp", ("90-80",)),)),
        ProfileSettings("x", allow=(Allow("tcp", ("22; accept",)),)),
        ProfileSettings("x", allow=(Allow("tcp", (), ("0.0.0.0/0",)),)),
        ProfileSettings("x", allow=(Allow("tcp", (), ("192.0.2.1/24",)),)),
        ProfileSettings("x", allow=(Allow("tcp", (), (), -1),)),
    ],
)
def test_broken_profiles(settings: ProfileSettings) -> None:
    with pytest.raises(ValueError):
        parse_profile(settings)
