"""`snf-rados-image snapshot`: a golden image of what is on an instance's volume."""

import argparse
import contextlib
import logging
from collections.abc import Iterator

from ext_storage_rados.commands.options import (
    Verbs,
    add_properties,
    connect_to_change,
    make_image_parameters,
    parse_name,
)
from ext_storage_rados.images import golden, guest_agent
from ext_storage_rados.names import ImageName, parse_image
from ext_storage_rados.settings import Settings

log = logging.getLogger(__name__)


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("snapshot", help="make a golden image of an instance's volume")
    parser.set_defaults(run=run)
    parser.add_argument("volume", help="as Ganeti names it: UUID.ext.diskN")
    parser.add_argument("--name", required=True, help="of the image, such as my-ubuntu")
    add_properties(parser)


def run(arguments: argparse.Namespace, site: Settings) -> int:
    image = parse_name(arguments.name, site)
    properties = golden.parse_properties(arguments.property)
    source = parse_image(arguments.volume, pool=site.pool, namespace=site.namespace)
    with connect_to_change(arguments, site, image) as cluster, _quiet(source):
        depth = golden.snapshot(cluster, source, image, properties, make_image_parameters(site))
        if depth >= site.flatten_depth:
            golden.flatten(cluster, image)
            log.info("%s is %d clones deep; Ceph's manager makes it whole", image, depth)
    print(f"{image}@{golden.SNAPSHOT}")
    return 0


@contextlib.contextmanager
def _quiet(volume: ImageName) -> Iterator[None]:
    """Freeze the file systems of the guest that runs here with this volume, if its agent can."""
    instance = guest_agent.find_instance(volume.name)
    path = guest_agent.CONTROL / f"{instance}.qga"
    if not instance or not path.exists():
        why = f"{instance} has no guest agent" if instance else "no instance runs with it here"
        log.info("%s is as a power cut would leave it: %s", volume, why)
        yield
        return
    with guest_agent.frozen(path):
        yield
