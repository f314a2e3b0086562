"""What a jailed program may ask of the kernel, as tables, and as a filter for seccomp(2).

A decoder, a server of a file and a client of storage get what their tables name and nothing
else; the rest looks as if this kernel did not have it, so that the C library takes the older
call that is named. The helper VM brings QEMU's own filter along; ours only denies what that
one leaves open.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import seccomp

SyscallProfile = Literal["decoder", "server", "client", "machine"]

_CLONE_THREAD = 0x10000
_START = """
    access arch_prctl brk capget capset close execve exit exit_group faccessat faccessat2 fcntl
    fstat getegid geteuid getgid getgroups getpid getppid getrandom getresgid getresuid getrlimit
    getuid lseek lstat mmap mprotect munmap newfstatat open openat pread64 prctl prlimit64 read
    readlink rseq rt_sigaction rt_sigprocmask set_robust_list set_tid_address setgid setgroups
    setregid setresgid setresuid setreuid setuid stat statx
"""
"""What setpriv, the loader and the C library need. Without capabilities, and with privileges
that no exec gives back, the calls that set ids and groups gain nothing."""
_DECODER = """
    alarm clock_gettime clock_nanosleep dup dup2 fadvise64 futex getrusage gettid gettimeofday ioctl
    kill madvise membarrier mremap nanosleep pause pipe pipe2 poll ppoll pselect6 rt_sigreturn
    rt_sigtimedwait sched_getaffinity sched_yield select setitimer sigaltstack splice sysinfo
    tgkill times uname umask wait4 write writev
"""
_SERVER = """
    accept4 clock_getres copy_file_range dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait
    eventfd2 fallocate fdatasync flock fstatfs fsync ftruncate getdents64 getpeername getsockname
    getsockopt getcwd io_destroy io_getevents io_setup io_submit listen mlock preadv pwrite64
    pwritev recvfrom recvmsg restart_syscall sched_getparam sched_getscheduler sched_setaffinity
    sendmsg sendto setsockopt shutdown signalfd4 socketpair statfs sync_file_range timerfd_create
    timerfd_settime unlink
"""
_CLIENT = """
    bind connect epoll_create getdents lgetxattr mkdir recvmmsg sched_setscheduler sendmmsg socket
    uname
"""
_ALLOWED = {
    "decoder": _START + _DECODER,
    "server": _START + _DECODER + _SERVER,
    "client": _START + _DECODER + _SERVER + _CLIENT,
}
_DENIED = """
    add_key bpf chroot delete_module finit_module fsconfig fsmount fsopen fspick init_module
    io_uring_enter io_uring_register io_uring_setup ioperm iopl kexec_file_load kexec_load keyctl
    mount mount_setattr move_mount name_to_handle_at open_by_handle_at open_tree perf_event_open
    pidfd_getfd pivot_root process_vm_readv process_vm_writev ptrace reboot request_key setns
    swapoff swapon umount2 unshare userfaultfd
"""


def find_names(profile: SyscallProfile) -> frozenset[str]:
    """The calls that a profile allows; of `machine`, those that it denies."""
    return frozenset(_ALLOWED.get(profile, _DENIED).split())


@contextmanager
def open_filter(profile: SyscallProfile) -> Iterator[int]:
    """A descriptor from which bubblewrap reads the profile's filter."""
    descriptor = os.memfd_create("seccomp")
    with open(descriptor, "w+b") as file:
        _make_filter(profile).export_bpf(file)
        file.seek(0)
        yield file.fileno()


def _make_filter(profile: SyscallProfile) -> seccomp.SyscallFilter:
    names = find_names(profile)
    if profile == "machine":
        denial = seccomp.SyscallFilter(seccomp.ALLOW)
        for name in names:
            denial.add_rule(seccomp.ERRNO(errno.EPERM), name)
        return denial
    allowance = seccomp.SyscallFilter(seccomp.ERRNO(errno.ENOSYS))
    for name in names:
        allowance.add_rule(seccomp.ALLOW, name)
    a_thread = seccomp.Arg(0, seccomp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD)
    allowance.add_rule(seccomp.ALLOW, "clone", a_thread)
    return allowance
