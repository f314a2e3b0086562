"""An inspection: what is in an image, found by the helper VM in a copy that nobody keeps.

The image itself is not touched, and nothing on the node opens it: the copy is a file without a
name, so the guest's file systems may even replay their journals in it.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from snf_ganeti.errors import InputError, NodeError
from snf_image_helper.protocol import Event, Found, Request, Warned
from snf_image_host.confinement.identity import open_jail
from snf_image_host.confinement.jail import Jail
from snf_image_host.copying.spool import open_spool
from snf_image_host.customization import customize, find_helper
from snf_image_host.helper_vm.appliance import BUILD_ANEW
from snf_image_host.helper_vm.helper import start_helper
from snf_image_host.image import Image, ImageOrder, open_image
from snf_image_host.settings import Settings
from snf_image_host.targets.local import FileTarget

log = logging.getLogger(__name__)

_SECTOR = 512


def inspect(order: ImageOrder, settings: Settings) -> Mapping[str, str]:
    """The image properties that fit an image. Raises SnfError."""
    found: dict[str, str] = {}

    def follow(event: Event) -> None:
        match event:
            case Found(properties):
                found.update(properties)
            case Warned(messages):
                log.warning("%s", "; ".join(messages))

    with contextlib.ExitStack() as stack:
        jail = stack.enter_context(open_jail(settings))
        vm = find_helper(settings, jail)
        image = stack.enter_context(open_image(order, settings, jail))
        if image.null:
            raise InputError(f"{order.id} is no image, but what a disk holds already")
        helper = stack.enter_context(start_helper(vm))
        copy = stack.enter_context(_open_copy(image, settings.spool_dir, jail))
        image.copy_to(copy, lambda position, total: None)
        customize(Request("inspect", "", 1), helper, [copy], follow)
    if not found:
        raise NodeError("the helper VM said nothing of it", hint=BUILD_ANEW)
    return found


@contextlib.contextmanager
def _open_copy(image: Image, folder: Path, jail: Jail) -> Iterator[FileTarget]:
    """A disk in a file without a name. Of an image that does not tell how large it is, half the
    room that there is must do."""
    size = image.size
    if size is None:
        size = shutil.disk_usage(folder).free // 2
    with open_spool(folder, jail) as file:
        os.truncate(file, -(-size // _SECTOR) * _SECTOR)
        yield FileTarget(folder / "(copy)", file)
