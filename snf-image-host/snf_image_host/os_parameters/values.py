"""The values of the parameters that are a few words of text, each by its own parser.

A parser raises ValueError with a reason that doesn't quote the text.
"""

import base64
import binascii
import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from snf_ganeti.password_hash import is_hash, is_lock

FORMATS = ("diskdump", "extdump", "ntfsdump", "qcow2", "vmdk", "vhd", "vhdx")

_SHORT_LIMIT = 4096
_PASSWORD_LIMIT = 511  # bytes; crypt(3) refuses more
_USER_DATA_LIMIT = 16 << 20
_PRODUCT_KEY = re.compile(r"([A-Z0-9]{5}-){4}[A-Z0-9]{5}")


def parse_id(text: str) -> str:
    if len(text) > _SHORT_LIMIT or not text.isprintable():
        raise ValueError("it is unprintable or too long")
    return text


def parse_format(text: str) -> str:
    if text not in FORMATS:
        raise ValueError("it is not a known format")
    return text


def parse_password(text: str) -> str:
    if "\n" in text or "\0" in text or len(text.encode()) > _PASSWORD_LIMIT:
        raise ValueError(f"it holds a line end or is longer than {_PASSWORD_LIMIT} bytes")
    return text


def parse_hash(text: str) -> str:
    if not (is_hash(text) or is_lock(text)):
        raise ValueError("it does not have the form of crypt(5)")
    return text


def parse_product_key(text: str) -> str:
    if not _PRODUCT_KEY.fullmatch(text.upper()):
        raise ValueError("it is not five groups of five")
    return text.upper()


def parse_location(text: str) -> str:
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


def parse_user_data(text: str) -> bytes:
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None
    if len(data) > _USER_DATA_LIMIT:
        raise ValueError(f"it is larger than {_USER_DATA_LIMIT >> 20} MiB")
    return data


def _is_web_url(text: str) -> bool:
    try:
        url = urlsplit(text)
    except ValueError:  # its text would quote the URL, credentials included
        return False
    return url.scheme in ("http", "https") and bool(url.hostname)
