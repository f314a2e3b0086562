"""The disk parameters: one table of what they are, and what they are parsed into.

`gnt-instance add -t ext --disk 0:size=10G,provider=rados,NAME=VALUE,…` gives them. The table
makes the provider's `parameters.list` and the manual page.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ext_storage_rados.names import NAME_LIMIT, SnapshotName, check_name, parse_snapshot
from ext_storage_rados.settings import Settings
from snf_ganeti.errors import InputError

AccessMode = Literal["kernelspace", "userspace"]

GANETIS = frozenset({"provider", "access", "origin_size"})
"""Parameters that Ganeti, or a controller over it, gives to every provider."""

_NOTHING = ("", "None")
"""What a parameter that is not set looks like in a script's environment."""
_FEATURES = (
    *("layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten", "journaling"),
)
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)i?B?", re.IGNORECASE)
_POWERS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclass(frozen=True)
class Parameters:
    """The parameters of a disk, checked, with the settings' defaults.

    origin: what the disk is a clone of. reuse_data: the volume is there, with its data.
    stripe_unit, qos_bps: bytes, the latter in a second; numbers are 0 for none.
    """

    pool: str
    namespace: str
    user: str
    access: AccessMode = "kernelspace"
    origin: SnapshotName | None = None
    reuse_data: bool = False
    features: tuple[str, ...] = ()
    stripe_unit: int = 0
    stripe_count: int = 0
    data_pool: str = ""
    qos_iops: int = 0
    qos_bps: int = 0


@dataclass(frozen=True)
class Parameter:
    """help: a line for `parameters.list`. parse: text and settings to value; a ValueError says
    what was expected. located: it says where the volume is, so every script needs it."""

    help: str
    parse: Callable[[str, Settings], Any]
    located: bool = False


def _parse_access(text: str, settings: Settings) -> AccessMode:
    if text == "userspace":
        return "userspace"
    if text == "kernelspace":
        return "kernelspace"
    raise ValueError("kernelspace or userspace")


def _parse_truth(text: str, settings: Settings) -> bool:
    try:
        return _TRUTHS[text.lower()]
    except KeyError:
        raise ValueError("True or False") from None


def _parse_features(text: str, settings: Settings) -> tuple[str, ...]:
    features = tuple(re.split(r"[+\s:]+", text.strip()))
    if any(feature not in _FEATURES for feature in features):
        raise ValueError(f"some of {', '.join(_FEATURES)}, with + between them")
    return features


def _parse_count(text: str, settings: Settings) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError("a whole number")
    return int(text)


def _parse_size(text: str, settings: Settings) -> int:
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError("bytes, or a number with K, M, G or T")
    return int(match[1]) << _POWERS[match[2].upper()]


def _parse_name(text: str, settings: Settings) -> str:
    return check_name("it", text)


def _parse_origin(text: str, settings: Settings) -> SnapshotName:
    return parse_snapshot(text, pool=settings.image_pool, namespace=settings.image_namespace)


TABLE: Mapping[str, Parameter] = {
    "pool": Parameter("pool of the volume", _parse_name, located=True),
    "namespace": Parameter("namespace in the pool", _parse_name, located=True),
    "user": Parameter("cephx id, without client.", _parse_name, located=True),
    "access": Parameter("kernelspace or userspace", _parse_access, located=True),
    "origin": Parameter("[POOL[/NAMESPACE]/]IMAGE@SNAPSHOT to clone", _parse_origin),
    "reuse_data": Parameter("True: the volume is there, keep what it holds", _parse_truth),
    "features": Parameter("features of the image, with + between them", _parse_features),
    "stripe_unit": Parameter("bytes of a stripe, or a number with K or M", _parse_size),
    "stripe_count": Parameter("objects that a stripe goes over", _parse_count),
    "data_pool": Parameter("pool of the data, such as an erasure coded one", _parse_name),
    "qos_iops": Parameter("most operations a second, 0 for no limit", _parse_count),
    "qos_bps": Parameter("most bytes a second, or a number with K, M or G", _parse_size),
}


def parse_location(raw: Mapping[str, str], settings: Settings) -> Parameters:
    """Only what says where the volume is: whatever else a disk has got, it can be removed.

    raw: name in lower case → text. Raises InputError.
    """
    located = {name for name, parameter in TABLE.items() if parameter.located}
    return _parse({name: raw[name] for name in located & raw.keys()}, settings)


def parse_parameters(raw: Mapping[str, str], settings: Settings) -> Parameters:
    """All of them, for a volume that is to be made. Raises InputError, which names the
    parameter, and refuses one that is not in the table."""
    unknown = sorted(raw.keys() - TABLE.keys() - GANETIS)
    if unknown:
        hint = f"there are: {', '.join(TABLE)}"
        raise InputError(f"the disk parameter {unknown[0]} is not known", hint=hint)
    parameters = _parse(raw, settings)
    _check(parameters)
    return parameters


def make_list() -> str:
    """The provider's `parameters.list`."""
    return "".join(f"{name} {parameter.help}\n" for name, parameter in TABLE.items())


def _parse(raw: Mapping[str, str], settings: Settings) -> Parameters:
    given = {}
    for name, parameter in TABLE.items():
        text = raw.get(name, "")
        if text not in _NOTHING:
            try:
                given[name] = parameter.parse(text, settings)
            except ValueError as expected:
                shown = text[:NAME_LIMIT]
                raise InputError(
                    f"the disk parameter {name} is {shown!r}, not {expected}"
                ) from None
            except InputError as error:
                raise InputError(f"the disk parameter {name}: {error}") from None
    return Parameters(**{**_make_defaults(settings), **given})


def _make_defaults(settings: Settings) -> dict[str, Any]:
    names = ("pool", "namespace", "user", "features", "stripe_unit", "stripe_count", "data_pool",
             "qos_iops", "qos_bps")  # fmt: skip
    return {name: getattr(settings, name) for name in names}


def _check(parameters: Parameters) -> None:
    """What is wrong only together."""
    if bool(parameters.stripe_unit) != bool(parameters.stripe_count):
        raise InputError("stripe_unit and stripe_count go together", hint="give both, or neither")
    if parameters.origin and parameters.reuse_data:
        raise InputError("origin and reuse_data exclude each other", hint="give one of them")
    if "exclusive-lock" not in parameters.features:
        raise InputError(
            "the disk parameter features lacks exclusive-lock",
            hint="without it two nodes could write the volume",
        )
