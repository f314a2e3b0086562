"""Logging in to a guest over the wire, as any SSH client would."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from snf_ganeti.errors import DeadlineError, NodeError
from testbed.wire import Wire

_ATTEMPT_SECONDS = 30.0  # an emulated guest takes its time over a key exchange
_PAUSE = 1.0
PORT = 22


@dataclass(frozen=True)
class Host:
    """Where a guest is and who logs in: with a private key's file, or with a password."""

    address: str
    user: str = "root"
    key: Path | None = None
    password: str | None = None


@dataclass(frozen=True)
class HostKey:
    """What the guest showed as its identity; kind as in `ssh-ed25519`, key in base64."""

    kind: str
    key: str


@dataclass(frozen=True)
class Login:
    """An open login."""

    client: paramiko.SSHClient
    host_key: HostKey

    def run(self, command: str, timeout: float = 60) -> str:
        """Run a shell command in the guest; gives its output. Raises NodeError."""
        _, stdout, stderr = self.client.exec_command(command, timeout=timeout)
        output = stdout.read().decode(errors="replace")
        status = stdout.channel.recv_exit_status()
        if status:
            reason = stderr.read().decode(errors="replace").strip()
            raise NodeError(f"`{command}` failed ({status}) in the guest: {reason}")
        return str(output)


@contextlib.contextmanager
def log_in(wire: Wire, host: Host, seconds: float) -> Iterator[Login]:
    """A login to a guest that may still be booting, open for the block.

    seconds: how long to try; a refused login is tried again, too, as a booting guest refuses
    everyone. Raises DeadlineError with what was met last.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            login = try_to_log_in(wire, host)
            break
        except (OSError, EOFError, paramiko.SSHException) as error:
            if time.monotonic() >= deadline:
                reason = f"last: {type(error).__name__}: {error}"
                raise DeadlineError(
                    f"login to {host.user}@{host.address}", seconds, hint=reason
                ) from None
            time.sleep(_PAUSE)
    try:
        yield login
    finally:
        login.client.close()


def try_to_log_in(wire: Wire, host: Host) -> Login:
    """One attempt. Raises OSError, EOFError or paramiko's SSHException."""
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    try:
        client.connect(
            host.address,
            username=host.user,
            key_filename=str(host.key) if host.key else None,
            password=host.password,
            sock=wire.connect(host.address, PORT),
            allow_agent=False,
            look_for_keys=False,
            timeout=_ATTEMPT_SECONDS,
            banner_timeout=_ATTEMPT_SECONDS,
            auth_timeout=_ATTEMPT_SECONDS,
        )
        key = client.get_transport().get_remote_server_key()
    except BaseException:
        client.close()
        raise
    return Login(client, HostKey(key.get_name(), key.get_base64()))
