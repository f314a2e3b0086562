"""The addresses of the guest's NICs, by the system that it configures its network with."""

import posixpath
from collections.abc import Mapping

from snf_image_helper.network import BACK_ENDS
from snf_image_helper.network.backend import BackEnd, Plan
from snf_image_helper.task import Context, Skip, Task, TaskFailed
from snf_image_helper.tree import Tree

_CLOUD_INIT = "/etc/cloud/cloud.cfg.d"
_NO_NETWORK = {f"{_CLOUD_INIT}/99-disable-network-config.cfg": "network: {config: disabled}\n"}


def run(context: Context) -> None:
    assert context.guest is not None
    tree, nics = context.guest.tree, context.request.nics
    if not any(nic.ipv4 or nic.ipv6 for nic in nics):
        raise Skip("no NIC has an address to configure" if nics else "the instance has no NIC")
    found = [back_end for back_end in BACK_ENDS if back_end.detect(tree)]
    if not found:
        signs = "; ".join(f"{each.name}: {each.sign}" for each in BACK_ENDS)
        raise TaskFailed(
            f"no network configuration known to us in {context.guest.name}, looked for {signs};"
            " set EXCLUDE_TASK_CONFIGURENETWORK to leave the network to the image"
        )
    chosen, *others = found
    plans = [(chosen, chosen.make_plan(tree, nics))]
    plans += [(each, each.make_plan(tree, ())) for each in others]
    for back_end, plan in plans:  # all are made before the first is carried out
        _carry_out(tree, back_end, plan)
    if tree.is_dir(_CLOUD_INIT):
        _write(tree, _NO_NETWORK, 0o644)


def _carry_out(tree: Tree, back_end: BackEnd, plan: Plan) -> None:
    for path in plan.removed:
        tree.remove(path)
    _write(tree, plan.files, back_end.mode)


def _write(tree: Tree, files: Mapping[str, str], mode: int) -> None:
    for path, text in files.items():
        tree.make_dirs(posixpath.dirname(path))
        tree.write_text(path, text, mode=mode)


TASK = Task("ConfigureNetwork", 50, run, needs_mount=True)
