"""The guest's hosts file, hosts(5)."""

import re

_OWN = "127.0.1.1"
"""The address by which the Debian family keeps the system's own name resolvable."""
_LOCAL = re.compile(r"localhost|ip6-.*|localhost6?\..*")


def rename_hosts(text: str, old: str, new: str, *, everywhere: bool) -> str:
    """The file with a line `127.0.1.1 NEW SHORT`.

    old: the name before, or empty. everywhere: replace it in the lines of other addresses
    too, as a rename does. Comments, blank lines and other names stay.
    """
    names = {old: new, _shorten(old): _shorten(new)}
    names = {a: b for a, b in reversed(names.items()) if a and not _LOCAL.fullmatch(a)}
    lines = text.split("\n")
    own = [at for at, line in enumerate(lines) if line.split()[:1] == [_OWN]]
    if everywhere:
        lines = [_replace(line, names) for line in lines]
    aliases = _read_names(lines[own[0]])[1:] if own else []
    kept = [each for each in aliases if each not in {*names, new, _shorten(new)}]
    line = f"{_OWN}\t{' '.join(dict.fromkeys([new, _shorten(new), *kept]))}"
    if own:
        lines[own[0]] = line
    else:
        lines.insert(_find_place(lines), line)
    return "\n".join(lines)


def _shorten(name: str) -> str:
    return name.partition(".")[0]


def _read_names(line: str) -> list[str]:
    """The address and the names of a line, without its comment."""
    return line.partition("#")[0].split()


def _replace(line: str, names: dict[str, str]) -> str:
    """Whole names replaced, blanks and comment as they were."""
    body, hash_sign, comment = line.partition("#")
    head, *rest = re.split(r"(\s+)", body.rstrip()) if body.strip() else [body]
    tail = body[len(body.rstrip()) :] if body.strip() else ""
    return head + "".join(names.get(each, each) for each in rest) + tail + hash_sign + comment


def _find_place(lines: list[str]) -> int:
    """After the line of 127.0.0.1, or on top."""
    local = (at + 1 for at, line in enumerate(lines) if _read_names(line)[:1] == ["127.0.0.1"])
    return next(local, 0)
