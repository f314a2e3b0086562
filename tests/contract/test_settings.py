"""The settings of every component, to whoever writes them: the shipped file and the manual page
show each key with its default, files are read in order, and what is wrong is named."""

import dataclasses
import importlib
import re
import tomllib
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from snf_ganeti.errors import SettingsError

ROOT = Path(__file__).parents[2]
UNSET = "PATH"
"""What files and pages show as the value of a key that has none."""


@dataclass(frozen=True)
class Component:
    """string, number: a key of each type."""

    name: str
    package: str
    string: str
    number: str

    @property
    def module(self) -> Any:
        return importlib.import_module(f"{self.package}.settings")

    @property
    def defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = make_plain(self.module.Settings())
        return defaults

    @property
    def shipped(self) -> str:
        return (ROOT / self.name / f"conf/{self.name}.toml").read_text()

    def read(self, etc: Path, text: str, **later: str) -> object:
        """The settings of these files: the component's own, and others in conf.d by name."""
        folder = etc / self.name / "conf.d"
        folder.mkdir(parents=True)
        (folder.parent / f"{self.name}.toml").write_text(text)
        for name, more in later.items():
            (folder / f"{name}.toml").write_text(more)
        return self.module.read(etc)

    def read_manual(self) -> str:
        """The keys and defaults of the manual page, as TOML."""
        page = (ROOT / self.name / f"man/{self.name}.toml.5").read_text()
        section = page.split(".SH KEYS\n")[1].split("\n.SH ")[0]
        for escape, text in {r"\-": "-", r"\(dq": '"', r"\fR": "", r"\(aq": "'"}.items():
            section = section.replace(escape, text)
        lines: list[str] = re.findall(r"^\.(?:B|SS) (\[\w+\]|\w+ = .*)$", section, re.MULTILINE)
        return "\n".join(lines)


COMPONENTS = (
    Component("ext-storage-rados", "ext_storage_rados", "conf", "timeout"),
    Component("snf-ganeti-eventd", "snf_ganeti_eventd", "state_dir", "rescan_interval"),
    Component("snf-ganeti-hooks", "snf_ganeti_hooks", "nfdhcpd_dir", "dhcp.lease"),
    Component("snf-image-host", "snf_image_host", "image_dir", "helper_memory"),
    Component("vncauthproxy", "vncauthproxy", "controllers.tokens", "listen.port"),
)


def make_plain(value: Any) -> Any:
    """A dataclass's values as TOML gives them."""
    match value:
        case None:
            return UNSET
        case tuple():
            return [make_plain(each) for each in value]
        case Path():
            return str(value)
    if dataclasses.is_dataclass(value):
        names = (each.name for each in dataclasses.fields(value))
        return {name: make_plain(getattr(value, name)) for name in names}
    return value


def find(settings: Any, key: str) -> object:
    """The value of a key, `TABLE.NAME` or `NAME`."""
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


@pytest.fixture(params=COMPONENTS, ids=[each.name for each in COMPONENTS])
def component(request: pytest.FixtureRequest) -> Component:
    return typing.cast(Component, request.param)


def test_every_component_with_settings_is_here() -> None:
    shipped = {path.stem for path in ROOT.glob("*/conf/*.toml") if path.stem == path.parts[-3]}
    assert shipped == {component.name for component in COMPONENTS}


def test_the_shipped_file_changes_nothing(component: Component, tmp_path: Path) -> None:
    defaults = component.module.Settings()
    assert component.read(tmp_path, component.shipped) == defaults
    assert component.module.read(Path("/nowhere")) == defaults


def test_the_shipped_file_has_every_key_with_its_default(component: Component) -> None:
    shown = re.sub(r"^#(?=\S)", "", component.shipped, flags=re.MULTILINE)
    assert tomllib.loads(shown) == component.defaults


def test_the_manual_has_every_key_with_its_default(component: Component) -> None:
    assert tomllib.loads(component.read_manual()) == component.defaults


def test_later_files_override_single_keys(component: Component, tmp_path: Path) -> None:
    """The file of the component first, then conf.d by name."""
    first, last = f'{component.string} = "/a"\n', f'{component.string} = "/b"\n'
    found = component.read(tmp_path, f"{first}{component.number} = 1000\n", b=last, a=first)
    assert str(find(found, component.string)) == "/b"
    assert find(found, component.number) == 1000


def test_a_key_that_is_none_is_named_with_its_file(component: Component, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        component.read(tmp_path, "", site="no_such_key = 1")
    file = tmp_path / component.name / "conf.d/site.toml"
    assert str(caught.value).startswith(f"{file}: unknown key no_such_key; known here: ")


def test_a_wrong_type_is_named_with_file_and_key(component: Component, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        component.read(tmp_path, f'{component.number} = "planted"')
    file = tmp_path / component.name / f"{component.name}.toml"
    assert re.match(
        rf"{re.escape(f'{file}: {component.number}')} must be (a number|an integer), not 'planted'",
        str(caught.value),
    )
