"""A web server's images by way of the node's cache. Needs root.

What was fetched is judged by the server's own log, what reached a disk by its SHA-256.
"""

import contextlib
import hashlib
import http.server
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError
from snf_image_host.confinement.jail import Jail
from snf_image_host.environ import Disk
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target
from testbed.deadline import wait_for

pytestmark = pytest.mark.usefixtures("root")

MIB = 1 << 20
SIZE = 8 * MIB
JAIL = Jail(64998, 64997)
DEPLOY = """
import pathlib, sys
from snf_image_host.environ import Disk
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.confinement.jail import Jail
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target
url, digest, cache, disk = sys.argv[1:]
settings = Settings(cache_dir=pathlib.Path(cache))
with (
    open_image(ImageOrder(url, "diskdump", Checksum("sha256", digest)), settings, Jail(1, 1)) as it,
    open_target(Disk(0, 0, path=disk), Jail(1, 1)) as target,
):
    it.copy_to(target, lambda position, total: None)
"""


@dataclass
class Web:
    """A web server. bodies: by name. requests: the names, as they were asked for. gate: where
    it is closed, a body stops in its middle until it opens."""

    port: int = 0
    bodies: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    chunked: bool = False

    def add(self, name: str, size: int = SIZE) -> Checksum:
        self.bodies[name] = random.Random(name).randbytes(size)
        return Checksum("sha256", hashlib.sha256(self.bodies[name]).hexdigest())

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    web.gate.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path[1:]
            web.requests.append(name)
            body = web.bodies[name]
            self.send_response(200)
            if web.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            half = len(body) // 2
            with contextlib.suppress(OSError):
                self.send_piece(body[:half])
                web.gate.wait(60)
                self.send_piece(body[half:])
                if web.chunked:
                    self.wfile.write(b"0\r\n\r\n")

        def send_piece(self, piece: bytes) -> None:
            if web.chunked:
                piece = b"%x\r\n%s\r\n" % (len(piece), piece)
            self.wfile.write(piece)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        web.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield web
        web.gate.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", spool_dir=tmp_path)


def deploy(
    web: Web, site: Settings, name: str, checksum: Checksum | None, kind: str = "diskdump"
) -> str:
    """The SHA-256 of the disk that was made."""
    disk = site.spool_dir / "disk"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    with (
        open_image(ImageOrder(web.url(name), kind, checksum), site, JAIL) as image,
        open_target(Disk(0, 0, path=str(disk)), JAIL) as target,
    ):
        image.copy_to(target, lambda position, total: None)
    return hashlib.sha256(disk.read_bytes()).hexdigest()


@contextlib.contextmanager
def deploying(
    web: Web, site: Settings, name: str, checksum: Checksum
) -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """A deployment in a process of its own: its disk, and the process."""
    disk = site.spool_dir / f"disk{len(list(site.spool_dir.iterdir()))}"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    argv = [sys.executable, "-c", DEPLOY, web.url(name), checksum.digest]
    child = subprocess.Popen(
        [*argv, str(site.cache_dir), str(disk)], env={"PYTHONPATH": ":".join(sys.path)}
    )
    try:
        yield disk, child
        assert child.wait(60) in (0, -signal.SIGKILL)
    finally:
        child.kill()
        child.wait()


def list_cache(site: Settings) -> list[str]:
    return sorted(path.name for path in site.cache_dir.iterdir() if path.name != "lock")


def name_of(checksum: Checksum) -> str:
    return f"{checksum.algorithm}-{checksum.digest}"


@pytest.mark.parametrize("chunked", [False, True])
def test_the_second_deployment_fetches_nothing(web: Web, site: Settings, chunked: bool) -> None:
    web.chunked = chunked
    checksum = web.add("image")
    for _ in range(3):
        assert deploy(web, site, "image", checksum) == checksum.digest
    assert web.requests == ["image"]
    assert list_cache(site) == [name_of(checksum)]


def test_an_address_does_not_matter_and_a_checksum_does(web: Web, site: Settings) -> None:
    checksum = web.add("image")
    web.bodies["mirror"] = web.bodies["image"]
    deploy(web, site, "image", checksum)
    assert deploy(web, site, "mirror", checksum) == checksum.digest
    with pytest.raises(InputError, match="img_checksum"):
        deploy(web, site, "image", Checksum("sha256", "0" * 64))
    for _ in range(2):
        assert deploy(web, site, "image", None) == checksum.digest
    assert web.requests == ["image"] * 4
    assert list_cache(site) == [name_of(checksum)]


def test_a_jailed_program_reads_what_only_root_can_find(
    web: Web, site: Settings, tmp_path: Path
) -> None:
    raw, packed = tmp_path / "raw", tmp_path / "qcow2"
    raw.write_bytes(random.Random(3).randbytes(SIZE))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, packed], check=True)
    web.bodies["image"] = packed.read_bytes()
    checksum = Checksum("sha256", hashlib.sha256(web.bodies["image"]).hexdigest())
    for _ in range(2):
        made = deploy(web, site, "image", checksum, "qcow2")
        assert made == hashlib.sha256(raw.read_bytes()).hexdigest()
    assert web.requests == ["image"]
    found = subprocess.run(
        ["setpriv", "--reuid=64998", "--clear-groups", "cat", site.cache_dir / name_of(checksum)],
        capture_output=True,
    )
    assert (found.returncode, found.stdout) == (1, b"")
    assert site.cache_dir.stat().st_mode & 0o777 == 0o700


def test_deployments_at_once_fetch_one_image_once(web: Web, site: Settings) -> None:
    checksum = web.add("image")
    web.gate.clear()
    with contextlib.ExitStack() as stack:
        disks = [stack.enter_context(deploying(web, site, "image", checksum))[0] for _ in range(3)]
        wait_for("a request", lambda: web.requests, 60)
        time.sleep(1)  # the others would ask now
        web.gate.set()
    assert web.requests == ["image"]
    for disk in disks:
        assert hashlib.sha256(disk.read_bytes()).hexdigest() == checksum.digest


def test_a_fetch_that_is_killed_leaves_nothing_that_counts(web: Web, site: Settings) -> None:
    """The one that waits for it takes over; what a kill left of another image goes then."""
    checksum, other = web.add("image"), web.add("other")
    web.gate.clear()
    with (
        deploying(web, site, "image", checksum) as (_, first),
        deploying(web, site, "other", other) as (_, second),
    ):
        wait_for("two requests", lambda: len(web.requests) == 2, 60)
        wait_for("two drafts", lambda: len(list_cache(site)) == 2, 60)
        with deploying(web, site, "image", checksum) as (disk, _):
            time.sleep(0.5)  # mostly it waits by then; if not, it takes over all the same
            for each in (second, first):  # who waits for the first clears up at once
                each.kill()
                each.wait(60)
            wait_for("the next one's request", lambda: len(web.requests) == 3, 60)
            web.gate.set()
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == checksum.digest
    assert sorted(web.requests) == ["image", "image", "other"]
    assert list_cache(site) == [name_of(checksum)]


@pytest.mark.parametrize("seed", range(6))
def test_no_half_file_is_ever_used(web: Web, site: Settings, seed: int) -> None:
    """Killed at a random moment of a fill; what is there afterwards is whole, or not used."""
    checksum = web.add("image", SIZE)
    with deploying(web, site, "image", checksum) as (_, child):
        wait_for("a request", lambda: web.requests, 60)
        time.sleep(random.Random(seed).uniform(0, 0.1))
        child.kill()
    assert deploy(web, site, "image", checksum) == checksum.digest
    assert list_cache(site) == [name_of(checksum)]


@pytest.mark.parametrize("harm", ["flip", "cut", "grow", "empty"])
def test_a_file_that_was_harmed_is_fetched_anew(
    web: Web, site: Settings, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    checksum = web.add("image")
    deploy(web, site, "image", checksum)
    kept = site.cache_dir / name_of(checksum)
    before = kept.stat()
    with kept.open("r+b") as file:
        match harm:
            case "flip":
                file.seek(SIZE // 2)
                file.write(b"x" if web.bodies["image"][SIZE // 2] != ord("x") else b"y")
            case "cut":
                file.truncate(SIZE - 1)
            case "grow":
                file.truncate(SIZE + 1)
            case "empty":
                file.truncate(0)
    os.utime(kept, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a failing disk does it
    assert deploy(web, site, "image", checksum) == checksum.digest
    assert "is damaged" in caplog.text
    assert deploy(web, site, "image", checksum) == checksum.digest
    assert web.requests == ["image"] * 2


def test_the_image_used_longest_ago_makes_room(web: Web, site: Settings) -> None:
    sums = {name: web.add(name) for name in "abcd"}
    site = Settings(cache_dir=site.cache_dir, spool_dir=site.spool_dir, cache_size=3 * SIZE // MIB)
    for name in ("a", "b", "c", "a", "d"):
        deploy(web, site, name, sums[name])
    assert web.requests == ["a", "b", "c", "d"]
    assert list_cache(site) == sorted(name_of(sums[name]) for name in "acd")


@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_larger_than_the_cache_is_not_kept(
    web: Web, site: Settings, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snf_image_host.copying.image_cache._RESERVE", MIB)
    web.chunked = chunked
    small, large = web.add("small", MIB), web.add("large", SIZE)
    site = Settings(cache_dir=site.cache_dir, spool_dir=site.spool_dir, cache_size=6)
    deploy(web, site, "small", small)
    for _ in range(2):
        assert deploy(web, site, "large", large) == large.digest
    assert web.requests == ["small", "large", "large"]
    assert set(list_cache(site)) <= {name_of(small)}


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_file_system_is_not_filled(web: Web, site: Settings) -> None:
    sums = {name: web.add(name) for name in "abc"}
    with small_disk(site.cache_dir, 3 * SIZE):
        for name in ("a", "b", "c"):
            assert deploy(web, site, name, sums[name]) == sums[name].digest
        assert list_cache(site) == sorted(name_of(sums[name]) for name in "bc")
        free = os.statvfs(site.cache_dir)
        assert free.f_bavail * 10 >= free.f_blocks


def test_a_file_system_that_fills_up_meanwhile_ends_the_keeping_only(
    web: Web, site: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    checksum = web.add("image")
    web.gate.clear()
    with small_disk(site.cache_dir, 2 * SIZE):
        made: list[str] = []
        thread = threading.Thread(target=lambda: made.append(deploy(web, site, "image", checksum)))
        thread.start()
        wait_for("a request", lambda: web.requests, 60)
        with contextlib.suppress(OSError), (site.cache_dir / "other").open("wb") as file:
            while True:
                file.write(bytes(MIB))
        web.gate.set()
        thread.join(60)
        assert made == [checksum.digest]
        assert "the image is not kept" in caplog.text
        assert list_cache(site) == ["other"]


@pytest.mark.parametrize("trouble", ["file", "read-only"])
def test_a_folder_that_is_of_no_use_is_no_failure(
    web: Web, site: Settings, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    checksum = web.add("image")
    caplog.set_level(logging.WARNING)
    with contextlib.ExitStack() as stack:
        if trouble == "file":
            site.cache_dir.write_text("")
        else:
            stack.enter_context(small_disk(site.cache_dir, SIZE))
            subprocess.run(["mount", "-o", "remount,ro", site.cache_dir], check=True)
        assert deploy(web, site, "image", checksum) == checksum.digest
    assert "the image is not kept" in caplog.text


def test_none_is_kept_where_there_is_no_cache(web: Web, site: Settings) -> None:
    checksum = web.add("image")
    site = Settings(cache_dir=site.cache_dir, spool_dir=site.spool_dir, cache_size=0)
    for _ in range(2):
        deploy(web, site, "image", checksum)
    assert web.requests == ["image"] * 2
    assert not site.cache_dir.exists()
