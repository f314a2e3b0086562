"""A whole deployment, against virt-resize and virt-customize doing the same; all emulated."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.benchmark import Benchmark, Runs
from snf_ganeti import process
from snf_ganeti.errors import NodeError
from testbed import images, snf_image
from testbed.bed import open_bed
from testbed.deployed import Personality, make_key, make_personality
from testbed.roots import BUILD
from testbed.snf_image import Node

SIZE = 5 << 30
RUNS = 3
"""Ours. The peers' take minutes, so they do one."""
_PASSWORD = "correct horse"
_FILE = b"Welcome\n"
_EMULATED = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}


@contextlib.contextmanager
def prepared() -> Iterator[tuple[Node, Path]]:
    """A node whose images have `bench.raw`, and a key pair; on a bed of its own."""
    debs = sorted((BUILD / "deb").glob("*.deb"))
    with (
        open_bed(f"bench-{os.getpid()}", debs=debs) as bed,
        tempfile.TemporaryDirectory(prefix="bench-", dir=BUILD) as work,
        snf_image.powered_node(bed, Path(work)) as node,
    ):
        shutil.copyfile(images.build(images.RECIPES["bench"]), node.work / "images/bench.raw")
        yield node, make_key(node.work / "key")


def make_disk(node: Node) -> Path:
    disk = node.work / "disk"
    disk.unlink(missing_ok=True)
    disk.touch()
    os.truncate(disk, SIZE)
    return disk


def make_options(key: Path) -> list[str]:
    """All that is asked of a deployment, for `snf-image deploy`."""
    return [
        "--hostname=web.example.org",
        f"--param=img_passwd={_PASSWORD}",
        f"--param=auth_keys={key.with_suffix('.pub').read_text().strip()}",
        f"--param=img_personality={make_personality((Personality('/etc/motd', _FILE),))}",
    ]


def deploy(node: Node, key: Path) -> float:
    """Seconds."""
    disk, begun = make_disk(node), time.monotonic()
    outcome = node.deploy("bench", disk, *make_options(key), timeout=600)
    if outcome.status:
        raise NodeError(outcome.last_line)
    return time.monotonic() - begun


def deploy_by_peers(node: Node, key: Path) -> float:
    """Seconds."""
    motd = node.work / "motd"
    motd.write_bytes(_FILE)
    disk, image, begun = make_disk(node), node.work / "images/bench.raw", time.monotonic()
    formats = ("--format", "raw", "--output-format", "raw")
    resize = ["virt-resize", "--quiet", "--expand", "/dev/sda1", *formats, str(image), str(disk)]
    process.run(resize, env=_EMULATED, timeout=1800)
    customize = [
        *("virt-customize", "--quiet", "--no-network", "--format", "raw", "-a", str(disk)),
        *("--hostname", "web.example.org"),
        *("--root-password", f"password:{_PASSWORD}"),
        *("--ssh-inject", f"root:file:{key.with_suffix('.pub')}"),
        *("--upload", f"{motd}:/etc/motd"),
    ]
    process.run(customize, env=_EMULATED, timeout=1800)
    return time.monotonic() - begun


def measure() -> tuple[Runs, Runs]:
    with prepared() as (node, key):
        ours = [deploy(node, key)]
        peer = [deploy_by_peers(node, key)]
        ours += [deploy(node, key) for _ in range(RUNS - 1)]
    return ours, peer


BENCHMARK = Benchmark(
    name="deploy",
    unit="s",
    goal=0.04,
    peer_name="virt-resize and virt-customize",
    measure=measure,
)
