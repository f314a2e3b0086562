"""The helper's own machine: its clock, its random pool, its end."""

import base64
import ctypes
import fcntl
import os
import random
import signal
import struct
import time

_RNDADDENTROPY = 0x40085203  # _IOW('R', 0x03, int[2]), random(4)
_RNDRESEEDCRNG = 0x5207  # _IO('R', 0x07), random(4)
_POWER_OFF = 0x4321FEDC  # LINUX_REBOOT_CMD_POWER_OFF, reboot(2)

_libc = ctypes.CDLL(None, use_errno=True)


def refresh(seconds: float, entropy: str) -> None:
    """Take over the host's time, in seconds since the epoch, and its random bytes (base64).

    Keys made here are the guest's for years, and this memory may be that of many machines:
    nothing random may depend on what was there before, neither in the kernel (which has every
    new process's randomness from its pool) nor in this process.
    """
    time.clock_settime(time.CLOCK_REALTIME, seconds)
    data = base64.b64decode(entropy)
    if data:
        with open("/dev/random", "wb", buffering=0) as pool:
            fcntl.ioctl(pool, _RNDADDENTROPY, struct.pack("ii", len(data) * 8, len(data)) + data)
            # Without this the generator goes on with its old key for up to a minute.
            fcntl.ioctl(pool, _RNDRESEEDCRNG)
    random.seed()


def on_cancel(handler: type[BaseException]) -> None:
    """Raise `handler` in the main thread when `cancel` is called; only once."""

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        raise handler

    signal.signal(signal.SIGUSR1, stop)


def cancel() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def power_off() -> None:
    """End the virtual machine; the caller has unmounted what it had mounted."""
    os.sync()
    _libc.reboot(_POWER_OFF)
