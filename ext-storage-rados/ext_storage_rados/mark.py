"""What a finished volume says of itself, in its metadata: it is written last.

So an image without its mark is one whose creation was cut off, or one that is not ours; and
one with another mark was made for other arguments. A clone inherits its origin's metadata,
therefore a mark names the image that it is about.
"""

import json

from ext_storage_rados.names import ImageName
from ext_storage_rados.parameters import Parameters

KEY = "ext-storage-rados.volume"


def make_mark(image: ImageName, size: int, parameters: Parameters) -> str:
    """size: bytes, as it was asked for."""
    origin = str(parameters.origin) if parameters.origin else ""
    shape = {
        "features": sorted(parameters.features),
        "stripe": [parameters.stripe_unit, parameters.stripe_count],
        "data_pool": parameters.data_pool,
    }
    return json.dumps({"volume": str(image), "size": size, "origin": origin, **shape})


def is_about(mark: str, image: ImageName) -> bool:
    try:
        return bool(json.loads(mark)["volume"] == str(image))
    except (ValueError, KeyError, TypeError):
        return False
