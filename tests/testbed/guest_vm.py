"""A guest booted by QEMU alone, without Ganeti: emulated, and in a network namespace of its own."""

import base64
import contextlib
import logging
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from snf_ganeti import process
from snf_ganeti.errors import DeadlineError, NodeError
from testbed.namespaces import connect, make_enter_network_argv, open_namespace, run_ip

_ADDRESS, _PORT = "127.0.0.1", 2222
"""Where the guest's SSH server answers, in the namespace."""
_PAUSE = 0.5
_BANNER_SECONDS = 5.0
"""QEMU accepts a connection before the guest can, so the first attempts are short. Each has half
as much time again as the one before: on a busy machine an emulated sshd takes long to start."""
_ATTEMPT_SECONDS = 30.0
_CREDENTIAL = "io.systemd.credential.binary:ssh.authorized_keys.root"
"""What systemd reads from the SMBIOS and makes root's authorized keys of, where it has none:
systemd.system-credentials(7). So a test logs in to an image in which nobody may."""


@dataclass(frozen=True)
class GuestVm:
    """A running guest. network: a process in its namespace; console: its serial output."""

    process: subprocess.Popen[bytes]
    network: int
    console: Path
    key: paramiko.PKey

    @contextlib.contextmanager
    def log_in(self, seconds: float) -> Iterator[paramiko.SSHClient]:
        """A login as root, tried for so long. Raises DeadlineError, NodeError."""
        deadline = time.monotonic() + seconds
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # a booting guest is no error
        banner = _BANNER_SECONDS
        while (client := self._try_to_log_in(banner)) is None:
            if self.process.poll() is not None:
                raise NodeError(f"QEMU ended with {self.process.returncode}: {self._last()}")
            if time.monotonic() > deadline:
                raise DeadlineError("login to the guest", seconds, hint=self._last())
            banner = min(1.5 * banner, _ATTEMPT_SECONDS)
            time.sleep(_PAUSE)
        with client:
            yield client

    def _try_to_log_in(self, banner: float) -> paramiko.SSHClient | None:
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        try:
            client.connect(
                _ADDRESS,
                username="root",
                pkey=self.key,
                sock=connect(self.network, (_ADDRESS, _PORT), _ATTEMPT_SECONDS),
                allow_agent=False,
                look_for_keys=False,
                timeout=_ATTEMPT_SECONDS,
                banner_timeout=banner,
                auth_timeout=_ATTEMPT_SECONDS,
            )
        except (OSError, EOFError, paramiko.SSHException):
            client.close()
            return None
        return client

    def _last(self) -> str:
        """The end of what the console showed."""
        return " ".join(self.console.read_text(errors="replace").split())[-400:]


@contextlib.contextmanager
def booted(image: Path, *, memory: int = 512, cpus: int = 2) -> Iterator[GuestVm]:
    """A guest that boots from a raw image, which is not changed. memory: MiB."""
    key = paramiko.ECDSAKey.generate()
    with tempfile.TemporaryDirectory(prefix="guest-vm-") as scratch, open_namespace() as network:
        run_ip(network, ["link set lo up"])
        console = Path(scratch, "console")
        console.touch()
        argv = make_argv(image, memory, cpus, console)
        argv += ["-smbios", make_smbios(f"{key.get_name()} {key.get_base64()}")]
        with process.spawn(make_enter_network_argv(network, argv)) as child:
            yield GuestVm(child, network, console, key)


def make_argv(image: Path, memory: int, cpus: int, console: Path) -> list[str]:
    """QEMU's argv, with the devices that Ganeti gives an instance by default."""
    return [
        "qemu-system-x86_64",
        *("-machine", "pc,accel=tcg"),
        *("-m", str(memory)),
        *("-smp", str(cpus)),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-serial", f"file:{console}"),
        *("-drive", f"file={image},format=raw,if=virtio,snapshot=on,cache=unsafe"),
        *("-netdev", f"user,id=net0,restrict=on,hostfwd=tcp:{_ADDRESS}:{_PORT}-:22"),
        *("-device", "virtio-net-pci,netdev=net0"),
        *("-object", "rng-random,id=rng0,filename=/dev/urandom"),
        *("-device", "virtio-rng-pci,rng=rng0"),
    ]


def make_smbios(public_key: str) -> str:
    encoded = base64.b64encode(f"{public_key}\n".encode()).decode()
    return f"type=11,value={_CREDENTIAL}={encoded}"
