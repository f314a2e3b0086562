"""The packages as a site gets them: built, judged by lintian, installed and purged. Needs root.

Debian's dpkg does the work, in roots of both releases that the packages are for. Dependencies
are installed from what the packages name, before and apart from the packages themselves.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import processes
from testbed.deadline import wait_for
from testbed.event_story import QUEUE_SCRIPT
from testbed.events import open_daemon
from testbed.machine import Bind, Machine
from testbed.roots import RESOLVER, build_base

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build/deb"
COMPONENTS = (
    "ext-storage-rados",
    "snf-ganeti-common",
    "snf-ganeti-eventd",
    "snf-ganeti-hooks",
    "snf-image-helper",
    "snf-image-host",
    "vncauthproxy",
)
QUIET = {"DEBIAN_FRONTEND": "noninteractive"}
APT = ("apt-get", "--yes", "--quiet", "--no-install-recommends")
CHANGED_BY_DPKG = ("/var/lib/dpkg", "/var/log", "/var/cache", "/var/backups")


@pytest.fixture(scope="module")
def debs() -> list[Path]:
    subprocess.run([ROOT / "debian/build-deb"], check=True)
    return sorted(BUILT.glob("*.deb"))


@pytest.fixture(params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, debs: list[Path]) -> Iterator[Machine]:
    """A machine of each release, with what the packages depend on and not yet the packages."""
    binds = (RESOLVER, Bind(BUILT, "/run/built"), Bind(ROOT / "debian/tests", "/run/tests"))
    layers = (build_base(request.param),)
    # Not in tmp_path itself: overlayfs wants a file system that can hold its upper folder.
    folder = ROOT / "build/packages" / request.param
    _remove(folder)
    folder.mkdir(parents=True)
    with Machine("packages", folder, layers, binds, shares_network=True).powered() as on:
        on.run(*APT, "update", timeout=300)
        on.run(*APT, "satisfy", *find_dependencies(debs), env=QUIET, timeout=900)
        yield on
    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a machine, and one that a killed run left."""
    processes.kill_marked(folder)
    shutil.rmtree(folder, ignore_errors=True)


def find_dependencies(debs: list[Path]) -> list[str]:
    fields = (
        subprocess.check_output(["dpkg-deb", "--field", str(deb), "Depends"], text=True)
        for deb in debs
    )
    items = {item.strip() for field in fields for item in field.split(",")}
    return sorted(item for item in items if not item.startswith(COMPONENTS))


def make_import_name(component: str) -> str:
    return "snf_ganeti" if component == "snf-ganeti-common" else component.replace("-", "_")


def list_files(machine: Machine) -> set[str]:
    """Every path of the root, what dpkg and apt note for themselves left out."""
    listed = machine.run("find", "/", "-xdev", "-not", "-path", "/run/*").text.splitlines()
    return {path for path in listed if not path.startswith(CHANGED_BY_DPKG)}


def tell_a_job(machine: Machine, log: Path) -> None:
    """A service with all its libraries on this release: a job of Ganeti's becomes an event."""
    machine.run("sh", "-c", QUEUE_SCRIPT)
    with open_daemon(machine, log) as daemon:
        daemon.start()
        find = ("grep", "--quiet", "OP_TEST_DELAY", "/var/log/snf-ganeti-eventd/events.jsonl")
        wait_for("the event", lambda: not machine.run(*find, ok=(0, 1, 2)).status, 60,
                 explain=daemon.read_log)  # fmt: skip
        assert daemon.stop() == 0
    machine.run("sh", "-c", "rm -r /var/lib/ganeti/ssconf_* /var/lib/ganeti/queue")


def read_accounts(machine: Machine) -> bytes:
    return b"".join(map(machine.read, ("/etc/passwd", "/etc/group", "/etc/shadow")))


def test_each_component_is_built(debs: list[Path]) -> None:
    assert [deb.name.partition("_")[0] for deb in debs] == list(COMPONENTS)


def test_lintian_finds_no_errors_or_warnings(debs: list[Path]) -> None:
    (changes,) = BUILT.glob("*.changes")
    judged = subprocess.run(
        ["lintian", "--allow-root", "--no-cfg", "--fail-on=error,warning", str(changes)],
        capture_output=True,
        text=True,
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_packages_install_work_and_purge_without_leftovers(
    machine: Machine, debs: list[Path], tmp_path: Path
) -> None:
    files, accounts = list_files(machine), read_accounts(machine)

    machine.run("dpkg", "--install", *(f"/run/built/{deb.name}" for deb in debs), env=QUIET)
    machine.run("dpkg", "--verify", *COMPONENTS)
    imported = machine.run("/run/tests/import").text.split()
    assert {name.partition(".")[0] for name in imported} == set(map(make_import_name, COMPONENTS))
    for user in ("snf-ganeti-eventd", "vncauthproxy"):
        _, _, uid, gid, *_, shell = machine.run("getent", "passwd", user).text.split(":")
        assert int(uid) and int(gid)
        assert shell.strip() == "/usr/sbin/nologin"
    tell_a_job(machine, tmp_path / "daemon.log")

    machine.run("dpkg", "--purge", *COMPONENTS, env=QUIET)
    assert list_files(machine) == files
    assert read_accounts(machine) == accounts


def test_purge_keeps_the_images_of_the_site(machine: Machine, debs: list[Path]) -> None:
    machine.run("dpkg", "--install", *(f"/run/built/{deb.name}" for deb in debs), env=QUIET)
    machine.write("/var/lib/snf-image/debian.raw", "an image")
    machine.write("/var/lib/snf-image/helper/kernel", "built by build-helper")

    machine.run("dpkg", "--purge", *COMPONENTS, env=QUIET)
    left = machine.run("find", "/var/lib/snf-image").text.split()
    assert left == ["/var/lib/snf-image", "/var/lib/snf-image/debian.raw"]
