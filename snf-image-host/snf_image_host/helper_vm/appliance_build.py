"""Builds the helper appliance from Debian packages and from nothing of this host.

mmdebstrap unpacks the packages that the recipe names, without running their scripts; what
the helper doesn't need is left out, our own Python packages go in, and the rest becomes one
cpio archive. The same packages give the same bytes.
"""

import contextlib
import logging
import lzma
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import snf_ganeti
import snf_image_helper
from snf_ganeti import process
from snf_ganeti.errors import NodeError
from snf_ganeti.lock import lock_file
from snf_image_helper.protocol import VERSION
from snf_image_host.copying.boot_prefix import build_boot_prefix
from snf_image_host.helper_vm.appliance import (
    BOOT_PREFIX,
    CURRENT,
    FILES,
    INITRD,
    KERNEL,
    MANIFEST,
    Appliance,
    Manifest,
    make_record,
)

log = logging.getLogger(__name__)

SUITE = "bookworm"
"""The release of Debian that the helper is tested with, whatever the node runs."""
RECIPE = Path("/usr/share/snf-image-helper/appliance")
_PYTHON_PACKAGES = (snf_ganeti, snf_image_helper)
_ETC = {
    "passwd": "root:x:0:0:root:/:/usr/sbin/nologin\n",
    "group": "root:x:0:\n",
}
_MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp", "etc")
_DRAFT = ".draft-"
_DOWNLOAD_TIMEOUT = 1800.0
_MTIME = 0  # one time for every file: the bytes must not depend on when


@dataclass(frozen=True)
class Recipe:
    """What goes into the appliance: the files of the recipe's folder, parsed.

    modules: name → is it loaded by init. excludes: glob patterns from the root.
    """

    packages: tuple[str, ...]
    modules: dict[str, bool]
    excludes: tuple[str, ...]
    init: bytes


def read_recipe(folder: Path = RECIPE) -> Recipe:
    """Raises NodeError when the helper's package is not installed."""
    try:
        modules = (line.split() for line in _read_lines(folder / "modules"))
        return Recipe(
            packages=tuple(_read_lines(folder / "packages")),
            modules={name: when == "now" for when, name in modules},
            excludes=tuple(_read_lines(folder / "excludes")),
            init=(folder / "init").read_bytes(),
        )
    except FileNotFoundError as error:
        raise NodeError(
            f"the appliance's recipe {error.filename} is missing", hint="install snf-image-helper"
        ) from None


def _read_lines(path: Path) -> list[str]:
    """The lines of a recipe's file that say something."""
    lines = (line.strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def build_appliance(helper_dir: Path, recipe: Recipe, suite: str, mirror: str = "") -> Appliance:
    """Build, then make current, then remove what is neither current nor a finished build.

    mirror: as mmdebstrap takes it; empty for Debian's own. Raises NodeError.
    """
    helper_dir.mkdir(parents=True, exist_ok=True)
    with lock_file(helper_dir / ".lock", timeout=5), _make_draft(helper_dir) as draft:
        root = draft / "root"
        log.info("unpacking %d Debian packages of %s", len(recipe.packages), suite)
        process.run(
            make_unpack_argv(recipe.packages, root, suite, mirror), timeout=_DOWNLOAD_TIMEOUT
        )
        content = draft / "content"
        content.mkdir(mode=0o755)
        manifest = _make_content(root, content, recipe, suite)
        appliance = Appliance(helper_dir / manifest.name, manifest)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(appliance.folder)
        content.rename(appliance.folder)
        _make_current(helper_dir, appliance)
    return appliance


def make_unpack_argv(packages: Sequence[str], root: Path, suite: str, mirror: str) -> list[str]:
    """mmdebstrap's argv: unpack, run no maintainer script, keep the .deb files' names."""
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=extract",
        "--mode=root",
        "--format=directory",
        "--skip=cleanup/apt",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        f"--include={','.join(packages)}",
        suite,
        str(root),
        *([mirror] if mirror else []),
    ]


def parse_deb_name(name: str) -> tuple[str, str]:
    """Package and version from the name of an archive in apt's cache."""
    package, version, _ = name.split("_")
    return package, version.replace("%3a", ":")


def _make_content(root: Path, content: Path, recipe: Recipe, suite: str) -> Manifest:
    debs = sorted((root / "var/cache/apt/archives").glob("*.deb"))
    release = next((root / "usr/lib/modules").iterdir()).name
    shutil.copyfile(root / f"boot/vmlinuz-{release}", content / KERNEL)
    build_boot_prefix(content / BOOT_PREFIX, root)
    _keep_modules(root, release, recipe)
    _remove_excluded(root, recipe.excludes)
    _install_python(root)
    _write_etc(root, recipe)
    _pack(root, content / INITRD)
    manifest = Manifest(
        protocol=VERSION,
        suite=suite,
        kernel_release=release,
        packages=dict(parse_deb_name(deb.name) for deb in debs),
        files={name: make_record(content / name) for name in FILES},
    )
    (content / MANIFEST).write_text(manifest.text)
    return manifest


def _keep_modules(root: Path, release: str, recipe: Recipe) -> None:
    """Leave the recipe's modules and those they depend on, uncompressed, indexed anew."""
    _run_inside(root, "depmod", release)
    show = ("modprobe", f"--set-version={release}", "--show-depends", "--all")
    needed = _run_inside(root, *show, *recipe.modules).text
    kept = {Path(line.split()[1]).name for line in needed.splitlines() if "insmod" in line}
    for path in (root / "usr/lib/modules" / release).rglob("*.ko*"):
        if path.name not in kept:
            path.unlink()
        elif path.suffix == ".xz":
            path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
            path.unlink()
    _run_inside(root, "depmod", release)


def _run_inside(root: Path, *argv: str) -> process.Completed:
    """Run a tool of the unpacked Debian, not of this host: versions match, none is missing."""
    return process.run(["chroot", str(root), *argv], env={"PYTHONHASHSEED": "0"}, timeout=300)


def _remove_excluded(root: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _install_python(root: Path) -> None:
    """Put our packages in and compile all Python there is: emulated, compiling costs seconds."""
    target = root / "usr/lib/python3/dist-packages"
    for package in _PYTHON_PACKAGES:
        source = Path(package.__path__[0])
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target / source.name, ignore=ignore)
    for cache in list((root / "usr/lib").rglob("__pycache__")):
        shutil.rmtree(cache)
    compiler = ["python3", "-I", "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash"]
    folders = sorted((root / "usr/lib").glob("python3*"))
    _run_inside(root, *compiler, *(f"/usr/lib/{folder.name}" for folder in folders))


def _write_etc(root: Path, recipe: Recipe) -> None:
    for name in _MOUNT_POINTS:
        (root / name).mkdir(exist_ok=True)
    loaded = " ".join(name for name, now in recipe.modules.items() if now)
    for name, text in {**_ETC, "helper-modules": loaded + "\n"}.items():
        (root / "etc" / name).write_text(text)
    (root / "init").write_bytes(recipe.init)
    (root / "init").chmod(0o755)


def _pack(root: Path, archive: Path) -> None:
    """One cpio archive: names sorted, owner root, one time, inodes numbered anew."""
    names = sorted(_walk(root))
    for name in names:
        os.utime(root / name, (_MTIME, _MTIME), follow_symlinks=False)
    process.run(
        [
            "cpio",
            "--create",
            "--quiet",
            "--null",
            "--format=newc",
            "--reproducible",
            "--owner=+0:+0",
            f"--directory={root}",
            f"--file={archive}",
        ],
        stdin=b"".join(os.fsencode(name) + b"\0" for name in names),
        timeout=300,
    )


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield os.path.relpath(os.path.join(folder, name), root)


@contextlib.contextmanager
def _make_draft(helper_dir: Path) -> Iterator[Path]:
    """A folder of this build; what a killed build left is removed first: we hold the lock."""
    for left in helper_dir.glob(_DRAFT + "*"):
        shutil.rmtree(left)
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=helper_dir))
    try:
        yield draft
    finally:
        shutil.rmtree(draft)


def _make_current(helper_dir: Path, appliance: Appliance) -> None:
    """Swap the symlink; remove older builds. A VM that starts now has its files open."""
    appliance.folder.chmod(0o755)
    link = helper_dir / (_DRAFT + CURRENT)
    link.unlink(missing_ok=True)
    link.symlink_to(appliance.folder.name)
    link.rename(helper_dir / CURRENT)
    for folder in helper_dir.iterdir():
        if (folder / MANIFEST).is_file() and folder.name not in (CURRENT, appliance.folder.name):
            shutil.rmtree(folder)
