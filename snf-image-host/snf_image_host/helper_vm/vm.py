"""The helper's virtual machine, as QEMU's argument list.

No NIC, no user configuration, no default device, seccomp on. Everything it works on comes as
an inherited descriptor: its memory, kernel and root file system or the state that it was saved
in, both ports, the control channel; the console goes to standard output, a pipe that the host
reads. The instance's disks come over the control channel.

Measured under TCG: q35 boots the Debian 12 kernel in 2.3 s, pc in 2.8 s; more than one
virtual CPU gains nothing. Restored, it runs after 0.05 s.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snf_ganeti.process import ENVIRONMENT
from snf_image_helper.protocol import EVENTS_PORT, REQUEST_PORT
from snf_image_host.helper_vm.qmp import Command

QEMU = "qemu-system-x86_64"
KVM = Path("/dev/kvm")
AcceleratorName = Literal["kvm", "tcg"]
DiskKind = Literal["file", "block", "nbd"]

_ACCELERATORS = {
    "kvm": ("kvm", "host"),
    # The translation cache is part of what the VM may take of the node's memory.
    # A named model: what it can do depends neither on this node's processor nor on QEMU's
    # version. This one has what the kernel's checksums and ciphers look for.
    "tcg": ("tcg,thread=multi,tb-size=128", "Westmere"),
}
_KERNEL_ARGUMENTS = " ".join(
    (
        "console=ttyS0",
        "loglevel=3",
        "panic=-1",  # a panic resets at once; with -no-reboot it ends QEMU
        "mitigations=off",  # one program of ours runs there; nothing to keep apart
        "random.trust_bootloader=off",
        "random.trust_cpu=off",  # the host sends entropy with the request
        "init_on_free=1",  # no secret lingers, and a saved memory is the smaller
        "noresume",
    )
)
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
IGNORE_MEMORY = Command(
    "migrate-set-capabilities",
    {"capabilities": [{"capability": "x-ignore-shared", "state": True}]},
)
"""Saving and restoring leaves out the memory that is a file: QEMU 7.2 can't be told on its
command line."""
_OVERHEAD = 2560 << 20
"""Bytes of address space that QEMU takes beside the guest's memory: a slow disk has it start
64 threads, each with a stack of 8 MiB."""


@dataclass(frozen=True)
class VmDisk:
    """A disk of the instance, open: a regular file, a block device, or a socket connected
    to an NBD server whose export has the empty name."""

    kind: DiskKind
    fd: int
    read_only: bool = False


@dataclass(frozen=True)
class Boot:
    """A VM that starts from its kernel and root file system, by descriptor."""

    kernel: int
    initrd: int

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self.kernel, self.initrd)


@dataclass(frozen=True)
class Restore:
    """A VM that goes on where another was saved. devices: a pipe with the devices' state."""

    devices: int

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self.devices,)


@dataclass(frozen=True)
class Vm:
    """A helper VM. memory: MiB; ram: a file of that size that is its memory, or that it starts
    with when it is restored. The other fields are descriptors that QEMU inherits."""

    accelerator: AcceleratorName
    memory: int
    ram: int
    control: int
    request: int
    events: int
    start: Boot | Restore

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self.ram, self.control, self.request, self.events, *self.start.descriptors)

    @property
    def address_space(self) -> int:
        """Bytes of address space that QEMU may take."""
        return (self.memory << 20) + _OVERHEAD


def make_qemu_argv(vm: Vm) -> list[str]:
    """QEMU's whole argument list; a line a device.

    A VM that is booted shares its memory with the file, so that it can be saved; one that is
    restored has the file's content and keeps its own changes to itself.
    """
    accelerator, cpu = _ACCELERATORS[vm.accelerator]
    share = "off" if isinstance(vm.start, Restore) else "on"
    ram = f"size={vm.memory}M,mem-path=/dev/fd/{vm.ram},share={share}"
    return [
        *(QEMU, "-no-user-config", "-nodefaults", "-no-reboot"),
        *("-name", "snf-image-helper"),
        *("-machine", "q35,usb=off,vmport=off,graphics=off,memory-backend=ram"),
        *("-accel", accelerator),
        *("-cpu", cpu),
        *("-m", f"{vm.memory}M"),
        *("-object", f"memory-backend-file,id=ram,{ram}"),
        *("-sandbox", _SANDBOX),
        *("-display", "none"),
        *_make_start(vm.start),
        *("-chardev", "stdio,id=console,signal=off"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=control,fd={vm.control}"),
        *("-mon", "chardev=control,mode=control"),
        *("-object", "rng-builtin,id=rng"),
        *("-device", "virtio-rng-pci,rng=rng"),
        *("-device", "virtio-serial-pci"),
        *_make_port("request", REQUEST_PORT, vm.request),
        *_make_port("events", EVENTS_PORT, vm.events),
        *("-device", "virtio-scsi-pci,id=scsi"),
    ]


def identify_qemu() -> str:
    """Which QEMU this node has: its path, size and time; empty without one."""
    path = shutil.which(QEMU, path=ENVIRONMENT["PATH"])
    if path is None:
        return ""
    status = Path(path).stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def make_fingerprint(accelerator: AcceleratorName, memory: int) -> str:
    """Of all options that make the machine: a state fits one that is made the same way."""
    argv = make_qemu_argv(Vm(accelerator, memory, 0, 0, 0, 0, Boot(0, 0)))
    return hashlib.sha256("\0".join(argv).encode()).hexdigest()


def _make_start(start: Boot | Restore) -> Sequence[str]:
    if isinstance(start, Restore):
        return ("-incoming", "defer")
    return (
        *("-kernel", f"/dev/fd/{start.kernel}"),
        *("-initrd", f"/dev/fd/{start.initrd}"),
        *("-append", _KERNEL_ARGUMENTS),
    )


def _make_port(name: str, port: str, fd: int) -> Sequence[str]:
    return (
        *("-chardev", f"socket,id={name},fd={fd}"),
        *("-device", f"virtserialport,chardev={name},name={port}"),
    )


def make_restore_commands(start: Restore) -> list[Command]:
    """What a VM that waits for a state has to be told."""
    return [IGNORE_MEMORY, Command("migrate-incoming", {"uri": f"fd:{start.devices}"})]


def make_disk_commands(index: int, disk: VmDisk) -> list[Command]:
    """What plugs a disk in: disk n is LUN n. Flushes of the guest are dropped: the host syncs
    once, at the end."""
    node = f"disk{index}"
    common = {
        "discard": "unmap",
        "cache": {"no-flush": True},
        "read-only": disk.read_only,
    }
    if disk.kind == "nbd":
        handed = Command("getfd", {"fdname": node}, (disk.fd,))
        backend = {"driver": "nbd", "server": {"type": "fd", "str": node}}
    else:
        driver = {"file": "file", "block": "host_device"}[disk.kind]
        handed = Command("add-fd", {"fdset-id": index}, (disk.fd,))
        backend = {"driver": driver, "filename": f"/dev/fdset/{index}", "locking": "off"}
    device = {"driver": "scsi-hd", "bus": "scsi.0", "scsi-id": 0, "lun": index, "drive": node}
    # The guest is told of a full or broken disk; QEMU would stop it, and it would wait in vain.
    errors = {"rerror": "report", "werror": "report"}
    return [
        handed,
        Command("blockdev-add", {**backend, "node-name": f"{node}-back", **common}),
        Command(
            "blockdev-add",
            {"driver": "raw", "file": f"{node}-back", "node-name": node, **common},
        ),
        Command("device_add", {**device, **errors, "id": f"lun{index}"}),
    ]
