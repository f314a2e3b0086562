"""A variant of the OS definition: the parameters that it presets, from a site's file."""

import re
import tomllib
from pathlib import Path

from snf_ganeti.errors import InputError, SettingsError
from snf_image_host.os_parameters.table import ROWS

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def read_variant(variant: str, folder: Path) -> dict[str, str]:
    """The parameters that a variant presets: table `parameters` of FOLDER/VARIANT.toml.

    The variants `default` and none at all need no file. Raises InputError, SettingsError.
    """
    if variant and not _NAME.fullmatch(variant):
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
        if name not in ROWS:
            raise SettingsError(
                f"{path}: unknown key parameters.{name}", hint=f"known here: {', '.join(ROWS)}"
            )
        if not isinstance(text, str):
            raise SettingsError(f"{path}: parameters.{name} must be a string")
    return preset
