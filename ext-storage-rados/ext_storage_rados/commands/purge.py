"""`snf-rados-image purge`: retired images and removed volumes that no clone needs go."""

import argparse

from ext_storage_rados import trash
from ext_storage_rados.commands.options import Verbs, connect_as
from ext_storage_rados.settings import Settings


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("purge", help="empty the trash of what no clone needs any more")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, site: Settings) -> int:
    with connect_as(arguments, site, site.publisher) as cluster:
        places = (site.image_pool, site.image_namespace), (site.pool, site.namespace)
        for place in dict.fromkeys(places):
            for image in trash.purge(cluster, *place):
                print(f"{image} is removed")
    return 0
