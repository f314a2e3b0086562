"""Firewall profiles: what reaches a NIC from outside, and which one a NIC has.

A profile is chosen by an instance tag, `synnefo:network:IDENT:PROFILE`, where IDENT is the
NIC's UUID, name or index. The most specific tag wins. What can't be understood never opens
anything: an unknown, broken or contradictory choice is `protected`, and says why.
"""

import ipaddress
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from snf_ganeti.settings import Bounds
from snf_ganeti_hooks.nic import Nic

TAG_PREFIX = "synnefo:network:"
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")


@dataclass(frozen=True)
class Allow:
    """What a profile lets in, as the settings say it.

    ports: `22` or `8000-8100`; empty: all. sources: subnets; empty: everyone. per_second:
    new connections, or datagrams without a reply, that pass in a second; 0: no limit.
    """

    protocol: Literal["tcp", "udp"] = "tcp"
    ports: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    # Judged in parse_profile, so that a bad one costs its own NICs and not everybody's settings.
    per_second: Annotated[int, Bounds(-math.inf)] = 0


@dataclass(frozen=True)
class ProfileSettings:
    """A site's profile: `[[profile]]` in the settings. Replies always pass."""

    name: str = ""
    icmp: bool = True
    allow: tuple[Allow, ...] = ()


@dataclass(frozen=True)
class Opening:
    """A way in, parsed. ports: ranges, both ends included."""

    protocol: str
    ports: tuple[tuple[int, int], ...] = ()
    sources4: tuple[IPv4Network, ...] = ()
    sources6: tuple[IPv6Network, ...] = ()
    per_second: int = 0


@dataclass(frozen=True)
class Profile:
    """open: everything passes; else replies, ICMP and ICMPv6 if `icmp`, and the openings."""

    name: str
    open: bool = False
    icmp: bool = True
    openings: tuple[Opening, ...] = ()


UNPROTECTED = Profile("unprotected", open=True)
LIMITED = Profile("limited", openings=(Opening("tcp", ((22, 22), (3389, 3389))),))
PROTECTED = Profile("protected")
BUILT_IN: Mapping[str, Profile] = {each.name: each for each in (UNPROTECTED, LIMITED, PROTECTED)}


@dataclass(frozen=True)
class Choice:
    """The profile of a NIC; problem: why it is not the one that was asked for, or empty."""

    profile: Profile
    problem: str = ""


def choose_profile(nic: Nic, profiles: Sequence[ProfileSettings], default: str) -> Choice:
    """The profile that the instance's tags, or the site's default, give a NIC."""
    names = _find_names(nic)
    if len(names) > 1:
        listed = " and ".join(sorted(name[:32] for name in names))
        return Choice(PROTECTED, f"its tags name two profiles, {listed}")
    return find_profile(next(iter(names), default), profiles)


def find_profile(name: str, profiles: Sequence[ProfileSettings]) -> Choice:
    if name in BUILT_IN:
        return Choice(BUILT_IN[name])
    found = [each for each in profiles if each.name == name]
    if not found:
        return Choice(PROTECTED, f"there is no profile {name[:32]!r}")
    try:
        if len(found) > 1:
            raise ValueError("it is there twice")
        return Choice(parse_profile(found[0]))
    except ValueError as error:
        return Choice(PROTECTED, f"profile {name[:32]!r} is broken: {error}")


def parse_profiles(profiles: Sequence[ProfileSettings]) -> tuple[Profile, ...]:
    """All that a NIC can have: the built-in ones, and the site's as far as they can be used."""
    names = dict.fromkeys((*BUILT_IN, *(each.name for each in profiles)))
    choices = [find_profile(name, profiles) for name in names]
    return tuple(each.profile for each in choices if not each.problem)


def parse_profile(settings: ProfileSettings) -> Profile:
    """Raises ValueError, with the reason."""
    if not _NAME.fullmatch(settings.name) or settings.name in BUILT_IN:
        raise ValueError(f"the name {settings.name[:32]!r} can't be used")
    openings = tuple(_parse_allow(each) for each in settings.allow)
    return Profile(settings.name, icmp=settings.icmp, openings=openings)


def _parse_allow(allow: Allow) -> Opening:
    sources = [ipaddress.ip_network(each) for each in allow.sources]
    if any(each.prefixlen == 0 for each in sources):
        raise ValueError("a source is everyone, which is said by leaving sources out")
    if not 0 <= allow.per_second < 1 << 31:
        raise ValueError(f"per_second is {allow.per_second}")
    ipv4 = (each for each in sources if isinstance(each, IPv4Network))
    ipv6 = (each for each in sources if isinstance(each, IPv6Network))
    return Opening(
        protocol=allow.protocol,
        ports=_merge(_parse_ports(each) for each in allow.ports),
        sources4=tuple(ipaddress.collapse_addresses(ipv4)),
        sources6=tuple(ipaddress.collapse_addresses(ipv6)),
        per_second=allow.per_second,
    )


def _merge(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sorted, and joined where they touch, as nftables keeps them."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)


def _parse_ports(text: str) -> tuple[int, int]:
    found = _PORTS.fullmatch(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < first <= last < 65536:
        raise ValueError(f"{text[:32]!r} is not a port or a range of ports")
    return first, last


def _find_names(nic: Nic) -> set[str]:
    """The profiles that the most specific tags for this NIC name."""
    wanted: dict[str, set[str]] = {}
    for tag in nic.tags:
        if tag.startswith(TAG_PREFIX):
            ident, _, profile = tag.removeprefix(TAG_PREFIX).partition(":")
            wanted.setdefault(ident, set()).add(profile)
    idents = (nic.uuid, nic.name, str(nic.index))
    return next((wanted[each] for each in idents if each and each in wanted), set())
