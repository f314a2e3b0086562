"""What an image's bytes are; one file a format, and a row of the table."""

from collections.abc import Mapping

from snf_ganeti.errors import InputError
from snf_image_host.content import Content
from snf_image_host.formats.diskdump import Diskdump
from snf_image_host.formats.format import Format, OpenFormat, Workshop
from snf_image_host.formats.partitioned import EXT, NTFS, make_opener
from snf_image_host.formats.qcow2 import Qcow2

__all__ = ["FORMATS", "Format", "Workshop", "open_format"]

FORMATS: Mapping[str, OpenFormat] = {
    "diskdump": Diskdump,
    "extdump": make_opener(EXT),
    "ntfsdump": make_opener(NTFS),
    "qcow2": Qcow2,
}


def open_format(name: str, content: Content, workshop: Workshop) -> Format:
    """Raises InputError for a format that is not known, or contents that are not of it."""
    if name not in FORMATS:
        raise InputError(
            f"image format {name!r} is not supported", hint=f"use one of {', '.join(FORMATS)}"
        )
    return FORMATS[name](content, workshop)
