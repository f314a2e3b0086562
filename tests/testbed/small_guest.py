"""A guest that boots in seconds when emulated: Debian's kernel and a busybox.

It has no disk. Each of its NICs is configured as a user's would be, by DHCP and by router
advertisements; it serves its name by HTTP, on TCP 22, too, and a shell on its serial port.
"""

import contextlib
import itertools
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import DeadlineError, NodeError
from testbed.debian_kernel import Kernel

PORTS = (22, 80)
ARGUMENTS = "console=ttyS0 quiet panic=-1"
_numbers = itertools.count(1)
_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /www
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
echo 0 >/proc/sys/net/ipv6/conf/default/dad_transmits
ip link set lo up
for path in /sys/class/net/eth*; do
    nic=${path##*/}
    cat $path/address >/www/$nic
    ip link set $nic up
    udhcpc -b -i $nic -s /dhcp -t 60 -T 1 >/dev/null 2>&1
done
httpd -p 80 -h /www
httpd -p 22 -h /www
stty -echo -F /dev/ttyS0
while :; do setsid sh </dev/ttyS0 >/dev/ttyS0 2>&1; done
"""
_DHCP = """\
#!/bin/busybox sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip address replace $ip/$mask dev $interface
[ -z "$router" ] || ip route replace default via $router dev $interface
"""
_REACH = r"""\
#!/bin/busybox sh
# For each NAME=ADDRESS: which of ICMP and the ports reach it, all asked at once.
for each; do
    name=${each%%=*} address=${each#*=}
    { ping -c 2 -W 2 $address >/dev/null 2>&1 && echo "$name ICMP"; } &
    for port in 22 80; do
        { printf 'GET /eth0 HTTP/1.0\r\n\r\n' | nc -w 2 $address $port 2>/dev/null |
            grep -q '200 OK' && echo "$name $port"; } &
    done
done
wait
"""


def build(kernel: Kernel, busybox: Path, initrd: Path) -> None:
    """Write the guest's initrd."""
    modules = kernel.find_modules("virtio_pci", "virtio_net")
    with tempfile.TemporaryDirectory(prefix="small-guest-") as scratch:
        root = Path(scratch)
        for folder in ("bin", "modules"):
            (root / folder).mkdir()
        shutil.copyfile(busybox, root / "bin/busybox")
        for path in modules:
            shutil.copyfile(path, root / "modules" / path.name)
        (root / "modules/order").write_text("".join(f"{path.name}\n" for path in modules))
        for name, text in (("init", _INIT), ("dhcp", _DHCP), ("bin/reach", _REACH)):
            (root / name).write_text(text)
        for name in ("init", "dhcp", "bin/reach", "bin/busybox"):
            (root / name).chmod(0o755)
        names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
        argv = ["cpio", "--create", "--quiet", "--format=newc", f"--directory={root}"]
        initrd.write_bytes(process.run(argv, stdin=names.encode(), limit=64 << 20).stdout)


@dataclass(frozen=True)
class Shell:
    """A guest's serial port, as a UNIX socket of QEMU, with a shell at its other end."""

    connection: socket.socket

    def run(self, command: str, seconds: float = 30) -> str:
        """What a command prints, whatever its status. Raises DeadlineError."""
        number = next(_numbers)
        # In quotes here: what the port echoes of the command is not taken for its output.
        self.connection.sendall(f'echo "<"{number}; {command}; echo ">"{number}\n'.encode())
        pattern = re.compile(rf"<{number}\n(.*)>{number}\n", re.DOTALL)
        deadline, text = time.monotonic() + seconds, ""
        while not (found := pattern.search(text)):
            text += self._receive(deadline - time.monotonic())
        return found[1]

    def wait_until_ready(self, seconds: float) -> None:
        """Ask until the guest has booted so far that somebody answers. Raises DeadlineError."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.run(":", 2)
                return
            except DeadlineError:
                if time.monotonic() > deadline:
                    raise

    def _receive(self, seconds: float) -> str:
        self.connection.settimeout(max(0.01, seconds))
        try:
            received = self.connection.recv(65536)
        except TimeoutError:
            raise DeadlineError("an answer of the guest's shell", seconds) from None
        if not received:
            raise NodeError("the guest's QEMU has ended")
        return received.decode(errors="replace").replace("\r", "")


@contextlib.contextmanager
def open_shell(path: Path) -> Iterator[Shell]:
    """path: of the socket, as seen out here. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        yield Shell(connection)
