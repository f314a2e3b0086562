"""The command `snf-image`: what an operator does without Ganeti."""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from snf_ganeti import log
from snf_ganeti.errors import InputError, NodeError, SnfError
from snf_image_host import deployment, inspection, settings
from snf_image_host.check import check_node
from snf_image_host.confinement.identity import open_jail
from snf_image_host.customization import find_helper
from snf_image_host.environ import Disk, Instance, Nic
from snf_image_host.helper_vm.appliance_build import SUITE, build_appliance, read_recipe
from snf_image_host.helper_vm.state_build import save_state
from snf_image_host.image import make_order
from snf_image_host.journal import Journal, closing
from snf_image_host.monitor import open_monitor
from snf_image_host.os_parameters.parameters import verify_parameters
from snf_image_host.os_parameters.strict_json import parse_json
from snf_image_host.progress import ProgressBar

PROGRAM = "snf-image"
_PARAMS_LIMIT = 64 << 20
_NIC_KEYS = tuple(each.name for each in fields(Nic) if each.name != "index")


def main() -> int:
    arguments = make_parser().parse_args()
    log.configure(PROGRAM, debug=arguments.debug)
    status: int = arguments.run(arguments)
    return status


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Deploy images, and keep a node able to."
    )
    parser.add_argument("--debug", action="store_true", help="tell every step, on standard error")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_build_helper, _add_check, _add_deploy, _add_inspect):
        add(verbs)
    return parser


Verbs = Any  # argparse has no public name for what add_subparsers gives


def _add_build_helper(verbs: Verbs) -> None:
    parser = verbs.add_parser("build-helper", help="build the helper VM's kernel and files")
    parser.set_defaults(run=build_helper)
    parser.add_argument("--suite", default=SUITE, help="release of Debian; default: %(default)s")
    parser.add_argument("--mirror", default="", metavar="URL", help="of Debian; default: its own")


def _add_check(verbs: Verbs) -> None:
    parser = verbs.add_parser("check", help="say whether this node is able to deploy")
    parser.set_defaults(run=check)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_deploy(verbs: Verbs) -> None:
    parser = verbs.add_parser("deploy", help="put an image on a disk and customize it")
    parser.set_defaults(run=deploy)
    add = parser.add_argument
    add("--image", required=True, metavar="ID", help="name or URL of the image")
    add("--format", required=True, help="what the image's bytes are")
    add("--disk", required=True, action="append", metavar="PATH", help="file or block device")
    add("--hostname", default="", metavar="NAME", help="of the guest; default: the image's")
    add("--nic", action="append", default=[], metavar="KEY=VALUE,…", help="a NIC of the guest")
    add("--param", action="append", default=[], metavar="NAME=VALUE", help="an OS parameter")
    add("--params", type=Path, metavar="FILE.json", help="a JSON object of OS parameters")
    add("--dry-run", action="store_true", help="check everything, write nothing")
    add("--json", action="store_true", help="print one JSON object at the end")


def _add_inspect(verbs: Verbs) -> None:
    parser = verbs.add_parser("inspect", help="say what is in an image, as image properties")
    parser.set_defaults(run=inspect)
    parser.add_argument("image", metavar="IMAGE", help="name or URL of the image")
    parser.add_argument(
        "--format", default="diskdump", help="what the image's bytes are; default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def build_helper(arguments: argparse.Namespace) -> int:
    site = settings.read()
    made = build_appliance(site.helper_dir, read_recipe(), arguments.suite, arguments.mirror)
    size = sum(record.size for record in made.manifest.files.values())
    print(f"{made.folder}: Linux {made.manifest.kernel_release}, {size >> 20} MiB")
    try:
        with open_jail(site) as jail:
            state = save_state(find_helper(site, jail))
        print(f"{state.folder}: saved as it waits for work")
    except SnfError as error:
        print(f"warning: {error}; every run will boot the helper", file=sys.stderr)
    return 0


def check(arguments: argparse.Namespace) -> int:
    findings = []
    for finding in check_node():
        findings.append(finding)
        if not arguments.json:
            state = "FAILED" if finding.reason else "ok"
            print(f"{finding.name:10} {state:7} {finding.reason or finding.detail}", flush=True)
    failed = [finding for finding in findings if finding.reason]
    if arguments.json:
        document = {"status": "error" if failed else "ok", "checks": [*map(asdict, findings)]}
        print(json.dumps(document, indent=1))
    if failed:
        raise NodeError(f"this node is not able to deploy: {failed[0].name}: {failed[0].reason}")
    return 0


def deploy(arguments: argparse.Namespace) -> int:
    journal = Journal()
    try:
        with closing(journal):
            _deploy(arguments, journal)
    finally:
        if arguments.json:
            print(json.dumps(journal.make_document(), indent=1))
    return 0


def inspect(arguments: argparse.Namespace) -> int:
    document: dict[str, Any] = {"status": "error", "reason": None, "properties": {}}
    try:
        site = settings.read()
        raw = {"img_id": arguments.image, "img_format": arguments.format}
        found = inspection.inspect(make_order(verify_parameters(raw, "", site)), site)
        document |= {"status": "ok", "properties": found}
    except SnfError as error:
        document["reason"] = str(error)
        raise
    finally:
        if arguments.json:
            print(json.dumps(document, indent=1))
    if not arguments.json:
        for name, value in found.items():
            print(f"{name}={value}")
    return 0


def _deploy(arguments: argparse.Namespace, journal: Journal) -> None:
    instance, raw = make_instance(arguments), make_parameters(arguments)
    site = settings.read()
    with contextlib.ExitStack() as stack:
        on_terminal = sys.stderr.isatty() and not arguments.debug
        if on_terminal:
            journal.follow(ProgressBar(sys.stderr).send)
        if site.progress_monitor or not on_terminal:
            name = instance.name or instance.disks[0].path
            journal.follow(stack.enter_context(open_monitor(site.progress_monitor, name)))
        stack.enter_context(closing(journal))
        plan = deployment.make_plan(instance, verify_parameters(raw, "", site), site)
        deployment.deploy(plan, site, journal, dry_run=arguments.dry_run)


def make_instance(arguments: argparse.Namespace) -> Instance:
    """What Ganeti would say in the environment. Raises InputError."""
    disks = (Disk(index, 0, path=path) for index, path in enumerate(arguments.disk))
    nics = (parse_nic(index, text) for index, text in enumerate(arguments.nic))
    return Instance(name=arguments.hostname, disks=tuple(disks), nics=tuple(nics))


def parse_nic(index: int, text: str) -> Nic:
    """KEY=VALUE,… as a NIC; several tags stand between blanks. Raises InputError."""
    values: dict[str, Any] = {"mode": "bridged"}
    for key, value in _split_pairs(text.split(","), f"--nic {text!r}"):
        if key not in _NIC_KEYS:
            hint = f"known are {', '.join(_NIC_KEYS)}"
            raise InputError(f"--nic: unknown key {key[:50]!r}", hint=hint)
        values[key] = tuple(value.split()) if key == "network_tags" else value
    if "mac" not in values:
        raise InputError(f"--nic {text!r} has no mac")
    return Nic(index=index, **values)


def make_parameters(arguments: argparse.Namespace) -> dict[str, str]:
    """The OS parameters of all options; an option for one wins. Raises InputError."""
    return {
        **(_read_params(arguments.params) if arguments.params else {}),
        **dict(_split_pairs(arguments.param, "--param")),
        "img_id": arguments.image,
        "img_format": arguments.format,
    }


def _split_pairs(texts: Sequence[str], what: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    if not all(name and equals for name, equals, _ in pairs):
        raise InputError(f"{what}: expected NAME=VALUE")  # the value may be a secret
    return [(name.strip(), value) for name, _, value in pairs]


def _read_params(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            value = parse_json(file.read(_PARAMS_LIMIT + 1).decode(), limit=_PARAMS_LIMIT)
    except OSError as error:
        raise InputError(f"--params {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"--params {path}: it is not UTF-8") from None
    except ValueError as error:
        raise InputError(f"--params {path}: {error}") from None
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise InputError(f"--params {path}: expected a JSON object whose values are text")
    return value
