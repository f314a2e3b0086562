"""The helper's appliance, built by the installed `snf-image build-helper`, cached in build/helper.

It is built anew when a package that goes into it was: its stamp is a hash of those packages.
"""

import hashlib

from snf_ganeti.errors import NodeError
from snf_ganeti.lock import lock_file
from testbed.bed import Bed
from testbed.deployed import write_settings
from testbed.machine import Bind
from testbed.roots import BUILD

FOLDER = BUILD / "helper"
BIND = Bind(FOLDER, "/var/lib/snf-image/helper", writable=True)
_STAMP = FOLDER / "built-from"
_BUILD_SECONDS = 1200.0
_INGREDIENTS = ("snf-ganeti-common", "snf-image-helper", "snf-image-host")


def build(bed: Bed) -> None:
    """Build it in a machine of the bed, unless the one that is there is of the same packages.

    Raises NodeError: it does not go on where it was saved, as the tests expect it to.
    """
    stamp = _make_stamp()
    with lock_file(FOLDER / ".testbed.lock", timeout=_BUILD_SECONDS):
        if _STAMP.exists() and _STAMP.read_text() == stamp:
            return
        with bed.build_machine("builder", (BIND,)).powered() as machine:
            write_settings(machine, "")
            said = machine.run("snf-image", "build-helper", timeout=_BUILD_SECONDS).stderr
        if not (FOLDER / "current/state").exists():
            raise NodeError(f"the helper's state was not saved: {said}")
        _STAMP.write_text(stamp)


def _make_stamp() -> str:
    """The same packages, built twice, are the same bytes."""
    debs = [deb for name in _INGREDIENTS for deb in (BUILD / "deb").glob(f"{name}_*.deb")]
    digest = hashlib.sha256(b"".join(deb.read_bytes() for deb in sorted(debs)))
    return digest.hexdigest() + "\n"
