"""Who may write a volume, and who is refused. Needs root."""

from testbed.ceph import Ceph
from testbed.machine import Machine
from testbed.volumes import (
    IMAGES,
    find_device,
    find_workers,
    hash_device,
    run_script,
    write_pattern,
)


def test_old_writer_is_fenced(
    ceph: Ceph, node: Machine, other: Machine, golden: str, volume: str
) -> None:
    """A node that takes the volume over shuts the other one's writes out for good."""
    run_script(node, "create", volume, size=16, origin=golden)
    device = find_device(node, volume)
    run_script(node, "open", volume, exclusive=True)
    write_pattern(node, device)

    taken = find_device(other, volume)
    refused = ["dd", "if=/dev/urandom", f"of={taken}", "bs=4k", "count=1", "oflag=direct"]
    assert other.run(*refused, ok=(1,)).status == 1  # the lock is the first one's alone
    run_script(other, "detach", volume)
    taken = find_device(other, volume)
    run_script(other, "open", volume, exclusive=True)
    content = write_pattern(other, taken)

    late = ["dd", "if=/dev/urandom", f"of={device}", "bs=4k", "count=1", "oflag=direct"]
    assert "Input/output error" in node.run(*late, ok=(1,)).stderr
    for pid in find_workers(node, volume):  # its next worker is another client, and no better
        node.run("kill", "-KILL", str(pid))
    assert "Input/output error" in node.run(*late, ok=(1,), timeout=120).stderr
    assert hash_device(other, taken) == content
    run_script(node, "detach", volume)
    run_script(other, "close", volume)
    run_script(other, "detach", volume)
    assert hash_device(node, find_device(node, volume)) == content


def test_migration_shares_and_hands_over(
    node: Machine, other: Machine, golden: str, volume: str
) -> None:
    """Ganeti's order: shared on both, then closed on the source and exclusive on the target."""
    run_script(node, "create", volume, size=16, origin=golden)
    source = find_device(node, volume)
    run_script(node, "open", volume, exclusive=True)
    write_pattern(node, source)
    target = find_device(other, volume)
    for machine in (node, other):
        run_script(machine, "open", volume, exclusive=False)
    content = write_pattern(node, source)
    assert hash_device(other, target) == content
    write_pattern(other, target)
    run_script(node, "close", volume)
    run_script(other, "open", volume, exclusive=True)
    content = write_pattern(other, target)
    run_script(node, "detach", volume)
    run_script(other, "detach", volume)
    assert hash_device(node, find_device(node, volume)) == content


def test_node_can_not_write_images(ceph: Ceph, node: Machine, golden: str) -> None:
    script = (
        "import rados, rbd\n"
        "with rados.Rados(conffile='/etc/ceph/ceph.conf', rados_id='ganeti') as cluster:\n"
        f"    with cluster.open_ioctx('{IMAGES}') as pool, rbd.Image(pool, 'counter') as image:\n"
        "        image.write(b'x', 0)\n"
    )
    failed = node.run("timeout", "60", "python3", "-c", script, ok=(1,)).stderr
    assert "Permission" in failed or "Operation not permitted" in failed or "ReadOnly" in failed
