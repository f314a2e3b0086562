"""Where an image's bytes come from, found by the scheme of its id; one file a scheme.

A third party adds a scheme by an entry point in the group `snf_image_host.sources`: its name
is the scheme, its value a callable that takes the id and the settings and gives a context
manager of a Source.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points

from snf_ganeti.errors import InputError
from snf_image_host.settings import Settings
from snf_image_host.sources.source import Source

__all__ = ["Source", "find_scheme", "open_source"]

NULL = "null"
"""The id of an image that is on the disk already: the disk is a clone of it."""

Opener = Callable[[str, Settings], contextlib.AbstractContextManager[Source]]

_GROUP = "snf_image_host.sources"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_OWN: Mapping[str, EntryPoint] = {
    scheme: EntryPoint(scheme, f"{__name__}.{where}", _GROUP)
    for scheme, where in {
        "http": "http:open_http_source",
        "https": "http:open_http_source",
        "local": "local:open_local_source",
    }.items()
}
"""Imported when one is needed: what HTTP takes costs each deployment 60 ms otherwise."""


def find_scheme(image_id: str) -> str:
    """The scheme of an image's id in lower case; `local` for a bare name."""
    match = _SCHEME.match(image_id)
    return match[1].lower() if match else "local"


@contextlib.contextmanager
def open_source(image_id: str, settings: Settings) -> Iterator[Source]:
    """The image's bytes as they are fetched. Raises InputError, NodeError."""
    scheme = find_scheme(image_id)
    found = _OWN
    if scheme not in found:
        found = {**{each.name: each for each in entry_points(group=_GROUP)}, **_OWN}
    if scheme not in found:
        raise InputError(
            f"images can't come from {scheme[:40]}:",
            hint=f"known are a bare name, {NULL} and {', '.join(sorted(found))}",
        )
    opener: Opener = found[scheme].load()
    with opener(image_id, settings) as source:
        yield source
