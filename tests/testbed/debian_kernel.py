"""Debian's own kernel, in a layer on a machine's root: for small guests, and to run tests on.

The kernel of this machine may lack what a node's has; a layer that has its packages can be
booted by QEMU, with all that the root below it holds.
"""

from dataclasses import dataclass
from pathlib import Path

from testbed.roots import build_root_with

PACKAGES = ("busybox-static", "linux-image-cloud-amd64", "python3-pytest", "python3-scapy")


@dataclass(frozen=True)
class Kernel:
    """image, initrd: as Debian's packages made them; modules: the folder of its release."""

    image: Path
    initrd: Path
    modules: Path

    def find_modules(self, *names: str) -> list[Path]:
        """Files of modules and of what they need, each after what it needs (modules.dep)."""
        lines = (self.modules / "modules.dep").read_text().splitlines()
        needs = {path: needed.split() for path, _, needed in (x.partition(":") for x in lines)}
        found: list[str] = []
        for name in names:
            (path,) = (each for each in needs if Path(each).stem == name)
            found += [*reversed(needs[path]), path]
        return [self.modules / each for each in dict.fromkeys(found)]


def build_layer(base: Path) -> Path:
    """The layer on a root that has the kernel; made if it is not there."""
    layer, _ = build_root_with(base, PACKAGES)
    return layer


def find_kernel(layer: Path) -> Kernel:
    (modules,) = (layer / "usr/lib/modules").iterdir()
    release = modules.name
    boot = layer / "boot"
    return Kernel(boot / f"vmlinuz-{release}", boot / f"initrd.img-{release}", modules)
