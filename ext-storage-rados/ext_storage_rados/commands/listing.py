"""`snf-rados-image list`: the golden images."""

import argparse

from ext_storage_rados.commands.options import Verbs, add_json, connect_as, print_json
from ext_storage_rados.images import golden
from ext_storage_rados.settings import Settings


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("list", help="list the golden images")
    parser.set_defaults(run=run)
    add_json(parser)


def run(arguments: argparse.Namespace, site: Settings) -> int:
    with connect_as(arguments, site, site.user) as cluster:
        found = golden.find_all(cluster, site.image_pool, site.image_namespace)
    if arguments.json:
        print_json([golden.make_document(image) for image in found])
    else:
        for image in found:
            print(f"{image.name}\t{image.size >> 20} MiB\t{len(image.clones)} clones")
    return 0
