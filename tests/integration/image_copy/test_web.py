"""Images that come over connections that break."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError
from testbed.image_copy import deploy, make_checksum, require_same


class Flaky(http.server.SimpleHTTPRequestHandler):
    """Breaks each answer after 3 MB, and goes on from there if it is asked to."""

    protocol_version = "HTTP/1.1"
    piece = 3_000_000

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range")
        start = int(asked[len("bytes=") : -1]) if asked else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start : start + self.piece])
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def web(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("snf_image_host.sources.http._PAUSE", 0.0)
    handler = functools.partial(Flaky, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[("raw", "diskdump"), ("raw.xz", "diskdump"), ("qcow2.zst", "qcow2")],
        *[("dynamic.vhdx", "vhdx"), ("fixed.vhd", "vhd"), ("footer.vmdk", "vmdk")],
    ],
)
def test_an_image_comes_over_connections_that_break(
    folder: Path, web: str, disk: Path, name: str, kind: str
) -> None:
    deploy(folder, disk, f"{web}/{name}", kind, make_checksum(folder / name))
    require_same(folder, disk)


@pytest.mark.parametrize(
    ("name", "kind"), [("raw", "diskdump"), ("raw.xz", "diskdump"), ("qcow2", "qcow2")]
)
def test_a_download_that_ends_early_is_told(
    folder: Path, web: str, disk: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snf_image_host.sources.http._ATTEMPTS", 1)
    with pytest.raises(InputError, match=r"can't be fetched: .* at byte 3000000"):
        deploy(folder, disk, f"{web}/{name}", kind)
