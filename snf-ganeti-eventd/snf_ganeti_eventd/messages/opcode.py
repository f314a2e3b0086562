"""What each opcode is about, and which of its parameters may be published.

An opcode is Ganeti's `OP_WORD_…`. The tables say, for each family, what kind of event it makes
and which parameter names its object. A parameter is published when its name stands in a table
here, and never otherwise: one that a newer Ganeti adds stays private until it is added, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from snf_ganeti_eventd.jobs.job import Op
from snf_ganeti_eventd.messages.redaction import Changes, Each, Fields, Keep, Spec


class Kind(StrEnum):
    """Kinds of events; the word is also that of the settings and of the routing keys."""

    OP = "op"
    NETWORK = "network"
    CLUSTER = "cluster"
    HEARTBEAT = "heartbeat"
    PROGRESS = "progress"
    GROUP = "group"
    NODE = "node"
    BACKUP = "backup"
    JOB = "job"


@dataclass(frozen=True)
class Family:
    """Opcodes that begin with `begins`: what they are about, and where its name stands."""

    begins: str
    kind: Kind
    name: str


FAMILIES = (
    Family("OP_INSTANCE_", Kind.OP, "instance_name"),
    Family("OP_NETWORK_", Kind.NETWORK, "network_name"),
    Family("OP_GROUP_", Kind.GROUP, "group_name"),
    Family("OP_NODE_", Kind.NODE, "node_name"),
    Family("OP_BACKUP_", Kind.BACKUP, "instance_name"),
)
TAG_OPCODES = frozenset({"OP_TAGS_SET", "OP_TAGS_DEL"})
HEARTBEAT_TAG = "snf:eventd:heartbeat"


@dataclass(frozen=True)
class Subject:
    """What an operation is about; name: of the object, empty for a cluster or job."""

    kind: Kind
    name: str = ""


def find_subject(op: Op) -> Subject:
    """Every operation is about something: what no table knows is about its job."""
    if op.op_id == "OP_CLUSTER_SET_PARAMS":
        return Subject(Kind.CLUSTER)
    if op.op_id in TAG_OPCODES and op.input.get("kind") == "instance":
        name = op.input.get("name")
        return Subject(Kind.OP, name) if isinstance(name, str) and name else Subject(Kind.JOB)
    for family in FAMILIES:
        if op.op_id.startswith(family.begins):
            name = op.input.get(family.name)
            if isinstance(name, str) and name:
                return Subject(family.kind, name)
    return Subject(Kind.JOB)


def is_heartbeat(op: Op) -> bool:
    """A dry run that sets a cluster tag of a certain name: a controller's way to ask for a sign
    of life, through Ganeti and back."""
    tags = op.input.get("tags")
    first = tags[0] if isinstance(tags, list) and tags else None
    return (
        op.op_id == "OP_TAGS_SET"
        and op.input.get("kind") == "cluster"
        and op.input.get("dry_run") is True
        and isinstance(first, str)
        and first.startswith(HEARTBEAT_TAG)
    )


def wants_instance(op: Op) -> bool:
    """Does its event show the instance as it is now: NICs, disks, hypervisor parameters?"""
    if op.op_id in ("OP_INSTANCE_CREATE", "OP_INSTANCE_STARTUP"):
        return op.status == "success"
    return op.is_final and op.op_id in ("OP_INSTANCE_SET_PARAMS", "OP_INSTANCE_GROW_DISK")


NIC = Fields.of("name", "uuid", "network", "ip", "mac", "mode", "link", "vlan", "bridge")
DISK = Fields.of(
    *("name", "uuid", "size", "mode", "vg", "metavg", "spindles", "adopt", "amount"),
    # Parameters of the ext-storage-rados provider, and the name of any provider.
    *("provider", "pool", "namespace", "origin", "reuse_data", "features", "stripe_unit"),
    *("stripe_count", "data_pool", "qos_iops", "qos_bps"),
)
HVPARAMS = Fields.of(
    *("acpi", "boot_order", "cdrom_disk_type", "cdrom_image_path", "cdrom2_image_path"),
    *("cpu_cores", "cpu_mask", "cpu_sockets", "cpu_threads", "cpu_type", "disk_aio"),
    *("disk_cache", "disk_type", "floppy_image_path", "initrd_path", "kernel_path"),
    *("keymap", "kvm_flag", "machine_version", "mem_path", "migration_downtime"),
    *("migration_mode", "nic_type", "reboot_behavior", "reboot_method", "root_path"),
    *("scsi_controller_type", "security_model", "serial_console", "serial_speed"),
    *("spice_bind", "usb_mouse", "use_localtime", "user_shutdown", "vga", "vhost_net"),
    *("virtio_net_queues", "vnc_bind_address", "vnc_tls"),
)
"""Not among them, since they can hold or lead to secrets: kernel_args, kvm_extra, paths of
password and key files, device and user options."""
BEPARAMS = Fields.of(
    *("maxmem", "minmem", "memory", "vcpus", "auto_balance", "always_failover", "spindle_use")
)
_SHAPES: Mapping[str, Spec] = {
    "nics": Each(NIC),
    "disks": Each(DISK),
    "hvparams": HVPARAMS,
    "beparams": BEPARAMS,
}
CREATE_INPUT = Fields(
    {
        **_SHAPES,
        "tags": Each(Keep()),
        **Fields.of(
            *("OP_ID", "instance_name", "mode", "disk_template", "hypervisor", "os_type"),
            *("pnode", "pnode_uuid", "snode", "snode_uuid", "iallocator", "group_name"),
            *("ip_check", "name_check", "conflicts_check", "start", "wait_for_sync"),
            *("opportunistic_locking", "identify_defaults", "no_install", "force_variant"),
            *("file_driver", "file_storage_dir", "ignore_ipolicy", "dry_run", "priority"),
            *("clear_osparams", "instance_communication", "forthcoming", "commit"),
        ).by_name,
    }
)
"""What a controller needs to send a failed creation again, but for OS parameters."""
_TAGS = Fields.of("dry_run")

FIELDS: Mapping[str, Fields] = {
    "OP_INSTANCE_CREATE": Fields(_SHAPES),
    "OP_INSTANCE_SET_PARAMS": Fields(
        {**_SHAPES, "nics": Changes(NIC), "disks": Changes(DISK)},
    ),
    "OP_INSTANCE_SNAPSHOT": Fields({"disks": Changes(DISK)}),
    "OP_TAGS_SET": _TAGS,
    "OP_TAGS_DEL": _TAGS,
    "OP_BACKUP_EXPORT": Fields.of("mode", "target_node", "shutdown"),
    "OP_NODE_SET_PARAMS": Fields.of(
        *("offline", "drained", "master_candidate", "master_capable", "vm_capable")
    ),
    "OP_NODE_ADD": Fields.of(
        *("group", "readd", "primary_ip", "secondary_ip", "master_capable", "vm_capable")
    ),
    "OP_GROUP_RENAME": Fields.of("new_name"),
    "OP_GROUP_SET_PARAMS": Fields.of("alloc_policy"),
    "OP_GROUP_ADD": Fields.of("alloc_policy"),
    "OP_GROUP_ASSIGN_NODES": Fields({"nodes": Each(Keep())}),
}
"""Parameters that an event's `job_fields` has, by opcode; those of all others are private."""

NETWORK_FIELDS = Fields(
    {
        "subnet": Keep(),
        "gateway": Keep(),
        "add_reserved_ips": Each(Keep()),
        "remove_reserved_ips": Each(Keep()),
        "group_name": Keep(),
    }
)
"""`job_fields` of every network event; what an operation does not have is null."""

KNOWN_INPUT = Fields(
    {
        **CREATE_INPUT.by_name,
        **NETWORK_FIELDS.by_name,
        **Fields.of(
            *("kind", "name", "network_name", "node_name", "node_uuid", "new_name"),
            *("target_node", "target_node_uuid", "instance_uuid", "debug_level", "shutdown"),
            *("network", "network6", "gateway6", "mac_prefix", "network_mode", "network_link"),
            *("network_vlan", "remote_node", "remote_node_uuid", "reboot_type", "evac_mode"),
            *("storage_type", "alloc_policy", "amount", "group", "primary_ip", "secondary_ip"),
        ).by_name,
        "nics": Changes(NIC),
        "disks": Changes(DISK),
        **dict.fromkeys(("nodes", "node_names", "node_uuids", "target_groups"), Each(Keep())),
        "depends": None,
        "reason": None,
    }
)
"""Input of any opcode that is no secret; text found elsewhere in an input is cut out of
messages and results. None: neither published nor a secret."""
