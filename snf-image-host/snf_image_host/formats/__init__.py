"""What an image's bytes are; one file a format, and a row of the table."""

from collections.abc import Mapping

from snf_ganeti.errors import InputError
from snf_image_host.copying.content import Content
from snf_image_host.formats.container import make_opener as open_container
from snf_image_host.formats.diskdump import Diskdump
from snf_image_host.formats.format import Format, OpenFormat, Room, Workshop
from snf_image_host.formats.partitioned import EXT, NTFS, make_opener
from snf_image_host.formats.qcow2 import read_qcow2
from snf_image_host.formats.vhd import read_vhd
from snf_image_host.formats.vhdx import read_vhdx
from snf_image_host.formats.vmdk import read_vmdk

__all__ = ["FORMATS", "Format", "Room", "Workshop", "open_format"]

FORMATS: Mapping[str, OpenFormat] = {
    "diskdump": Diskdump,
    "extdump": make_opener(EXT),
    "ntfsdump": make_opener(NTFS),
    "qcow2": open_container("qcow2", read_qcow2),
    "vmdk": open_container("vmdk", read_vmdk),
    "vhd": open_container("vhd", read_vhd),
    "vhdx": open_container("vhdx", read_vhdx),
}


def open_format(name: str, content: Content, workshop: Workshop) -> Format:
    """Raises InputError for a format that is not known, or contents that are not of it."""
    if name not in FORMATS:
        raise InputError(
            f"image format {name!r} is not supported", hint=f"use one of {', '.join(FORMATS)}"
        )
    return FORMATS[name](content, workshop)
