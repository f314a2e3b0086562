"""Who may issue tickets and see sessions: holders of a token, or of a client certificate.

The tokens' file has a line for each, `NAME SHA256`: the hash of a random word of 256 bits, which
needs no slower one. `#` begins a comment.
"""

import grp
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti.errors import NodeError, SettingsError
from vncauthproxy import settings
from vncauthproxy.connections.http_server import Request

_LINE = re.compile(r"([A-Za-z0-9._-]{1,64}) ([0-9a-f]{64})")
_BEARER = "bearer "


@dataclass(frozen=True)
class Controllers:
    """tokens: name by hash. names: of certificates that are good as well."""

    tokens: dict[str, str]
    names: tuple[str, ...]

    def identify(self, request: Request) -> str | None:
        """The name of who asks; None for anybody else."""
        given = request.headers.get("authorization", "")
        if given.lower().startswith(_BEARER):
            found = hash_token(given[len(_BEARER) :].strip())
            for known, name in self.tokens.items():
                if hmac.compare_digest(found, known):
                    return name
        return next((name for name in request.certificate if name in self.names), None)


def read(chosen: settings.Controllers) -> Controllers:
    """Raises SettingsError for a line that is none; a file that is not there has no tokens."""
    try:
        lines = chosen.tokens.read_text().splitlines()
    except FileNotFoundError:
        lines = []
    except OSError as error:
        raise NodeError(f"{chosen.tokens} can't be read: {error.strerror}") from None
    tokens = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        matched = _LINE.fullmatch(text)
        if not matched:
            raise SettingsError(
                f"{chosen.tokens}:{number}: this is not a name and a hash",
                hint="`vncauthproxy add-token NAME` makes such a line",
            )
        tokens[matched[2]] = matched[1]
    return Controllers(tokens, chosen.client_names)


def add_token(path: Path, name: str) -> str:
    """Append a new token to the file; gives the token, which is kept nowhere."""
    token = secrets.token_urlsafe(32)
    line = f"{name} {hash_token(token)}"
    if not _LINE.fullmatch(line):
        raise SettingsError(f"{name!r} can't name a token", hint="letters, digits, . _ and - can")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        with open(descriptor, "a") as file:
            if os.geteuid() == 0 and not os.fstat(descriptor).st_size:
                os.fchown(descriptor, 0, _find_group())
            file.write(line + "\n")
    except OSError as error:
        raise NodeError(f"{path} can't be written: {error.strerror}") from None
    return token


def _find_group() -> int:
    """The proxy's group, which may read; root's where the package is not installed."""
    try:
        return grp.getgrnam(settings.COMPONENT).gr_gid
    except KeyError:
        return 0


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
