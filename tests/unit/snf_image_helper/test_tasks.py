"""The tasks that work on the guest's files, on a small guest of plain files.

The tests' own user stands for root and for every user of the guest.
"""

import base64
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snf_image_helper.guest import Guest, parse_release
from snf_image_helper.protocol import Action, PersonalityFile, Request
from snf_image_helper.task import Context, Skip, TaskFailed, find_exclusion, find_tasks
from snf_image_helper.tree import Tree, TreeError

UID, GID = os.getuid(), os.getgid()
FILES = {
    "etc/passwd": f"root:x:{UID}:{GID}:root:/root:/bin/sh\nann:x:{UID}:{GID}::/home/ann:/bin/sh\n",
    "etc/group": f"root:x:{GID}:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nann:!:19000:1:::::\n",
    "etc/hostname": "debian\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n",
}
TASKS = {task.name: task for task in find_tasks()}

MakeContext = Callable[..., Context]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "etc/shadow").chmod(0o640)
    return tmp_path


@pytest.fixture
def make_context(root: Path) -> MakeContext:
    def make(action: Action = "create", like: str = "debian", **fields: Any) -> Context:
        request = Request(action, fields.pop("hostname", "web.example.org"), 1, **fields)
        guest = Guest(Tree(str(root)), "linux", {"ID": like})
        return Context(request, [], lambda message: None, guest)

    return make


def test_the_names_that_operators_know_are_there() -> None:
    assert {
        "FixPartitionTable", "FilesystemResizeUnmounted", "MountImage", "FilesystemResizeMounted",
        "AddSwap", "AssignHostname", "ChangeMachineId", "ChangePassword", "InstallSSHKeys",
        "DeleteSSHKeys", "SELinuxAutorelabel", "EnforcePersonality", "UmountImage",
    } <= TASKS.keys()  # fmt: skip


def test_a_rename_takes_three_tasks() -> None:
    named = [name for name, task in TASKS.items() if "rename" in task.actions]
    assert named == ["MountImage", "AssignHostname", "UmountImage"]


@pytest.mark.parametrize(
    ("name", "excluded"),
    [
        ("EXCLUDE_ALL_TASKS", set(TASKS)),
        ("EXCLUDE_TASK_CHANGEPASSWORD", {"ChangePassword"}),
        ("EXCLUDE_TASK_MOUNTIMAGE", set()),
        (
            "EXCLUDE_FILESYSTEMRESIZE_TASKS",
            {"FilesystemResizeUnmounted", "FilesystemResizeMounted"},
        ),
        (
            "EXCLUDE_MOUNTED_TASKS",
            set(TASKS) - {"FixPartitionTable", "FilesystemResizeUnmounted", "UmountImage"},
        ),
    ],
)
def test_exclusion(name: str, excluded: set[str]) -> None:
    assert {task.name for task in TASKS.values() if find_exclusion(task, {name: "yes"})} == excluded


def run(name: str, context: Context) -> None:
    TASKS[name].run(context)


class TestAssignHostname:
    def test_create(self, root: Path, make_context: MakeContext) -> None:
        (root / "etc/mailname").write_text("debian\n")
        run("AssignHostname", make_context())
        assert (root / "etc/hostname").read_text() == "web.example.org\n"
        assert (root / "etc/mailname").read_text() == "web.example.org\n"
        hosts = (root / "etc/hosts").read_text()
        assert hosts == "127.0.0.1\tlocalhost\n127.0.1.1\tweb.example.org web\n"

    def test_rename_keeps_what_is_not_the_old_name(
        self, root: Path, make_context: MakeContext
    ) -> None:
        (root / "etc/mailname").write_text("mail.example.org\n")
        (root / "etc/hosts").write_text("127.0.1.1 old.x old db\n10.0.0.9 old.x\n")
        run("AssignHostname", make_context("rename", old_hostname="old.x", hostname="new.y"))
        assert (root / "etc/hosts").read_text() == "127.0.1.1\tnew.y new db\n10.0.0.9 new.y\n"
        assert (root / "etc/mailname").read_text() == "mail.example.org\n"

    def test_without_a_name_the_image_keeps_its_own(
        self, root: Path, make_context: MakeContext
    ) -> None:
        before = (root / "etc/hosts").read_text()
        with pytest.raises(Skip, match="no host name was given"):
            run("AssignHostname", make_context(hostname=""))
        assert (root / "etc/hosts").read_text() == before

    @pytest.mark.parametrize("name", ["-a", "a b", "a..b", "x" * 64, "a\nb", "web\n"])
    def test_no_host_name(self, make_context: MakeContext, name: str) -> None:
        with pytest.raises(TaskFailed, match="is not a host name"):
            run("AssignHostname", make_context(hostname=name))

    def test_hosts_as_a_fifo_is_refused(self, root: Path, make_context: MakeContext) -> None:
        (root / "etc/hosts").unlink()
        os.mkfifo(root / "etc/hosts")
        with pytest.raises(TreeError, match="/etc/hosts"):
            run("AssignHostname", make_context())


class TestChangeMachineId:
    OLD = "0123456789abcdef0123456789abcdef\n"

    def test_both_files_get_the_same_new_id(self, root: Path, make_context: MakeContext) -> None:
        (root / "var/lib/dbus").mkdir(parents=True)
        for name in ("etc/machine-id", "var/lib/dbus/machine-id"):
            (root / name).write_text(self.OLD)
        run("ChangeMachineId", make_context())
        made = (root / "etc/machine-id").read_text()
        assert re.fullmatch("[0-9a-f]{32}\n", made) and made != self.OLD
        assert (root / "var/lib/dbus/machine-id").read_text() == made

    @pytest.mark.parametrize("text", [None, "", "uninitialized\n"])
    def test_the_first_boot_makes_it(
        self, root: Path, make_context: MakeContext, text: str | None
    ) -> None:
        if text is not None:
            (root / "etc/machine-id").write_text(text)
        (root / "var/lib/dbus").mkdir(parents=True)
        (root / "var/lib/dbus/machine-id").write_text(self.OLD)
        with pytest.raises(Skip):
            run("ChangeMachineId", make_context())
        path = root / "etc/machine-id"
        assert (path.read_text() if path.exists() else None) == text
        assert not (root / "var/lib/dbus/machine-id").exists()


class TestChangePassword:
    HASH = "$6$saltsalt$" + "a" * 86

    def test_a_ready_hash_for_the_listed_users(self, root: Path, make_context: MakeContext) -> None:
        run("ChangePassword", make_context(password_hash=self.HASH, properties={"USERS": " ann "}))
        lines = (root / "etc/shadow").read_text().splitlines()
        assert lines[0] == FILES["etc/shadow"].splitlines()[0]
        fields = lines[1].split(":")
        assert (fields[1], fields[3:]) == (self.HASH, ["1", "", "", "", "", ""])
        assert int(fields[2]) > 20000
        assert (root / "etc/shadow").stat().st_mode & 0o777 == 0o640

    def test_a_plain_password_never_reaches_the_guest(
        self, root: Path, make_context: MakeContext
    ) -> None:
        run("ChangePassword", make_context(password="sEcret"))
        assert (root / "etc/shadow").read_text().startswith("root:$6$")
        found = subprocess.run(["grep", "-r", "sEcret", str(root)], capture_output=True)
        assert found.returncode == 1

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"password": "x", "properties": {"USERS": "bob"}}, "user bob does not exist"),
            ({"password_hash": "plain"}, "does not have the form of crypt"),
            ({"password": "x", "properties": {"PASSWD_HASHING_METHOD": "des"}}, "METHOD=des"),
        ],
    )
    def test_bad_input_leaves_shadow_alone(
        self, root: Path, make_context: MakeContext, fields: dict[str, Any], reason: str
    ) -> None:
        with pytest.raises(TaskFailed, match=reason):
            run("ChangePassword", make_context(**fields))
        assert (root / "etc/shadow").read_text() == FILES["etc/shadow"]


class TestKeys:
    @pytest.fixture
    def outside(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("outside")

    @pytest.fixture
    def key(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        path = tmp_path_factory.mktemp("key") / "id"
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(argv, check=True)
        return path.with_suffix(".pub").read_text()

    def test_modes_are_what_sshd_wants(
        self, root: Path, make_context: MakeContext, key: str
    ) -> None:
        (root / "root/.ssh").mkdir(parents=True)
        (root / "root/.ssh/authorized_keys").write_text("# mine")
        run("InstallSSHKeys", make_context(auth_keys=key, properties={"USERS": "root ann"}))
        assert (root / "root/.ssh/authorized_keys").read_text() == f"# mine\n{key}"
        assert (root / "home/ann/.ssh/authorized_keys").read_text() == key
        modes = {
            name: (root / name).stat().st_mode & 0o777
            for name in ("root/.ssh", "root/.ssh/authorized_keys", "home", "home/ann/.ssh")
        }
        assert list(modes.values()) == [0o700, 0o600, 0o755, 0o700]

    def test_a_symlink_leads_nowhere_outside(
        self,
        root: Path,
        make_context: MakeContext,
        key: str,
        outside: Path,
    ) -> None:
        (root / "root").symlink_to(outside)
        with pytest.raises((TreeError, OSError)):
            run("InstallSSHKeys", make_context(auth_keys=key))
        assert not list(outside.iterdir())

    def test_host_keys_of_the_kinds_that_were_there(
        self, root: Path, make_context: MakeContext
    ) -> None:
        folder = root / "etc/ssh"
        folder.mkdir()
        for name in ("ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "ssh_host_dsa_key"):
            (folder / name).write_text("old")
        run("DeleteSSHKeys", make_context())
        private, public = folder / "ssh_host_ed25519_key", folder / "ssh_host_ed25519_key.pub"
        assert sorted(folder.iterdir()) == [private, public]
        assert private.stat().st_mode & 0o777 == 0o600
        assert public.read_text().endswith(" root@web.example.org\n")
        derived = subprocess.run(["ssh-keygen", "-y", "-f", str(private)], capture_output=True)
        assert derived.stdout.decode() == public.read_text()

    def test_the_hosts_rsa_key_is_taken(self, root: Path, make_context: MakeContext) -> None:
        folder = root / "etc/ssh"
        folder.mkdir()
        (folder / "ssh_host_rsa_key").write_text("old")
        argv = ["openssl", "genrsa", "-traditional", "3072"]
        key = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        run("DeleteSSHKeys", make_context(rsa_key=key))
        private, public = folder / "ssh_host_rsa_key", folder / "ssh_host_rsa_key.pub"
        assert private.read_text() == key
        assert private.stat().st_mode & 0o777 == 0o600
        assert public.read_text().endswith(" root@web.example.org\n")
        shown = subprocess.run(["ssh-keygen", "-l", "-f", str(public)], capture_output=True)
        assert shown.stdout.decode().split()[::3] == ["3072", "(RSA)"]
        argv = ["ssh-keygen", "-Y", "sign", "-q", "-n", "file", "-f", str(private)]
        proof = subprocess.run(argv, input=b"x", capture_output=True)
        assert proof.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----")

    def test_a_guest_without_a_server_gets_no_host_keys(self, make_context: MakeContext) -> None:
        with pytest.raises(Skip, match="no SSH server"):
            run("DeleteSSHKeys", make_context())


class TestEnforcePersonality:
    def make_file(self, path: str, data: bytes = b"\x00\xff", **fields: Any) -> PersonalityFile:
        return PersonalityFile(path, base64.b64encode(data).decode(), **fields)

    def test_files_and_their_folders(self, root: Path, make_context: MakeContext) -> None:
        file = self.make_file("/opt/a/b", mode=0o4750, owner="ann")
        run("EnforcePersonality", make_context(personality=(file,)))
        assert (root / "opt/a/b").read_bytes() == b"\x00\xff"
        modes = [(root / name).stat().st_mode & 0o7777 for name in ("opt", "opt/a", "opt/a/b")]
        assert modes == [0o750, 0o750, 0o4750]

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"owner": "bob"}, "user bob does not exist"),
            ({"group": "staff"}, "group staff does not exist"),
            ({"mode": 0o10000}, "mode 4096 is out of range"),
            ({"contents": "a$b="}, "not base64"),
            ({"path": "relative"}, "not an absolute path"),
            ({"path": "/a\0b"}, "not an absolute path"),
        ],
    )
    def test_bad_input(
        self, root: Path, make_context: MakeContext, fields: dict[str, Any], reason: str
    ) -> None:
        values: dict[str, Any] = {"path": "/x", "contents": "", **fields}
        file = PersonalityFile(**values)
        with pytest.raises(TaskFailed, match=reason):
            run("EnforcePersonality", make_context(personality=(file,)))
        assert not (root / "x").exists()

    def test_a_folder_in_the_place_of_a_file(self, make_context: MakeContext) -> None:
        with pytest.raises(TreeError, match="/etc is not a regular file"):
            run("EnforcePersonality", make_context(personality=(self.make_file("/etc"),)))


class TestSELinuxAutorelabel:
    def test_only_where_there_is_selinux(self, root: Path, make_context: MakeContext) -> None:
        for like in ("debian", "fedora"):
            with pytest.raises(Skip):
                run("SELinuxAutorelabel", make_context(like=like))
        (root / "etc/selinux").mkdir()
        (root / "etc/selinux/config").write_text("# SELINUX=disabled\nSELINUX=enforcing\n")
        run("SELinuxAutorelabel", make_context(like="fedora"))
        assert (root / ".autorelabel").exists()


def test_a_release_is_read_with_its_quotes() -> None:
    assert parse_release('ID=debian\nPRETTY_NAME="Debian 12"\n# c\nodd\n') == {
        "ID": "debian",
        "PRETTY_NAME": "Debian 12",
    }
