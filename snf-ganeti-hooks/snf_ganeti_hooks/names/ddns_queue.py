"""What DNS is still to be told: a file each, written by hooks, sent by the service.

A name server that does not answer delays a name and never a job. Files are sent in the order
in which they came; one that fails holds up those of the same instance, and is tried again.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from snf_ganeti.errors import InputError, SnfError
from snf_ganeti_hooks.names import ddns
from snf_ganeti_hooks.names.ddns import Names
from snf_ganeti_hooks.settings import DnsSettings
from snf_ganeti_hooks.state import write_file

log = logging.getLogger(__name__)

FOLDER = Path("/var/lib/snf-ganeti-hooks/dns")
_FIRST_DELAY, _LAST_DELAY = 2.0, 300.0
_SIZE_LIMIT = 1 << 16


def put(names: Names, folder: Path = FOLDER) -> Path:
    path = folder / f"{time.time_ns():020d}.json"
    write_file(path, json.dumps(asdict(names)) + "\n")
    return path


def read(path: Path) -> Names:
    """Raises OSError, ValueError, KeyError, TypeError."""
    with path.open("rb") as file:
        document = json.loads(file.read(_SIZE_LIMIT))
    return Names(
        str(document["name"]), tuple(map(str, document["addresses"])), str(document["old_name"])
    )


@dataclass
class Queue:
    """folder: of the files. delays: by file, how long until it is tried again."""

    settings: DnsSettings
    folder: Path = FOLDER
    publish: Callable[[Names, DnsSettings], None] = ddns.publish
    clock: Callable[[], float] = time.monotonic
    _due: dict[str, float] = field(default_factory=dict)
    _delays: dict[str, float] = field(default_factory=dict)

    def send_due(self) -> None:
        """Send what is there and due; never raises for what a server says."""
        held: set[str] = set()
        for path in sorted(self.folder.glob("[0-9]*.json")):
            try:
                names = read(path)
            except (OSError, ValueError, KeyError, TypeError):
                log.error("%s can't be read and is dropped", path)
                path.unlink(missing_ok=True)
                continue
            if held.isdisjoint({names.name, names.old_name} - {""}) and not self._send(path, names):
                held |= {names.name, names.old_name} - {""}

    def _send(self, path: Path, names: Names) -> bool:
        """Try one that is due; True when it is done with."""
        if self.clock() < self._due.get(path.name, 0.0):
            return False
        try:
            self.publish(names, self.settings)
        except InputError as error:
            log.error("%s; it gets no name", error)
        except SnfError as error:
            delay = min(self._delays.get(path.name, _FIRST_DELAY / 2) * 2, _LAST_DELAY)
            self._delays[path.name], self._due[path.name] = delay, self.clock() + delay
            log.warning("%s: %s; trying again in %d s", names.name, error, delay)
            return False
        path.unlink(missing_ok=True)
        self._delays.pop(path.name, None)
        self._due.pop(path.name, None)
        return True
