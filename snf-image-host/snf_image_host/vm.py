"""The helper's virtual machine, as QEMU's argument list.

No NIC, no user configuration, no default device, no monitor, seccomp on. Everything it
works on comes as an inherited descriptor: kernel and root file system, the instance's
disks, both ports; the console goes to standard output, a pipe that the host reads.

Measured under TCG: q35 boots the Debian 12 kernel in 2.3 s, pc in 2.8 s; more than one
virtual CPU gains nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snf_image_helper.protocol import EVENTS_PORT, REQUEST_PORT

QEMU = "qemu-system-x86_64"
KVM = Path("/dev/kvm")
AcceleratorName = Literal["kvm", "tcg"]
DiskKind = Literal["file", "block", "nbd"]

_ACCELERATORS = {
    "kvm": ("kvm", "host"),
    # The translation cache is part of what the VM may take of the node's memory.
    "tcg": ("tcg,thread=multi,tb-size=128", "max"),
}
_KERNEL_ARGUMENTS = " ".join(
    (
        "console=ttyS0",
        "loglevel=3",
        "panic=-1",  # a panic resets at once; with -no-reboot it ends QEMU
        "mitigations=off",  # one program of ours runs there; nothing to keep apart
        "random.trust_bootloader=off",
        "random.trust_cpu=off",  # the host sends entropy with the request
        "noresume",
    )
)
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_OVERHEAD = 2560 << 20
"""Bytes of address space that QEMU takes beside the guest's memory: a slow disk has it start
64 threads, each with a stack of 8 MiB."""


@dataclass(frozen=True)
class VmDisk:
    """A disk of the instance, open: a regular file, a block device, or a socket connected
    to an NBD server whose export has the empty name."""

    kind: DiskKind
    fd: int


@dataclass(frozen=True)
class Vm:
    """A helper VM. memory: MiB. The other fields are descriptors that QEMU inherits."""

    accelerator: AcceleratorName
    memory: int
    kernel: int
    initrd: int
    request: int
    events: int
    disks: tuple[VmDisk, ...] = ()

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (
            self.kernel,
            self.initrd,
            self.request,
            self.events,
            *(disk.fd for disk in self.disks),
        )

    @property
    def address_space(self) -> int:
        """Bytes of address space that QEMU may take."""
        return (self.memory << 20) + _OVERHEAD


def make_qemu_argv(vm: Vm) -> list[str]:
    """QEMU's whole argument list; a line a device."""
    accelerator, cpu = _ACCELERATORS[vm.accelerator]
    return [
        *(QEMU, "-no-user-config", "-nodefaults", "-no-reboot"),
        *("-name", "snf-image-helper"),
        *("-machine", "q35,usb=off,vmport=off,graphics=off"),
        *("-accel", accelerator),
        *("-cpu", cpu),
        *("-m", f"{vm.memory}M"),
        *("-sandbox", _SANDBOX),
        *("-display", "none"),
        *("-kernel", f"/dev/fd/{vm.kernel}"),
        *("-initrd", f"/dev/fd/{vm.initrd}"),
        *("-append", _KERNEL_ARGUMENTS),
        *("-chardev", "stdio,id=console,signal=off"),
        *("-serial", "chardev:console"),
        *("-object", "rng-builtin,id=rng"),
        *("-device", "virtio-rng-pci,rng=rng"),
        *("-device", "virtio-serial-pci"),
        *_make_port("request", REQUEST_PORT, vm.request),
        *_make_port("events", EVENTS_PORT, vm.events),
        *("-device", "virtio-scsi-pci,id=scsi"),
        *(word for index, disk in enumerate(vm.disks) for word in _make_disk(index, disk)),
    ]


def _make_port(name: str, port: str, fd: int) -> Sequence[str]:
    return (
        *("-chardev", f"socket,id={name},fd={fd}"),
        *("-device", f"virtserialport,chardev={name},name={port}"),
    )


def _make_disk(index: int, disk: VmDisk) -> Iterator[str]:
    """Disk n is LUN n. Flushes of the guest are dropped: the host syncs once, at the end."""
    node = f"disk{index}"
    if disk.kind == "nbd":
        backend = f"driver=nbd,server.type=fd,server.str={disk.fd}"
    else:
        driver = {"file": "file", "block": "host_device"}[disk.kind]
        yield from ("-add-fd", f"fd={disk.fd},set={index + 1}")
        backend = f"driver={driver},filename=/dev/fdset/{index + 1},locking=off"
    yield from (
        "-blockdev",
        f"{backend},node-name={node}-back,discard=unmap,cache.no-flush=on",
    )
    yield from (
        "-blockdev",
        f"driver=raw,file={node}-back,node-name={node},discard=unmap,cache.no-flush=on",
    )
    yield from ("-device", f"scsi-hd,bus=scsi.0,scsi-id=0,lun={index},drive={node}")
