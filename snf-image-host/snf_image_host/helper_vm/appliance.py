"""The helper appliance on this node: kernel, root file system and manifest.

`helper_dir` holds one folder for each build, named by its content, and `current`, a symlink
that is swapped in one step:

    helper_dir/current -> 3f2a9c…/
    helper_dir/3f2a9c…/kernel            the Debian kernel's image
    helper_dir/3f2a9c…/initrd            the helper's root file system, cpio (newc)
    helper_dir/3f2a9c…/boot-prefix.img   boot loader that extdump images get
    helper_dir/3f2a9c…/manifest.json     what all this was made of
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from snf_ganeti.errors import NodeError
from snf_image_helper.protocol import VERSION

KERNEL, INITRD, BOOT_PREFIX, MANIFEST = "kernel", "initrd", "boot-prefix.img", "manifest.json"
FILES = (KERNEL, INITRD, BOOT_PREFIX)
CURRENT = "current"
BUILD_ANEW = "run: snf-image build-helper"
"""The way out of an appliance that is missing, damaged or old."""
_MANIFEST_LIMIT = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    """size: bytes; sha256: hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an appliance was made of. packages: Debian package → version."""

    protocol: int
    suite: str
    kernel_release: str
    packages: Mapping[str, str]
    files: Mapping[str, FileRecord]

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @property
    def name(self) -> str:
        """The appliance's name: the same content has the same name."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Appliance:
    """An appliance that is complete and speaks this host's protocol."""

    folder: Path
    manifest: Manifest

    @property
    def kernel(self) -> Path:
        return self.folder / KERNEL

    @property
    def initrd(self) -> Path:
        return self.folder / INITRD

    @property
    def boot_prefix(self) -> Path:
        return self.folder / BOOT_PREFIX


def read_appliance(helper_dir: Path) -> Appliance:
    """The current appliance; sizes are compared, contents are not.

    Raises NodeError: none was built, a file of it is gone, another version.
    """
    current = helper_dir / CURRENT
    try:
        folder = current.resolve(strict=True)
        with (folder / MANIFEST).open("rb") as file:
            manifest = parse_manifest(file.read(_MANIFEST_LIMIT))
        for name, record in manifest.files.items():
            if (folder / name).stat().st_size != record.size:
                raise NodeError(f"{folder / name} is not the one that was built", hint=BUILD_ANEW)
    except FileNotFoundError as error:
        missing = "no helper appliance was built" if error.filename == str(current) else (
            f"the helper appliance is incomplete: {error.filename} is missing"
        )  # fmt: skip
        raise NodeError(missing, hint=BUILD_ANEW) from None
    if manifest.protocol != VERSION:
        raise NodeError(
            f"the helper appliance speaks protocol {manifest.protocol}, this host {VERSION}",
            hint=BUILD_ANEW,
        )
    return Appliance(folder, manifest)


def verify_appliance(appliance: Appliance) -> None:
    """Compare every file with the manifest's SHA-256. Raises NodeError."""
    for name, record in appliance.manifest.files.items():
        if make_record(appliance.folder / name) != record:
            raise NodeError(
                f"{appliance.folder / name} differs from what was built", hint=BUILD_ANEW
            )


def make_record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return FileRecord(path.stat().st_size, digest.hexdigest())


def parse_manifest(text: bytes) -> Manifest:
    """Raises NodeError for what is not a manifest."""
    try:
        fields = json.loads(text)
        files = {name: FileRecord(**record) for name, record in fields.pop("files").items()}
        return Manifest(files=files, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NodeError(
            f"the appliance's {MANIFEST} is damaged: {error}", hint=BUILD_ANEW
        ) from None
