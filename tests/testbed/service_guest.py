"""A guest whose init is systemd, with the project's services installed and Ganeti, which has
the users and groups that their units name. Its network is QEMU's own."""

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from snf_ganeti import process
from testbed import disk_image, grub, images, rootfs
from testbed.guest_vm import GuestVm, booted
from testbed.images import Recipe

MEMORY = 1024
_SIZE = 1790
_UNIT = re.compile(
    r"^.* \./(?:usr/)?lib/systemd/system/(\S+\.(?:service|socket|timer|path))$", re.M
)
_LIBRARY = "snf-ganeti-common"
_INSTALL_SECONDS = 300.0
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def list_units(debs: Sequence[Path]) -> dict[str, Path]:
    """Unit → the package that ships it."""
    return {unit: deb for deb in debs for unit in _UNIT.findall(_ask_dpkg("--contents", deb))}


@contextlib.contextmanager
def booted_services(suite: str, debs: Sequence[Path]) -> Iterator[GuestVm]:
    """A guest of a release, booting, with those of `debs` installed that ship a unit."""
    used = {*list_units(debs).values(), *(deb for deb in debs if deb.name.startswith(_LIBRARY))}
    recipe = make_recipe(suite, sorted(used))
    with tempfile.TemporaryDirectory(prefix="services-") as folder:
        image = Path(folder, "services.raw")
        _build(recipe, sorted(used), image)
        with booted(image, memory=MEMORY) as vm:
            yield vm


def make_recipe(suite: str, debs: Sequence[Path]) -> Recipe:
    """An image that has all that the packages depend on, and not yet the packages."""
    fields = ",".join(_ask_dpkg("--field", deb, "Depends") for deb in debs)
    names = {item.split()[0] for item in fields.split(",")}
    packages = sorted(name for name in names if not name.startswith(_LIBRARY) and ":" not in name)
    return Recipe(
        f"services-{suite}", suite, "mbr", network="networkd", size=_SIZE,
        packages=("ganeti", *packages),
    )  # fmt: skip


def _build(recipe: Recipe, debs: Sequence[Path], path: Path) -> None:
    layout = recipe.layout
    with rootfs.extracted(recipe.rootfs) as tree:
        _install(tree, debs)
        _give_time(tree)
        images.write_settings(recipe, layout, tree)
        disk_image.build(layout, tree, path)
    grub.install(path, layout, images.find_root(layout))


def _install(tree: Path, debs: Sequence[Path]) -> None:
    """As on a site's node, but that nothing is started: no systemd runs in the tree."""
    folder = tree / "var/cache/built"
    folder.mkdir()
    for deb in debs:
        shutil.copyfile(deb, folder / deb.name)
    paths = [f"/var/cache/built/{deb.name}" for deb in debs]
    argv = ["chroot", str(tree), "dpkg", "--install", *paths]
    process.run(argv, env=_QUIET, timeout=_INSTALL_SECONDS)
    shutil.rmtree(folder)


def _give_time(tree: Path) -> None:
    """Have systemd wait longer for a start than on a site: emulated, among others that compute, the
    console proxy took longer than the 90 s that are the default."""
    folder = tree / "etc/systemd/system.conf.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "emulated.conf").write_text("[Manager]\nDefaultTimeoutStartSec=10min\n")


def _ask_dpkg(verb: str, deb: Path, *more: str) -> str:
    return subprocess.check_output(["dpkg-deb", verb, deb, *more], text=True)
