"""The OS parameters of one instance: parsed by the table, and checked.

A parameter that is empty counts as absent. No message quotes a value: some are secret, and
all come from users.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from snf_ganeti.errors import InputError
from snf_image_helper.protocol import PersonalityFile
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.os_parameters.properties import check_properties, is_set
from snf_image_host.os_parameters.table import ROWS, TABLE, OsParameter
from snf_image_host.os_parameters.values import parse_location
from snf_image_host.os_parameters.variant import read_variant
from snf_image_host.settings import Settings

_PROPERTIES = ("img_properties", "inst_properties")  # the latter win
_LOCATIONS = tuple(row.name for row in TABLE if row.parse is parse_location)


@dataclass(frozen=True)
class Parameters:
    """The OS parameters, checked, each under its own name; what is absent is empty.

    img_properties, inst_properties: names in upper case. cloud_userdata: decoded.
    """

    img_id: str
    img_format: str
    img_passwd: str = field(default="", repr=False)
    img_passwd_hash: str = field(default="", repr=False)
    img_properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    inst_properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    img_personality: tuple[PersonalityFile, ...] = field(default=(), repr=False)
    auth_keys: str = field(default="", repr=False)
    os_product_key: str = field(default="", repr=False)
    os_answer_file: str = field(default="", repr=False)
    config_url: str = field(default="", repr=False)
    cloud_userdata: bytes = field(default=b"", repr=False)
    img_checksum: Checksum | None = None
    img_luks_key: str = field(default="", repr=False)

    @property
    def properties(self) -> Mapping[str, str]:
        """The image's properties with the instance's over them."""
        return {**self.img_properties, **self.inst_properties}


def parse_parameters(raw: Mapping[str, str], preset: Mapping[str, str] | None = None) -> Parameters:
    """Check the parameters that a user gave, over those that the variant presets.

    raw, preset: name in lower case → text. Raises InputError for the first that is wrong.
    """
    given = {name: text for name, text in {**(preset or {}), **raw}.items() if text}
    for name in given:
        if name not in ROWS:
            known = ", ".join(ROWS)
            raise InputError(f"{name[:50]!r} is no OS parameter", hint=f"known are {known}")
    for row in TABLE:
        if row.required and row.name not in given:
            raise InputError(f"OS parameter {row.name} is missing", hint=f"give {row.form}")
    if "img_passwd" in given and "img_passwd_hash" in given:
        raise InputError("OS parameters img_passwd and img_passwd_hash exclude each other")
    values = {row.name: _parse(row, given[row.name]) for row in TABLE if row.name in given}
    return Parameters(**values)  # type: ignore[arg-type]  # the table and the fields agree


def verify_parameters(raw: Mapping[str, str], variant: str, settings: Settings) -> Parameters:
    """All that can be checked without the image, for `verify` as for every deployment.

    Raises InputError, and SettingsError for a variant's file that is wrong.
    """
    parameters = parse_parameters(raw, read_variant(variant, settings.variants_dir))
    _check_properties(parameters.properties)
    folder = settings.answer_file_dir
    for name in _LOCATIONS:
        location = getattr(parameters, name)
        if location.startswith("/") and not Path(location).is_relative_to(folder):
            raise InputError(
                f"OS parameter {name}: its path is not under {folder}",
                hint="put the file there, or give an http or https URL",
            )
    return parameters


def verify_properties(
    raw: Mapping[str, str], variant: str, settings: Settings
) -> Mapping[str, str]:
    """The properties alone, for an instance that has its image: whatever else was asked for
    then, secrets included, need not be there again. Raises as `verify_parameters`."""
    given = {**read_variant(variant, settings.variants_dir), **raw}
    properties: dict[str, str] = {}
    for row in (ROWS[name] for name in _PROPERTIES):
        if given.get(row.name):
            properties.update(_parse(row, given[row.name]))  # type: ignore[call-overload]
    _check_properties(properties)
    return properties


def require_supported(parameters: Parameters) -> None:
    """Raises InputError when something is asked for that this version can't do."""
    for row in TABLE:
        if not row.supported and getattr(parameters, row.name):
            raise InputError(
                f"OS parameter {row.name}: this version does not support it", hint="leave it out"
            )
    properties = parameters.properties
    family = properties.get("OSFAMILY", "").strip().lower()
    excluded = any(is_set(properties, f"EXCLUDE_{which}_TASKS") for which in ("ALL", "MOUNTED"))
    if family not in ("", "linux") and not excluded:
        raise InputError(
            f"OSFAMILY is {family}, and this version customizes linux only",
            hint="with the property EXCLUDE_MOUNTED_TASKS=yes it deploys without that",
        )


def _parse(row: OsParameter, text: str) -> object:
    try:
        text.encode()  # what is not UTF-8 reaches Python as lone surrogates
        return row.parse(text)
    except UnicodeEncodeError:
        reason = "it is not UTF-8"
    except ValueError as error:
        reason = str(error)
    raise InputError(f"OS parameter {row.name}: {reason}", hint=f"give {row.form}")


def _check_properties(properties: Mapping[str, str]) -> None:
    try:
        check_properties(properties)
    except ValueError as error:
        raise InputError(f"OS parameters {' and '.join(_PROPERTIES)}: {error}") from None
