"""A machine: a root of its own in namespaces of its own, alive as long as its PID 1.

It has a private mount, UTS, IPC and PID namespace and, unless it shares this machine's
network, a private network without any interface. What it writes stays in its folder.
"""

import contextlib
import os
import select
import shlex
import subprocess
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import CommandError, NodeError
from testbed import processes
from testbed.deadline import wait_for
from testbed.namespaces import make_enter_argv

BOOT = Path(__file__).with_name("boot.sh")
DEVICES = (
    *("null", "zero", "full", "random", "urandom", "tty", "net/tun", "fuse"),
    "loop-control",
)
"""What each machine has in /dev. No kvm: its guests hang where KVM only seems to work."""

_INIT = "tini"
_BOOT_SECONDS = 60.0
_ENVIRONMENT = {"HOME": "/root", "TERM": "dumb"}


@dataclass(frozen=True)
class Bind:
    """A folder or file of this machine that is seen inside at `target`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Machine:
    """folder: where its state is kept; layers: folders that make up its root, top first."""

    hostname: str
    folder: Path
    layers: tuple[Path, ...]
    binds: tuple[Bind, ...] = ()
    devices: tuple[str, ...] = DEVICES
    shares_network: bool = False

    @property
    def pid(self) -> int:
        """PID 1 of this machine, as seen outside. Raises NodeError when it is off."""
        found = processes.find_init(self.folder)
        if found is None:
            raise NodeError(f"{self.hostname} is off", hint=f"its folder is {self.folder}")
        return found

    @property
    def is_on(self) -> bool:
        return processes.find_init(self.folder) is not None

    @property
    def upper(self) -> Path:
        """What it changed of its root; a path inside is found here while it is off, too."""
        return self.folder / "upper"

    def power_on(self) -> None:
        """Start PID 1 and wait for the root to stand. Raises NodeError."""
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.upper.chmod(0o755)  # it becomes the mode of "/" inside
        path = self.folder / "boot.log"
        argv, env = make_boot_argv(self), processes.make_mark(self.folder)
        # What starts has the pipe's other end, and whatever it executes: the pipe ends with them.
        reader, writer = os.pipe()
        with open(reader, "rb") as pipe:
            with (
                open(writer, "wb"),
                path.open("wb") as log,
                process.spawn(argv, stdout=log, stderr=log, env=env, pass_fds=[writer]) as child,
            ):
                child.wait()  # setsid's parent half; the machine goes on without us

            def has_booted() -> bool:
                if select.select([pipe], [], [], 0)[0]:
                    said = path.read_text(errors="replace") or "it said nothing"
                    raise NodeError(f"{self.hostname} did not start: {said}")
                marked = processes.find_marked(self.folder)
                return any(each.is_init and each.name == _INIT for each in marked)

            wait_for(f"the start of {self.hostname}", has_booted, _BOOT_SECONDS)

    def power_off(self) -> None:
        """Cut the power: every process inside is killed, and gone when this returns."""
        processes.kill_marked(self.folder)

    @contextlib.contextmanager
    def powered(self) -> Iterator["Machine"]:
        """On for the block."""
        try:
            self.power_on()
            yield self
        finally:
            self.power_off()

    def run(
        self,
        *argv: str,
        stdin: bytes = b"",
        timeout: float = 60,
        ok: Collection[int] = (0,),
        env: Mapping[str, str] | None = None,
    ) -> process.Completed:
        """Run a command inside, as `snf_ganeti.process.run` does."""
        try:
            return process.run(
                make_enter_argv(self.pid, argv),
                stdin=stdin,
                timeout=timeout,
                ok=ok,
                env={**_ENVIRONMENT, **(env or {})},
            )
        except CommandError as error:
            raise CommandError(argv, error.status, error.output) from None

    @contextlib.contextmanager
    def spawn(
        self, *argv: str, output: Path, env: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A program that runs inside for the block; what it prints goes to `output`."""
        entered = make_enter_argv(self.pid, argv)
        env = {**_ENVIRONMENT, **(env or {})}
        with (
            output.open("ab") as log,
            process.spawn(entered, stdout=log, stderr=log, env=env) as child,
        ):
            yield child

    def read(self, path: str) -> bytes:
        return self.run("cat", path).stdout

    def write(self, path: str, content: bytes | str, *, mode: int = 0o644) -> None:
        """Write a file inside, with the folders that lead to it."""
        data = content.encode() if isinstance(content, str) else content
        self.run("install", "-D", f"--mode={mode:o}", "/dev/stdin", path, stdin=data)

    def make_shell_command(self) -> str:
        """What a person types to get a shell inside."""
        return shlex.join(["sudo", *make_enter_argv(self.pid, ["env", "HOME=/root", "bash", "-l"])])


def make_boot_argv(machine: Machine) -> list[str]:
    """The argv that starts a machine, in a session of its own and in the background."""
    kinds = ["--mount", "--uts", "--ipc", "--pid"]
    if not machine.shares_network:
        kinds.append("--net")
    binds = [
        word
        for bind in machine.binds
        for word in (str(bind.source), bind.target, "rw" if bind.writable else "ro")
    ]
    return [
        *("setsid", "--fork"),
        *("unshare", "--fork", "--kill-child", "--propagation=private", *kinds),
        *("sh", str(BOOT)),
        machine.hostname,
        ":".join(os.fspath(layer) for layer in machine.layers),
        str(machine.folder),
        " ".join(machine.devices),
        *binds,
    ]
