"""A deployment on a terminal: one line that is drawn over and over."""

from collections.abc import Mapping
from typing import Any, TextIO

from snf_image_host.monitor import describe_event

_BAR = 30
_ERASE = "\r\x1b[K"


class ProgressBar:
    """Shows events on a terminal; `send` is what a journal's follower is."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def send(self, event: Mapping[str, Any]) -> None:
        self._terminal.write(_ERASE + draw(event))
        self._terminal.flush()


def draw(event: Mapping[str, Any]) -> str:
    """What stands on the line after an event; only what stays there ends it."""
    match event:
        case {"type": "image-copy-progress", "position": position, "total": 0}:
            return f"copy {position >> 20} MiB"
        case {"type": "image-copy-progress", "position": position, "progress": percent}:
            done = int(_BAR * percent / 100)
            bar = "#" * done + "-" * (_BAR - done)
            return f"copy [{bar}] {percent:3.0f} %  {position >> 20} MiB"
        case {"subtype": "ready"}:
            return "the helper has booted"
        case {"subtype": "task-start", "task": task}:
            return f"{task} …"
        case {"subtype": "task-end"} | {"type": "image-error"}:
            return ""  # the next task draws over it; the reason is the program's last line
        case {"type": "image-result", "status": "ok"}:
            return "done\n"
        case {"type": "image-result"}:
            return ""
    return describe_event(event) + "\n"
