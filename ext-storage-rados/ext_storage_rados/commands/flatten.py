"""`snf-rados-image flatten`: a clone becomes independent of its image."""

import argparse

from ext_storage_rados.commands.options import Verbs, connect_as
from ext_storage_rados.images import golden
from ext_storage_rados.names import parse_image
from ext_storage_rados.settings import Settings


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("flatten", help="make a clone independent of its image")
    parser.set_defaults(run=run)
    parser.add_argument("volume", help="a volume, or [POOL[/NAMESPACE]/]IMAGE")


def run(arguments: argparse.Namespace, site: Settings) -> int:
    image = parse_image(arguments.volume, pool=site.pool, namespace=site.namespace)
    with connect_as(arguments, site, site.publisher) as cluster:
        golden.flatten(cluster, image)
    print(f"Ceph's manager flattens {image}; `ceph rbd task list` shows how far it is")
    return 0
