"""QEMU's argument list: what must be there, and what must never be."""

import pytest

from snf_image_host.vm import DiskKind, Vm, VmDisk, make_qemu_argv


def make_argv(*disks: VmDisk) -> list[str]:
    return make_qemu_argv(
        Vm("tcg", 512, kernel=3, initrd=4, request=5, events=6, disks=tuple(disks))
    )


def test_no_nic_no_monitor_no_user_configuration() -> None:
    argv = make_argv(VmDisk("file", 9))
    assert "-nodefaults" in argv
    assert "-no-user-config" in argv
    assert not {"-nic", "-netdev", "-net", "-monitor", "-mon", "-qmp"} & set(argv)
    assert not any("net" in word.split(",")[0] for word in argv if word.startswith("virtio"))


def test_the_sandbox_denies_spawning_and_privileges() -> None:
    argv = make_argv()
    sandbox = argv[argv.index("-sandbox") + 1].split(",")
    assert {"on", "spawn=deny", "elevateprivileges=deny"} <= set(sandbox)


def test_no_path_of_an_image_is_in_argv() -> None:
    argv = make_argv(VmDisk("file", 9), VmDisk("block", 10), VmDisk("nbd", 11))
    paths = [word for word in argv if "/" in word]
    assert all("/dev/fd" in path for path in paths)


@pytest.mark.parametrize(
    ("kind", "driver"),
    [("file", "driver=file,"), ("block", "driver=host_device,"), ("nbd", "driver=nbd,")],
)
def test_a_disk_has_the_driver_of_its_kind(kind: DiskKind, driver: str) -> None:
    argv = make_argv(VmDisk(kind, 9))
    backends = [argv[at + 1] for at, word in enumerate(argv) if word == "-blockdev"]
    assert backends[0].startswith(driver)
    assert backends[1].startswith("driver=raw,")  # the format is never probed


def test_disk_n_is_lun_n() -> None:
    argv = make_argv(*(VmDisk("file", 9 + n) for n in range(3)))
    luns = [word for word in argv if word.startswith("scsi-hd")]
    assert [f"lun={n},drive=disk{n}" in lun for n, lun in enumerate(luns)] == [True] * 3


def test_every_descriptor_is_named_for_inheritance() -> None:
    vm = Vm("tcg", 512, 3, 4, 5, 6, (VmDisk("file", 9), VmDisk("nbd", 10)))
    assert set(vm.descriptors) == {3, 4, 5, 6, 9, 10}
