"""All attacks."""

from hostile import (
    containers,
    file_systems,
    guest_files,
    names,
    partition_tables,
    streams,
)

ATTACKS = (
    *names.ATTACKS,
    *streams.ATTACKS,
    *containers.ATTACKS,
    *partition_tables.ATTACKS,
    *file_systems.ATTACKS,
    *guest_files.ATTACKS,
)
BY_NAME = {attack.name: attack for attack in ATTACKS}
