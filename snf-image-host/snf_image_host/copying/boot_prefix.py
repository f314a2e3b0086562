"""The boot loader that an extdump image gets: a bare file system has none, nor a place for it.

The prefix is what lies in front of the file system: GRUB's boot.img in the first sector, its
core image in the sectors behind, zeros up to sector 2048. Who writes it to a disk fills in the
partition table. Placed by GRUB's manual, "BIOS installation": boot.img loads the core's first
sector, diskboot.img, which loads the rest by its list of blocks.

All of GRUB comes from the Debian that the appliance is made of, so the same packages give the
same bytes. The core carries settings of its own and finds its way in the image: the image's
grub.cfg, or else a kernel where distributions put it, or else a boot loader in the file
system's first sector.
"""

import io
import struct
import tarfile
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import NodeError

SECTOR = 512
SIZE = 2048 * SECTOR
"""Bytes of the prefix, and where the file system's partition begins."""
CODE_END = 0x1B8
"""Where an MBR's boot code ends and the disk's id and partition table begin."""

_FOLDER = Path("usr/lib/grub/i386-pc")
_ROOT = "(hd0,msdos1)"
_MODULES = (
    *("memdisk", "tar", "biosdisk", "part_msdos", "ext2", "gzio", "xzio"),
    *("normal", "configfile", "linux", "linux16", "chain", "ntldr", "boot"),
    *("echo", "test", "true", "sleep", "regexp", "probe", "loadenv", "minicmd"),
    *("search", "search_fs_uuid", "search_fs_file", "search_label"),
    *("serial", "terminal", "gfxterm", "all_video", "halt", "reboot"),
)
_SETTINGS = f"""\
set root={_ROOT}
for folder in /boot/grub /boot/grub2 /grub /grub2; do
    if [ -s "$folder/grub.cfg" ]; then
        set prefix={_ROOT}$folder
        configfile $folder/grub.cfg
    fi
done
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
probe --set=uuid --fs-uuid {_ROOT}
set arguments="root=UUID=$uuid ro console=tty0 console=ttyS0,115200 quiet"
for folder in / /boot/; do
    if [ -e "${{folder}}vmlinuz" -a -e "${{folder}}initrd.img" ]; then
        linux ${{folder}}vmlinuz $arguments
        initrd ${{folder}}initrd.img
        boot
    fi
done
for kernel in /boot/vmlinuz-*; do
    if regexp --set=1:release "/boot/vmlinuz-(.*)" "$kernel"; then
        for initrd in /boot/initrd.img-$release /boot/initramfs-$release.img /boot/initrd-$release
        do
            if [ -e "$initrd" ]; then
                linux $kernel $arguments
                initrd $initrd
                boot
            fi
        done
    fi
done
chainloader +1
boot
"""
_KERNEL_SECTOR = 0x5C
"""Offset in boot.img of the core's first sector, 8 bytes: GRUB_BOOT_MACHINE_KERNEL_SECTOR."""
_BLOCK_LIST = SECTOR - 12
"""Offset in diskboot.img of its first block: sector (8 bytes), length (2), segment (2)."""


def build_boot_prefix(path: Path, root: Path) -> None:
    """Write the prefix to `path`, with the GRUB in the unpacked Debian `root`.

    Raises CommandError, and NodeError when the core has no room.
    """
    (root / "settings.tar").write_bytes(make_settings_archive())
    process.run(["chroot", str(root), *make_core_argv("/settings.tar", "/core.img")], timeout=120)
    boot = (root / _FOLDER / "boot.img").read_bytes()
    path.write_bytes(make_boot_prefix(boot, (root / "core.img").read_bytes()))
    for name in ("settings.tar", "core.img"):  # the rest of the root goes into the helper
        (root / name).unlink()


def make_settings_archive() -> bytes:
    """The core's own grub.cfg, in the tar archive that it has as a disk in memory."""
    with io.BytesIO() as archive:
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            member = tarfile.TarInfo("boot/grub/grub.cfg")
            member.size = len(_SETTINGS)
            tar.addfile(member, io.BytesIO(_SETTINGS.encode()))
        return archive.getvalue()


def make_core_argv(settings: str, core: str) -> list[str]:
    """grub-mkimage's argv, with paths as it sees them."""
    return [
        "grub-mkimage",
        "--format=i386-pc",
        f"--directory=/{_FOLDER}",
        f"--memdisk={settings}",  # whose /boot/grub is then the core's prefix
        f"--output={core}",
        *_MODULES,
    ]


def make_boot_prefix(boot: bytes, core: bytes) -> bytes:
    """The prefix, its partition table empty. boot: boot.img; core: a core image for BIOS."""
    prefix = bytearray(SIZE)
    if SECTOR + len(core) > SIZE:
        raise NodeError(f"GRUB's core has {len(core)} bytes, more than an MBR has room for")
    prefix[:CODE_END] = boot[:CODE_END]
    struct.pack_into("<Q", prefix, _KERNEL_SECTOR, 1)
    prefix[SECTOR : SECTOR + len(core)] = core
    struct.pack_into("<Q", prefix, SECTOR + _BLOCK_LIST, 2)
    return bytes(prefix)
