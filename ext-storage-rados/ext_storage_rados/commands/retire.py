"""`snf-rados-image retire`: a golden image is no longer offered."""

import argparse

from ext_storage_rados.commands.options import Verbs, connect_to_change, parse_name
from ext_storage_rados.images import retirement
from ext_storage_rados.settings import Settings


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("retire", help="remove a golden image")
    parser.set_defaults(run=run)
    parser.add_argument("name", help="of the image")
    parser.add_argument("--deferred", action="store_true", help="keep the data that clones need")


def run(arguments: argparse.Namespace, site: Settings) -> int:
    image = parse_name(arguments.name, site)
    with connect_to_change(arguments, site, image) as cluster:
        clones = retirement.retire(cluster, image, deferred=arguments.deferred)
    if clones:
        print(f"{image} is gone from the list; {len(clones)} clones keep its data")
        print("when they are gone, snf-rados-image purge removes it")
    return 0
