"""An RSA key for the guest's SSH server, made on this node while the image is copied.

The search for its primes takes a tenth of a second to one here, and many seconds in a helper
VM that is emulated. The other types of keys cost next to nothing, and are made by the helper.
"""

import contextlib
import logging
import subprocess
from collections.abc import Iterator

from snf_ganeti import process

log = logging.getLogger(__name__)

_TIMEOUT = 60.0
_LIMIT = 16 << 10
_TIED = ("setpriv", "--pdeathsig=KILL", "--")
"""What is killed with the thread that started it: a run that is killed leaves nothing behind."""
_ARGV = ("openssl", "genrsa", "-traditional", "3072")


class HostKey:
    """A key on its way."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def read(self) -> str:
        """The key as PEM (PKCS #1, which every SSH server reads), once; empty when it could not
        be made, and the helper has to."""
        assert self._child.stdout is not None
        try:
            status = self._child.wait(_TIMEOUT)  # all of it fits into the pipe
        except subprocess.TimeoutExpired:
            log.warning("no RSA key came in %d s: the helper makes one", _TIMEOUT)
            return ""
        key = self._child.stdout.read(_LIMIT).decode("ascii", "replace")
        if status or not key:
            log.warning("openssl ended with %d: the helper makes the RSA key", status)
            return ""
        return key


@contextlib.contextmanager
def start_host_key() -> Iterator[HostKey]:
    """Raises NodeError when setpriv is not installed."""
    with process.spawn(
        [*_TIED, *_ARGV], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        yield HostKey(child)
