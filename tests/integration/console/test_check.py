"""`vncauthproxy check`: a machine that can serve consoles, and each way in which it can't."""

import json

import pytest

from testbed.console import Proxy, make_settings, running_proxy
from testbed.ganeti import Cluster
from testbed.machine import Machine
from testbed.vnc_servers import NODE_ADDRESS, PKI
from testbed.wire import ADDRESS

ETC = "/srv/unfit"
AS_USER = ("setpriv", "--reuid=vncauthproxy", "--regid=vncauthproxy", "--clear-groups")


def check(node: Machine, etc: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Status, and level and text by subject, of the installed command as the proxy's user."""
    argv = (*AS_USER, "vncauthproxy", "--etc", etc, "check", "--json")
    done = node.run(*argv, ok=(0, 4))
    document = json.loads(done.text)
    assert (document["status"] == "ok") == (done.status == 0)
    return done.status, {
        each["subject"]: (each["level"], each["text"]) for each in document["findings"]
    }


def test_proxy_that_serves_is_fit(node: Machine, checked: Proxy, sharing: Proxy) -> None:
    status, findings = check(node, checked.etc)
    assert status == 0
    assert {level for level, _ in findings.values()} == {"ok"}
    assert findings["tickets"][1] == "in Redis, which answers"
    assert "cluster.bed.test" in findings["Ganeti"][1]
    status, findings = check(node, sharing.etc)
    assert (status, findings["legacy"]) == (0, ("ok", "1 users in /srv/sharing/users"))
    assert findings["Ganeti"][0] == "warning"
    plain = node.run(*AS_USER, "vncauthproxy", "--etc", checked.etc, "check").text
    assert len(plain.splitlines()) == len(findings)


EXPIRED = (
    f"openssl x509 -in {PKI}/server-cert.pem -signkey {ETC}/key.pem -days -1 -out {ETC}/cert.pem"
)
UNFIT: dict[str, tuple[str, str, str, str]] = {
    "no certificate": (f"rm {ETC}/cert.pem", "", "certificate", "can't be loaded"),
    "another's key": (f"cp {PKI}/ca-key.pem {ETC}/key.pem", "", "certificate", "can't be loaded"),
    "an expired certificate": (EXPIRED, "", "certificate", "is valid until"),
    "a key that may not be read": (f"chmod 0 {ETC}/key.pem", "", "certificate", "Permission"),
    "no token": (f": >{ETC}/tokens", "client_names = []", "controllers", "nobody may issue"),
    "a broken token": (f"echo x y >>{ETC}/tokens", "", "controllers", "tokens:2: this is not"),
    "no Redis": (
        "",
        f'[tickets]\nredis = "redis://{ADDRESS}:6"',
        "tickets",
        "Redis can't be asked",
    ),
    "TLS unchecked": ("", '[targets]\ntls = "require"', "targets", "no targets.ca is set"),
    "no CA": ("", f'[targets]\nca = "{ETC}/none.pem"', "targets", "can't be loaded"),
    "no password": ("", f'[targets]\npassword_file = "{ETC}/none"', "targets", "can't be read"),
    "no RAPI": ("", f'[ganeti]\nrapi = "https://{NODE_ADDRESS}:9"', "Ganeti", "can't be asked"),
    "no such user": (
        "",
        '[ganeti]\nrapi = "https://localhost:5080"\nca = "/srv/checked/rapi.pem"\nuser = "nobody"',
        "Ganeti",
        "status 401",
    ),
    "no legacy users": (
        "",
        f'[legacy]\nenabled = true\nusers = "{ETC}/none"',
        "legacy",
        f"0 users in {ETC}/none",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_machine_that_is_unfit_is_told_why(node: Machine, checked: Proxy, name: str) -> None:
    """In one line, of the one subject; the other findings are what they are without it."""
    spoil, settings, subject, reason = UNFIT[name]
    text = make_settings(ETC, 8447, settings)
    if name == "no token":
        text = text.replace('client_names = ["panel.example"]\n', "", 1)
    node.run("rm", "--recursive", "--force", ETC)
    node.write(f"{ETC}/vncauthproxy/vncauthproxy.toml", text)
    node.run("vncauthproxy", "--etc", ETC, "add-token", "test")
    for file in ("cert", "key"):
        node.run("cp", f"{PKI}/server-{file}.pem", f"{ETC}/{file}.pem")
    node.run("chown", "-R", "vncauthproxy:", ETC)
    node.run(*AS_USER, "sh", "-c", spoil or ":")
    status, findings = check(node, ETC)
    level, said = findings.pop(subject)
    assert (status, level) == (4, "error")
    assert reason in said and "\n" not in said
    assert {level for level, _ in findings.values()} <= {"ok", "warning"}


def test_settings_that_are_wrong_are_told_in_one_line(node: Machine) -> None:
    node.write(f"{ETC}/vncauthproxy/vncauthproxy.toml", '[targets]\nports = "many"\n')
    done = node.run("sh", "-c", f"vncauthproxy --etc {ETC} check 2>&1", ok=(3,))
    assert "targets.ports must be a range" in done.text and len(done.text.splitlines()) == 1


def test_proxy_without_novnc_says_so(
    cluster: Cluster, node: Machine, checked: Proxy, green: None
) -> None:
    """Viewers and other pages can use it: it runs, and gives no URL that would not work."""
    settings = '[page]\nnovnc = "/srv/none"\n[targets]\nnetworks = ["127.0.0.0/8"]\n'
    folder = checked.ca.parent
    with running_proxy(node, cluster.bed.wire.connect, folder, "bare", 8448, settings) as bare:
        ticket = bare.order()
        assert ticket["url"] is None and ticket["viewer"]["password"] == ticket["ticket"]
        status, answer = bare.ask("GET", "/", token="")
        assert status == 503 and "noVNC is not in /srv/none" in answer["error"]
        assert "noVNC is not in /srv/none" in bare.log.read_text()
        status, findings = check(node, bare.etc)
        assert (status, findings["page"][0]) == (0, "warning")
        node.write("/srv/bare-token", bare.token)
        argv = ("vncauthproxy-client", "open", "127.0.0.1:5901", "--target", "--proxy", bare.url)
        files = f"--ca {PKI}/ca-cert.pem --token-file /srv/bare-token"
        said = node.run("sh", "-c", f"{' '.join(argv)} {files} 2>&1", ok=(4,)).text
        assert "has no page for browsers" in said and "install novnc" in said
