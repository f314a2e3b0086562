"""`snf-rados-image publish`: a file or what a URL gives becomes a golden image."""

import argparse
import contextlib
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ext_storage_rados.commands.options import (
    Verbs,
    add_properties,
    connect_to_change,
    make_image_parameters,
    parse_name,
)
from ext_storage_rados.images import conversion, golden
from ext_storage_rados.settings import Settings
from snf_ganeti.errors import InputError

_FETCH_SECONDS = 60.0
_WEB = ("https://", "http://")


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("publish", help="make a golden image of a file or URL")
    parser.set_defaults(run=run)
    parser.add_argument(
        "source", metavar="FILE|URL", help="a file, - for standard input, or an http(s) URL"
    )
    parser.add_argument("--name", required=True, help="of the image, such as debian12")
    parser.add_argument(
        "--format", default="raw", choices=conversion.FORMATS, help="default: %(default)s"
    )
    add_properties(parser)


def run(arguments: argparse.Namespace, site: Settings) -> int:
    image = parse_name(arguments.name, site)
    properties = golden.parse_properties(arguments.property)
    jail = conversion.find_jail(site.conversion_user, site.spool_dir, site.max_image_size << 20)
    with (
        _open_source(arguments.source) as source,
        conversion.open_raw(source, arguments.format, jail) as raw,
        connect_to_change(arguments, site, image) as cluster,
    ):
        golden.publish(cluster, image, raw, properties, make_image_parameters(site))
    print(f"{image}@{golden.SNAPSHOT}")
    return 0


@contextlib.contextmanager
def _open_source(text: str) -> Iterator[IO[bytes]]:
    """Raises InputError."""
    if text == "-":
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(_open_named(text))
        except OSError as error:
            reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
            raise InputError(f"{text} can't be read: {reason}", hint="check the name") from None


def _open_named(text: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    if text.startswith(_WEB):
        opened: IO[bytes] = urllib.request.urlopen(text, timeout=_FETCH_SECONDS)  # noqa: S310 (_WEB)
        return opened
    return Path(text).open("rb")
