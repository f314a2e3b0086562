"""The same disk as an image of every form, and what a deployment makes of one."""

import hashlib
import random
import shutil
import subprocess
from pathlib import Path

from hostile.vmdk import add_footer
from snf_image_host.confinement.jail import Jail
from snf_image_host.customization import make_durable
from snf_image_host.environ import Disk
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target

JAIL = Jail(64998, 64997)
MIB = 1 << 20
SIZE = 24 * MIB
COMPRESSORS = {
    "gz": ["gzip", "--fast"],
    "xz": ["xz", "-0", "--threads=2", "--block-size=4MiB"],
    "zst": ["zstd", "--quiet", "--fast"],
    "lz4": ["lz4", "--quiet"],
}
CONTAINERS = {
    "sparse.vmdk": ("vmdk", "subformat=monolithicSparse"),
    "stream.vmdk": ("vmdk", "subformat=streamOptimized"),
    "dynamic.vhd": ("vpc", "subformat=dynamic,force_size=on"),
    "fixed.vhd": ("vpc", "subformat=fixed,force_size=on"),
    "cylinders.vhd": ("vpc", "subformat=dynamic"),
    "dynamic.vhdx": ("vhdx", "subformat=dynamic"),
    "fixed.vhdx": ("vhdx", "subformat=fixed"),
}
"""Name → QEMU's name of the format, and its options."""
PACKED = ("sparse.vmdk", "dynamic.vhd", "fixed.vhd", "dynamic.vhdx")
"""Of CONTAINERS: what is compressed, too."""
ERASED = b"\xee" * MIB
"""What is on a disk before."""


def make_images(folder: Path) -> None:
    """The images, each under the name of its form; `raw` is what all of them hold."""
    raw = folder / "raw"
    make_raw(raw)
    run("qemu-img", "convert", "-O", "qcow2", raw, folder / "qcow2")
    run("qemu-img", "convert", "-c", "-O", "qcow2", raw, folder / "packed.qcow2")
    for name, (driver, options) in CONTAINERS.items():
        run("qemu-img", "convert", "-O", driver, "-o", options, raw, folder / name)
    shutil.copy(folder / "stream.vmdk", folder / "footer.vmdk")
    add_footer(folder / "footer.vmdk")
    for name, argv in COMPRESSORS.items():
        for source in ("raw", "qcow2", *PACKED):
            with (folder / f"{source}.{name}").open("wb") as file:
                subprocess.run([*argv, "-c", folder / source], stdout=file, check=True)
    shutil.copy(folder / "qcow2", folder / "secret.qcow2")
    (folder / "secret.qcow2").chmod(0o600)


def deploy(
    folder: Path, disk: Path | str, name: str, kind: str, checksum: Checksum | None = None
) -> list[tuple[int, int]]:
    """Put an image of the folder on a disk: its path, or its URI as text. Gives the progress
    that was told: position and total, in bytes."""
    told: list[tuple[int, int]] = []
    where = Disk(0, 0, uri=disk) if isinstance(disk, str) else Disk(0, 0, path=str(disk))
    settings = Settings(image_dir=folder, spool_dir=folder, helper_dir=folder / "helper")
    with (
        open_image(ImageOrder(name, kind, checksum), settings, JAIL) as image,
        open_target(where, JAIL) as target,
    ):
        image.copy_to(target, lambda position, total: told.append((position, total)))
        make_durable([target])
    return told


def require_same(folder: Path, disk: Path) -> None:
    run("cmp", f"--bytes={SIZE}", folder / "raw", disk)


def make_checksum(path: Path) -> Checksum:
    return Checksum("sha256", hashlib.sha256(path.read_bytes()).hexdigest())


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300)
    return done.stdout


def make_raw(path: Path) -> None:
    """Data, holes and written zeros, from a few bytes to megabytes."""
    dice = random.Random(7)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for _ in range(40):
            file.seek(dice.randrange(SIZE - 2 * MIB) // 512 * 512)
            length = dice.choice((512, 4096, 70_000, MIB))
            file.write(bytes(length) if dice.random() < 0.3 else dice.randbytes(length))
