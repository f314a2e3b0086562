"""What several words of `snf-rados-image` have in common."""

import argparse
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import rados

from ext_storage_rados.ceph import predecessor
from ext_storage_rados.ceph.cluster import connect, explained
from ext_storage_rados.names import ImageName, parse_image
from ext_storage_rados.parameters import Parameters, parse_parameters
from ext_storage_rados.settings import Settings

Verbs = Any  # argparse has no public name for what add_subparsers gives


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_properties(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--property", action="append", default=[], metavar="KEY=VALUE", help="of the image"
    )


@contextlib.contextmanager
def connect_as(arguments: argparse.Namespace, site: Settings, user: str) -> Iterator[rados.Rados]:
    """The cluster as `user`, or as `--user` says. Raises SnfError."""
    with connect(site.make_access(arguments.user or user)) as cluster:
        yield cluster


@contextlib.contextmanager
def connect_to_change(
    arguments: argparse.Namespace, site: Settings, image: ImageName
) -> Iterator[rados.Rados]:
    """The cluster as the publisher, to make or remove a golden image; a run that was killed at
    the same image is fenced. Raises SnfError."""
    with (
        connect_as(arguments, site, site.publisher) as cluster,
        explained("the blocklist"),
        predecessor.replaced(cluster, str(image).replace("/", "@")),  # no volume is named so
        explained(str(image)),
    ):
        yield cluster


def parse_name(text: str, site: Settings) -> ImageName:
    """A golden image as the operator names it. Raises InputError."""
    return parse_image(text, pool=site.image_pool, namespace=site.image_namespace)


def make_image_parameters(site: Settings) -> Parameters:
    """How a golden image is made."""
    return parse_parameters({"pool": site.image_pool, "data_pool": "None"}, site)


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
