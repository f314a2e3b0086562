"""The OS parameters: one table of what they are, and what they are parsed into.

The table gives the definition's `parameters.list`, the checks of `verify`, the messages and
the documentation. A parameter that is empty counts as absent. No message quotes a value:
some are secret, and all come from users.
"""

import base64
import binascii
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from snf_ganeti.errors import InputError, SettingsError
from snf_image_helper.protocol import PersonalityFile
from snf_image_host.os_parameters.authorized_keys import parse_authorized_keys
from snf_image_host.os_parameters.personality import parse_personality
from snf_image_host.os_parameters.properties import check_properties, is_set, parse_properties
from snf_image_host.settings import Settings

FORMATS = ("diskdump", "extdump", "ntfsdump", "qcow2", "vmdk", "vhd", "vhdx")

_SHORT_LIMIT = 4096
_PASSWORD_LIMIT = 511  # bytes; crypt(3) refuses more
_USER_DATA_LIMIT = 16 << 20
_DIGITS = {"sha256": 64, "sha512": 128}
_WORD = "[./0-9A-Za-z]"
_SALT = r"[^$:\s]"
_HASH = re.compile(
    "|".join(
        (
            rf"\$1\${_SALT}{{1,8}}\${_WORD}{{22}}",
            rf"\$sha1\$\d{{1,10}}\${_SALT}{{1,64}}\${_WORD}{{28}}",
            rf"\$2[abxy]\$\d\d\${_WORD}{{53}}",
            rf"\$5\$(rounds=\d{{1,9}}\$)?{_SALT}{{1,16}}\${_WORD}{{43}}",
            rf"\$6\$(rounds=\d{{1,9}}\$)?{_SALT}{{1,16}}\${_WORD}{{86}}",
            rf"\$g?y\${_WORD}{{1,32}}\${_WORD}{{1,86}}\${_WORD}{{43}}",
            r"!!?|!?\*",  # no password opens it
        )
    ),
    re.ASCII,
)
_PRODUCT_KEY = re.compile(r"([A-Z0-9]{5}-){4}[A-Z0-9]{5}")
_VARIANT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Checksum:
    """Of the image's bytes as fetched. algorithm: a name of hashlib; digest: hex, lower case."""

    algorithm: str
    digest: str


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


def _parse_id(text: str) -> str:
    if len(text) > _SHORT_LIMIT or not text.isprintable():
        raise ValueError("it is unprintable or too long")
    return text


def _parse_format(text: str) -> str:
    if text not in FORMATS:
        raise ValueError("it is not a known format")
    return text


def _parse_password(text: str) -> str:
    if "\n" in text or "\0" in text or len(text.encode()) > _PASSWORD_LIMIT:
        raise ValueError(f"it holds a line end or is longer than {_PASSWORD_LIMIT} bytes")
    return text


def _parse_hash(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise ValueError("it does not have the form of crypt(5)")
    return text


def _parse_product_key(text: str) -> str:
    if not _PRODUCT_KEY.fullmatch(text.upper()):
        raise ValueError("it is not five groups of five")
    return text.upper()


def _parse_location(text: str) -> str:
    """An http(s) URL or an absolute path; which folder is allowed, the settings say."""
    if len(text) > _SHORT_LIMIT or not text.isprintable() or " " in text:
        raise ValueError("it has a blank in it, is unprintable or too long")
    if text.startswith("/"):
        if ".." in PurePosixPath(text).parts:
            raise ValueError("its path has a .. in it")
        return text
    if not _is_web_url(text):
        raise ValueError("it is neither an http or https URL nor an absolute path")
    return text


def _is_web_url(text: str) -> bool:
    try:
        url = urlsplit(text)
    except ValueError:  # its text would quote the URL, credentials included
        return False
    return url.scheme in ("http", "https") and bool(url.hostname)


def _parse_user_data(text: str) -> bytes:
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None
    if len(data) > _USER_DATA_LIMIT:
        raise ValueError(f"it is larger than {_USER_DATA_LIMIT >> 20} MiB")
    return data


def _parse_checksum(text: str) -> Checksum:
    algorithm, _, digest = text.strip().lower().partition(":")
    digits = _DIGITS.get(algorithm)
    if not digits or not re.fullmatch(rf"[0-9a-f]{{{digits}}}", digest):
        raise ValueError("it is not an algorithm and its digest")
    return Checksum(algorithm, digest)


@dataclass(frozen=True)
class OsParameter:
    """One row. help: what it is; form: what its value looks like, as a way out of an error.

    parse: text → value, raises ValueError with a reason that doesn't quote the text.
    secret: to be given to Ganeti as a private or secret parameter.
    supported: what this version does not act on is refused before a deployment.
    """

    name: str
    help: str
    form: str
    parse: Callable[[str], object]
    required: bool = False
    secret: bool = False
    supported: bool = True


TABLE = (
    OsParameter(
        "img_id", "image to deploy", "the name of an image, or its URL", _parse_id, required=True
    ),
    OsParameter(
        "img_format",
        "what the image's bytes are",
        f"one of {', '.join(FORMATS)}",
        _parse_format,
        required=True,
    ),
    OsParameter(
        "img_passwd",
        "password of the image's users, in clear",
        "one line of text",
        _parse_password,
        secret=True,
    ),
    OsParameter(
        "img_passwd_hash",
        "the same password as a ready hash",
        "what mkpasswd(1) prints, or ! or * for no password",
        _parse_hash,
        secret=True,
    ),
    OsParameter(
        "img_properties",
        "properties of the image",
        "a JSON object of text, numbers, true and false",
        parse_properties,
    ),
    OsParameter(
        "inst_properties",
        "properties of the instance, over those of the image",
        "a JSON object of text, numbers, true and false",
        parse_properties,
    ),
    OsParameter(
        "img_personality",
        "files to put into the guest",
        "a JSON array of objects with path, contents (base64), owner, group and mode",
        parse_personality,
        secret=True,
    ),
    OsParameter(
        "auth_keys",
        "SSH public keys that log in as the image's users",
        "lines of an authorized_keys file",
        parse_authorized_keys,
    ),
    OsParameter(
        "os_product_key",
        "product key of Windows",
        "five groups of five letters and digits with - between",
        _parse_product_key,
        secret=True,
        supported=False,
    ),
    OsParameter(
        "os_answer_file",
        "answer file of Windows setup",
        "an http or https URL, or a path under answer_file_dir of the settings",
        _parse_location,
        supported=False,
    ),
    OsParameter(
        "config_url",
        "where a JSON object with further parameters is",
        "an http or https URL, or a path under answer_file_dir of the settings",
        _parse_location,
        supported=False,
    ),
    OsParameter(
        "cloud_userdata",
        "user-data for cloud-init",
        "base64",
        _parse_user_data,
        secret=True,
        supported=False,
    ),
    OsParameter(
        "img_checksum",
        "checksum of the image as it is fetched",
        "sha256:<64 hex digits> or sha512:<128 hex digits>",
        _parse_checksum,
    ),
    OsParameter(
        "img_luks_key",
        "passphrase of an encrypted root file system",
        "one line of text",
        _parse_password,
        secret=True,
        supported=False,
    ),
)
_ROWS = {row.name: row for row in TABLE}
_PROPERTIES = ("img_properties", "inst_properties")  # the latter win
_LOCATIONS = tuple(row.name for row in TABLE if row.parse is _parse_location)


def make_parameters_list() -> str:
    """The definition's file `parameters.list`: a name and what it is, a line each."""
    return "".join(f"{row.name} {row.help}\n" for row in TABLE)


def parse_parameters(raw: Mapping[str, str], preset: Mapping[str, str] | None = None) -> Parameters:
    """Check the parameters that a user gave, over those that the variant presets.

    raw, preset: name in lower case → text. Raises InputError for the first that is wrong.
    """
    given = {name: text for name, text in {**(preset or {}), **raw}.items() if text}
    for name in given:
        if name not in _ROWS:
            known = ", ".join(_ROWS)
            raise InputError(f"{name[:50]!r} is no OS parameter", hint=f"known are {known}")
    for row in TABLE:
        if row.required and row.name not in given:
            raise InputError(f"OS parameter {row.name} is missing", hint=f"give {row.form}")
    if "img_passwd" in given and "img_passwd_hash" in given:
        raise InputError("OS parameters img_passwd and img_passwd_hash exclude each other")
    values = {row.name: _parse(row, given[row.name]) for row in TABLE if row.name in given}
    return Parameters(**values)  # type: ignore[arg-type]  # the table and the fields agree


def _parse(row: OsParameter, text: str) -> object:
    try:
        text.encode()  # what is not UTF-8 reaches Python as lone surrogates
        return row.parse(text)
    except UnicodeEncodeError:
        reason = "it is not UTF-8"
    except ValueError as error:
        reason = str(error)
    raise InputError(f"OS parameter {row.name}: {reason}", hint=f"give {row.form}")


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
    for row in (_ROWS[name] for name in _PROPERTIES):
        if given.get(row.name):
            properties.update(_parse(row, given[row.name]))  # type: ignore[call-overload]
    _check_properties(properties)
    return properties


def _check_properties(properties: Mapping[str, str]) -> None:
    try:
        check_properties(properties)
    except ValueError as error:
        raise InputError(f"OS parameters {' and '.join(_PROPERTIES)}: {error}") from None


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


def read_variant(variant: str, folder: Path) -> dict[str, str]:
    """The parameters that a variant presets: table `parameters` of FOLDER/VARIANT.toml.

    The variants `default` and none at all need no file. Raises InputError, SettingsError.
    """
    if variant and not _VARIANT.fullmatch(variant):
        raise InputError(f"{variant[:50]!r} is no name of a variant")
    path = folder / f"{variant or 'default'}.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if variant in ("", "default"):
            return {}
        raise InputError(
            f"variant {variant} is not set up on this node: {path} is missing"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from None
    preset = table.pop("parameters", {})
    if table:
        raise SettingsError(f"{path}: unknown key {min(table)}", hint="known here: parameters")
    return _check_preset(preset, path)


def _check_preset(preset: object, path: Path) -> dict[str, str]:
    if not isinstance(preset, dict):
        raise SettingsError(f"{path}: parameters must be a table")
    for name, text in preset.items():
        if name not in _ROWS:
            raise SettingsError(
                f"{path}: unknown key parameters.{name}", hint=f"known here: {', '.join(_ROWS)}"
            )
        if not isinstance(text, str):
            raise SettingsError(f"{path}: parameters.{name} must be a string")
    return preset
