"""Real VNC servers on a bed's node: QEMU's, one of each security configuration."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from testbed.deadline import wait_for
from testbed.drawing import BOOT_SECTOR
from testbed.machine import Machine

NODE_NAME = "node1.bed.test"
NODE_ADDRESS = "10.78.0.11"
PASSWORD = "sesame12"
PKI = "/srv/pki"
_SECONDS = 60.0
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90")

DISPLAYS = {
    "none": (5901, ""),
    "password": (5902, "password-secret=password"),
    "x509": (5903, "tls-creds=x509"),
    "x509-password": (5904, "tls-creds=x509,password-secret=password"),
    "x509-verify": (5905, "tls-creds=verify"),
    "tls": (5906, "tls-creds=anon"),
    "tls-password": (5907, "tls-creds=anon,password-secret=password"),
}
"""The security configurations of QEMU's VNC server: port and options."""
KEYS = "/srv/keys"
"""Where the guest writes down each key that it got, before it draws."""
SOCKET_FOLDER = "/srv/vnc"
SOCKET = f"{SOCKET_FOLDER}/guest.vnc"


def make_certificates(folder: Path) -> None:
    """A CA, a server certificate of the node and of loopback, a client certificate; and another
    CA's server certificate. Named as QEMU wants them."""

    def sign(name: str, subject: str, names: str, ca: str) -> None:
        arguments = ("-CA", f"{ca}-cert.pem", "-CAkey", f"{ca}-key.pem") if ca else ()
        extensions = ("-addext", f"subjectAltName={names}") if names else ()
        kind = ("-addext", "basicConstraints=critical,CA:FALSE") if ca else ()
        output = ("-keyout", f"{name}-key.pem", "-out", f"{name}-cert.pem")
        argv = ["openssl", "req", "-x509", *_KEY, "-subj", f"/CN={subject}", *output]
        subprocess.run(
            [*argv, *arguments, *extensions, *kind], cwd=folder, check=True, capture_output=True
        )

    names = f"DNS:{NODE_NAME},IP:{NODE_ADDRESS},DNS:localhost,IP:127.0.0.1"
    sign("ca", "console test CA", "", "")
    sign("other-ca", "another CA", "", "")
    sign("server", NODE_NAME, names, "ca")
    sign("client", "panel.example", "DNS:panel.example", "ca")
    sign("foreign", NODE_NAME, names, "other-ca")
    sign("renewed", "renewed.example", names, "ca")
    sign("self", "localhost", "DNS:localhost,IP:127.0.0.1", "")


@contextlib.contextmanager
def running_guest(node: Machine, log: Path) -> Iterator[None]:
    """QEMU with a guest that draws, and a VNC server of each security configuration."""
    node.write("/srv/drawing.img", BOOT_SECTOR)
    node.run("mkdir", "--parents", SOCKET_FOLDER)
    node.run("chmod", "755", SOCKET_FOLDER)
    displays = [
        ("-vnc", f"127.0.0.1:{port - 5900},id={name}" + (f",{options}" if options else ""))
        for name, (port, options) in DISPLAYS.items()
    ]
    credentials = f"dir={PKI},endpoint=server"
    argv = [
        *("qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "32", "-nodefaults"),
        *("-vga", "std", "-name", "drawing", "-drive", "file=/srv/drawing.img,format=raw"),
        *("-debugcon", f"file:{KEYS}"),
        *("-object", f"tls-creds-x509,id=x509,verify-peer=off,{credentials}"),
        *("-object", f"tls-creds-x509,id=verify,verify-peer=on,{credentials}"),
        *("-object", "tls-creds-anon,id=anon,endpoint=server"),
        *("-object", f"secret,id=password,data={PASSWORD}"),
        *(word for words in displays for word in words),
        *("-vnc", f"unix:{SOCKET},id=unix"),
    ]
    node.write("/srv/guest.sh", "umask 0\nexec " + " ".join(argv) + "\n")
    with node.spawn("sh", "/srv/guest.sh", output=log):
        wait_for("QEMU's VNC servers", lambda: _is_there(node, SOCKET), _SECONDS)
        yield


def _is_there(node: Machine, path: str) -> bool:
    return node.run("test", "-S", path, ok=(0, 1)).status == 0
