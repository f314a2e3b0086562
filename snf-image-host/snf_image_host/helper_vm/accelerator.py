"""KVM or emulation: what the settings say, or what was proved on this node.

A `/dev/kvm` that opens and creates machines proves nothing: on some nodes (nested
virtualization that is broken, mostly) no kernel ever boots on it. So `auto` boots the
helper once under KVM with a deadline, and keeps the verdict beside the appliance until the
appliance, the node's kernel or QEMU changes.
"""

import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Literal

from snf_ganeti.lock import lock_file
from snf_image_host.helper_vm.appliance import Appliance
from snf_image_host.helper_vm.helper import HelperVm, boot_helper
from snf_image_host.helper_vm.vm import KVM, AcceleratorName, identify_qemu

log = logging.getLogger(__name__)

AcceleratorSetting = Literal["auto", "kvm", "tcg"]
_VERDICT = "accelerator.json"
_PROOF_TIMEOUT = 20.0
"""Seconds in which the helper must answer under KVM; with a sound one it takes two."""
_LOCK_TIMEOUT = _PROOF_TIMEOUT + 10


def find_accelerator(setting: AcceleratorSetting, vm: HelperVm) -> AcceleratorName:
    """The accelerator to use; `vm` is the machine to prove KVM with.

    Raises LockError when another run's proof doesn't end.
    """
    if setting != "auto":
        return setting
    if not KVM.exists():
        return "tcg"
    helper_dir = vm.appliance.folder.parent
    with lock_file(helper_dir / (_VERDICT + ".lock"), timeout=_LOCK_TIMEOUT):
        conditions = make_conditions(vm.appliance)
        verdict = read_verdict(helper_dir, conditions)
        if verdict is None:
            verdict = prove_kvm(vm)
            write_verdict(helper_dir, conditions, verdict)
    return verdict


def prove_kvm(vm: HelperVm) -> AcceleratorName:
    """Boot the helper under KVM; `tcg` when it does not answer."""
    limits = dataclasses.replace(vm.limits, boot_timeout=_PROOF_TIMEOUT)
    with boot_helper(dataclasses.replace(vm, accelerator="kvm", limits=limits)) as session:
        ready = session.wait_ready()
    if not ready:
        log.warning("%s is there, but no machine boots on it: emulating (slow)", KVM)
    return "kvm" if ready else "tcg"


def make_conditions(appliance: Appliance) -> dict[str, str]:
    """What a verdict depends on."""
    return {
        "appliance": appliance.folder.name,
        "kernel": os.uname().release,
        "qemu": identify_qemu(),
    }


def read_verdict(helper_dir: Path, conditions: dict[str, str]) -> AcceleratorName | None:
    """The verdict of an earlier proof under the same conditions."""
    try:
        kept = json.loads((helper_dir / _VERDICT).read_text())
    except (OSError, ValueError):
        return None
    verdicts: dict[str, AcceleratorName] = {"kvm": "kvm", "tcg": "tcg"}
    return verdicts.get(kept["verdict"]) if kept.get("conditions") == conditions else None


def write_verdict(helper_dir: Path, conditions: dict[str, str], verdict: AcceleratorName) -> None:
    draft = helper_dir / (_VERDICT + ".new")
    draft.write_text(json.dumps({"conditions": conditions, "verdict": verdict}) + "\n")
    draft.rename(helper_dir / _VERDICT)
