"""What a site sets for snf-image-host: `/etc/snf-image-host/`, see `snf_ganeti.settings`."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from snf_ganeti.errors import SettingsError
from snf_ganeti.settings import ETC, read_settings
from snf_image_host.addressing import AddressingSettings

COMPONENT = "snf-image-host"
_UID_FIRST, _UID_LAST = 65536, (1 << 31) - 1
"""What is below belongs to accounts, or stands for nobody."""
_MAY_BE_NONE = ("cache_size",)


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
    cache_size: int = 10240
    variants_dir: Path = Path("/etc/ganeti/snf-image/variants")
    answer_file_dir: Path = Path("/etc/snf-image-host/answer-files")
    helper_uids: tuple[int, ...] = (90000, 90255)
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
    for each in fields(Settings):
        value = getattr(settings, each.name)
        if isinstance(value, Path) and not value.is_absolute():
            raise SettingsError(f"{each.name} must be an absolute path, not {str(value)!r}")
        if isinstance(value, int | float) and not 0 < value < float("inf"):
            if each.name in _MAY_BE_NONE and value == 0:
                continue
            raise SettingsError(f"{each.name} must be more than 0, not {value!r}")
    monitor = settings.progress_monitor
    if monitor and not Path(monitor).is_absolute():
        raise SettingsError(f"progress_monitor must be an absolute path, not {monitor!r}")
    uids = settings.helper_uids
    if len(uids) != 2 or not _UID_FIRST <= uids[0] <= uids[1] <= _UID_LAST:
        raise SettingsError(
            "helper_uids must be the first and the last of a range of user ids",
            hint=f"they are from {_UID_FIRST} to {_UID_LAST}",
        )
