"""Messages as lines for people."""

import time
from collections.abc import Mapping
from typing import Any

_NAMES = ("instance", "network", "group", "node")


def make_line(body: Mapping[str, Any]) -> str:
    """`TIME  JOB  STATUS  OPERATION OBJECT: what more is known`."""
    seconds, micro = body["event_time"]
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    operation = str(body["operation"]).removeprefix("OP_").lower().replace("_", " ")
    name = next((str(body[key]) for key in _NAMES if key in body), "")
    job = f"{body['jobId']}" + (f".{body['opIndex']}" if body["opIndex"] else "")
    head = f"{clock}.{micro // 1000:03}  job {job:<7} {body['status']:<9} {operation} {name}"
    more = describe(body)
    return f"{head.rstrip()}: {more}" if more else head.rstrip()


def describe(body: Mapping[str, Any]) -> str:
    """What an event says besides its status, in one line."""
    if body["status"] == "error":
        return _clean(_find_reason(body["result"]))
    nics = body.get("instance_nics")
    if nics is not None:
        addresses = [str(nic["ip"] or nic["mac"]) for nic in nics]
        disks = [f"{disk['size']} MiB" for disk in body["instance_disks"]]
        return "; ".join(filter(None, (_list("NIC", addresses), _list("disk", disks))))
    return _clean(str(body["logmsg"] or ""))


def _find_reason(result: Any) -> str:
    if isinstance(result, list) and len(result) == 2 and isinstance(result[1], list):
        return f"{result[0]}: {' '.join(map(str, result[1][:1]))}"
    return "" if result is None else str(result)


def _list(word: str, items: list[str]) -> str:
    return f"{word} {', '.join(items)}" if items else ""


def _clean(text: str) -> str:
    """One printable line."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(line.split())[:300]
