"""What a site sets for ext-storage-rados: `/etc/ext-storage-rados/`, see `snf_ganeti.settings`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ext_storage_rados.ceph.access import Access
from snf_ganeti.errors import SettingsError
from snf_ganeti.settings import ETC, Bounds, read_settings

COMPONENT = "ext-storage-rados"


@dataclass(frozen=True)
class Settings:
    """Every key of the component with its default; the manual page says the same in words.

    timeout, trash_delay: seconds. flatten_depth: clones of clones. max_image_size: MiB.
    qos_iops, qos_bps, stripe_unit, stripe_count: 0 for none.
    """

    conf: Path = Path("/etc/ceph/ceph.conf")
    user: str = "ganeti"
    pool: str = "ganeti"
    namespace: str = ""
    image_pool: str = "images"
    image_namespace: str = ""
    features: tuple[str, ...] = (
        *("layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"),
    )
    stripe_unit: Annotated[int, Bounds(0)] = 0
    stripe_count: Annotated[int, Bounds(0)] = 0
    data_pool: str = ""
    qos_iops: Annotated[int, Bounds(0)] = 0
    qos_bps: Annotated[int, Bounds(0)] = 0
    device: Literal["auto", "krbd", "export"] = "auto"
    ganeti: Literal["auto", "3.0", "3.1", "3.2"] = "auto"
    timeout: float = 30.0
    trash_delay: Annotated[float, Bounds(0)] = 0.0
    flatten_depth: int = 4
    publisher: str = "publisher"
    max_image_size: int = 131072
    spool_dir: Path = Path("/var/tmp")  # noqa: S108 - nameless files only; large, unlike /tmp
    conversion_user: str = "snf-rados"

    def make_access(self, user: str = "") -> Access:
        return Access(self.conf, user or self.user, self.timeout)


def read(etc: Path = ETC) -> Settings:
    """The settings of this node. Raises SettingsError."""
    settings = read_settings(Settings, COMPONENT, etc)
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Raises SettingsError for a value of the right type that can't work."""
    for name in ("user", "pool", "image_pool", "publisher", "conversion_user"):
        if not getattr(settings, name):
            raise SettingsError(f"{name} must not be empty")
