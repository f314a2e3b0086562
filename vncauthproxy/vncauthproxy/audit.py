"""One line of JSON for each session that ended, and for each that was refused."""

import json
import logging
import time
from typing import Any

from vncauthproxy.session import Session, format_time

log = logging.getLogger("vncauthproxy.audit")


def make_line(session: Session) -> dict[str, Any]:
    end = session.end.reason if session.end else "unknown"
    target = str(session.grant.target)
    return {"event": "session", **session.facts, "target": target, "end": end}


def write_session(session: Session) -> None:
    log.info("%s", json.dumps(make_line(session)))


def write_refusal(kind: str, address: str, reason: str) -> None:
    line = {
        "event": "refused",
        "kind": kind,
        "from": address,
        "time": format_time(time.time()),
        "reason": reason,
    }
    log.info("%s", json.dumps(line))
