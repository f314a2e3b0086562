"""VNC authentication: a challenge encrypted with a password of at most eight bytes.

The key is the password, cut or filled with zeros to eight bytes, with the bits of each byte
reversed (RFC 6143 §7.2.2). DES is what the protocol asks for; it stands only inside TLS, on
loopback, or where a site switched the legacy protocol on.
"""

import importlib
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, modes


def _find_triple_des() -> Any:
    """It moved in cryptography 43; the old name is going away."""
    try:
        module = importlib.import_module("cryptography.hazmat.decrepit.ciphers.algorithms")
    except ImportError:
        module = importlib.import_module("cryptography.hazmat.primitives.ciphers.algorithms")
    return module.TripleDES


_TripleDES = _find_triple_des()
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
KEY_SIZE = 8


def make_response(password: bytes, challenge: bytes) -> bytes:
    """What answers a challenge of 16 bytes. Single DES is triple DES with one key."""
    key = password[:KEY_SIZE].ljust(KEY_SIZE, b"\0").translate(_REVERSED)
    encryptor = Cipher(_TripleDES(key * 3), modes.ECB()).encryptor()  # noqa: S305 - the protocol asks for it
    return encryptor.update(challenge) + encryptor.finalize()
