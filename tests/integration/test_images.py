"""The Debian images boot by themselves, under QEMU alone, to an SSH server. Needs root.

One boot for each family: boot loader in the MBR gap, in a BIOS boot partition, and in front
of a logical partition; ifupdown, networkd and netplan; each way in which an fstab and the
kernel's command line name the root. What is asserted is what the running guest tells.
"""

import os
import re
import subprocess

import paramiko
import pytest

from testbed import images
from testbed.guest_vm import booted
from testbed.images import RECIPES, Recipe

BOOT_SECONDS = 600.0
"""An emulated Debian boots in 40 s where it is alone, and in 330 s among ten others that compute,
on two processors."""


@pytest.fixture(scope="module", autouse=True)
def need_root() -> None:
    assert os.geteuid() == 0, "mmdebstrap makes images as root: run the tests as root"


def ask(client: paramiko.SSHClient, command: str) -> str:
    _, stdout, _ = client.exec_command(command, timeout=BOOT_SECONDS)  # it may still be booting
    return str(stdout.read().decode()).strip()


def read_host_key(recipe: Recipe) -> list[str]:
    """Type and key of the host key that lies in the image, read without booting it."""
    root = images.find_root(recipe.layout)
    where = f"{images.build(recipe)}?offset={root.start}"
    argv = ["debugfs", "-R", "cat /etc/ssh/ssh_host_ed25519_key.pub", where]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[:2]


@pytest.mark.parametrize(
    ("name", "root", "network"),
    [
        ("bookworm-mbr-ext4", "vda1", "networking.service"),
        ("bookworm-gpt-netplan", "vda1", "systemd-networkd.service"),
        ("trixie-gpt-ext4", "vda1", "systemd-networkd.service"),
    ],
)
def test_an_image_boots_to_ssh(name: str, root: str, network: str) -> None:
    recipe = RECIPES[name]
    image = images.build(recipe)
    before = image.stat().st_mtime_ns
    with booted(image) as vm, vm.log_in(BOOT_SECONDS) as client:
        key = client.get_transport().get_remote_server_key()
        release = ask(client, "cat /etc/os-release")
        assert re.search(f"^VERSION_CODENAME={recipe.suite}$", release, re.MULTILINE)
        assert ask(client, "hostname") == name
        assert ask(client, "cat /etc/machine-id") == recipe.machine_id
        assert ask(client, "findmnt --noheadings --output SOURCE /") == f"/dev/{root}"
        assert ask(client, "findmnt --verify --fstab").endswith(
            "Success, no errors or warnings detected"
        )
        assert ask(client, f"systemctl is-active {network}") == "active"
        assert ask(client, "systemctl is-system-running --wait") == "running"
        assert ask(client, "id --user debian") == "1000"
        assert ask(client, "getent shadow root | cut -d: -f2").startswith("!")
        assert [key.get_name(), key.get_base64()] == read_host_key(recipe)
    assert image.stat().st_mtime_ns == before


def test_an_extdump_image_is_a_file_system_with_a_kernel_and_nothing_around_it() -> None:
    image = images.build(RECIPES["bookworm-extdump"])
    argv = ["e2fsck", "-f", "-n", str(image)]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0
    argv = ["debugfs", "-R", "stat /vmlinuz", str(image)]
    kernel = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert 'Fast link dest: "boot/vmlinuz-' in kernel
    with image.open("rb") as file:
        assert not any(file.read(1024))
