"""Where attacks are let loose: a machine with the installed packages, and what came of it.

The memory of `snf-image` is asked of the kernel as its process ends, so that no peak is missed
and no child's is counted.
"""

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile.attack import ANY, MIB, Attack
from snf_ganeti import process
from snf_ganeti.errors import DeadlineError
from testbed import snf_image
from testbed.bed import Bed
from testbed.deadline import wait_for
from testbed.machine import Bind, Machine

WORK = "/srv/hostile"
SITE = f"""image_dir = "{WORK}/images"
spool_dir = "{WORK}/spool"
accelerator = "tcg"
helper_boot_timeout = 120.0
"""
SETTINGS = "/etc/snf-image-host/conf.d/hostile.toml"
DEADLINE = 300.0
"""Seconds for a whole deployment: what the settings allow the helper, and some."""
MEMORY_LIMIT = 60_000_000
"""Bytes that the host's process may take at its peak."""
LINE_LIMIT = 2500
"""Characters of the line that tells why; the helper's part of it has at most 2000."""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFm8VFNXhlUr1eMsTmZ2+XY3zCxPsH1wbJGD5ANyGWfD owner"
PARAMETERS = {
    "img_passwd": "s3cr3t of the owner",
    "auth_keys": KEY,
    "img_properties": '{"USERS": "root debian"}',
    "img_personality": '[{"path": "/srv/app/file", "contents": "aGVsbG8K"}]',
}
GUEST = (
    "--hostname=web.example.org",
    "--nic=mac=52:54:00:12:34:56,mode=bridged,ip=192.0.2.5,network_subnet=192.0.2.0/24",
)
_OLD = b"\xa5" * MIB
_PLACES = ("/run", "/tmp", "/var/tmp", "/var/lib/snf-image", "/etc", "/root", WORK)
_LIST = f"""
ps -eo args= | grep -v -E '^(ps|sh|grep|sort|find|cat) '
cat /proc/mounts
find {" ".join(_PLACES)} -xdev -ignore_readdir_race -not -path '/etc/snf-image-host/*'
"""
_PROBE = """
import atexit, re, runpy, sys
def tell(path):
    with open("/proc/self/status") as status, open(path, "w") as file:
        file.write(re.search("VmHWM:\\\\s*([0-9]+)", status.read())[1])
atexit.register(tell, sys.argv[1])
del sys.argv[:1]
sys.argv[0] = "/usr/sbin/snf-image"
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs the installed command in its own process: PROBE FILE ARGUMENT…"""


@dataclass(frozen=True)
class Verdict:
    """How a deployment ended. memory: bytes at its peak; left: what it left behind; changed:
    whether the disk is another; held: path → what the guest's file holds."""

    outcome: snf_image.Outcome
    seconds: float
    memory: int
    left: frozenset[str]
    changed: bool
    held: Mapping[str, str]


class Arena:
    """A machine in which one attack at a time is let loose; `work` is WORK inside."""

    def __init__(self, machine: Machine, work: Path) -> None:
        self.machine = machine
        self.work = work

    def list_traces(self) -> frozenset[str]:
        """Processes, mounts, files and loop devices that a deployment could leave."""
        listed = self.machine.run("sh", "-c", _LIST).stdout.decode("utf-8", "backslashreplace")
        return frozenset(listed.splitlines()) | frozenset(find_loops(self.work))

    def meet(self, attack: Attack) -> Verdict:
        """Deploy the attack's image and look at what is left. Raises DeadlineError."""
        with self.laid_out(attack) as (image, disk):
            return self.deploy(attack, image, disk)

    @contextlib.contextmanager
    def laid_out(self, attack: Attack) -> Iterator[tuple[Path, Path]]:
        """The attack's image, and a disk for it: full of old data if it must stay so."""
        image, disk = self.work / "images" / f"{attack.name}.img", self.work / "disk"
        attack.make(image)
        with disk.open("wb") as file:
            if attack.untouched:
                for _ in range(attack.size):
                    file.write(_OLD)
            file.truncate(attack.size * MIB)
        try:
            yield image, disk
        finally:
            disk.unlink()
            _remove(image)

    def deploy(self, attack: Attack, image: Path, disk: Path) -> Verdict:
        params, peak = self.work / "params.json", self.work / "peak"
        params.write_text(json.dumps({**PARAMETERS, **attack.parameters}))
        peak.unlink(missing_ok=True)
        before = self.list_traces()
        begun = time.monotonic()
        done = self.machine.run(
            *("python3", "-I", "-c", _PROBE, f"{WORK}/peak", "deploy", "--json"),
            f"--image={attack.image or image.name}",
            *(f"--format={attack.format}", f"--disk={WORK}/disk", *GUEST),
            f"--params={WORK}/params.json",
            timeout=DEADLINE,
            ok=snf_image.ANY_STATUS,
        )
        outcome = snf_image.Outcome(done.status, _parse(done.text), done.stderr)
        seconds, memory = time.monotonic() - begun, int(peak.read_text()) * 1024
        peak.unlink()
        left = self._wait_clean(before)
        return Verdict(
            outcome,
            seconds,
            memory,
            left,
            changed=attack.untouched and not _is_old(disk),
            held={path: read_guest_file(disk, path) for path in attack.holds},
        )

    def _wait_clean(self, before: frozenset[str]) -> frozenset[str]:
        """What is there and was not before; a child that was killed may take its moment."""
        peak = f"{WORK}/peak"
        left: frozenset[str] = frozenset()

        def is_clean() -> bool:
            nonlocal left
            left = self.list_traces() - before - {peak}
            return not left

        with contextlib.suppress(DeadlineError):
            wait_for("the end of a deployment's traces", is_clean, 10)
        return left


def _parse(text: str) -> Mapping[str, Any]:
    try:
        document: Mapping[str, Any] = json.loads(text)
    except ValueError:
        return {}
    return document


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_old(disk: Path) -> bool:
    with disk.open("rb") as file:
        return all(data == _OLD for data in iter(lambda: file.read(MIB), b""))


def find_loops(folder: Path) -> list[str]:
    """The loop devices of this machine whose files are in a folder."""
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    found = []
    for file in backing:
        with contextlib.suppress(OSError):  # detached meanwhile
            if file.read_text().startswith(str(folder)):
                found.append(f"{file.parents[1].name} of {folder}")
    return found


def read_guest_file(disk: Path, path: str) -> str:
    """A file of the ext4 in the first partition, read by debugfs; bytes as Latin-1."""
    start, _ = snf_image.find_partitions(disk)[1]
    argv = ["debugfs", "-R", f"cat {path}", f"{disk}?offset={start}"]
    return process.run(argv).stdout.decode("latin-1")


@contextlib.contextmanager
def open_arena(bed: Bed, name: str, folder: Path, site: str = SITE) -> Iterator[Arena]:
    """A machine of its own on the bed, with the settings `site`. folder: becomes `work`."""
    for each in ("images", "spool"):
        (folder / each).mkdir(parents=True)
    binds = (*bed.binds, Bind(folder, WORK, writable=True))
    machine = Machine(name, bed.folder / name, bed.layers, binds)
    with machine.powered():
        machine.write(SETTINGS, site)
        yield Arena(machine, folder)


def judge(attack: Attack, verdict: Verdict) -> list[str]:
    """What is wrong with how the deployment of an attack ended; nothing, if all is well."""
    outcome = verdict.outcome
    problems = [f"it left {trace}" for trace in sorted(verdict.left)]
    if verdict.memory > MEMORY_LIMIT:
        problems.append(f"snf-image took {verdict.memory} bytes of memory")
    if verdict.changed:
        problems.append("the disk was changed before the image was refused")
    if outcome.document.get("status") not in ("ok", "error"):
        problems.append("there is no document")
    problems += (
        _judge_failure(attack, outcome) if outcome.status else _judge_success(attack, verdict)
    )
    return problems


def _judge_success(attack: Attack, verdict: Verdict) -> Iterator[str]:
    if attack.reason not in ("", ANY):
        yield "it was deployed, and should have been refused"
    for path, pattern in attack.holds.items():
        if not re.search(pattern, verdict.held[path]):
            yield f"{path} of the guest holds {verdict.held[path][:500]!r}"


def _judge_failure(attack: Attack, outcome: snf_image.Outcome) -> Iterator[str]:
    line = outcome.last_line
    errors = [each for each in outcome.log.splitlines() if each.startswith("error: ")]
    if errors != [line]:
        yield f"there are {len(errors)} lines of errors, or others behind them"
    if len(line) > LINE_LIMIT or not line.isprintable():
        yield f"the line is not one of text, or has {len(line)} characters"
    if line != f"error: {outcome.document.get('reason')}":
        yield f"the document's reason is another: {outcome.document.get('reason')!r}"
    if "Traceback" in outcome.log or "internal error" in line or outcome.status not in (2, 4, 5):
        yield f"it ended by a bug, with {outcome.status}"
    if attack.reason == "":
        yield "it should have been deployed"
    elif attack.reason != ANY and not re.search(attack.reason, line):
        yield f"the reason is another than {attack.reason!r}"
