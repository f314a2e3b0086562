"""NICs are set up by the service, or by the script without it, and nobody can tell by whom.

The judge is a picture of the kernel's own lists.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator

import pytest

from testbed.bed import Bed
from testbed.deadline import wait_for
from testbed.hosting import LOCK, SCRIPT, SOCKET, Hosting, NicWords, open_hosting
from testbed.kernel_picture import take_picture

SECONDS = 90.0
LIMITED = "synnefo:network:0:limited"
ROUTED = {
    "MODE": "routed",
    "LINK": "200",
    "NETWORK_NAME": "public",
    "NETWORK_SUBNET": "198.51.100.0/24",
    "NETWORK_GATEWAY": "198.51.100.1",
    "NETWORK_SUBNET6": "2001:db8:1::/64",
    "NETWORK_GATEWAY6": "2001:db8:1::1",
    "TAGS": LIMITED,
}
PRIVATE = {
    "MODE": "bridged",
    "LINK": "prv0",
    "NETWORK_NAME": "private",
    "NETWORK_SUBNET": "10.0.0.0/24",
    "NETWORK_TAGS": "private-filtered",
    "NETWORK_MAC_PREFIX": "aa:00:01",
    "TAGS": LIMITED,
}


SLOW_IP = """\
#!/bin/sh
if [ "$1" = -batch ]; then
    touch /run/ip-begun
    until [ -e /run/script-left ]; do sleep 0.1; done
fi
exec /usr/sbin/ip "$@"
"""


def make_nic(number: int, base: dict[str, str] = ROUTED) -> NicWords:
    start = "198.51.100" if base is ROUTED else "10.0.0"
    ip = f"{start}.{number + 10}"
    return NicWords(f"tap{number}", f"aa:00:01:00:00:{number:02x}", {**base, "IP": ip})


NICS = [*map(make_nic, range(8)), *(make_nic(number, PRIVATE) for number in range(8, 12))]


@pytest.fixture(scope="module")
def hosting(bed: Bed) -> Iterator[Hosting]:
    with open_hosting(bed.folder / "requests", bed.layers) as opened:
        opened.add_station("up0", "02:00:00:00:00:01")
        opened.ip(
            "address add 192.0.2.2/24 dev up0",
            "link set up0 up",
            "route add default via 192.0.2.1 table 200",
            "link add prv0 type bridge",
            "link set prv0 up",
        )
        yield opened


@pytest.fixture
def taps(hosting: Hosting, expected: list[str]) -> Iterator[None]:
    """A tap for each NIC, new, where there were others; what they leave goes after the test."""
    names = [nic.tap for nic in NICS]
    hosting.ip(*(f"link add {name} type veth peer name far-{name}" for name in names))
    yield
    hosting.ip(*(f"link del {name}" for name in names))
    hosting.node.run("snf-network", "reconcile")


@pytest.fixture(scope="module")
def expected(hosting: Hosting) -> list[str]:
    """What there is when the scripts set up all NICs, one after the other, without the service."""
    hosting.ip(*(f"link add {nic.tap} type veth peer name far-{nic.tap}" for nic in NICS))
    for nic in NICS:
        hosting.set_up(nic)
    picture = take_picture(hosting)
    hosting.ip(*(f"link del {nic.tap}" for nic in NICS))
    hosting.node.run("snf-network", "reconcile")
    return picture


@contextlib.contextmanager
def starting(hosting: Hosting, nics: list[NicWords]) -> Iterator[list[int]]:
    """The NICs' scripts run at once, and have ended after the block; gives their statuses."""
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda nic=nic: statuses.append(hosting.set_up(nic, ok=range(256)).status)
        )
        for nic in nics
    ]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        for thread in threads:
            thread.join()


def read_log(hosting: Hosting) -> str:
    return (hosting.node.folder / "serve.log").read_text()


def find_service(hosting: Hosting) -> str:
    return hosting.node.run("pgrep", "-f", "snf-network serve").text.split()[0]


def stop_service(hosting: Hosting, name: str) -> None:
    hosting.node.run("kill", f"-{name}", find_service(hosting))


@pytest.mark.usefixtures("taps")
def test_service_sets_up_what_the_script_does(hosting: Hosting, expected: list[str]) -> None:
    with hosting.serve():
        for nic in NICS:
            assert hosting.set_up(nic).stderr == ""
        assert read_log(hosting).count(" is up, by its script's request") == len(NICS)
        assert take_picture(hosting) == expected


@pytest.mark.usefixtures("taps")
def test_many_at_once_are_each_set_up(hosting: Hosting, expected: list[str]) -> None:
    with hosting.serve(), starting(hosting, NICS) as statuses:
        pass
    assert statuses == [0] * len(NICS)
    assert take_picture(hosting) == expected


@pytest.mark.usefixtures("taps")
def test_scripts_go_on_when_the_service_is_killed(hosting: Hosting, expected: list[str]) -> None:
    """It hangs with all of them before it, and is killed."""
    with hosting.serve():
        hosting.set_up(NICS[0])
        stop_service(hosting, "STOP")
        with starting(hosting, NICS[1:]) as statuses:
            wait_for("their requests", lambda: hosting.count_asking() == len(NICS) - 1, SECONDS)
            assert statuses == []
            stop_service(hosting, "KILL")
    assert statuses == [0] * len(NICS[1:])
    assert take_picture(hosting) == expected


@pytest.mark.usefixtures("taps")
def test_service_is_killed_in_the_middle(hosting: Hosting, expected: list[str]) -> None:
    """Whatever it had done of a NIC by then, the script does it all again."""
    for delay in (0.1, 0.2, 0.3, 0.4):
        with hosting.serve(), starting(hosting, NICS) as statuses:
            time.sleep(delay)
            stop_service(hosting, "KILL")
        assert statuses == [0] * len(NICS)
        assert take_picture(hosting) == expected


@pytest.mark.usefixtures("taps")
def test_service_that_hangs_stops_no_start(hosting: Hosting) -> None:
    with hosting.serve():
        stop_service(hosting, "STOP")
        started = time.monotonic()
        hosting.set_up(NICS[0])
        assert 5 < time.monotonic() - started < 60
        before = take_picture(hosting)
        stop_service(hosting, "CONT")
        wait_for("its word on the script", lambda: "gets no answer" in read_log(hosting), SECONDS)
        assert take_picture(hosting) == before


@pytest.mark.usefixtures("taps")
def test_a_lock_that_is_taken_is_waited_for(hosting: Hosting) -> None:
    """Of the test bed: the service that has just started holds it for a while."""
    node = hosting.node
    log = node.folder / "first.log"
    command = ("flock", LOCK, "sh", "-c", "echo held; sleep 1; echo gone")
    with node.spawn(*command, output=log):
        wait_for("the first", lambda: "held" in log.read_text(), SECONDS)
        with hosting.locked():
            assert "gone" in log.read_text()


@pytest.mark.usefixtures("taps")
def test_nothing_is_done_for_a_script_that_left(hosting: Hosting) -> None:
    """While it waited for the lock that another holds."""
    node, before = hosting.node, take_picture(hosting)
    with hosting.serve():
        with (
            hosting.locked(),
            node.spawn(SCRIPT, env=NICS[0].make_environ(), output=node.folder / "script.log"),
        ):
            wait_for("its request", lambda: hosting.count_asking() == 1, SECONDS)
        wait_for("its word on the script", lambda: "gets no answer" in read_log(hosting), SECONDS)
        assert take_picture(hosting) == before


@pytest.mark.usefixtures("taps")
def test_what_was_done_for_a_script_that_left_is_undone(hosting: Hosting) -> None:
    """It leaves while the service waits for the `ip` that joins its tap to the bridge."""
    node, slow, nic = hosting.node, "/usr/local/sbin/ip", NICS[-1]
    node.write(slow, SLOW_IP, mode=0o755)
    with hosting.serve():
        with node.spawn(SCRIPT, env=nic.make_environ(), output=node.folder / "script.log"):
            begun = ("test", "-e", "/run/ip-begun")
            wait_for("the slow ip", lambda: node.run(*begun, ok=(0, 1)).status == 0, SECONDS)
        node.run("touch", "/run/script-left")
        wait_for("its word on the script", lambda: "gets no answer" in read_log(hosting), SECONDS)
    node.run("rm", slow)
    assert "Broken pipe" in read_log(hosting)
    assert not [each for each in take_picture(hosting) if nic.tap in each and "ifname" not in each]
    (link,) = json.loads(node.run("ip", "-json", "link", "show", nic.tap).text)
    assert "UP" not in link["flags"]
    assert "master" not in link
    assert json.loads(node.run("snf-network", "show", "--json").text) == []


@pytest.mark.usefixtures("taps")
def test_only_root_is_heard(hosting: Hosting) -> None:
    code = f"import socket; socket.socket(1, socket.SOCK_SEQPACKET).connect({SOCKET!r})"
    as_nobody = ("setpriv", "--reuid=nobody", "--clear-groups", "python3", "-c", code)
    with hosting.serve():
        hosting.node.run("python3", "-c", code)
        assert "Permission" in hosting.node.run(*as_nobody, ok=(1,)).stderr
        hosting.node.run("chmod", "666", SOCKET)
        hosting.node.run(*as_nobody)
        wait_for("its word on who asked", lambda: "user 65534" in read_log(hosting), SECONDS)
        assert json.loads(hosting.node.run("snf-network", "show", "--json").text) == []


@pytest.mark.usefixtures("taps")
def test_settings_are_those_of_now(hosting: Hosting) -> None:
    """The service asks for no restart; settings that are wrong stop a start, as ever."""
    node, path = hosting.node, "/etc/snf-ganeti-hooks/conf.d/site.toml"
    untagged = NICS[0].tagged()
    with hosting.serve():
        node.write(path, 'default_profile = "protected"')
        hosting.set_up(untagged)
        (row,) = json.loads(node.run("snf-network", "show", "--json").text)
        assert row["profile"] == "protected"
        node.write(path, "default_profile = 7")
        refused = hosting.set_up(untagged, ok=(3,))
        node.run("rm", path)
    assert "default_profile must be a string" in refused.stderr
