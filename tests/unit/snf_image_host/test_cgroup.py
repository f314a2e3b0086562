"""Control groups on a folder that looks like cgroup v2; the kernel's own judge in
tests/integration/test_jail.py and test_helper_vm.py."""

from pathlib import Path

import pytest

from snf_ganeti.errors import NodeError
from snf_image_host.confinement.cgroup import Limits, find_mount, find_parent

LIMITS = Limits(1 << 30)
HYBRID = """\
25 31 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw
33 32 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
34 32 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:12 - cgroup cgroup rw,memory
"""


def make_root(folder: Path, controllers: str, enabled: str = "") -> Path:
    root = folder / "cgroup"
    for each in (root, root / "snf-image"):
        each.mkdir()
        (each / "cgroup.controllers").write_text(f"{controllers}\n")
        (each / "cgroup.subtree_control").write_text(enabled)
    mounts = folder / "mountinfo"
    mounts.write_text(f"33 32 0:28 / {root} rw,nosuid - cgroup2 cgroup2 rw\n")
    return mounts


def test_it_is_found_where_it_is_mounted() -> None:
    assert find_mount(HYBRID) == Path("/sys/fs/cgroup/unified")
    with pytest.raises(NodeError, match="not mounted"):
        find_mount(HYBRID.replace("cgroup2", "cgroup"))


def test_the_controllers_that_are_there_are_enabled(tmp_path: Path) -> None:
    mounts = make_root(tmp_path, "cpuset cpu io memory pids", enabled="memory")
    parent = find_parent(LIMITS.make_files().keys(), mounts)
    assert parent.controllers == {"cpu", "memory", "pids"}
    assert parent.folder == tmp_path / "cgroup/snf-image"
    for folder in (parent.folder, parent.folder.parent):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +pids"


@pytest.mark.parametrize("controllers", ["", "hugetlb misc"])
def test_a_node_whose_controllers_are_elsewhere_says_so(tmp_path: Path, controllers: str) -> None:
    mounts = make_root(tmp_path, controllers)
    with pytest.raises(NodeError, match="none of the controllers cpu, memory, pids"):
        find_parent(LIMITS.make_files().keys(), mounts)


def test_a_run_is_killed_as_a_whole_and_swaps_nothing() -> None:
    files = LIMITS.make_files()
    assert files["memory"] == {
        "memory.max": str(1 << 30),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
    }
    assert 1 <= int(files["cpu"]["cpu.weight"]) < 100
