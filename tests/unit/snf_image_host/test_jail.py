"""The jail's argument list; what the kernel makes of it, tests/integration/test_jail.py shows."""

import os
from pathlib import Path

import pytest

from snf_image_host.confinement.jail import Confinement, Jail, make_jail_argv
from snf_image_host.confinement.syscalls import SyscallProfile, find_names, open_filter

JAIL = Jail(uid=990, gid=991)


def make_argv(**changes: object) -> list[str]:
    confinement = Confinement("decoder", 1 << 30, **changes)  # type: ignore[arg-type]
    return make_jail_argv(JAIL, confinement, ["xz", "-dc"], filter_fd=7)


def test_limits_namespaces_user_and_program_come_in_this_order() -> None:
    argv = make_argv()
    places = [argv.index(word) for word in ("prlimit", "bwrap", "xz")]
    assert places == sorted(places)
    assert argv.index("--no-new-privs") > argv.index("bwrap")
    assert argv[-3:] == ["--", "xz", "-dc"]


def test_the_node_shows_its_programs_and_nothing_else() -> None:
    argv = make_argv()
    binds = [argv[at + 1] for at, word in enumerate(argv) if word == "--ro-bind"]
    assert binds == ["/usr"]
    assert not any(word.startswith(("/etc", "/var", "/home", "/root", "/sys")) for word in argv)


def test_a_limit_that_is_not_given_is_not_set() -> None:
    assert "--fsize=0" in make_argv()
    assert not any(word.startswith(("--fsize", "--cpu")) for word in make_argv(file_size=None))
    assert "--cpu=60" in make_argv(cpu=60)


def test_the_network_is_shared_only_when_asked_for() -> None:
    assert "--unshare-net" in make_argv()
    assert "--unshare-net" not in make_argv(network=True)


def test_the_way_to_what_is_visible_is_open_to_the_jails_user() -> None:
    argv = make_argv(visible=(Path("/etc/ceph/ceph.conf"), Path("/etc/hosts")))
    made = [argv[at + 1 : at + 4] for at, word in enumerate(argv) if word == "--perms"]
    assert made[-2:] == [["0755", "--dir", "/etc"], ["0755", "--dir", "/etc/ceph"]]
    assert argv.index("/etc/ceph") < argv.index("/etc/ceph/ceph.conf")


def test_a_device_comes_with_its_group() -> None:
    confinement = Confinement("machine", 1 << 30, devices=(Path("/dev/kvm"),))
    argv = make_jail_argv(JAIL, confinement, ["qemu"], filter_fd=7, groups=(108,))
    assert argv[argv.index("/dev/kvm") - 1] == "--dev-bind"
    assert "--groups=108" in argv
    assert "--clear-groups" not in argv


def test_the_control_group_is_entered_first() -> None:
    jail = Jail(990, 991, Path("/sys/fs/cgroup/snf-image/990"))
    argv = make_jail_argv(jail, Confinement("decoder", 1 << 30), ["xz"], filter_fd=7)
    at = argv.index("/sys/fs/cgroup/snf-image/990/cgroup.procs")
    assert argv.index("sh") < at < argv.index("prlimit")


def test_bubblewrap_tells_of_the_programs_end_where_it_is_asked_to() -> None:
    assert "--json-status-fd" not in make_argv()
    argv = make_jail_argv(JAIL, Confinement("decoder", 1 << 30), ["xz"], filter_fd=7, told=8)
    at = argv.index("--json-status-fd")
    assert argv[at + 1] == "8"
    assert argv.index("bwrap") < at < argv.index(f"--reuid={JAIL.uid}")


def test_all_of_it_is_tied_to_the_life_of_this_process() -> None:
    argv = make_argv()
    assert argv[:4] == ["setpriv", "--pdeathsig=KILL", "--", "sh"]
    assert argv[6:8] == [str(os.getpid()), ""]
    assert "--kill-child=KILL" in argv[5]
    assert argv[9] == "prlimit"


@pytest.mark.parametrize("profile", ["decoder", "server"])
def test_a_decoder_starts_no_process_and_reaches_nothing_of_the_kernel(
    profile: SyscallProfile,
) -> None:
    assert not {"fork", "vfork", "clone", "clone3"} & find_names(profile)
    assert not find_names("machine") & find_names(profile)
    assert not {"socket", "connect", "bind"} & find_names("decoder")


@pytest.mark.parametrize("profile", ["decoder", "server", "machine"])
def test_a_filter_is_a_program_of_whole_instructions(profile: SyscallProfile) -> None:
    with open_filter(profile) as descriptor, open(descriptor, "rb", closefd=False) as file:
        program = file.read()
    assert program
    assert len(program) % 8 == 0  # struct sock_filter
