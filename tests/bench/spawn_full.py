"""`spawn` for a server with 8 GiB of its users' data: a clone takes the time that it takes
without, a copy takes as long as there is data.

The data is random, as what users keep is compressed more often than not.
"""

from pathlib import Path

from bench.benchmark import Benchmark, Runs
from bench.rados import measure
from bench.spawn import WORK, copy, prepared, spawn
from snf_ganeti import process
from testbed import images
from testbed.volumes import IMAGES, POOL

_ROUNDS = 3
_DATA, _IMAGE, _DISK = 8, 11, 12
"""GiB."""
_FILL = """
device=$(losetup --find --show --offset="$2" "$1")
trap 'losetup --detach "$device"' EXIT
e2fsck -f -p "$device"
resize2fs "$device"
mount "$device" /mnt
head --bytes="$3" /dev/urandom >/mnt/srv/data
umount /mnt
"""
"""In a mount namespace of its own, which takes the mount along when it fails."""


def make_image(path: Path) -> None:
    """The server's image, grown, with a file of random data."""
    recipe = images.RECIPES["bench"]
    process.run(["cp", "--sparse=always", str(images.build(recipe)), str(path)], timeout=300)
    with path.open("r+b") as file:
        file.truncate(_IMAGE << 30)
    process.run(["sfdisk", "--quiet", "-N", "1", str(path)], stdin=b", +\n")
    start = images.find_root(recipe.layout).start
    fill = ["unshare", "--mount", "sh", "-ec", _FILL, "fill", str(path)]
    process.run([*fill, str(start), str(_DATA << 30)], timeout=900)


def run() -> tuple[Runs, Runs]:
    """The peer's first copy becomes the golden image, as all of them are the same."""
    ours, peer = [], []
    with prepared("full", 40 << 30) as (site, work, key):
        file, golden = f"{WORK}/full.raw", f"{IMAGES}/full"
        make_image(work / "full.raw")
        peer.append(measure(copy, site, file, golden))
        site.run("rbd", "snap", "create", "--no-progress", f"{golden}@golden")
        for number in range(_ROUNDS):
            ours.append(measure(spawn, site, f"v{number}", "full@golden", _DISK, key))
            site.remove(f"v{number}")
        peer.append(measure(copy, site, file, f"{POOL}/copy"))
    return ours, peer


BENCHMARK = Benchmark("spawn-full", "s", 0.2, "qemu-img convert to RBD", run)
