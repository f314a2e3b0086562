"""A remote image by way of this node's cache: fetched once, read from there afterwards.

Only an image with a checksum is kept: of another nobody can say that what lies at its address
is still the same.
"""

import contextlib
import logging
from collections.abc import Iterator

from snf_image_host.copying.image_cache import Draft, ImageCache
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.settings import Settings
from snf_image_host.sources import find_scheme, open_source
from snf_image_host.sources.local import LocalSource
from snf_image_host.sources.source import Source

log = logging.getLogger(__name__)

_PATIENCE = 900.0
"""Seconds to wait for another deployment that fetches the same image."""

Unchecked = tuple[Source, Checksum | None]
"""An image's bytes, and the checksum that they still have to be compared with."""


@contextlib.contextmanager
def open_cached_source(
    image_id: str, checksum: Checksum | None, settings: Settings
) -> Iterator[Unchecked]:
    """The image from this node's cache, if it is there, or else from where it is kept, the cache
    being filled on the way. Raises as `open_source`."""
    with contextlib.ExitStack() as stack:
        found: int | Draft | None = None
        if checksum is not None and settings.cache_size and find_scheme(image_id) != "local":
            cache = ImageCache(settings.cache_dir, settings.cache_size << 20)
            found = stack.enter_context(cache.open(checksum, _PATIENCE))
        if isinstance(found, int) and checksum is not None:
            name = f"{checksum.algorithm}:{checksum.digest[:12]}…"
            log.info("this node has the image %s already", name)
            yield LocalSource(f"image {name}", found), None
            return
        source = stack.enter_context(open_source(image_id, settings))
        if isinstance(found, Draft) and source.descriptor is None:
            source = FillingSource(source, found)
        yield source, checksum


class FillingSource:
    """A source whose bytes are kept as they come."""

    descriptor = None

    def __init__(self, source: Source, draft: Draft) -> None:
        self.name = source.name
        self._source = source
        self._draft = draft
        if source.size is not None:
            draft.reserve(source.size)

    @property
    def size(self) -> int | None:
        return self._source.size

    def read_into(self, buffer: memoryview) -> int:
        count = self._source.read_into(buffer)
        if count:
            self._draft.write(buffer[:count])
        else:
            self._draft.finish()
        return count
