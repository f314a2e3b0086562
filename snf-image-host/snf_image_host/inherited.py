"""Properties that a disk has from the image of which it is a clone.

With `img_id=null` the disk holds its image already, and whoever put it there knows what it is.
ext-storage-rados keeps an image's properties as metadata that its clones inherit, and tells
them by its command; another storage that is not there, or knows no properties, adds nothing.
"""

import json
from dataclasses import replace
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import InputError
from snf_image_host.environ import Disk
from snf_image_host.parameters import Parameters
from snf_image_host.properties import check_properties, parse_properties
from snf_image_host.sources import NULL

PROGRAM = Path("/usr/sbin/snf-rados-image")

_NO_VOLUME = 2
_SECONDS = 120.0


def complete(parameters: Parameters, disk: Disk, program: Path = PROGRAM) -> Parameters:
    """The parameters, with the properties of the disk's image when the user gave none.

    Raises InputError: they can't work; NodeError, DeadlineError: the storage does not tell.
    """
    if parameters.img_id != NULL or parameters.img_properties or not program.exists():
        return parameters
    argv = [str(program), "show", "--json", "--volume", disk.path or disk.uri]
    shown = process.run(argv, timeout=_SECONDS, ok=(0, _NO_VOLUME))
    if shown.status == _NO_VOLUME:
        return parameters
    try:
        properties = parse_properties(json.dumps(json.loads(shown.text)["properties"]))
        check_properties(properties)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the properties of disk 0's image can't be used: {error}") from None
    return replace(parameters, img_properties=properties)
