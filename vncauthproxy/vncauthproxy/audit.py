"""One line of JSON for each session that ended, and for each that was refused."""

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from vncauthproxy.session import Session

log = logging.getLogger("vncauthproxy.audit")


def make_line(session: Session) -> dict[str, Any]:
    """bytes_in: from the client; bytes_out: to it, both on the wire, of TLS without its frames."""
    stream = session.client.stream if session.client else None
    return {
        "event": "session",
        "session": session.id,
        "kind": session.kind,
        "user": session.grant.user,
        "instance": session.grant.name,
        "target": str(session.grant.target),
        "from": session.address,
        "view_only": session.messages.view_only,
        "started": _format_time(session.started),
        "seconds": round(session.seconds, 3),
        "bytes_in": stream.bytes_in if stream else 0,
        "bytes_out": stream.bytes_out if stream else 0,
        "end": session.end.reason if session.end else "unknown",
    }


def write_session(session: Session) -> None:
    log.info("%s", json.dumps(make_line(session)))


def write_refusal(kind: str, address: str, reason: str) -> None:
    line = {
        "event": "refused",
        "kind": kind,
        "from": address,
        "time": _format_time(time.time()),
        "reason": reason,
    }
    log.info("%s", json.dumps(line))


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
