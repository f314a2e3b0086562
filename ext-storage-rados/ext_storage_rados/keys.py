"""The keys of a site: what nodes and publishers may do in Ceph, and no more."""

from collections.abc import Mapping

import rados

from ext_storage_rados.ceph.cluster import ask_monitors
from ext_storage_rados.settings import Settings

Capabilities = Mapping[str, str]


def make_node_capabilities(settings: Settings) -> Capabilities:
    """All in the pool of volumes; reading, which cloning is, in the pool of images."""
    volumes = _make_pool("profile rbd", settings.pool, settings.namespace)
    images = _make_pool("profile rbd-read-only", settings.image_pool, settings.image_namespace)
    parts = [volumes, images]
    if settings.data_pool:
        parts.append(_make_pool("profile rbd", settings.data_pool, ""))
    return {"mon": "profile rbd", "mgr": "profile rbd", "osd": ", ".join(parts)}


def make_publisher_capabilities(settings: Settings) -> Capabilities:
    """All in the pool of images, and in that of volumes, of which it makes snapshots."""
    parts = [
        _make_pool("profile rbd", settings.image_pool, settings.image_namespace),
        _make_pool("profile rbd", settings.pool, settings.namespace),
    ]
    return {"mon": "profile rbd", "mgr": "profile rbd", "osd": ", ".join(parts)}


def grant(cluster: rados.Rados, user: str, capabilities: Capabilities) -> str:
    """Make a client with these capabilities, or change them to these; gives its keyring.

    The connection has to be an administrator's. Raises SnfError.
    """
    entity = f"client.{user}"
    words = [word for item in capabilities.items() for word in item]
    known = ask_monitors(cluster, {"prefix": "auth ls"})["auth_dump"]
    changed = "auth caps" if any(each["entity"] == entity for each in known) else "auth add"
    ask_monitors(cluster, {"prefix": changed, "entity": entity, "caps": words})
    (shown,) = ask_monitors(cluster, {"prefix": "auth get", "entity": entity})
    caps = "".join(f'\tcaps {service} = "{cap}"\n' for service, cap in shown["caps"].items())
    return f"[{entity}]\n\tkey = {shown['key']}\n{caps}"


def _make_pool(profile: str, pool: str, namespace: str) -> str:
    return f"{profile} pool={pool}" + (f" namespace={namespace}" if namespace else "")
