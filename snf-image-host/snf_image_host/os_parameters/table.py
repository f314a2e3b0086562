"""The OS parameters: one table of what they are.

It gives the checks of `verify` and the messages; the definition's `parameters.list` and the
documentation repeat it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from snf_image_host.os_parameters.authorized_keys import parse_authorized_keys
from snf_image_host.os_parameters.checksum import parse_checksum
from snf_image_host.os_parameters.personality import parse_personality
from snf_image_host.os_parameters.properties import parse_properties
from snf_image_host.os_parameters.values import (
    FORMATS,
    parse_format,
    parse_hash,
    parse_id,
    parse_location,
    parse_password,
    parse_product_key,
    parse_user_data,
)


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
        "img_id", "image to deploy", "the name of an image, or its URL", parse_id, required=True
    ),
    OsParameter(
        "img_format",
        "what the image's bytes are",
        f"one of {', '.join(FORMATS)}",
        parse_format,
        required=True,
    ),
    OsParameter(
        "img_passwd",
        "password of the image's users, in clear",
        "one line of text",
        parse_password,
        secret=True,
    ),
    OsParameter(
        "img_passwd_hash",
        "the same password as a ready hash",
        "what mkpasswd(1) prints, or ! or * for no password",
        parse_hash,
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
        parse_product_key,
        secret=True,
        supported=False,
    ),
    OsParameter(
        "os_answer_file",
        "answer file of Windows setup",
        "an http or https URL, or a path under answer_file_dir of the settings",
        parse_location,
        supported=False,
    ),
    OsParameter(
        "config_url",
        "where a JSON object with further parameters is",
        "an http or https URL, or a path under answer_file_dir of the settings",
        parse_location,
        supported=False,
    ),
    OsParameter(
        "cloud_userdata",
        "user-data for cloud-init",
        "base64",
        parse_user_data,
        secret=True,
        supported=False,
    ),
    OsParameter(
        "img_checksum",
        "checksum of the image as it is fetched",
        "sha256:<64 hex digits> or sha512:<128 hex digits>",
        parse_checksum,
    ),
    OsParameter(
        "img_luks_key",
        "passphrase of an encrypted root file system",
        "one line of text",
        parse_password,
        secret=True,
        supported=False,
    ),
)
ROWS = {row.name: row for row in TABLE}
