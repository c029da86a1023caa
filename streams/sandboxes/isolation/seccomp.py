"""The system calls that a sandbox may make, compiled by libseccomp into the program that both tiers load.

It is a list of what is allowed, after that of systemd for services (`systemd-analyze syscall-filter @system-service`)
without what only harms: what follows in later kernels is closed until somebody opens it here. Everything else fails
with ENOSYS, which C libraries and Java virtual machines take for an old kernel and do without.
"""

import errno
import signal
import socket
import tempfile
from functools import cache

from ratchet_client.errors import ConfigurationError
from streams.environments.environment import Network

_ALLOWED = """
arch_prctl brk clock_getres clock_gettime clock_nanosleep execve execveat exit exit_group futex futex_waitv futex_wait
futex_wake futex_requeue get_robust_list getcpu getegid geteuid getgid getgroups getpgid getpgrp getpid getppid
getrandom getresgid getresuid getrlimit getrusage getsid gettid gettimeofday getuid map_shadow_stack membarrier mmap
mprotect mremap mseal munmap madvise mincore mlock mlock2 mlockall munlock munlockall msync nanosleep pause
restart_syscall rseq rt_sigreturn set_robust_list set_tid_address setrlimit sysinfo time times umask uname
capget capset setresuid setresgid setgroups fork vfork wait4 waitid setsid setpgid pidfd_open getpriority ioprio_get
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min
sched_rr_get_interval sched_yield get_mempolicy set_mempolicy mbind
rt_sigaction rt_sigpending rt_sigprocmask rt_sigsuspend rt_sigtimedwait sigaltstack signalfd signalfd4
alarm getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime timer_settime
timerfd_create timerfd_gettime timerfd_settime
close close_range dup dup2 dup3 lseek read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2
splice tee vmsplice sendfile copy_file_range readahead fadvise64 sync_file_range fsync fdatasync flock
epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 poll ppoll select pselect6
pipe pipe2
access faccessat faccessat2 chdir fchdir getcwd creat open openat openat2 fallocate ftruncate truncate
fstat newfstatat lstat stat statx fstatfs statfs getdents getdents64 getxattr fgetxattr lgetxattr
listxattr flistxattr llistxattr link linkat mkdir mkdirat mknod mknodat readlink readlinkat rename renameat renameat2
rmdir symlink symlinkat unlink unlinkat
accept accept4 getpeername getsockname getsockopt setsockopt shutdown recvfrom recvmsg recvmmsg
"""

_SIGNALS = "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal"

# They change who may use a file, and Landlock does not watch over them.
_ATTRIBUTES = """
chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat
setxattr fsetxattr lsetxattr removexattr fremovexattr lremovexattr
"""

_MEETINGS = "bind connect listen"

# F_DUPFD to F_SETLKW, open file description locks, F_DUPFD_CLOEXEC, pipe sizes. Without F_SETOWN, which has the kernel
# send a signal to any process of the same user, and F_NOTIFY, which watches any folder.
_FCNTL = (*range(8), 36, 37, 38, 1030, 1031, 1032)

# Terminals and non-blocking files, and the questions about network interfaces. Without FIOSETOWN and SIOCSPGRP.
_IOCTL = ((0xFFFFFF00, 0x5400), (0xFFFFFFF0, 0x8910), (0xFFFFFFF0, 0x8920), (0xFFFFFFF0, 0x8930))

# Names of threads and of memory, and what a process may ask of itself. Of PR_SET_PDEATHSIG only what `_DEATH_SIGNAL`
# is, or a sandbox could outlive a pool that is killed.
_PRCTL = (2, 3, 4, 7, 8, 15, 16, 21, 23, 27, 29, 30, 36, 37, 38, 39, 41, 42, 52, 53, 0x53564D41)
_DEATH_SIGNAL = (1, signal.SIGKILL)

_CLONE_NAMESPACES = 0x7E020080
_SOCKET_TYPE = 0xF
_MSG_FASTOPEN = 0x20000000


@cache
def compile_filter(network: Network, *, own_namespaces: bool, own_signals: bool) -> bytes:
    """The program, as an array of the kernel's `struct sock_filter`, for a sandbox that may use `network`.

    `own_namespaces` says that the sandbox has a network and a file tree of its own; `own_signals`, that something else
    keeps its signals inside. Without the first, changes of a file's owner, mode and times are answered as if they were
    done, and on `Network.LOOPBACK` the calls named by `_MEETINGS` wait for the supervisor's answer.

    Raises `ConfigurationError` when libseccomp is missing.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError) as error:
        raise ConfigurationError(
            f"system calls cannot be filtered: {error}. Install the wheel pyseccomp, and the system's package of "
            "libseccomp (libseccomp2 in Debian)."
        ) from error

    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ERRNO(errno.ENOSYS))

    def add(action: int, name: str, *arguments: pyseccomp.Arg) -> None:
        # An older libseccomp does not know the newest calls, which stay closed then.
        if _number(name) is not None:
            rules.add_rule(action, name, *arguments)

    for name in (_ALLOWED + _SIGNALS if own_signals else _ALLOWED).split():
        add(pyseccomp.ALLOW, name)
    for name in _ATTRIBUTES.split():
        add(pyseccomp.ALLOW if own_namespaces else pyseccomp.ERRNO(0), name)
    for command in _FCNTL:
        add(pyseccomp.ALLOW, "fcntl", pyseccomp.Arg(1, pyseccomp.EQ, command))
    for option in _PRCTL:
        add(pyseccomp.ALLOW, "prctl", pyseccomp.Arg(0, pyseccomp.EQ, option))
    add(pyseccomp.ALLOW, "prctl", *(pyseccomp.Arg(at, pyseccomp.EQ, value) for at, value in enumerate(_DEATH_SIGNAL)))
    for mask, group in _IOCTL:
        add(pyseccomp.ALLOW, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, mask, group))
    # clone3 has its flags in memory, where a filter cannot look; C libraries fall back to clone.
    add(pyseccomp.ALLOW, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_NAMESPACES, 0))
    add(pyseccomp.ALLOW, "prlimit64", pyseccomp.Arg(0, pyseccomp.EQ, 0))

    def add_socket(name: str, family: int, kind: int, protocol: int) -> None:
        values = (pyseccomp.Arg(0, pyseccomp.EQ, family), pyseccomp.Arg(2, pyseccomp.EQ, protocol))
        add(pyseccomp.ALLOW, name, pyseccomp.Arg(1, pyseccomp.MASKED_EQ, _SOCKET_TYPE, kind), *values)

    # Of AF_UNIX only pairs that are connected to each other permanently: a datagram socket could write to any other.
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        add_socket("socketpair", socket.AF_UNIX, kind, 0)
    # By name, because other protocols of the same kind (SCTP) connect by ways that are not watched.
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol in (0, socket.IPPROTO_TCP) if network is not Network.NONE else ():
            add_socket("socket", family, socket.SOCK_STREAM, protocol)
        for protocol in (0, socket.IPPROTO_UDP) if network is Network.REMOTE else ():
            add_socket("socket", family, socket.SOCK_DGRAM, protocol)
    supervised = network is Network.LOOPBACK and not own_namespaces
    for name in _MEETINGS.split():
        add(pyseccomp.NOTIFY if supervised else pyseccomp.ALLOW, name)
    # With this flag, sending connects as well.
    for name, flags in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        add(pyseccomp.ALLOW, name, pyseccomp.Arg(flags, pyseccomp.MASKED_EQ, _MSG_FASTOPEN, 0))

    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def call_numbers() -> dict[str, int]:
    """The numbers, on this machine, of the calls that the supervisor makes or answers."""
    return {name: number for name in ("seccomp", *_MEETINGS.split()) if (number := _number(name)) is not None}


def _number(name: str) -> int | None:
    import pyseccomp

    try:
        number: int = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    except ValueError:
        return None
    return number if number >= 0 else None
