"""Images of every form on disks of every kind, and those that are not to be had. Needs root.

What reached a disk is judged by cmp, qemu-img and the file system's own count of blocks; what
was left behind, by /proc.
"""

import contextlib
import functools
import hashlib
import http.server
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import nbd
import pytest

from hostile.vmdk import add_footer
from snf_ganeti.errors import InputError, NodeError
from snf_image_helper.protocol import VERSION
from snf_image_host.confinement.jail import Jail
from snf_image_host.copying.boot_prefix import build_boot_prefix
from snf_image_host.customization import make_durable
from snf_image_host.environ import Disk
from snf_image_host.helper_vm import appliance
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target
from testbed import images
from testbed.deadline import wait_for
from testbed.guest_vm import booted
from testbed.images import RECIPES
from testbed.listening import UNIX_SOCKETS, is_listening

pytestmark = pytest.mark.usefixtures("root")

JAIL = Jail(64998, 64997)
MIB = 1 << 20
SIZE = 24 * MIB
DISK = Disk(0, 0, path="disk")
COMPRESSORS = {
    "gz": ["gzip", "--fast"],
    "xz": ["xz", "-0", "--threads=2", "--block-size=4MiB"],
    "zst": ["zstd", "--quiet", "--fast"],
    "lz4": ["lz4", "--quiet"],
}
CONTAINERS = {
    "sparse.vmdk": ("vmdk", "subformat=monolithicSparse"),
    "stream.vmdk": ("vmdk", "subformat=streamOptimized"),
    "dynamic.vhd": ("vpc", "subformat=dynamic,force_size=on"),
    "fixed.vhd": ("vpc", "subformat=fixed,force_size=on"),
    "cylinders.vhd": ("vpc", "subformat=dynamic"),
    "dynamic.vhdx": ("vhdx", "subformat=dynamic"),
    "fixed.vhdx": ("vhdx", "subformat=fixed"),
}
"""Name → QEMU's name of the format, and its options."""
PACKED = ("sparse.vmdk", "dynamic.vhd", "fixed.vhd", "dynamic.vhdx")
"""Of CONTAINERS: what is compressed, too."""
PYTHON = ("env", f"PYTHONPATH={':'.join(sys.path)}", sys.executable, "-c")
ERASED = b"\xee" * MIB


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300)
    return done.stdout


def make_raw(path: Path) -> None:
    """Data, holes and written zeros, from a few bytes to megabytes."""
    dice = random.Random(7)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for _ in range(40):
            file.seek(dice.randrange(SIZE - 2 * MIB) // 512 * 512)
            length = dice.choice((512, 4096, 70_000, MIB))
            file.write(bytes(length) if dice.random() < 0.3 else dice.randbytes(length))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in every form, of the same disk."""
    folder = tmp_path_factory.mktemp("images")
    raw = folder / "raw"
    make_raw(raw)
    run("qemu-img", "convert", "-O", "qcow2", raw, folder / "qcow2")
    run("qemu-img", "convert", "-c", "-O", "qcow2", raw, folder / "packed.qcow2")
    for name, (driver, options) in CONTAINERS.items():
        run("qemu-img", "convert", "-O", driver, "-o", options, raw, folder / name)
    shutil.copy(folder / "stream.vmdk", folder / "footer.vmdk")
    add_footer(folder / "footer.vmdk")
    for name, argv in COMPRESSORS.items():
        for source in ("raw", "qcow2", *PACKED):
            with (folder / f"{source}.{name}").open("wb") as file:
                subprocess.run([*argv, "-c", folder / source], stdout=file, check=True)
    shutil.copy(folder / "qcow2", folder / "secret.qcow2")
    (folder / "secret.qcow2").chmod(0o600)
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk that is full of what its last owner left."""
    path = tmp_path / "disk"
    path.write_bytes(ERASED * ((SIZE // MIB) + 2))
    return path


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Other tests' services may be running, and be this process's children."""
    children, descriptors = set(find_children(os.getpid())), count_descriptors()
    yield
    wait_for("children to be gone", lambda: set(find_children(os.getpid())) <= children, 30)
    # A web server's thread closes its connection when it sees that nobody reads.
    wait_for("descriptors to be closed", lambda: count_descriptors() <= descriptors, 30)


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def find_children(pid: int) -> Iterator[int]:
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, each.read_text().split())


def deploy(
    folder: Path, disk: Path | str, name: str, kind: str, checksum: Checksum | None = None
) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    where = Disk(0, 0, uri=disk) if isinstance(disk, str) else Disk(0, 0, path=str(disk))
    settings = Settings(image_dir=folder, spool_dir=folder, helper_dir=folder / "helper")
    with (
        open_image(ImageOrder(name, kind, checksum), settings, JAIL) as image,
        open_target(where, JAIL) as target,
    ):
        image.copy_to(target, lambda position, total: told.append((position, total)))
        make_durable([target])
    return told


def require_same(folder: Path, disk: Path) -> None:
    run("cmp", f"--bytes={SIZE}", folder / "raw", disk)


def make_checksum(path: Path) -> Checksum:
    return Checksum("sha256", hashlib.sha256(path.read_bytes()).hexdigest())


FORMS = [
    *[(f"raw.{name}", "diskdump") for name in COMPRESSORS],
    *[(f"qcow2.{name}", "qcow2") for name in COMPRESSORS],
    *[
        ("raw", "diskdump"),
        ("qcow2", "qcow2"),
        ("packed.qcow2", "qcow2"),
        ("secret.qcow2", "qcow2"),
        ("footer.vmdk", "vmdk"),
    ],
    *[(name, name.partition(".")[2]) for name in CONTAINERS],
    *[(f"{name}.{packer}", name.partition(".")[2]) for name in PACKED for packer in COMPRESSORS],
]


@pytest.mark.parametrize(("name", "kind"), FORMS)
@pytest.mark.parametrize("checked", [False, True], ids=["", "checked"])
def test_every_form_makes_the_same_sparse_disk(
    folder: Path, disk: Path, name: str, kind: str, checked: bool
) -> None:
    checksum = make_checksum(folder / name) if checked else None
    told = deploy(folder, disk, name, kind, checksum)
    require_same(folder, disk)
    qcow2_blocks = (folder / "raw").stat().st_blocks
    assert disk.stat().st_blocks <= qcow2_blocks + 256
    assert told[-1][0] == told[-1][1] > 0
    assert not list(folder.glob("tmp*"))


@pytest.mark.parametrize(("name", "kind"), FORMS)
def test_a_wrong_checksum_is_told(folder: Path, disk: Path, name: str, kind: str) -> None:
    with pytest.raises(InputError, match="img_checksum"):
        deploy(folder, disk, name, kind, Checksum("sha512", "0" * 128))


def test_a_qcow2_is_not_read_before_its_checksum_is_right(folder: Path, disk: Path) -> None:
    with pytest.raises(InputError, match="img_checksum"):
        deploy(folder, disk, "qcow2", "qcow2", Checksum("sha256", "0" * 64))
    assert disk.read_bytes() == ERASED * (SIZE // MIB + 2)


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("cut", [20, 0.5, 0.999])
def test_a_truncated_stream_is_told(
    folder: Path, tmp_path: Path, disk: Path, name: str, cut: float
) -> None:
    whole = (folder / f"raw.{name}").read_bytes()
    length = int(cut if cut > 1 else cut * len(whole))
    (tmp_path / "cut").write_bytes(whole[:length])
    with pytest.raises(InputError, match=f"image cut is no sound {name} stream: .*"):
        deploy(tmp_path, disk, "cut", "diskdump")


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_damaged_stream_is_told(folder: Path, tmp_path: Path, disk: Path, name: str) -> None:
    broken = bytearray((folder / f"raw.{name}").read_bytes())
    for at in range(len(broken) // 2, len(broken) // 2 + 64):
        broken[at] ^= 0x55
    (tmp_path / "broken").write_bytes(broken)
    with pytest.raises(InputError, match="image broken is no sound"):
        deploy(tmp_path, disk, "broken", "diskdump")


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("kind", ["diskdump", "qcow2"])
def test_a_bomb_stops_at_the_size_of_the_disk(
    folder: Path, tmp_path: Path, disk: Path, name: str, kind: str
) -> None:
    """Five times the disk out of a few KiB."""
    head = (folder / "qcow2").read_bytes()[:MIB] if kind == "qcow2" else b"MBR"
    script = f"{{ cat; head -c {5 * SIZE} /dev/zero; }} | {' '.join(COMPRESSORS[name])} -c"
    with (tmp_path / "bomb").open("wb") as file:
        subprocess.run(["sh", "-c", script], input=head, stdout=file, check=True)
    with pytest.raises(InputError, match=r"needs a disk of|more than the disk holds"):
        deploy(tmp_path, disk, "bomb", kind)
    assert disk.stat().st_size == SIZE + 2 * MIB


@pytest.mark.parametrize("name", ["xz", "zst"])
def test_a_stream_that_tells_its_size_is_refused_before_a_byte_is_written(
    folder: Path, tmp_path: Path, name: str
) -> None:
    small = tmp_path / "small"
    small.write_bytes(ERASED * 4)
    packer = ["zstd", "-q"] if name == "zst" else COMPRESSORS[name]
    with (tmp_path / "packed").open("wb") as file:
        subprocess.run([*packer, "-c", folder / "raw"], stdout=file, check=True)
    with pytest.raises(InputError, match=f"packed needs a disk of {SIZE} bytes or more"):
        deploy(tmp_path, small, "packed", "diskdump")
    assert small.read_bytes() == ERASED * 4


def make_qcow2(path: Path, *options: str | Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", *options, path, str(SIZE))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-b", "/etc/passwd", "-F", "raw"), "backing file"),
        (("-o", "data_file={folder}/data,data_file_raw=on"), "data in another file"),
        (
            ("--object", "secret,id=k,data=k", "-o", "encrypt.format=aes,encrypt.key-secret=k"),
            "encr",
        ),
    ],
)
def test_a_qcow2_that_leads_elsewhere_is_refused(
    tmp_path: Path, disk: Path, options: tuple[str, ...], reason: str
) -> None:
    make_qcow2(tmp_path / "bad", *(each.format(folder=tmp_path) for each in options))
    with pytest.raises(InputError, match=reason):
        deploy(tmp_path, disk, "bad", "qcow2")
    assert disk.read_bytes() == ERASED * (SIZE // MIB + 2)


def test_a_qcow2_whose_tables_lie_is_told(folder: Path, tmp_path: Path, disk: Path) -> None:
    image = bytearray((folder / "qcow2").read_bytes())
    image[40:48] = (1 << 62).to_bytes(8, "big")  # the first table's offset
    (tmp_path / "bad").write_bytes(image)
    with pytest.raises(InputError, match=r"image bad (is a damaged|can't be read as) qcow2"):
        deploy(tmp_path, disk, "bad", "qcow2")


def test_a_qcow2_that_is_cut_is_told(folder: Path, tmp_path: Path, disk: Path) -> None:
    """QEMU itself would read what is missing as zeros."""
    (tmp_path / "cut").write_bytes((folder / "qcow2").read_bytes()[: 3 * MIB])
    with pytest.raises(InputError, match="image cut is a damaged qcow2 image"):
        deploy(tmp_path, disk, "cut", "qcow2")


@pytest.mark.parametrize(
    ("name", "kind", "program"),
    [("qcow2", "qcow2", "qemu-img"), ("raw.xz", "diskdump", "xz"), ("raw.gz", "diskdump", "gzip")],
)
def test_a_jail_that_can_not_be_made_is_no_fault_of_the_image(
    folder: Path, tmp_path: Path, disk: Path, name: str, kind: str, program: str
) -> None:
    """Its control group has gone."""
    jail = Jail(JAIL.uid, JAIL.gid, tmp_path / "absent")
    with (
        pytest.raises(NodeError, match=f"the jail of {program} failed: .*absent"),
        open_image(ImageOrder(name, kind), Settings(image_dir=folder), jail) as image,
        open_target(Disk(0, 0, path=str(disk)), jail) as target,
    ):
        image.copy_to(target, lambda position, total: None)


@pytest.mark.parametrize("kind", ["extdump", "ntfsdump", "qcow2", "vmdk", "vhd", "vhdx"])
def test_what_is_not_of_its_format_is_refused(folder: Path, disk: Path, kind: str) -> None:
    with pytest.raises(InputError, match="image raw is no "):
        deploy(folder, disk, "raw", kind)


@pytest.fixture(scope="module")
def helper_dir(folder: Path) -> Path:
    """An appliance of which only the boot prefix is real, by this machine's GRUB."""
    build = folder / "helper" / "build"
    build.mkdir(parents=True)
    for name in (appliance.KERNEL, appliance.INITRD):
        (build / name).touch()
    build_boot_prefix(build / appliance.BOOT_PREFIX, Path("/"))
    files = {name: appliance.make_record(build / name) for name in appliance.FILES}
    manifest = appliance.Manifest(VERSION, "bookworm", "6.1", {}, files)
    (build / appliance.MANIFEST).write_text(manifest.text)
    (folder / "helper" / appliance.CURRENT).symlink_to("build")
    return folder / "helper"


def test_a_bare_file_system_becomes_a_disk_that_boots(helper_dir: Path, tmp_path: Path) -> None:
    image = images.build(RECIPES["bookworm-extdump"])
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, image.stat().st_size + 2 * MIB)
    (helper_dir.parent / "bare").symlink_to(image)
    settings = Settings(image_dir=image.parent, helper_dir=helper_dir)
    with (
        open_image(ImageOrder(image.name, "extdump"), settings, JAIL) as opened,
        open_target(Disk(0, 0, path=str(disk)), JAIL) as target,
    ):
        assert opened.size == image.stat().st_size + MIB
        opened.copy_to(target, lambda position, total: None)
    assert f"start=        2048, size=     {image.stat().st_size // 512}, type=83, bootable" in run(
        "sfdisk", "--dump", disk
    )
    run("cmp", f"--ignore-initial=0:{MIB}", f"--bytes={image.stat().st_size}", image, disk)
    with booted(disk) as vm, vm.log_in(240) as client:
        _, stdout, _ = client.exec_command("findmnt --noheadings --output SOURCE /", timeout=60)
        assert stdout.read().decode().strip() == "/dev/vda1"


class Flaky(http.server.SimpleHTTPRequestHandler):
    """Breaks each answer after 3 MB, and goes on from there if it is asked to."""

    protocol_version = "HTTP/1.1"
    piece = 3_000_000

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range")
        start = int(asked[len("bytes=") : -1]) if asked else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start : start + self.piece])
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def web(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("snf_image_host.sources.http._PAUSE", 0.0)
    handler = functools.partial(Flaky, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[("raw", "diskdump"), ("raw.xz", "diskdump"), ("qcow2.zst", "qcow2")],
        *[("dynamic.vhdx", "vhdx"), ("fixed.vhd", "vhd"), ("footer.vmdk", "vmdk")],
    ],
)
def test_an_image_comes_over_connections_that_break(
    folder: Path, web: str, disk: Path, name: str, kind: str
) -> None:
    deploy(folder, disk, f"{web}/{name}", kind, make_checksum(folder / name))
    require_same(folder, disk)


@pytest.mark.parametrize(
    ("name", "kind"), [("raw", "diskdump"), ("raw.xz", "diskdump"), ("qcow2", "qcow2")]
)
def test_a_download_that_ends_early_is_told(
    folder: Path, web: str, disk: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snf_image_host.sources.http._ATTEMPTS", 1)
    with pytest.raises(InputError, match=r"can't be fetched: .* at byte 3000000"):
        deploy(folder, disk, f"{web}/{name}", kind)


@pytest.fixture
def loop(disk: Path) -> Iterator[Path]:
    device = run("losetup", "--find", "--show", disk).strip()
    yield Path(device)
    run("losetup", "--detach", device)


def test_a_block_device_gets_real_zeros(folder: Path, loop: Path, disk: Path) -> None:
    deploy(folder, loop, "raw", "diskdump")
    run("cmp", f"--bytes={SIZE}", folder / "raw", loop)
    assert disk.read_bytes()[SIZE : SIZE + MIB] == ERASED  # behind the image
    assert not any(disk.read_bytes()[-MIB:])  # but for the end, where backups of tables lie


def test_a_device_that_fails_is_one_line(folder: Path, small: Path) -> None:
    """A loop device whose file has no room: the kernel says EIO, here or at the end."""
    (small / "file").touch()
    os.truncate(small / "file", SIZE)
    device = run("losetup", "--find", "--show", small / "file").strip()
    try:
        with pytest.raises(NodeError, match=rf"{device} can't be .*: (Input/output|No space)"):
            deploy(folder, Path(device), "raw.lz4", "diskdump")
    finally:
        run("losetup", "--detach", device)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 4 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path)
    yield path
    run("umount", path)


def test_a_full_file_system_is_one_line(folder: Path, small: Path) -> None:
    (small / "disk").touch()
    os.truncate(small / "disk", SIZE)
    with pytest.raises(NodeError, match="No space left on device"):
        deploy(folder, small / "disk", "raw", "diskdump")


def test_a_full_spool_is_one_line(folder: Path, small: Path, disk: Path) -> None:
    settings = Settings(image_dir=folder, spool_dir=small)
    with (
        pytest.raises(NodeError, match=r"can't be kept in .*No space left"),
        open_image(ImageOrder("qcow2.gz", "qcow2"), settings, JAIL) as image,
        open_target(Disk(0, 0, path=str(disk)), JAIL) as target,
    ):
        image.copy_to(target, lambda position, total: None)
    assert not list(small.iterdir())


@pytest.fixture
def served(disk: Path, tmp_path: Path) -> Iterator[str]:
    """The disk as a userspace one, behind a server that only root may reach."""
    path = tmp_path / "nbd.sock"
    argv = ["qemu-nbd", "--format=raw", "--persistent", "--discard=unmap", f"--socket={path}"]
    with subprocess.Popen([*argv, disk]) as server:
        wait_for("qemu-nbd", lambda: is_listening(Path(UNIX_SOCKETS).read_text(), path), 30)
        path.chmod(0o600)
        yield f"nbd+unix:///?socket={path}"
        server.terminate()


def test_a_userspace_disk_is_written_and_read_through_its_server(
    folder: Path, served: str, disk: Path
) -> None:
    deploy(folder, served, "raw", "diskdump")
    require_same(folder, disk)
    assert disk.stat().st_blocks <= (folder / "raw").stat().st_blocks + 256
    with open_target(Disk(0, 0, uri=served), JAIL, writable=False) as target:
        assert target.size == disk.stat().st_size
        whole = bytearray(target.size)
        for start, end in target.find_data():
            view = memoryview(whole)[start:end]
            at = 0
            while at < len(view):
                at += target.read_into(start + at, view[at : at + MIB])
        assert whole == disk.read_bytes()
        with pytest.raises(OSError, match="Operation not permitted"):
            target.write(0, memoryview(b"x" * 512))


def test_the_helper_gets_a_connection_to_a_userspace_disk(served: str, disk: Path) -> None:
    with open_target(Disk(0, 0, uri=served), JAIL) as target:
        vm_disk = target.vm_disk
        assert vm_disk.kind == "nbd"
        client = nbd.NBD()
        client.connect_socket(os.dup(vm_disk.fd))
        client.pwrite(b"y" * 512, 4096)
        client.shutdown()
    assert disk.read_bytes()[4096 : 4096 + 512] == b"y" * 512


def test_a_userspace_disk_that_is_not_there_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=r"can't be reached: No such file"):
        deploy(folder, f"nbd+unix:///?socket={tmp_path}/absent", "raw", "diskdump")
    with pytest.raises(NodeError, match=r"can't be opened: .*refused"):
        deploy(folder, "nbd://127.0.0.1:1/", "raw", "diskdump")


def make_deployment(folder: Path, disk: Path, name: str, kind: str) -> str:
    """A program with nothing in it but the product, up to where it has image and target."""
    return f"""\
from pathlib import Path
from snf_image_host.environ import Disk
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.confinement.jail import Jail
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target
jail = Jail({JAIL.uid}, {JAIL.gid})
settings = Settings(image_dir=Path({str(folder)!r}), spool_dir=Path({str(folder)!r}))
with (
    open_image(ImageOrder({name!r}, {kind!r}), settings, jail) as image,
    open_target(Disk(0, 0, path={str(disk)!r}), jail) as target,
):"""


@pytest.mark.parametrize(("name", "kind"), [("raw.xz", "diskdump"), ("qcow2.gz", "qcow2")])
def test_a_copy_that_is_killed_leaves_nothing_and_works_again(
    folder: Path, disk: Path, name: str, kind: str
) -> None:
    script = f"""
import signal
def stop(position, total):
    print("copying", flush=True)
    signal.pause()
import snf_image_host.copying.disk_copy as disk_copy
disk_copy._PROGRESS_INTERVAL = 0
{make_deployment(folder, disk, name, kind)}
    image.copy_to(target, stop)
"""
    with subprocess.Popen([*PYTHON, script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"copying\n"
            theirs = list(find_descendants(child.pid))
            assert theirs
        finally:
            child.send_signal(signal.SIGKILL)
    wait_for("the jail to end", lambda: not any(map(is_alive, theirs)), 30)
    deploy(folder, disk, name, kind)
    require_same(folder, disk)


def find_descendants(pid: int) -> Iterator[int]:
    for child in find_children(pid):
        yield child
        yield from find_descendants(child)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("name", ["raw.xz", "raw", "qcow2.zst"])
def test_memory_is_bounded_whatever_the_size(folder: Path, disk: Path, name: str) -> None:
    """Of the process that runs the deployment, with all that Python takes itself."""
    kind = name.partition(".")[0].replace("raw", "diskdump")
    script = f"""
{make_deployment(folder, disk, name, kind)}
    image.copy_to(target, lambda position, total: None)
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""
    assert int(run(*PYTHON, script)) < 60 << 10
