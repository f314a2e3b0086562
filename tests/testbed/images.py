"""Bootable Debian disk images for tests, demo and benchmarks, cached under build/images.

    python3 -m testbed.images list
    python3 -m testbed.images build NAME… [--form raw|qcow2|gz|xz|zst|lz4]

An image's file name has a hash of its recipe and of the code that makes it, so what lies in
the cache is current. It is never changed: whoever boots one takes a copy or a snapshot.
"""

import argparse
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import CommandError, InputError, NodeError, run_main
from snf_ganeti.lock import lock_file
from testbed import disk_image, grub, partitioning, rootfs
from testbed.partitioning import DiskLayout, Partition, Volume, lay_out, make_fstab, make_uuid
from testbed.rootfs import Rootfs
from testbed.roots import BUILD

FOLDER = BUILD / "images"
_BUILD_SECONDS = 900.0
_DRAFT = ".draft-"
_BIOS = Volume("bios", 1, number=14)
_SERVER = (
    *("apt-utils", "bash-completion", "ca-certificates", "console-setup", "cron", "curl"),
    *("file", "iputils-ping", "less", "locales", "logrotate", "lsof", "man-db", "nano"),
    *("netbase", "openssl", "pciutils", "perl", "python3", "rsyslog", "sudo", "tzdata"),
    *("vim-tiny", "wget", "xz-utils"),
)


@dataclass(frozen=True)
class Recipe:
    """A Debian disk image.

    suite: bookworm or trixie. table: mbr, gpt, or none: a bare file system, no boot loader.
    network: one of rootfs.NETWORKS. fstab: one of partitioning.FSTAB_STYLES. size: MiB of
    the root. swap: MiB of a swap partition before it. logical: the root is a logical
    partition. packages: beyond those of every guest. documented: manuals are kept.
    """

    name: str
    suite: str
    table: str
    filesystem: str = "ext4"
    network: str = "ifupdown"
    fstab: str = "UUID"
    size: int = 1022
    swap: int = 0
    logical: bool = False
    packages: tuple[str, ...] = ()
    documented: bool = False

    @property
    def rootfs(self) -> Rootfs:
        return Rootfs(self.suite, self.network, self.packages, self.documented)

    @property
    def layout(self) -> DiskLayout:
        volumes = [_BIOS] if self.table == "gpt" else []
        if self.swap:
            volumes.append(Volume("swap", self.swap))
        volumes.append(Volume(self.filesystem, self.size, "/", logical=self.logical))
        return lay_out(self.name, self.table, volumes)

    @property
    def machine_id(self) -> str:
        """In the image; every guest that is made of it shall get its own."""
        return make_uuid(self.name, "machine").replace("-", "")

    @property
    def path(self) -> Path:
        """Where the image is, or will be."""
        key = hashlib.sha256(repr((self, self.rootfs.path.name)).encode())
        for module in (__file__, disk_image.__file__, grub.__file__, partitioning.__file__):
            key.update(Path(module).read_bytes())
        return FOLDER / f"{self.name}-{key.hexdigest()[:12]}.raw"


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("bookworm-mbr-ext4", "bookworm", "mbr"),
        Recipe("bookworm-gpt-netplan", "bookworm", "gpt", network="netplan", fstab="LABEL"),
        Recipe("bookworm-mbr-logical", "bookworm", "mbr", logical=True, swap=64, fstab="PARTUUID"),
        Recipe("bookworm-extdump", "bookworm", "none"),
        Recipe("trixie-gpt-ext4", "trixie", "gpt", network="networkd", fstab="PARTUUID"),
        Recipe("trixie-gpt-xfs", "trixie", "gpt", "xfs", network="networkd"),
        Recipe("trixie-gpt-btrfs", "trixie", "gpt", "btrfs", network="networkd"),
        Recipe("bookworm-agent", "bookworm", "mbr", packages=("qemu-guest-agent",)),
        Recipe("bench", "bookworm", "mbr", size=2047, packages=_SERVER, documented=True),
    )
}
"""`bench` is 2 GiB and holds what a plain server install does; the others are as small as a
Debian that boots to SSH gets."""


def find_recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise InputError(f"no image named {name}", hint=f"there are: {', '.join(RECIPES)}")
    return RECIPES[name]


def build(recipe: Recipe) -> Path:
    """The raw disk image of a recipe, sparse, made if it is not in the cache.

    Raises NodeError: not root, or a tool is missing; CommandError, LockError.
    """
    return _cache(recipe.path, lambda path: _build_raw(recipe, path))


def build_form(recipe: Recipe, form: str) -> Path:
    """The image in one of `FORMS`. Raises as `build`, and InputError."""
    if form not in FORMS:
        raise InputError(f"no form named {form}", hint=f"there are: {', '.join(FORMS)}")
    raw = build(recipe)
    if form == "raw":
        return raw
    if form == "qcow2":
        return _cache(raw.with_suffix(".qcow2"), lambda path: _convert(raw, path))
    return _cache(raw.with_name(f"{raw.name}.{form}"), lambda path: _compress(form, raw, path))


_COMPRESSORS: Mapping[str, Sequence[str]] = {
    "gz": ["gzip", "--fast"],
    "xz": ["xz", "-0", "--threads=0"],
    "zst": ["zstd", "--quiet"],
    "lz4": ["lz4", "--quiet"],
}
FORMS = ("raw", "qcow2", *_COMPRESSORS)


def _convert(raw: Path, path: Path) -> None:
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)]
    process.run(argv, timeout=_BUILD_SECONDS)


def _compress(form: str, raw: Path, path: Path) -> None:
    argv = [*_COMPRESSORS[form], "--stdout", str(raw)]
    with path.open("wb") as output, process.spawn(argv, stdout=output) as child:
        status = child.wait(_BUILD_SECONDS)
    if status:
        raise CommandError(argv, status, "")


def _cache(path: Path, make: Callable[[Path], None]) -> Path:
    """What `make` makes, under its final name only when it is whole."""
    with lock_file(FOLDER / ".lock", timeout=_BUILD_SECONDS):
        for left in FOLDER.glob(_DRAFT + "*"):
            shutil.rmtree(left)
        if not path.exists():
            with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=FOLDER) as draft:
                made = Path(draft, path.name)
                make(made)
                made.rename(path)
    return path


def _build_raw(recipe: Recipe, path: Path) -> None:
    if os.geteuid() != 0:
        raise NodeError(f"building {recipe.name} needs root", hint="run it with sudo")
    layout = recipe.layout
    with rootfs.extracted(recipe.rootfs) as tree:
        write_settings(recipe, layout, tree)
        disk_image.build(layout, tree, path)
    if recipe.table != "none":
        grub.install(path, layout, find_root(layout))


def write_settings(recipe: Recipe, layout: DiskLayout, tree: Path) -> None:
    """What tells one image from another that has the same packages."""
    (tree / "etc/fstab").write_text(make_fstab(layout, recipe.fstab))
    (tree / "etc/hostname").write_text(f"{recipe.name}\n")
    (tree / "etc/hosts").write_text(f"127.0.0.1\tlocalhost\n127.0.1.1\t{recipe.name}\n")
    (tree / "etc/machine-id").write_text(f"{recipe.machine_id}\n")
    if recipe.table != "none":
        folder = tree / "boot/grub"
        folder.mkdir(parents=True, exist_ok=True)
        settings = grub.make_settings(layout, find_root(layout), recipe.fstab)
        (folder / "grub.cfg").write_text(settings)


def find_root(layout: DiskLayout) -> Partition:
    return next(each for each in layout.partitions if each.volume.mountpoint == "/")


def main() -> int:
    arguments = _make_parser().parse_args()
    if arguments.verb == "list":
        for recipe in RECIPES.values():
            print(recipe.name, recipe.path if recipe.path.exists() else "not built")
        return 0
    for name in arguments.names:
        print(build_form(find_recipe(name), arguments.form))
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed.images", description="Debian disk images.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="name the images, and where those lie that are built")
    make = verbs.add_parser("build", help="build images and print where they lie")
    make.add_argument("names", nargs="+", metavar="NAME")
    make.add_argument("--form", choices=FORMS, default="raw")
    return parser


if __name__ == "__main__":
    run_main(main)
