"""Names of instances in DNS: A, AAAA and PTR records, changed by signed updates.

RFC 2136 updates, with TSIG (RFC 8945), through dnspython. What an instance had before is asked
of the server itself, so no node has to remember it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.tsig
import dns.tsigkeyring
import dns.update

from snf_ganeti.errors import InputError, NodeError, SettingsError
from snf_ganeti_hooks.settings import DnsSettings

_SECONDS = 5.0
_KEY_LIMIT = 4096
_KEY = re.compile(
    r'key\s+"?([^"\s{]+)"?\s*\{\s*algorithm\s+"?([a-z0-9-]+)"?\s*;\s*secret\s+"([^"]+)"\s*;\s*\}\s*;',
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Names:
    """What DNS shall say of an instance. addresses: none removes the name. old_name: a name
    that goes, or empty."""

    name: str
    addresses: tuple[str, ...]
    old_name: str = ""


@dataclass(frozen=True)
class Key:
    """A TSIG key; the secret is not shown."""

    name: str
    algorithm: str
    secret: str

    def __repr__(self) -> str:
        return f"Key({self.name!r}, {self.algorithm!r})"


def parse_key(text: str) -> Key:
    """A key as `tsig-keygen` writes it. Raises ValueError."""
    found = _KEY.search(text)
    if not found:
        raise ValueError("it holds no key")
    return Key(*found.groups())


def read_key(path: Path) -> Key:
    """Raises SettingsError."""
    try:
        with path.open() as file:
            return parse_key(file.read(_KEY_LIMIT))
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{path}: {error}", hint="write it with tsig-keygen") from None


def make_full_name(name: str, zone: str) -> dns.name.Name | None:
    """An instance's name in the zone; None when it is not of it, or no host name."""
    origin = dns.name.from_text(zone)
    try:
        full = dns.name.from_text(name, origin if "." not in name else dns.name.root)
    except dns.exception.DNSException:
        return None
    text = full.to_text(omit_final_dot=True)
    if not full.is_subdomain(origin) or not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", text):
        return None
    return full


def publish(names: Names, settings: DnsSettings) -> None:
    """Make DNS say what it shall. Raises NodeError (not now), InputError (never)."""
    key = read_key(settings.key_file)
    if names.old_name and names.old_name != names.name:
        replace(names.old_name, (), settings, key)
    replace(names.name, names.addresses, settings, key)


def replace(name: str, addresses: Sequence[str], settings: DnsSettings, key: Key) -> None:
    full = make_full_name(name, settings.zone)
    if full is None:
        raise InputError(f"{name} is no name of zone {settings.zone}")
    before = {address for kind in ("A", "AAAA") for address in ask(full, kind, settings)}
    forward = make_update(settings.zone, key)
    forward.delete(full, "A")
    forward.delete(full, "AAAA")
    for address in addresses:
        forward.add(full, settings.ttl, "AAAA" if ":" in address else "A", address)
    send(forward, settings)
    for zone in settings.reverse_zones:
        gone = [each for each in before - set(addresses) if is_in(each, zone)]
        here = [each for each in addresses if is_in(each, zone)]
        if gone or here:
            send(make_reverse_update(full, here, gone, zone, settings, key), settings)


def make_reverse_update(
    full: dns.name.Name,
    addresses: Sequence[str],
    gone: Sequence[str],
    zone: str,
    settings: DnsSettings,
    key: Key,
) -> dns.update.UpdateMessage:
    """A pointer that leads elsewhere by now is left to who owns it."""
    update = make_update(zone, key)
    for address in gone:
        update.delete(dns.reversename.from_address(address), "PTR", full.to_text())
    for address in addresses:
        pointer = dns.reversename.from_address(address)
        update.replace(pointer, settings.ttl, "PTR", full.to_text())
    return update


def is_in(address: str, zone: str) -> bool:
    return dns.reversename.from_address(address).is_subdomain(dns.name.from_text(zone))


def make_update(zone: str, key: Key) -> dns.update.UpdateMessage:
    """Raises SettingsError for a key that can't be used."""
    try:
        ring = dns.tsigkeyring.from_text({key.name: key.secret})
        return dns.update.UpdateMessage(
            zone, keyring=ring, keyalgorithm=dns.name.from_text(key.algorithm)
        )
    except (ValueError, dns.exception.DNSException) as error:
        raise SettingsError(f"the TSIG key can't be used: {error}") from None


def ask(name: dns.name.Name, kind: str, settings: DnsSettings) -> list[str]:
    """What the server says now. Raises NodeError."""
    query = dns.message.make_query(name, kind)
    answer = _exchange(query, settings)
    return [
        record.to_text()
        for rrset in answer.answer
        if rrset.rdtype == dns.rdatatype.from_text(kind)
        for record in rrset
    ]


def send(update: dns.update.UpdateMessage, settings: DnsSettings) -> None:
    """Raises NodeError when the server does not take it."""
    answer = _exchange(update, settings)
    if answer.rcode() != dns.rcode.NOERROR:
        word = dns.rcode.to_text(answer.rcode())
        raise NodeError(f"{settings.server} refuses an update of {update.origin}: {word}")


def _exchange(message: dns.message.Message, settings: DnsSettings) -> dns.message.Message:
    try:
        return dns.query.tcp(message, settings.server, timeout=_SECONDS, port=settings.port)
    except (OSError, dns.exception.DNSException, EOFError) as error:
        text = str(error) or type(error).__name__
        raise NodeError(f"name server {settings.server} can't be asked: {text}") from None
