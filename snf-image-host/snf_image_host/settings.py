"""What a site sets for snf-image-host: `/etc/snf-image-host/`, see `snf_ganeti.settings`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from snf_ganeti.errors import SettingsError
from snf_ganeti.settings import ETC, Bounds, read_settings
from snf_image_host.addressing import AddressingSettings

COMPONENT = "snf-image-host"
Uid = Annotated[int, Bounds(65536, (1 << 31) - 1)]
"""What is below belongs to accounts, or stands for nobody."""


@dataclass(frozen=True)
class Settings:
    """Every key of the component with its default; the manual page says the same in words.

    helper_memory, cache_size: MiB; a cache of 0 is none. The timeouts are seconds: until the
    helper answers, until it is asked to stop, and from then until it is killed.
    helper_uids: first and last. progress_monitor: a program's absolute path, or empty.
    """

    image_dir: Path = Path("/var/lib/snf-image")
    helper_dir: Path = Path("/var/lib/snf-image/helper")
    spool_dir: Path = Path("/var/tmp")  # noqa: S108 - nameless files only; large, unlike /tmp
    cache_dir: Path = Path("/var/cache/snf-image")
    cache_size: Annotated[int, Bounds(0)] = 10240
    variants_dir: Path = Path("/etc/ganeti/snf-image/variants")
    answer_file_dir: Path = Path("/etc/snf-image-host/answer-files")
    helper_uids: tuple[Uid, ...] = (90000, 90255)
    helper_memory: int = 512
    helper_boot_timeout: float = 60.0
    helper_soft_timeout: float = 120.0
    helper_hard_timeout: float = 10.0
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    progress_monitor: str = ""
    windows_timezone: str = "GMT Standard Time"
    addressing: AddressingSettings = field(default_factory=AddressingSettings)


def read(etc: Path = ETC) -> Settings:
    """The settings of this node. Raises SettingsError."""
    settings = read_settings(Settings, COMPONENT, etc)
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Raises SettingsError for a value of the right type that can't work."""
    monitor = settings.progress_monitor
    if monitor and not Path(monitor).is_absolute():
        raise SettingsError(f"progress_monitor must be an absolute path, not {monitor!r}")
    uids = settings.helper_uids
    if len(uids) != 2 or uids[0] > uids[1]:
        raise SettingsError("helper_uids must be the first and the last of a range of user ids")
