"""All attacks."""

from hostile import (
    file_systems,
    guest_files,
    names,
    partition_tables,
    qcow2,
    streams,
    vhd,
    vhdx,
    vmdk,
)

ATTACKS = (
    *names.ATTACKS,
    *streams.ATTACKS,
    *qcow2.ATTACKS,
    *vmdk.ATTACKS,
    *vhd.ATTACKS,
    *vhdx.ATTACKS,
    *partition_tables.ATTACKS,
    *file_systems.ATTACKS,
    *guest_files.ATTACKS,
)
BY_NAME = {attack.name: attack for attack in ATTACKS}
