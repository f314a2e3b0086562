"""The services under systemd, in a guest that boots with it: as installed, with as little
configuration as each needs. Needs root.

Beds run the programs without a service manager; what the units add is judged here by systemd
itself, its journal and the kernel. One boot serves all; the tests follow each other. With
SNF_SOAK=1 (`make soak`) the same is asked of the next release.
"""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import paramiko
import pytest

from testbed.deadline import wait_for
from testbed.event_story import QUEUE_SCRIPT
from testbed.roots import BUILD
from testbed.service_guest import booted_services, list_units

BOOT_SECONDS = 600.0  # see test_images
SECONDS = 300.0
IS_SOAK = os.environ.get("SNF_SOAK", "") not in ("", "0")
SUITES = ("bookworm", "trixie") if IS_SOAK else ("bookworm",)

EVENTS = "/var/log/snf-ganeti-eventd/events.jsonl"
CERTIFICATE = """
cd /etc/vncauthproxy/tls
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout key.pem -out cert.pem
chgrp vncauthproxy *.pem
chmod 640 *.pem
"""
SHOW_CERTIFICATE = "openssl s_client -connect 127.0.0.1:8443 </dev/null | grep subject="
NIC = {
    "INSTANCE": "snf-1", "INTERFACE": "tap0", "INTERFACE_INDEX": "0", "INTERFACE_UUID": "nic-1",
    "MAC": "aa:00:00:11:22:33", "MODE": "bridged", "LINK": "br0", "BRIDGE": "br0", "TAGS": "",
    "IP": "10.0.0.5", "NETWORK_NAME": "one", "NETWORK_UUID": "network-1",
    "NETWORK_SUBNET": "10.0.0.0/24", "NETWORK_GATEWAY": "10.0.0.1", "NETWORK_TAGS": "nfdhcpd",
}  # fmt: skip


@dataclass(frozen=True)
class Service:
    """exposure: the most that `systemd-analyze security` may find, in tenths."""

    unit: str
    user: str
    exposure: int


SERVICES = (
    Service("snf-ganeti-eventd.service", "snf-ganeti-eventd", 20),
    Service("snf-ganeti-hooks.service", "root", 55),
    Service("vncauthproxy.service", "vncauthproxy", 20),
)
UNITS = " ".join(service.unit for service in SERVICES)
JOBS = (
    Service("snf-rados-audit.service", "root", 40),
    Service("snf-rados-purge.service", "root", 40),
)
"""What timers start, and what then ends by itself."""
TIMERS = tuple(job.unit.replace(".service", ".timer") for job in JOBS)


@dataclass(frozen=True)
class Guest:
    client: paramiko.SSHClient

    def run(self, script: str, *, ok: bool = True, timeout: float = SECONDS) -> str:
        """Run a shell script as root; gives all that it prints."""
        stdin, stdout, _ = self.client.exec_command(f"exec 2>&1\nset -e\n{script}", timeout=timeout)
        stdin.close()
        output = str(stdout.read().decode(errors="replace"))
        assert not ok or stdout.channel.recv_exit_status() == 0, output
        return output.strip()

    def show(self, unit: str) -> dict[str, str]:
        """A unit's properties."""
        lines = self.run(f"systemctl show {unit}").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def wait_for(self, script: str) -> None:
        """Until a script succeeds."""
        wait_for(script, lambda: self.run(f"({script}) >/dev/null && echo holds", ok=False)
                 .endswith("holds"), SECONDS, interval=1, explain=self.explain)  # fmt: skip

    def explain(self) -> str:
        return self.run(f"journalctl --no-pager --lines=40; systemctl status {UNITS}", ok=False)

    def wait_until_ready(self, but: dict[str, str] | None = None) -> dict[str, str]:
        """Until all services are active, each with another process than in `but`; gives the
        process of each."""
        found: dict[str, str] = {}

        def are_ready() -> bool:
            for service in SERVICES:
                state = self.show(service.unit)
                if state["ActiveState"] != "active" or state["MainPID"] == (but or {}).get(
                    service.unit
                ):
                    return False
                found[service.unit] = state["MainPID"]
            return True

        wait_for("every service", are_ready, SECONDS, interval=1, explain=self.explain)
        return found


@pytest.fixture(scope="module", params=SUITES)
def guest(root: None, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """Booted, with the services as their packages leave them."""
    debs = sorted((BUILD / "deb").glob("*.deb"))
    known = (*(each.unit for each in (*SERVICES, *JOBS)), *TIMERS)
    assert sorted(list_units(debs)) == sorted(known)
    with booted_services(request.param, debs) as vm, vm.log_in(BOOT_SECONDS) as client:
        guest = Guest(client)
        guest.run("systemctl is-system-running --wait", ok=False, timeout=BOOT_SECONDS)
        yield guest


def test_units_are_well_formed_and_confined(guest: Guest) -> None:
    timed = " ".join((*TIMERS, *(job.unit for job in JOBS)))
    assert guest.run(f"systemd-analyze verify --man=no {UNITS} {timed}") == ""
    for service in (*SERVICES, *JOBS):
        threshold = f"--threshold={service.exposure}"
        guest.run(f"systemd-analyze security --no-pager {threshold} {service.unit}")


def test_services_come_with_the_boot(guest: Guest) -> None:
    """The console's has no certificate yet, which is no failure."""
    assert guest.run(f"systemctl is-enabled {UNITS}").split() == ["enabled"] * len(SERVICES)
    assert guest.run("systemctl --failed --plain --no-legend") == ""
    *started, console = (guest.show(service.unit) for service in SERVICES)
    assert [each["ActiveState"] for each in started] == ["active"] * len(started)
    assert (console["ActiveState"], console["ConditionResult"]) == ("inactive", "no")


def test_timers_come_with_the_boot(guest: Guest) -> None:
    """What they start finds no configuration of Ganeti or Ceph, which is no failure."""
    for timer, job in zip(TIMERS, JOBS, strict=True):
        state = guest.show(timer)
        assert (state["UnitFileState"], state["ActiveState"]) == ("enabled", "active")
        assert (state["SubState"], state["Unit"]) == ("waiting", job.unit)
        guest.run(f"systemctl start {job.unit}")
        assert guest.show(job.unit)["ConditionResult"] == "no"


def test_services_are_ready_as_the_users_that_they_should_be(guest: Guest) -> None:
    guest.run(CERTIFICATE.format(name="first") + f"systemctl restart {UNITS}")
    pids = guest.wait_until_ready()
    for service in SERVICES:
        state = guest.show(service.unit)
        assert (state["Type"], state["NRestarts"]) == ("notify", "0")
        assert state["WatchdogUSec"] not in ("0", "infinity")
        assert guest.run(f"stat --format=%U /proc/{pids[service.unit]}") == service.user


def test_events_of_a_job_that_only_its_owner_may_read(guest: Guest) -> None:
    guest.run(QUEUE_SCRIPT)
    guest.wait_for(f"grep '\"jobId\": 1' {EVENTS}")
    assert guest.run(f"stat --format=%U {EVENTS}") == "snf-ganeti-eventd"
    guest.wait_for("snf-ganeti-eventd status | grep 'nothing waits'")


def test_a_network_is_served_until_its_tap_vanishes(guest: Guest) -> None:
    """The daemon hears of taps from the kernel, changes nftables' rules, and has dnsmasq run, as
    another user and where the service may be."""
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in NIC.items())
    guest.run(
        "ip link add br0 type bridge\nip link set br0 up\nip tuntap add tap0 mode tap\n"
        f"{words} /etc/ganeti/kvm-vif-bridge\nnft list ruleset | grep tap0"
    )
    guest.wait_for("ss --listening --udp --numeric --processes | grep ':67 .*dnsmasq'")
    assert guest.run("ps -o user= -C dnsmasq | sort -u") == "dnsmasq"
    guest.run("ip link delete tap0")
    guest.wait_for("! nft list ruleset | grep tap0 && ! pidof dnsmasq")


def test_a_reload_takes_a_new_certificate(guest: Guest) -> None:
    pid = guest.show("vncauthproxy.service")["MainPID"]
    assert re.search("CN ?= ?first", guest.run(SHOW_CERTIFICATE))
    guest.run(CERTIFICATE.format(name="second") + "systemctl reload vncauthproxy")
    guest.wait_for(f"{SHOW_CERTIFICATE} | grep second")
    assert guest.show("vncauthproxy.service")["MainPID"] == pid


def test_the_journal_has_no_error(guest: Guest) -> None:
    options = "--priority=err --output=cat --no-pager --quiet"
    assert guest.run(f"journalctl {options} {' '.join(f'--unit={s.unit}' for s in SERVICES)}") == ""


def test_services_that_are_killed_or_stuck_come_again(guest: Guest) -> None:
    """For the watchdog's sake systemd waits less than the units say."""
    before = guest.wait_until_ready()
    guest.run(f"kill -KILL {' '.join(before.values())}")
    guest.wait_until_ready(before)

    for service in SERVICES:
        folder = f"/run/systemd/system/{service.unit}.d"
        guest.run(f"mkdir -p {folder}; printf '[Service]\\nWatchdogSec=20s\\n' >{folder}/test.conf")
    guest.run(f"systemctl daemon-reload; systemctl restart {UNITS}")
    before = guest.wait_until_ready()
    guest.run(f"kill -STOP {' '.join(before.values())}")
    guest.wait_until_ready(before)
    logged = guest.run("journalctl --no-pager --output=cat _PID=1")
    for service in SERVICES:
        assert f"{service.unit}: Watchdog timeout" in logged


def test_services_end_in_order(guest: Guest) -> None:
    guest.run(f"systemctl stop {UNITS}")
    for service in SERVICES:
        state = guest.show(service.unit)
        assert (state["ActiveState"], state["Result"]) == ("inactive", "success")
        assert (state["ExecMainCode"], state["ExecMainStatus"]) == ("1", "0")  # exited
    ends = "_SYSTEMD_UNIT=" + " _SYSTEMD_UNIT=".join(service.unit for service in SERVICES)
    assert guest.run(f"journalctl --priority=err --output=cat --no-pager --quiet {ends}") == ""
