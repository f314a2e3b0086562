"""`snf-rados-image audit`: what Ganeti and Ceph know of each other."""

import argparse
from pathlib import Path

from ext_storage_rados import audit
from ext_storage_rados.commands.options import Verbs, add_json, connect_as, print_json
from ext_storage_rados.settings import Settings


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("audit", help="compare Ganeti's disks with the volumes in Ceph")
    parser.set_defaults(run=run)
    parser.add_argument("--config", type=Path, default=audit.CONFIG, help="default: %(default)s")
    add_json(parser)


def run(arguments: argparse.Namespace, site: Settings) -> int:
    """Exit status 1 when there is something to tell."""
    disks = audit.read_disks(arguments.config, site.pool, site.namespace)
    with connect_as(arguments, site, site.user) as cluster:
        findings = audit.audit(cluster, disks, site.pool, site.namespace)
    if arguments.json:
        print_json(
            {
                "lost": [
                    {"volume": str(disk.image), "instance": disk.instance} for disk in findings.lost
                ],
                "orphans": [str(image) for image in findings.orphans],
            }
        )
    else:
        for disk in findings.lost:
            print(f"{disk.image}: {disk.instance or 'a detached disk'} needs it, and it is gone")
        for image in findings.orphans:
            print(f"{image}: no disk of Ganeti is this volume")
    return 1 if findings.lost or findings.orphans else 0
