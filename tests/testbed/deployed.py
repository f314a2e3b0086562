"""An instance that snf-image deploys: what its owner asks for, and how Ganeti is told so."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from snf_ganeti import process
from testbed.ganeti import NETWORK_NAME
from testbed.machine import Machine
from testbed.ssh import Host

IMAGES = "/srv/images"
"""Where a node sees the cached images; `make_settings` has snf-image look there."""
SETTINGS = "/etc/snf-image-host/conf.d/bed.toml"
_PATIENCE = "/etc/snf-image-host/conf.d/0-patience.toml"
_PATIENT = "helper_boot_timeout = 300\nhelper_soft_timeout = 600\n"
"""The helper of a test is emulated, and its machine may be busy."""

_COMMA, _BACKSLASH = re.compile(r"([,\\])"), r"\\\1"

PASSWORD = "correct horse"
PASSWORD_HASH = (
    "$6$demosalt$E/XTzjVeQYpLg.bSZSFwUJcwq8KkvSN.ESBofDQbOEXUqUGKLBt1xa0usdjeHsgxE9TYUL11df"
    "/pqv6Dnq5O91"
)
"""What `openssl passwd -6 -salt demosalt` makes of PASSWORD."""


@dataclass(frozen=True)
class Personality:
    """A file that is put into the guest."""

    path: str
    contents: bytes
    owner: str = "root"
    mode: str = "0644"


@dataclass(frozen=True)
class Deployed:
    """image: a name below IMAGES, or a URL. address: on the wire, given by network `testnet`.

    disks: sizes as Ganeti takes them, the first for the image. parameters: further OS
    parameters; secrets: likewise, never stored by Ganeti.
    """

    name: str
    image: str
    address: str
    format: str = "diskdump"
    disks: tuple[str, ...] = ("3G",)
    template: str = "file"
    memory: str = "512M"
    key: Path | None = None
    personality: tuple[Personality, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def host(self) -> Host:
        """How root logs in to it with the injected key."""
        return Host(self.address, key=self.key)

    def make_options(self) -> tuple[str, ...]:
        """Options of `gnt-instance add`, the name apart."""
        return (
            "--os-type=snf-image+default",
            f"--disk-template={self.template}",
            *(f"--disk={index}:size={size}" for index, size in enumerate(self.disks)),
            f"--net=0:ip={self.address},network={NETWORK_NAME}",
            f"--backend-parameters=minmem={self.memory},maxmem={self.memory}",
            f"--os-parameters={escape(self._make_parameters())}",
            *([f"--os-parameters-secret={escape(self.secrets)}"] if self.secrets else []),
        )

    def _make_parameters(self) -> dict[str, str]:
        given = {"img_id": self.image, "img_format": self.format}
        if self.key is not None:
            given["auth_keys"] = self.key.with_suffix(".pub").read_text().strip()
        if self.personality:
            given["img_personality"] = make_personality(self.personality)
        return {**given, **self.parameters}


def make_personality(files: tuple[Personality, ...]) -> str:
    return json.dumps(
        [
            {
                "path": file.path,
                "contents": base64.b64encode(file.contents).decode(),
                "owner": file.owner,
                "mode": file.mode,
            }
            for file in files
        ]
    )


def escape(pairs: Mapping[str, str]) -> str:
    """KEY=VALUE,… as Ganeti's commands take it: a comma of a value has a backslash before it."""
    return ",".join(f"{key}={_COMMA.sub(_BACKSLASH, text)}" for key, text in pairs.items())


def make_settings(lines: str = "") -> str:
    """A settings file for snf-image-host on a bed's node."""
    return f'image_dir = "{IMAGES}"\naccelerator = "tcg"\n{lines}'


def write_settings(node: Machine, text: str) -> None:
    """Give snf-image-host on a node its settings; a later file in conf.d can override them."""
    node.write(_PATIENCE, _PATIENT)
    node.write(SETTINGS, text)


def make_key(path: Path) -> Path:
    """A key pair for logins at `path` and `path.pub`, of the type that every guest takes."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "owner", "-f", str(path)]
    process.run(argv)
    return path
