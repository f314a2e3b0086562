"""The guest agent, played by this test: a real one would freeze this machine's file systems."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from ext_storage_rados.images.guest_agent import find_instance, frozen


def serve(path: Path, answer: Callable[[dict[str, object]], bytes], seen: list[str]) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        with listener:
            connection, _ = listener.accept()
            with (
                contextlib.suppress(ConnectionError),
                connection,
                connection.makefile("rwb") as stream,
            ):
                for line in stream:
                    message = json.loads(line)
                    seen.append(message["execute"])
                    stream.write(answer(message))
                    stream.flush()

    threading.Thread(target=run, daemon=True).start()


def obey(message: dict[str, object]) -> bytes:
    arguments = message.get("arguments")
    number = arguments["id"] if isinstance(arguments, dict) else 1
    left_over = b'{"return": 7}\n' if message["execute"] == "guest-sync" else b""
    return left_over + json.dumps({"return": number}).encode() + b"\n"


def refuse(message: dict[str, object]) -> bytes:
    if message["execute"] == "guest-sync":
        return obey(message)
    return b'{"error": {"class": "CommandNotFound", "desc": "disabled"}}\n'


def test_frozen_and_thawed(tmp_path: Path) -> None:
    seen: list[str] = []
    serve(tmp_path / "qga", obey, seen)
    with frozen(tmp_path / "qga", 5) as done:
        assert done
        assert seen == ["guest-sync", "guest-fsfreeze-freeze"]
    assert seen[-1] == "guest-fsfreeze-thaw"


def test_an_agent_that_will_not_or_babbles_or_is_not_there(tmp_path: Path) -> None:
    seen: list[str] = []
    serve(tmp_path / "refuses", refuse, seen)
    serve(tmp_path / "babbles", lambda _: b"x" * 100_000, seen)
    serve(tmp_path / "is-silent", lambda _: b"", seen)
    for name in ("refuses", "babbles", "is-silent", "absent"):
        with frozen(tmp_path / name, 0.3) as done:
            assert not done
    assert "guest-fsfreeze-thaw" not in seen


def test_the_instance_is_the_one_whose_disk_it_is(tmp_path: Path) -> None:
    for name in ("web.example.org", "db.example.org"):
        disk = {"dev_type": "ext", "logical_id": ["rados", f"{name}.ext.disk0"]}
        runtime = [["qemu"], [], {}, [[disk, "/run/link", None]]]
        (tmp_path / f"{name}.runtime").write_text(json.dumps(runtime))
    (tmp_path / "broken.runtime").write_text("[1, 2")
    (tmp_path / "old.runtime").write_text("{}")
    assert find_instance("db.example.org.ext.disk0", tmp_path) == "db.example.org"
    assert find_instance("other.ext.disk0", tmp_path) == ""
