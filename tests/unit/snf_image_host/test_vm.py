"""QEMU's argument list and what plugs disks in: what must be there, and what must never be."""

import pytest

from snf_image_host.helper_vm.vm import (
    Boot,
    DiskKind,
    Restore,
    Vm,
    VmDisk,
    make_disk_commands,
    make_fingerprint,
    make_qemu_argv,
    make_restore_commands,
)

BOOTED = Vm("tcg", 512, 3, 4, 5, 6, Boot(kernel=7, initrd=8))
RESTORED = Vm("tcg", 512, 3, 4, 5, 6, Restore(devices=9))
BOTH = pytest.mark.parametrize("vm", [BOOTED, RESTORED])


def find_value(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


@BOTH
def test_no_nic_no_user_configuration_and_one_control_channel(vm: Vm) -> None:
    argv = make_qemu_argv(vm)
    assert "-nodefaults" in argv
    assert "-no-user-config" in argv
    assert not {"-nic", "-netdev", "-net", "-monitor", "-qmp", "-virtfs", "-fsdev"} & set(argv)
    assert not any("net" in word.split(",")[0] for word in argv if word.startswith("virtio"))
    assert find_value(argv, "-mon") == "chardev=control,mode=control"


@BOTH
def test_the_sandbox_denies_spawning_and_privileges(vm: Vm) -> None:
    sandbox = find_value(make_qemu_argv(vm), "-sandbox").split(",")
    assert {"on", "spawn=deny", "elevateprivileges=deny"} <= set(sandbox)


@BOTH
def test_everything_is_named_by_descriptor(vm: Vm) -> None:
    paths = [word for word in make_qemu_argv(vm) if "/" in word]
    assert paths
    assert all("/dev/fd" in path for path in paths)


@BOTH
def test_processors_do_not_depend_on_this_node(vm: Vm) -> None:
    assert find_value(make_qemu_argv(vm), "-cpu") not in ("max", "host")


def test_a_restored_vm_keeps_its_changes_to_itself() -> None:
    assert "share=off" in find_value(make_qemu_argv(RESTORED), "-object").split(",")
    assert "share=on" in find_value(make_qemu_argv(BOOTED), "-object").split(",")


def test_a_restored_vm_is_told_where_its_state_is() -> None:
    assert find_value(make_qemu_argv(RESTORED), "-incoming") == "defer"
    last = make_restore_commands(Restore(devices=9))[-1]
    assert (last.name, last.arguments) == ("migrate-incoming", {"uri": "fd:9"})


def test_a_booted_and_a_restored_vm_are_one_machine() -> None:
    own = {"-kernel", "-initrd", "-append", "-incoming", "-object"}
    machines = []
    for vm in (BOOTED, RESTORED):
        argv = make_qemu_argv(vm)
        machines.append(
            [
                w
                for before, w in zip(["", *argv], argv, strict=False)
                if before not in own and w not in own
            ]
        )
    assert machines[0] == machines[1]


def test_the_fingerprint_tells_machines_apart() -> None:
    prints = {
        make_fingerprint("tcg", 512),
        make_fingerprint("tcg", 768),
        make_fingerprint("kvm", 512),
    }
    assert len(prints) == 3
    assert make_fingerprint("tcg", 512) in prints


@pytest.mark.parametrize(("kind", "driver"), [("file", "file"), ("block", "host_device")])
def test_a_disk_is_handed_over_and_never_probed(kind: DiskKind, driver: str) -> None:
    handed, backend, raw, device = make_disk_commands(2, VmDisk(kind, 9))
    assert (handed.name, handed.arguments, handed.fds) == ("add-fd", {"fdset-id": 2}, (9,))
    assert backend.arguments["driver"] == driver
    assert backend.arguments["filename"] == "/dev/fdset/2"
    assert raw.arguments["driver"] == "raw"
    assert device.arguments["lun"] == 2
    # Told of an error, the guest can say so; QEMU's own way is to stop it.
    assert (device.arguments["rerror"], device.arguments["werror"]) == ("report", "report")


def test_a_server_of_a_disk_is_a_socket_that_is_handed_over() -> None:
    handed, backend, *_ = make_disk_commands(0, VmDisk("nbd", 9))
    assert (handed.name, handed.fds) == ("getfd", (9,))
    assert backend.arguments["server"] == {"type": "fd", "str": handed.arguments["fdname"]}


@pytest.mark.parametrize("read_only", [False, True])
def test_a_disk_that_the_host_only_reads_is_only_read(read_only: bool) -> None:
    layers = make_disk_commands(0, VmDisk("file", 9, read_only=read_only))[1:3]
    assert [layer.arguments["read-only"] for layer in layers] == [read_only] * 2


@BOTH
def test_every_descriptor_is_named_for_inheritance(vm: Vm) -> None:
    assert set(vm.descriptors) == {3, 4, 5, 6} | ({7, 8} if vm is BOOTED else {9})
