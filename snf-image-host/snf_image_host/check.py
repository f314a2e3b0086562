"""Is this node able to deploy, and if not, why."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti.errors import NodeError, SnfError
from snf_ganeti.process import ENVIRONMENT
from snf_image_host import settings
from snf_image_host.confinement.identity import find_parent, open_jail
from snf_image_host.copying.image_cache import ImageCache
from snf_image_host.customization import find_helper
from snf_image_host.helper_vm.appliance import BUILD_ANEW, read_appliance, verify_appliance
from snf_image_host.helper_vm.helper import find_state, start_helper
from snf_image_host.helper_vm.saved_state import verify_state
from snf_image_host.settings import Settings

TOOLS = (
    *("bwrap", "lz4", "mmdebstrap", "openssl", "prlimit", "qemu-img", "qemu-nbd"),
    *("qemu-system-x86_64", "setpriv", "unshare", "xz", "zstd"),
)
"""Programs that a deployment may run."""
_QEMU_OVERHEAD = 200
"""MiB that QEMU takes in practice beside its guest's memory."""


@dataclass(frozen=True)
class Finding:
    """What one check came to. detail: what was found; reason: why the node is not able, empty
    when it is."""

    name: str
    detail: str = ""
    reason: str = ""


def check_node() -> Iterator[Finding]:
    """Every check's finding as it comes; without settings, theirs alone."""
    try:
        site = settings.read()
    except SnfError as error:
        yield Finding("settings", reason=str(error))
        return
    yield Finding("settings", f"of {settings.COMPONENT}")
    for name, look in CHECKS.items():
        try:
            yield Finding(name, detail=look(site))
        except SnfError as error:
            yield Finding(name, reason=str(error))


def _look_for_user(site: Settings) -> str:
    first, last = site.helper_uids
    with open_jail(site) as jail:
        return f"{jail.uid} of {first} to {last}"


def _look_for_limits(site: Settings) -> str:
    """A node without control groups is able all the same; each process has limits of its own."""
    try:
        parent = find_parent(site)
    except NodeError as error:
        return f"of each process alone: {error}"
    return f"of a run as a whole, in {parent.folder}: {', '.join(sorted(parent.controllers))}"


def _look_for_tools(site: Settings) -> str:
    missing = [tool for tool in TOOLS if shutil.which(tool, path=ENVIRONMENT["PATH"]) is None]
    if missing:
        raise NodeError(f"not installed: {', '.join(missing)}", hint="reinstall snf-image-host")
    return f"all {len(TOOLS)} are installed"


def _look_for_images(site: Settings) -> str:
    if not site.image_dir.is_dir():
        raise NodeError(f"image_dir {site.image_dir} is not a folder", hint="make it, or set it")
    return str(site.image_dir)


def _look_for_spool(site: Settings) -> str:
    try:
        with tempfile.TemporaryFile(dir=site.spool_dir):
            free = shutil.disk_usage(site.spool_dir).free
    except OSError as error:
        raise NodeError(f"spool_dir {site.spool_dir} can't be used: {error.strerror}") from None
    return f"{site.spool_dir}, {free >> 30} GiB free"


def _look_for_cache(site: Settings) -> str:
    """A node without a cache is able all the same: it fetches each image every time."""
    if not site.cache_size:
        return "none: cache_size is 0"
    cache = ImageCache(site.cache_dir, site.cache_size << 20)
    try:
        images = [file for file in cache.list_files() if file.whole]
    except FileNotFoundError:
        images = []
    except OSError as error:
        return f"cache_dir {site.cache_dir} can't be used, images are fetched every time: {error}"
    taken = sum(image.size for image in images) >> 20
    return f"{site.cache_dir}, {len(images)} images, {taken} of {site.cache_size} MiB"


def _look_for_memory(site: Settings) -> str:
    available = parse_available(Path("/proc/meminfo").read_text()) >> 20
    needed = site.helper_memory + _QEMU_OVERHEAD
    if available < needed:
        raise NodeError(f"{available} MiB of memory are left, and the helper takes {needed}")
    return f"{available} MiB are left, the helper takes {needed}"


def parse_available(meminfo: str) -> int:
    """Bytes of memory that can be had, from /proc/meminfo."""
    words = (line.split() for line in meminfo.splitlines())
    return next((int(each[1]) << 10 for each in words if each[0] == "MemAvailable:"), 0)


def _look_for_appliance(site: Settings) -> str:
    appliance = read_appliance(site.helper_dir)
    verify_appliance(appliance)
    return f"{appliance.folder.name}, Linux {appliance.manifest.kernel_release}"


def _look_for_state(site: Settings) -> str:
    """A node without a saved state is able all the same, only slower."""
    with open_jail(site) as jail:
        vm = find_helper(site, jail)
    try:
        state = find_state(vm)
        verify_state(state)
    except NodeError as error:
        return f"every run boots the helper: {error}; {BUILD_ANEW}"
    size = sum(extent.length for extent in state.extents)
    return f"{state.name}, {size >> 20} MiB, under {vm.accelerator}"


def _look_for_boot(site: Settings) -> str:
    with contextlib.ExitStack() as stack:
        vm = find_helper(site, stack.enter_context(open_jail(site)))
        begun = time.monotonic()
        helper = stack.enter_context(start_helper(vm))
        if not helper.wait_ready():
            raise NodeError(
                f"the helper VM did not boot under {vm.accelerator}; its console said last: "
                f"{helper.console.last_line}"
            )
        how = "restored" if helper.restored else "booted"
    return f"{how} in {time.monotonic() - begun:.1f} s under {vm.accelerator}"


CHECKS: dict[str, Callable[[Settings], str]] = {
    "user": _look_for_user,
    "limits": _look_for_limits,
    "tools": _look_for_tools,
    "images": _look_for_images,
    "spool": _look_for_spool,
    "cache": _look_for_cache,
    "memory": _look_for_memory,
    "appliance": _look_for_appliance,
    "state": _look_for_state,
    "helper": _look_for_boot,
}
"""Name → what was found; a check raises SnfError when the node is not able."""
