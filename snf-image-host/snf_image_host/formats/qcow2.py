"""qcow2's header, by QEMU's docs/interop/qcow2.txt.

Refused are a backing file, a file that holds the data, and keys.
"""

import struct

from snf_image_host.formats.container import Layout
from snf_image_host.formats.image_bytes import ImageBytes, check_disk_size

_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_HEADER_3 = struct.Struct(">QQQII")
_EXTERNAL_DATA = 1 << 2
_KNOWN_FEATURES = 0b11111
_CORRUPT = 1 << 1


def read_qcow2(image: ImageBytes) -> Layout:
    """Raises ValueError, Unfetched; see `ReadLayout`."""
    if image.size is not None and image.size < _HEADER.size:
        raise ValueError("is no qcow2 image")
    head = image.read(0, _HEADER.size)
    if not head.startswith(_MAGIC):
        raise ValueError("is no qcow2 image")
    _, version, backing, _, cluster_bits, size, encryption, *_ = _HEADER.unpack(head)
    if version not in (2, 3):
        raise ValueError(f"is of qcow2's unknown version {version}")
    if backing:
        raise ValueError("has a backing file, and an image must be whole")
    if encryption:
        raise ValueError("is encrypted")
    if not 9 <= cluster_bits <= 21:
        raise ValueError(f"has clusters of 2^{cluster_bits} bytes, which qcow2 does not know")
    check_disk_size(size)
    if version == 3:
        _check_features(image.read(_HEADER.size, _HEADER_3.size))
    return Layout(size, "qcow2", {"backing": None})


def _check_features(head: bytes) -> None:
    incompatible = _HEADER_3.unpack(head)[0]
    if incompatible & _EXTERNAL_DATA:
        raise ValueError("has its data in another file, and an image must be whole")
    if incompatible & _CORRUPT:
        raise ValueError("is marked as corrupt")
    if incompatible & ~_KNOWN_FEATURES:
        raise ValueError("has features that are not known here")
