"""What runs as root inside a helper VM, in the runner's place, and tells the host what it finds."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from snf_image_helper import machine
from snf_image_helper.ports import open_ports
from snf_image_helper.protocol import VERSION, Ready, RunResult, Warned


def answer(look: Callable[[], Mapping[str, Any]]) -> None:
    """Have what is found as the answer to the host's one request, and end the machine."""
    os.umask(0o022)
    try:
        with open_ports() as ports:
            ports.send(Ready(VERSION))
            ports.read_line()
            for name, found in look().items():
                ports.send(Warned((name, json.dumps(found))))
            ports.send(RunResult("ok", ""))
    finally:
        machine.power_off()
