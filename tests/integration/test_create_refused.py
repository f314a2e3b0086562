"""What `gnt-instance add` says to bad input, and that nothing is left behind. Needs root.

Each case is an instance whose image must not be deployed: Ganeti exits non-zero and shows the
one line that says why, and the node is as it was. Then the same command with good input works.
"""

import hashlib
import http.server
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from snf_ganeti.errors import CommandError
from testbed import guests
from testbed.deadline import wait_for
from testbed.deployed import Deployed
from testbed.ganeti import Cluster
from testbed.guests import LAYOUTS
from testbed.machine import Machine
from testbed.wire import ADDRESS

pytestmark = pytest.mark.usefixtures("root")

NAME = "refused.bed.test"
PLACES = ("/tmp", "/var/tmp", "/run", "/dev/shm", "/srv/ganeti/file-storage", "/var/lib/snf-image")
"""Where something could be left."""
BROKEN = ("corrupt-ext4", "no-superblock")


@dataclass(frozen=True)
class Case:
    """given: OS parameters over those of a good deployment; `{…}` names a thing of `Things`.

    reason: what the line must hold, as a regular expression.
    """

    name: str
    given: dict[str, str]
    reason: str
    size: str = "128M"
    settings: str = ""


CASES = (
    Case("missing image", {"img_id": "absent.raw"}, "absent.raw"),
    Case("way out", {"img_id": "../../etc/shadow"}, "no name of an image"),
    Case("wrong checksum", {"img_checksum": f"sha256:{'0' * 64}"}, "checksum"),
    Case("HTTP error page", {"img_id": "{url}/absent"}, "404"),
    Case("truncated download", {"img_id": "{url}/truncated"}, "truncated"),
    Case("unknown format", {"img_format": "tarball"}, "img_format"),
    Case("backing file", {"img_id": "{backing}", "img_format": "qcow2"}, "backing file"),
    Case("data file", {"img_id": "{data}", "img_format": "qcow2"}, "data in another file"),
    Case("larger than the disk", {}, "make the disk at least 33 MiB large", size="32M"),
    Case("no partition table", {"img_id": "{empty}"}, "partition"),
    Case("corrupt file system", {"img_id": "{corrupt-ext4}"}, "Filesystem"),
    Case("no file system", {"img_id": "{no-superblock}"}, "file system"),
    Case("no such user", {"img_passwd": "x", "img_properties": '{"users": "alice"}'}, "alice"),
    Case("bad hash", {"img_passwd": "", "img_passwd_hash": "hunter2"}, "img_passwd_hash"),
    Case("malformed properties", {"img_properties": '{"users": '}, "img_properties"),
    Case("malformed personality", {"img_personality": '[{"path": 1}]'}, "img_personality"),
    Case("malformed keys", {"auth_keys": "ssh-rsa !!!"}, "auth_keys"),
    Case(
        "helper that hangs",
        {},
        "deadline|longer than",
        settings="helper_soft_timeout = 0.1\nhelper_hard_timeout = 0.1\n",
    ),
)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one thing that breaks off half way, and nothing else."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path != "/truncated":
            self.send_error(404, "no such image")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(64 << 20))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"\xeb" * (1 << 20))
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def things(deployer: Cluster) -> Iterator[dict[str, str]]:
    """What the cases name: images in the node's folder, and a web server on the wire."""
    folder = deployer.node.upper / "srv/small"
    folder.mkdir(parents=True)
    for name in ("mbr-primary", *BROKEN):
        guests.build(LAYOUTS[name], folder / f"{name}.raw")
    (folder / "empty.raw").write_bytes(b"\0" * (8 << 20))
    make_qcow2(folder / "backing.qcow2", "-b", "/etc/shadow", "-F", "raw", "-u")
    make_qcow2(folder / "data.qcow2", "-o", f"data_file={folder}/external,data_file_raw=on")
    with deployer.bed.wire.listen() as listener:
        server = http.server.ThreadingHTTPServer((ADDRESS, 0), Server, bind_and_activate=False)
        server.socket.close()
        server.socket = listener
        thread = threading.Thread(target=server.serve_forever, args=(0.1,))
        thread.start()
        yield {
            "url": f"http://{ADDRESS}:{listener.getsockname()[1]}",
            "good": "mbr-primary.raw",
            "backing": "backing.qcow2",
            "data": "data.qcow2",
            "empty": "empty.raw",
            **{name: f"{name}.raw" for name in BROKEN},
        }
        server.shutdown()
        thread.join()


def make_qcow2(path: Path, *options: str) -> None:
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "64M"]
    subprocess.run(argv, check=True)


def make_order(case: Case, things: dict[str, str]) -> Deployed:
    given = {
        key: things[text[1:-1]] if text[1:-1] in things else text.replace("{url}", things["url"])
        for key, text in case.given.items()
    }
    kind = given.pop("img_format", "diskdump")
    return Deployed(
        name=NAME,
        image=given.pop("img_id", things["good"]),
        address="10.78.0.69",
        format=kind,
        disks=(case.size,),
        parameters=given,
    )


def add(cluster: Cluster, order: Deployed, settings: str = "") -> str:
    base = 'image_dir = "/srv/small"\naccelerator = "tcg"\n'
    cluster.node.write("/etc/snf-image-host/conf.d/small.toml", base + settings)
    try:
        return cluster.add_instance(order.name, *order.make_options(), "--no-start")
    finally:
        cluster.node.run("rm", "/etc/snf-image-host/conf.d/small.toml")


def list_state(node: Machine) -> dict[str, list[str]]:
    """All that a deployment could leave: files, mounts, processes, loop devices."""
    find = (
        "find",
        *PLACES,
        "-xdev",
        "-ignore_readdir_race",
        "-not",
        "-name",
        "*.lock",
        "-not",
        "-path",
        "*/ganeti/*",
    )
    processes = node.run("ps", "-e", "-o", "user:20=,comm=").text.splitlines()
    loops = json.loads(node.run("losetup", "--json", "--list").text or '{"loopdevices": []}')
    return {
        "files": sorted(node.run(*find).text.splitlines()),
        "mounts": node.run("cat", "/proc/self/mountinfo").text.splitlines(),
        "processes": [line for line in processes if line.startswith(("90", "root qemu"))],
        "loops": [
            each["back-file"]
            for each in loops["loopdevices"]
            if str(node.folder) in str(each["back-file"])
        ],
    }


def wait_for_state(node: Machine, before: dict[str, list[str]]) -> None:
    """A helper that was killed takes a moment to give its memory back."""
    wait_for(
        "the node as it was",
        lambda: list_state(node) == before,
        60,
        explain=lambda: f"{list_state(node)} is not {before}",
    )


def is_refused(cluster: Cluster, case: Case, order: Deployed) -> str:
    """What `gnt-instance add` prints as it fails. Ganeti keeps an instance, off, whose disk
    could not be filled, and the operator removes it; verify comes before there is one."""
    try:
        with pytest.raises(CommandError) as caught:
            add(cluster, order, case.settings)
    finally:
        listed = cluster.run("gnt-instance", "list", "--no-headers", "--output=name").split()
        if order.name in listed:
            cluster.remove_instance(order.name)
    return caught.value.output


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(
    deployer: Cluster, things: dict[str, str], case: Case
) -> None:
    before = list_state(deployer.node)
    output = is_refused(deployer, case, make_order(case, things))
    # Ganeti leads what `verify` said with words of its own, on the same line.
    said = re.findall(r"^(?:OS Parameters validation failed.* )?error: (.*)$", output, re.M)
    assert len(said) == 1, output
    assert re.search(case.reason, said[0]), output
    assert "Traceback" not in output
    wait_for_state(deployer.node, before)


def test_good_input_works_afterwards(deployer: Cluster, things: dict[str, str]) -> None:
    image = (deployer.node.upper / "srv/small" / things["good"]).read_bytes()
    checksum = f"sha256:{hashlib.sha256(image).hexdigest()}"
    order = make_order(Case("good", {"img_checksum": checksum}, ""), things)
    before = list_state(deployer.node)
    add(deployer, order)
    deployer.remove_instance(NAME)
    wait_for_state(deployer.node, before)
