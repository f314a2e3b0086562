"""What a disk brings along that is a clone of an image: the image itself, and its properties.

With `img_id=null`, or `rbd:` and the snapshot of which the disk is a clone, the disk holds its
image already, and whoever put it there knows what it is. ext-storage-rados keeps an image's
properties as metadata that its clones inherit, and tells them, with the clone's origin, by its
command; another storage that is not there, or knows no properties, adds nothing.
"""

import json
from dataclasses import replace
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import InputError
from snf_image_host.environ import Disk
from snf_image_host.os_parameters.parameters import Parameters
from snf_image_host.os_parameters.properties import check_properties, parse_properties
from snf_image_host.sources import NULL

PROGRAM = Path("/usr/sbin/snf-rados-image")

_RBD = "rbd:"
_NO_VOLUME = 2
_SECONDS = 120.0


def complete(parameters: Parameters, disk: Disk, program: Path = PROGRAM) -> Parameters:
    """The parameters, with no image to copy when the disk is its clone, and with the image's
    properties when the user gave none.

    Raises InputError: they can't work; NodeError, DeadlineError: the storage does not tell.
    """
    named = parameters.img_id.startswith(_RBD)
    wanted = named or (parameters.img_id == NULL and not parameters.img_properties)
    if not wanted or not program.exists():
        return parameters
    argv = [str(program), "show", "--json", "--volume", disk.path or disk.uri]
    shown = process.run(argv, timeout=_SECONDS, ok=(0, _NO_VOLUME))
    if shown.status == _NO_VOLUME:
        return parameters
    try:
        document = json.loads(shown.text)
        origin = _RBD + str(document["origin"])
        properties = parse_properties(json.dumps(document["properties"]))
        check_properties(properties)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the properties of disk 0's image can't be used: {error}") from None
    if named and parameters.img_id != origin:
        return parameters
    return replace(parameters, img_id=NULL, img_properties=parameters.img_properties or properties)
