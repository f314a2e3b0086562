"""`snf-rados-image make-keys`: the keys of nodes and publishers."""

import argparse
import os
from pathlib import Path

from ext_storage_rados import keys
from ext_storage_rados.commands.options import Verbs, connect_as
from ext_storage_rados.settings import Settings
from snf_ganeti.errors import NodeError


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("make-keys", help="make the keys of nodes and publishers")
    parser.set_defaults(run=run)
    parser.add_argument(
        "--directory", type=Path, default=Path("/etc/ceph"), help="default: %(default)s"
    )


def run(arguments: argparse.Namespace, site: Settings) -> int:
    made = {
        site.user: keys.make_node_capabilities(site),
        site.publisher: keys.make_publisher_capabilities(site),
    }
    with connect_as(arguments, site, "admin") as cluster:
        for user, capabilities in made.items():
            path = arguments.directory / f"ceph.client.{user}.keyring"
            _write_secret(path, keys.grant(cluster, user, capabilities))
            print(path)
    return 0


def _write_secret(path: Path, text: str) -> None:
    """Raises NodeError."""
    draft = path.with_name(path.name + ".draft")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        raise NodeError(f"{path} can't be written: {error.strerror}") from None
