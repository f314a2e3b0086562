"""The files of the console's page: our own, and noVNC's from Debian's package.

The list is made once; a request's path is looked up in it and never joined to a folder.
"""

from http import HTTPStatus
from pathlib import Path

from snf_ganeti.errors import NodeError
from vncauthproxy import settings
from vncauthproxy.connections.http_server import Response, make_error

_HERE = Path(__file__).resolve()
WEB = (_HERE.parents[1] / "web", _HERE.parent / "../../../../share/vncauthproxy/web")
"""Where our own files are: in a checkout, and as installed in /usr."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_NOVNC = ("core", "vendor")


def make_policy(page: settings.Page) -> str:
    """The Content-Security-Policy. noVNC draws its pointer from data: images."""
    ancestors = " ".join(page.frame_ancestors) or "'none'"
    rules = (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        f"frame-ancestors {ancestors}",
    )
    return "; ".join(rules)


class Page:
    def __init__(self, page: settings.Page) -> None:
        self._policy = make_policy(page)
        self._novnc = page.novnc
        web = next((folder for folder in WEB if folder.is_dir()), None)
        if web is None:
            raise NodeError(f"the page's files are not in {WEB[1]}", hint="reinstall vncauthproxy")
        self._files = {f"/{path.name}": path for path in sorted(web.iterdir())}
        self._files["/"] = self._files["/index.html"]
        for name in _NOVNC:
            for path in sorted((page.novnc / name).rglob("*.js")):
                self._files[f"/novnc/{path.relative_to(page.novnc)}"] = path

    @property
    def lack(self) -> str:
        """Why browsers can show no console here, or nothing."""
        if "/novnc/core/rfb.js" in self._files:
            return ""
        return f"noVNC is not in {self._novnc}: this proxy has no page for browsers"

    def find(self, path: str) -> Response | None:
        """The file that a URL's path names."""
        file = self._files.get(path)
        if file is None:
            return None
        if self.lack and file.suffix == ".html":
            return make_error(HTTPStatus.SERVICE_UNAVAILABLE, self.lack)
        headers = {"Content-Security-Policy": self._policy}
        if path.startswith("/novnc/"):
            headers["Cache-Control"] = "max-age=3600"
        return Response(HTTPStatus.OK, file.read_bytes(), _TYPES[file.suffix], headers)
