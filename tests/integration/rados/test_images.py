"""Golden images on a real Ceph, published by a key that may. Needs root.

What an image holds is told by Ceph's own `rbd export`, and by Ganeti's instances.
"""

import hashlib
import json
import lzma
import os
import random
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snf_ganeti.errors import CommandError
from testbed.ceph import Ceph
from testbed.deadline import wait_for
from testbed.machine import Machine
from testbed.volumes import (
    IMAGES,
    MEBIBYTE,
    POOL,
    list_trash,
    list_volumes,
    list_watchers,
    run_script,
    setting,
    show_volume,
)

CONTENT = random.Random(3).randbytes(3 * MEBIBYTE) + bytes(5 * MEBIBYTE)
"""An image of 8 MiB, with a hole."""


@pytest.fixture(scope="module")
def files(node: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The image in several forms, below /var/tmp of the node."""
    folder = tmp_path_factory.mktemp("files")
    raw = folder / "image.raw"
    raw.write_bytes(CONTENT)
    (folder / "image.raw.xz").write_bytes(lzma.compress(CONTENT, preset=0))
    for kind in ("qcow2", "vmdk"):
        convert(raw, folder / f"image.{kind}", kind)
    overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw"]
    subprocess.run([*overlay, folder / "overlay.qcow2", "8M"], check=True)
    (folder / "broken.qcow2").write_bytes((folder / "image.qcow2").read_bytes()[:100_000])
    (folder / "empty").touch()
    for path in folder.iterdir():
        node.write(f"/var/tmp/{path.name}", path.read_bytes())


def convert(raw: Path, path: Path, kind: str) -> None:
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, raw, path], check=True)


@pytest.fixture
def name(ceph: Ceph, node: Machine) -> Iterator[str]:
    """The name of an image that is to be made; it is gone after the test."""
    given = f"image-{uuid.uuid4().hex[:8]}"
    yield given
    if given in list_volumes(ceph, IMAGES):
        node.run("snf-rados-image", "retire", "--deferred", given)


def publish(node: Machine, file: str, name: str, *options: str) -> str:
    path = f"/var/tmp/{file}"
    return node.run("snf-rados-image", "publish", path, "--name", name, *options).text.strip()


def show(node: Machine, name: str, *options: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(
        node.run("snf-rados-image", "show", "--json", *options, name).text
    )
    return shown


def hash_image(ceph: Ceph, spec: str) -> str:
    script = f"rbd export --no-progress {spec} - | sha256sum"
    return ceph.run("sh", "-c", script, timeout=300).split()[0]


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("image.raw", "raw"),
        ("image.raw.xz", "raw"),
        ("image.qcow2", "qcow2"),
        ("image.vmdk", "vmdk"),
    ],
)
def test_published_as_it_is(
    ceph: Ceph, node: Machine, files: None, name: str, file: str, kind: str
) -> None:
    options = ("--format", kind, "--property", "osfamily=linux", "--property", "USERS=root debian")
    assert publish(node, file, name, *options) == f"{IMAGES}/{name}@golden"
    assert hash_image(ceph, f"{IMAGES}/{name}@golden") == hashlib.sha256(CONTENT).hexdigest()
    used = json.loads(ceph.run("rbd", "du", f"{IMAGES}/{name}@golden", "--format=json"))
    assert used["images"][0]["used_size"] <= 4 * MEBIBYTE  # the hole takes no room
    shown = show(node, name)
    assert shown["properties"] == {"OSFAMILY": "linux", "USERS": "root debian"}
    assert (shown["size"], shown["clones"]) == (8 * MEBIBYTE, [])
    listed = json.loads(node.run("snf-rados-image", "list", "--json").text)
    assert f"{IMAGES}/{name}" in [each["name"] for each in listed]
    with pytest.raises(CommandError, match=f"{IMAGES}/{name} exists already"):
        publish(node, "image.raw", name)


@pytest.mark.parametrize(
    ("file", "kind", "reason"),
    [
        ("overlay.qcow2", "qcow2", "needs another file beside it"),
        ("broken.qcow2", "qcow2", "the image can't be|is cut off"),
        ("image.raw", "qcow2", "the image can't be .*not in qcow2 format"),
        ("empty", "raw", "the image is empty"),
        ("nothing", "raw", "/var/tmp/nothing can't be read: No such file"),
    ],
)
def test_what_is_not_published(
    ceph: Ceph, node: Machine, files: None, name: str, file: str, kind: str, reason: str
) -> None:
    before = list_volumes(ceph, IMAGES), list_trash(ceph, IMAGES)
    with pytest.raises(CommandError, match=reason) as caught:
        publish(node, file, name, "--format", kind)
    assert caught.value.status == 2
    assert (list_volumes(ceph, IMAGES), list_trash(ceph, IMAGES)) == before


def test_publication_that_is_killed_leaves_no_image(
    ceph: Ceph, node: Machine, files: None, name: str
) -> None:
    """At several moments; what remains is nobody's origin, and does not stand in the way."""
    for hundredths in range(10, 100, 3):
        argv = ("timeout", "--signal=KILL", f"{hundredths / 100}", "snf-rados-image", "publish")
        node.run(*argv, "/var/tmp/image.raw", "--name", name, ok=(0, -9))
        listed = json.loads(node.run("snf-rados-image", "list", "--json").text)
        if f"{IMAGES}/{name}" in [each["name"] for each in listed]:
            break
    else:
        publish(node, "image.raw", name)
    assert hash_image(ceph, f"{IMAGES}/{name}@golden") == hashlib.sha256(CONTENT).hexdigest()


def test_publication_does_not_wait_for_a_killed_one(
    ceph: Ceph, node: Machine, files: None, name: str
) -> None:
    """Ceph believes in it for 30 s more, unless it is fenced."""
    node.run("dd", "if=/dev/urandom", "of=/var/tmp/large", "bs=1M", "count=256")
    argv = ("snf-rados-image", "publish", "/var/tmp/large", "--name", name)
    with node.spawn(*argv, output=Path(os.devnull)):
        wait_for("the image", lambda: name in list_volumes(ceph, IMAGES), 60)
        wait_for("its writer", lambda: list_watchers(ceph, name, IMAGES), 60)
        node.run("pkill", "--signal=KILL", "--full", f"snf-rados-image publish .* {name}$")
    assert list_watchers(ceph, name, IMAGES)
    began = time.monotonic()
    publish(node, "image.raw", name)
    assert time.monotonic() - began < 15
    assert hash_image(ceph, f"{IMAGES}/{name}@golden") == hashlib.sha256(CONTENT).hexdigest()
    node.run("rm", "/var/tmp/large")


def test_nodes_key_publishes_nothing(ceph: Ceph, node: Machine, files: None, name: str) -> None:
    with pytest.raises(CommandError, match="is refused by Ceph"):
        node.run(
            *("snf-rados-image", "--user", "ganeti", "publish", "/var/tmp/image.raw"),
            *("--name", name),
        )
    assert name not in list_volumes(ceph, IMAGES)


def test_an_instances_volume_becomes_an_image(
    ceph: Ceph, node: Machine, files: None, name: str
) -> None:
    """While it is written; clones of it inherit properties, and outlive the image."""
    source, first = f"{name}-source", f"{uuid.uuid4()}.ext.disk0"
    second = f"{uuid.uuid4()}.ext.disk0"
    publish(node, "image.raw", source, "--property", "OSFAMILY=linux")
    run_script(node, "create", first, size=16, origin=f"{source}@golden")
    device = run_script(node, "attach", first).text.strip()
    run_script(node, "open", first)
    written = random.Random(4).randbytes(MEBIBYTE)
    node.run("dd", f"of={device}", "bs=1M", "oflag=direct", "conv=notrunc,fsync", stdin=written)

    assert show(node, device, "--volume")["name"] == f"{POOL}/{first}"
    node.run("snf-rados-image", "snapshot", first, "--name", name, "--property", "OWNER=me")
    node.run("dd", "if=/dev/zero", f"of={device}", "bs=1M", "count=1", "oflag=direct")
    expected = hashlib.sha256(written + CONTENT[MEBIBYTE:] + bytes(8 * MEBIBYTE)).hexdigest()
    assert hash_image(ceph, f"{IMAGES}/{name}@golden") == expected

    run_script(node, "detach", first)
    run_script(node, "remove", first)
    run_script(node, "create", second, size=16, origin=f"{name}@golden")
    assert hash_image(ceph, f"{POOL}/{second}") == expected
    assert show(node, second, "--volume")["properties"] == {"OSFAMILY": "linux", "OWNER": "me"}

    with pytest.raises(CommandError, match=f"{IMAGES}/{name} has 1 clones: {POOL}/{second}"):
        node.run("snf-rados-image", "retire", name)
    node.run("snf-rados-image", "retire", "--deferred", name)
    assert name not in list_volumes(ceph, IMAGES)
    assert hash_image(ceph, f"{POOL}/{second}") == expected
    node.run("snf-rados-image", "flatten", second)
    wait_for("the flattening", lambda: "parent" not in show_volume(ceph, second), 120)
    assert hash_image(ceph, f"{POOL}/{second}") == expected
    run_script(node, "remove", second)
    node.run("snf-rados-image", "retire", source)
    assert source not in list_volumes(ceph, IMAGES)


def test_retired_image_ends_after_its_last_clone(
    ceph: Ceph, node: Machine, files: None, name: str, volume: str
) -> None:
    """A node removes the clone and may not remove the image; a publisher's purge does, and
    leaves alone what others put into the trash."""
    publish(node, "image.raw", name)
    run_script(node, "create", volume, size=16, origin=f"{name}@golden")
    node.run("snf-rados-image", "retire", "--deferred", name)
    assert name not in node.run("snf-rados-image", "purge").text
    assert hash_image(ceph, f"{POOL}/{volume}")
    run_script(node, "remove", volume)

    ceph.run("rbd", "create", "--size=8M", f"{IMAGES}/kept")
    ceph.run("rbd", "trash", "mv", f"{IMAGES}/kept")
    assert {name, "kept"} <= list_trash(ceph, IMAGES)
    assert f"{IMAGES}/{name} is removed\n" in node.run("snf-rados-image", "purge").text
    assert name not in list_trash(ceph, IMAGES)
    assert "kept" in list_trash(ceph, IMAGES)
    ceph.run("rbd", "trash", "purge", "--no-progress", IMAGES)


def test_clones_of_clones_have_an_end(ceph: Ceph, node: Machine, name: str, volume: str) -> None:
    """An origin too deep for Linux's own client is refused, until it is made whole."""
    last = f"{IMAGES}/{name}-0"
    ceph.run("rbd", "create", "--size=8M", last)
    chain = [last]
    for number in range(1, 16):
        ceph.run("rbd", "snap", "create", "--no-progress", f"{last}@golden")
        last = f"{IMAGES}/{name}-{number}"
        clone = ("rbd", "clone", "--rbd-default-clone-format=2", f"{chain[-1]}@golden", last)
        ceph.run(*clone)
        chain.append(last)
    ceph.run("rbd", "snap", "create", "--no-progress", f"{last}@golden")
    origin = f"{name}-15@golden"
    refused = run_script(node, "create", volume, (2,), size=16, origin=origin)
    assert f"the origin {last}@golden is the end of 15 clones of clones" in refused.stderr
    assert volume not in list_volumes(ceph)
    node.run("snf-rados-image", "flatten", last)
    shown = f"{name}-15"
    wait_for("the flattening", lambda: "parent" not in show_volume(ceph, shown, IMAGES), 120)
    run_script(node, "create", volume, size=16, origin=origin)
    run_script(node, "remove", volume)
    for image in reversed(chain):
        ceph.run("rbd", "snap", "purge", "--no-progress", image)
        ceph.run("rbd", "rm", "--no-progress", image)


def test_image_of_a_deep_volume_is_made_whole(
    ceph: Ceph, node: Machine, files: None, name: str, volume: str
) -> None:
    source = f"{name}-source"
    publish(node, "image.raw", source)
    run_script(node, "create", volume, size=16, origin=f"{source}@golden")
    with setting(node, "flatten_depth = 2"):
        node.run("snf-rados-image", "snapshot", volume, "--name", name)
    wait_for("the flattening", lambda: "parent" not in show_volume(ceph, name, IMAGES), 120)
    expected = hashlib.sha256(CONTENT + bytes(8 * MEBIBYTE)).hexdigest()
    assert hash_image(ceph, f"{IMAGES}/{name}@golden") == expected
    node.run("snf-rados-image", "retire", name)
    run_script(node, "remove", volume)
    node.run("snf-rados-image", "retire", source)
