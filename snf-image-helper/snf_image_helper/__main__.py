"""The first process of the helper VM, started by the appliance's `init`."""

import logging
import os
import sys
from collections.abc import Mapping

from snf_ganeti import process
from snf_ganeti.errors import SnfError
from snf_image_helper import machine
from snf_image_helper.disk import find_disks, reread_partitions
from snf_image_helper.ports import Ports, open_ports
from snf_image_helper.protocol import (
    VERSION,
    Found,
    ProtocolError,
    Ready,
    Request,
    RunResult,
    Warned,
    clean_text,
    parse_request,
    parse_wake,
)
from snf_image_helper.runner import Cancelled, run_tasks
from snf_image_helper.task import Context, find_tasks


def serve(ports: Ports) -> RunResult:
    """Announce, take the request, do its tasks."""
    tasks = find_tasks()  # imported before Ready: what fails to load is never asked for work
    ports.send(Ready(VERSION))
    try:
        request = await_request(ports)
    except ProtocolError as error:
        return RunResult("error", str(error))
    machine.refresh(request.time, request.entropy)
    machine.on_cancel(Cancelled)
    ports.watch_cancel(machine.cancel)

    def warn(message: str) -> None:
        ports.send(Warned((clean_text(message),)))

    def tell(properties: Mapping[str, str]) -> None:
        ports.send(Found({name: clean_text(value) for name, value in properties.items()}))

    try:
        disks = find_disks(request.disk_count)
        for disk in disks:
            reread_partitions(disk)  # the kernel may not have come to it: it is plugged in late
        return run_tasks(tasks, Context(request, disks, warn, tell=tell), ports.send)
    except Cancelled:
        return RunResult("error", "the host's deadline passed")
    except SnfError as error:
        return RunResult("error", clean_text(str(error)))


def await_request(ports: Ports) -> Request:
    """The request; this machine may be saved meanwhile, and woken many times after that.

    Raises ProtocolError.
    """
    while wake := parse_wake(line := ports.read_line()):
        machine.refresh(wake.time, wake.entropy)
        ports.send(Ready(VERSION))
    return parse_request(line)


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="helper: %(message)s")
    os.environ.clear()
    os.environ.update(process.ENVIRONMENT)
    os.umask(0o022)
    try:
        with open_ports() as ports:
            ports.send(serve(ports))
    except Exception:
        logging.exception("the helper can't go on")
    finally:
        machine.power_off()


if __name__ == "__main__":
    main()
