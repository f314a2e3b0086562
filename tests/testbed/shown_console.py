"""A console proxy that a demonstration leaves running: on a bed's node, seen from this machine.

Nothing of this machine reaches a bed's network, so a forwarder listens on its loopback and
carries connections there. It ends with the bed.
"""

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti import process
from testbed import processes
from testbed.bed import Bed
from testbed.browser import save_console
from testbed.console import install_files, prepare_rapi
from testbed.deadline import wait_for
from testbed.ganeti import Cluster
from testbed.namespaces import make_enter_network_argv
from testbed.vnc_servers import NODE_ADDRESS, PKI, make_certificates

PORT = 8443
_ETC = "/srv/console"
_SECONDS = 60.0
_SETTINGS = f"""
[listen]
port = {PORT}
public_url = "https://localhost:{PORT}"
certificate = "{_ETC}/cert.pem"
key = "{_ETC}/key.pem"
[controllers]
tokens = "{_ETC}/tokens"
[tickets]
lifetime = 86400.0
max_lifetime = 86400.0
[targets]
networks = ["127.0.0.0/8", "10.78.0.0/24"]
[ganeti]
rapi = "https://localhost:5080"
ca = "{_ETC}/rapi.pem"
user = "reader"
password_file = "{_ETC}/rapi-password"
"""


@dataclass(frozen=True)
class ShownConsole:
    """The proxy of a cluster, which goes on running when this process ends."""

    cluster: Cluster

    def make_open_argv(self, instance: str) -> list[str]:
        """What prints a URL, on the node."""
        argv = ["vncauthproxy-client", "open", instance, "--proxy", f"https://localhost:{PORT}"]
        return [*argv, "--ca", f"{_ETC}/cert.pem", "--token-file", f"{_ETC}/client-token"]

    def make_url(self, instance: str) -> str:
        """It opens the instance's console in a browser of this machine, once, within a day."""
        return self.cluster.node.run(*self.make_open_argv(instance)).text.strip()

    def save_screenshot(self, instance: str, path: Path) -> Path:
        """What the page looks like in Chromium."""
        log = self.cluster.bed.folder / "chromium.log"
        return save_console(self.make_url(instance), path, log)


def start_console(cluster: Cluster) -> ShownConsole:
    """Start the installed proxy on the cluster's node, and the forwarder on this machine."""
    node, bed = cluster.node, cluster.bed
    with tempfile.TemporaryDirectory(prefix="console-") as name:
        make_certificates(Path(name))
        install_files(node, Path(name))
    node.write(f"{_ETC}/vncauthproxy/vncauthproxy.toml", _SETTINGS)
    for file in ("cert", "key"):
        node.run("cp", f"{PKI}/self-{file}.pem", f"{_ETC}/{file}.pem")
    prepare_rapi(node, _ETC)
    proxy = ("vncauthproxy", "--etc", _ETC)
    node.write(f"{_ETC}/client-token", node.run(*proxy, "add-token", "demo").stdout, mode=0o600)
    for file in ("cert.pem", "key.pem", "tokens", "rapi-password"):
        node.run("chgrp", "vncauthproxy", f"{_ETC}/{file}")
    user = "setpriv --reuid=vncauthproxy --regid=vncauthproxy --clear-groups"
    serve = f"setsid --fork {user} {' '.join(proxy)} serve </dev/null >{_ETC}/log 2>&1"
    node.run("sh", "-c", serve)
    meeting = bed.folder / "console.socket"  # both networks see the same files
    to_node = ["socat", f"UNIX-LISTEN:{meeting},fork", f"TCP:{NODE_ADDRESS}:{PORT}"]
    listen = f"TCP-LISTEN:{PORT},bind=127.0.0.1,reuseaddr,fork"
    _start(bed, make_enter_network_argv(bed.wire.machine.pid, to_node))
    _start(bed, ["socat", listen, f"UNIX-CONNECT:{meeting}"])
    wait_for("the console proxy", lambda: _answers(cluster), _SECONDS)
    return ShownConsole(cluster)


def _start(bed: Bed, argv: list[str]) -> None:
    """A program of this machine that ends with the bed."""
    mark = processes.make_mark(bed.folder / "forwarder")
    with (
        (bed.folder / "forwarder.log").open("ab") as out,
        process.spawn(["setsid", "--fork", *argv], stdout=out, stderr=out, env=mark) as child,
    ):
        child.wait()  # setsid's parent half


def _answers(cluster: Cluster) -> bool:
    with contextlib.suppress(OSError), cluster.bed.wire.connect(NODE_ADDRESS, PORT):
        return True
    return False
