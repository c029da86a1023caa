"""Make system calls that no sandbox needs. With these arguments none of them does anything where it is allowed."""

import ctypes
import errno
import os

CALLS = {
    "ptrace": 101,
    "mount": 165,
    "umount2": 166,
    "unshare": 272,
    "setns": 308,
    "pivot_root": 155,
    "chroot": 161,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "bpf": 321,
    "perf_event_open": 298,
    "userfaultfd": 323,
    "kexec_load": 246,
    "init_module": 175,
    "finit_module": 313,
    "delete_module": 176,
    "reboot": 169,
    "swapon": 167,
    "swapoff": 168,
    "pidfd_getfd": 438,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "process_madvise": 440,
    "kcmp": 312,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "personality": 135,
    "quotactl": 179,
    "acct": 163,
    "settimeofday": 164,
    "clock_settime": 227,
    "adjtimex": 159,
    "sethostname": 170,
    "syslog": 103,
    "memfd_create": 319,
    "memfd_secret": 447,
    "shmget": 29,
    "semget": 64,
    "mq_open": 240,
    "inotify_init": 253,
    "fanotify_init": 300,
    "fsopen": 430,
    "move_mount": 429,
    "mount_setattr": 442,
    "clone3": 435,
    "seccomp": 317,
    "setpriority": 141,
    "sched_setaffinity": 203,
    "iopl": 172,
}
libc = ctypes.CDLL(None, use_errno=True)
for name, number in CALLS.items():
    answer = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
    if answer != -1 or ctypes.get_errno() != errno.ENOSYS:
        print("ESCAPED", name, answer, os.strerror(ctypes.get_errno()))
