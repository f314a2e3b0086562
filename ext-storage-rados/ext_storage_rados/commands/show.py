"""`snf-rados-image show`: all about one golden image, or the properties of a volume."""

import argparse
from pathlib import Path

import rados

from ext_storage_rados import uri
from ext_storage_rados.commands.options import (
    Verbs,
    add_json,
    connect_as,
    parse_name,
    print_json,
)
from ext_storage_rados.export import folder
from ext_storage_rados.images import golden
from ext_storage_rados.names import ImageName, parse_image
from ext_storage_rados.settings import Settings
from snf_ganeti.errors import InputError


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "show", help="tell all about a golden image, or a volume's properties"
    )
    parser.set_defaults(run=run)
    parser.add_argument("name", help="[POOL[/NAMESPACE]/]IMAGE")
    parser.add_argument("--volume", action="store_true", help="NAME is a volume, its device or URI")
    add_json(parser)


def run(arguments: argparse.Namespace, site: Settings) -> int:
    find, read = (_find_volume, _read_volume) if arguments.volume else (parse_name, _read_image)
    image = find(arguments.name, site)
    with connect_as(arguments, site, site.user) as cluster:
        document = read(cluster, image)
    if arguments.json:
        print_json(document)
    else:
        for key, value in document.items():
            print(f"{key}: {_format(value)}")
    return 0


def _read_image(cluster: rados.Rados, image: ImageName) -> dict[str, object]:
    return golden.make_document(golden.read(cluster, image))


def _read_volume(cluster: rados.Rados, image: ImageName) -> dict[str, object]:
    return golden.make_volume_document(golden.read_volume(cluster, image))


def _find_volume(text: str, site: Settings) -> ImageName:
    """By its name, or as an OS script sees a disk. Raises InputError."""
    if text.startswith("rbd:"):
        return uri.parse_uri(text)
    if not text.startswith("/"):
        return parse_image(text, pool=site.pool, namespace=site.namespace)
    found = folder.find_exported(Path(text))
    if found is None:
        raise InputError(f"{text} is no volume's device on this node", hint="see losetup --list")
    return found


def _format(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={text}" for name, text in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
