"""The pages say what the code does: the table of profiles, the command's manual."""

import re
from pathlib import Path

from snf_ganeti_hooks import cli
from snf_ganeti_hooks.firewall.admission import make_admission
from snf_ganeti_hooks.firewall.expression import Rule
from snf_ganeti_hooks.firewall.profile import BUILT_IN, Profile

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/networking.md"
MANUAL = ROOT / "snf-ganeti-hooks/man/snf-network.8"
MARKER = "<!-- generated: `python3 -m unit.snf_ganeti_hooks.test_documentation` in tests/ -->\n"
WORDS = (
    ("everything", '[{"accept": null}]'),
    ("replies", '"mark"'),
    ("ICMP, ICMPv6", '"ipv6-icmp"'),
    ("TCP 22", '"dport"', "22"),
    ("TCP 3389", '"dport"', "3389"),
    ("other TCP, UDP", "never"),
)
"""What passes, and the words by which a rule that lets it in is told."""


def make_table() -> str:
    """The table of what each profile lets in, read from the rules that are generated."""
    rows = [["profile", *(word[0] for word in WORDS[1:])]]
    rows.append(["---"] * len(rows[0]))
    for profile in BUILT_IN.values():
        routed, bridged = (accepted(profile, family) for family in ("inet", "bridge"))
        assert routed == bridged, "both kinds of NIC let in the same"
        marks = [
            "yes" if word[0] in routed or "everything" in routed else "–" for word in WORDS[1:]
        ]
        rows.append([f"`{profile.name}`", *marks])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def accepted(profile: Profile, family: str) -> set[str]:
    rules = make_admission(family, profile)
    return {name for name, *needles in WORDS if any(lets_in(rule, needles) for rule in rules)}


def lets_in(rule: Rule, needles: list[str]) -> bool:
    text = repr(list(rule.statements)).replace("'", '"').replace("None", "null")
    return '{"accept": null}' in text and all(needle in text for needle in needles)


def test_the_table_of_profiles_is_what_the_code_makes() -> None:
    _, _, rest = PAGE.read_text().partition(MARKER)
    assert rest.lstrip("\n").startswith(make_table())


def test_the_manual_has_every_verb() -> None:
    page = MANUAL.read_text()
    shown = re.findall(r"^\.BI? (\w+)", page.partition(".SH COMMANDS")[2], re.MULTILINE)
    assert set(cli.VERBS) <= set(shown)
    assert set(re.findall(r"^\.B (\w+)$", page.partition(".SH DESCRIPTION")[0], re.MULTILINE)) == (
        set(cli.VERBS)
    )


if __name__ == "__main__":
    head, marker, tail = PAGE.read_text().partition(MARKER)
    rest = re.sub(r"\A\n*(\|.*\n)*", "", tail)
    PAGE.write_text(f"{head}{marker}\n{make_table()}{rest}")
