"""The command `snf-rados-image`: golden images, and what Ganeti and Ceph know of each other."""

import argparse
import contextlib
import json
import logging
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import rados

from ext_storage_rados import audit, deadline, keys, settings, uri
from ext_storage_rados.ceph.cluster import connect
from ext_storage_rados.export import folder
from ext_storage_rados.images import conversion, golden, guest_agent, retirement
from ext_storage_rados.names import ImageName, parse_image
from ext_storage_rados.parameters import Parameters, parse_parameters
from ext_storage_rados.settings import Settings
from snf_ganeti.errors import DeadlineError, InputError, NodeError
from snf_ganeti.log import configure

log = logging.getLogger(__name__)

PROGRAM = "snf-rados-image"

_WHOLE_SECONDS = 24 * 3600.0
_FETCH_SECONDS = 60.0
_WEB = ("https://", "http://")

Verbs = Any  # argparse has no public name for what add_subparsers gives


def main() -> int:
    arguments = make_parser().parse_args()
    configure(PROGRAM, debug=arguments.debug)
    with deadline.limited(PROGRAM, _WHOLE_SECONDS, _say):
        status: int = arguments.run(arguments, settings.read())
    return status


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Golden images on RADOS, and an audit of the volumes."
    )
    parser.add_argument("--debug", action="store_true", help="tell every step, on standard error")
    parser.add_argument("--user", default="", metavar="ID", help="cephx id, without client.")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_publish, _add_list, _add_show, _add_snapshot, _add_retire, _add_purge,
                _add_flatten, _add_audit, _add_make_keys):  # fmt: skip
        add(verbs)
    return parser


def _add_publish(verbs: Verbs) -> None:
    parser = verbs.add_parser("publish", help="make a golden image of a file or URL")
    parser.set_defaults(run=publish)
    add = parser.add_argument
    add("source", metavar="FILE|URL", help="a file, - for standard input, or an http(s) URL")
    add("--name", required=True, help="of the image, such as debian12")
    add("--format", default="raw", choices=conversion.FORMATS, help="default: %(default)s")
    _add_properties(parser)


def _add_list(verbs: Verbs) -> None:
    parser = verbs.add_parser("list", help="list the golden images")
    parser.set_defaults(run=list_images)
    _add_json(parser)


def _add_show(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "show", help="tell all about a golden image, or a volume's properties"
    )
    parser.set_defaults(run=show)
    parser.add_argument("name", help="[POOL[/NAMESPACE]/]IMAGE")
    parser.add_argument("--volume", action="store_true", help="NAME is a volume, its device or URI")
    _add_json(parser)


def _add_snapshot(verbs: Verbs) -> None:
    parser = verbs.add_parser("snapshot", help="make a golden image of an instance's volume")
    parser.set_defaults(run=snapshot)
    parser.add_argument("volume", help="as Ganeti names it: UUID.ext.diskN")
    parser.add_argument("--name", required=True, help="of the image, such as my-ubuntu")
    _add_properties(parser)


def _add_retire(verbs: Verbs) -> None:
    parser = verbs.add_parser("retire", help="remove a golden image")
    parser.set_defaults(run=retire)
    parser.add_argument("name", help="of the image")
    parser.add_argument("--deferred", action="store_true", help="keep the data that clones need")


def _add_purge(verbs: Verbs) -> None:
    parser = verbs.add_parser("purge", help="remove retired images that no clone needs any more")
    parser.set_defaults(run=purge)


def _add_flatten(verbs: Verbs) -> None:
    parser = verbs.add_parser("flatten", help="make a clone independent of its image")
    parser.set_defaults(run=flatten)
    parser.add_argument("volume", help="a volume, or [POOL[/NAMESPACE]/]IMAGE")


def _add_audit(verbs: Verbs) -> None:
    parser = verbs.add_parser("audit", help="compare Ganeti's disks with the volumes in Ceph")
    parser.set_defaults(run=run_audit)
    parser.add_argument("--config", type=Path, default=audit.CONFIG, help="default: %(default)s")
    _add_json(parser)


def _add_make_keys(verbs: Verbs) -> None:
    parser = verbs.add_parser("make-keys", help="make the keys of nodes and publishers")
    parser.set_defaults(run=make_keys)
    add = parser.add_argument
    add("--directory", type=Path, default=Path("/etc/ceph"), help="default: %(default)s")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _add_properties(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--property", action="append", default=[], metavar="KEY=VALUE", help="of the image"
    )


def publish(arguments: argparse.Namespace, site: Settings) -> int:
    image, properties = _name(arguments.name, site), golden.parse_properties(arguments.property)
    jail = conversion.find_jail(site.conversion_user, site.spool_dir, site.max_image_size << 20)
    with (
        _open_source(arguments.source) as source,
        conversion.open_raw(source, arguments.format, jail) as raw,
        _connect(arguments, site, site.publisher) as cluster,
    ):
        golden.publish(cluster, image, raw, properties, _make_parameters(site))
    print(f"{image}@{golden.SNAPSHOT}")
    return 0


def list_images(arguments: argparse.Namespace, site: Settings) -> int:
    with _connect(arguments, site, site.user) as cluster:
        found = golden.find_all(cluster, site.image_pool, site.image_namespace)
    if arguments.json:
        _print_json([golden.make_document(image) for image in found])
    else:
        for image in found:
            print(f"{image.name}\t{image.size >> 20} MiB\t{len(image.clones)} clones")
    return 0


def show(arguments: argparse.Namespace, site: Settings) -> int:
    find = _find_volume if arguments.volume else _name
    image = find(arguments.name, site)
    with _connect(arguments, site, site.user) as cluster:
        document: dict[str, Any] = (
            golden.make_volume_document(golden.read_volume(cluster, image))
            if arguments.volume
            else golden.make_document(golden.read(cluster, image))
        )
    if arguments.json:
        _print_json(document)
    else:
        for key, value in document.items():
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            if isinstance(value, dict):
                shown = " ".join(f"{name}={text}" for name, text in value.items())
            print(f"{key}: {shown}")
    return 0


def snapshot(arguments: argparse.Namespace, site: Settings) -> int:
    image, properties = _name(arguments.name, site), golden.parse_properties(arguments.property)
    source = parse_image(arguments.volume, pool=site.pool, namespace=site.namespace)
    with _connect(arguments, site, site.publisher) as cluster, _quiet(source):
        depth = golden.snapshot(cluster, source, image, properties, _make_parameters(site))
        if depth >= site.flatten_depth:
            golden.flatten(cluster, image)
            log.info("%s is %d clones deep; Ceph's manager makes it whole", image, depth)
    print(f"{image}@{golden.SNAPSHOT}")
    return 0


def retire(arguments: argparse.Namespace, site: Settings) -> int:
    image = _name(arguments.name, site)
    with _connect(arguments, site, site.publisher) as cluster:
        clones = retirement.retire(cluster, image, deferred=arguments.deferred)
    if clones:
        print(f"{image} is gone from the list; {len(clones)} clones keep its data")
        print("when they are gone, snf-rados-image purge removes it")
    return 0


def purge(arguments: argparse.Namespace, site: Settings) -> int:
    with _connect(arguments, site, site.publisher) as cluster:
        for image in retirement.purge(cluster, site.image_pool, site.image_namespace):
            print(f"{image} is removed")
    return 0


def flatten(arguments: argparse.Namespace, site: Settings) -> int:
    image = parse_image(arguments.volume, pool=site.pool, namespace=site.namespace)
    with _connect(arguments, site, site.publisher) as cluster:
        golden.flatten(cluster, image)
    print(f"Ceph's manager flattens {image}; `ceph rbd task list` shows how far it is")
    return 0


def run_audit(arguments: argparse.Namespace, site: Settings) -> int:
    """Exit status 1 when there is something to tell."""
    disks = audit.read_disks(arguments.config, site.pool, site.namespace)
    with _connect(arguments, site, site.user) as cluster:
        findings = audit.audit(cluster, disks, site.pool, site.namespace)
    if arguments.json:
        _print_json(
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


def make_keys(arguments: argparse.Namespace, site: Settings) -> int:
    made = {
        site.user: keys.make_node_capabilities(site),
        site.publisher: keys.make_publisher_capabilities(site),
    }
    with _connect(arguments, site, "admin") as cluster:
        for user, capabilities in made.items():
            path = arguments.directory / f"ceph.client.{user}.keyring"
            _write_secret(path, keys.grant(cluster, user, capabilities))
            print(path)
    return 0


@contextlib.contextmanager
def _connect(arguments: argparse.Namespace, site: Settings, user: str) -> Iterator[rados.Rados]:
    with connect(site.make_access(arguments.user or user)) as cluster:
        yield cluster


def _name(text: str, site: Settings) -> ImageName:
    return parse_image(text, pool=site.image_pool, namespace=site.image_namespace)


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


def _make_parameters(site: Settings) -> Parameters:
    return parse_parameters({"pool": site.image_pool, "data_pool": "None"}, site)


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
        opened: IO[bytes] = urllib.request.urlopen(text, timeout=_FETCH_SECONDS)  # noqa: S310
        return opened
    return Path(text).open("rb")


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


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _say(error: DeadlineError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_status
