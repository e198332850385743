"""Which system calls a container may make: profiles, Silo's default among them, and their reading for one container.

The default has the semantics of Docker's (moby `profiles/seccomp/default.json`): everything is refused with EPERM but a list of
calls that are known to be harmless, some only with a capability. Here the list is data of our own, in words by subject. A
profile given by the user is Docker's JSON format. `select_rules` decides the conditions (capabilities, architecture, kernel);
what comes out is compiled by `silo.host.seccomp`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

from silo.errors import InvalidRequest
from silo.host.seccomp import Comparison, Filter, FilterRule

_EPERM = 1
_ENOSYS = 38
_MAXIMUM_PROFILE_BYTES = 1 << 20

# clone(2)'s flags that make namespaces, without CLONE_NEWTIME, which only clone3 knows
_NAMESPACE_FLAGS = 0x7E020000
_AF_VSOCK = 40

_ALLOWED = """
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close
close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait
epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync
fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64
futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid
getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid
getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname
getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get
ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64
madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall
mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at
nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg
remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64
sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid
setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list
setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount
statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime
utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
process_vm_readv process_vm_writev ptrace
"""

_WITH_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr"
    " move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

_SUBARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_DOCKER_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


class Condition(msgspec.Struct, frozen=True, rename={"min_kernel": "minKernel"}):
    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    min_kernel: str = ""


class Argument(msgspec.Struct, frozen=True, rename={"value_two": "valueTwo"}):
    index: int
    value: int
    op: str
    value_two: int = 0


class Rule(msgspec.Struct, frozen=True, rename={"errno_ret": "errnoRet"}):
    """One element of `syscalls` in Docker's format."""

    action: str
    names: tuple[str, ...] = ()
    name: str = ""
    args: tuple[Argument, ...] | None = ()
    errno_ret: int | None = None
    includes: Condition | None = None
    excludes: Condition | None = None


class Profile(
    msgspec.Struct, frozen=True, rename={"default_action": "defaultAction", "default_errno": "defaultErrnoRet"}
):
    default_action: str
    default_errno: int | None = None
    architectures: tuple[str, ...] | None = ()
    syscalls: tuple[Rule, ...] | None = ()


def parse_profile(untrusted_text: str) -> Profile:
    """A profile in Docker's JSON format. Raises InvalidRequest."""
    if len(untrusted_text) > _MAXIMUM_PROFILE_BYTES:
        raise InvalidRequest("the seccomp profile is larger than 1 MiB")
    try:
        return msgspec.json.decode(untrusted_text.encode(), type=Profile)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"decoding seccomp profile failed: {error}") from error


def default_profile() -> Profile:
    allow = "SCMP_ACT_ALLOW"
    rules = [
        Rule(allow, names=tuple(_ALLOWED.split())),
        Rule(allow, names=("socket",), args=(Argument(0, _AF_VSOCK, "SCMP_CMP_NE"),)),
        *(Rule(allow, names=("personality",), args=(Argument(0, one, "SCMP_CMP_EQ"),)) for one in _PERSONALITIES),
        Rule(allow, names=("arch_prctl", "modify_ldt"), includes=Condition(arches=("amd64", "x32"))),
        Rule(
            allow,
            names=(
                "arm_fadvise64_64",
                "arm_sync_file_range",
                "sync_file_range2",
                "breakpoint",
                "cacheflush",
                "set_tls",
            ),
            includes=Condition(arches=("arm", "arm64")),
        ),
        Rule(
            allow,
            names=("clone",),
            args=(Argument(0, _NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ", 0),),
            excludes=Condition(caps=("CAP_SYS_ADMIN",)),
        ),
        # programs try clone3 first and take "no such call" as a request to use clone, whose flags can be looked at
        Rule("SCMP_ACT_ERRNO", names=("clone3",), errno_ret=_ENOSYS, excludes=Condition(caps=("CAP_SYS_ADMIN",))),
    ]
    for capability, names in _WITH_CAPABILITY.items():
        rules.append(Rule(allow, names=tuple(names.split()), includes=Condition(caps=(capability,))))
    return Profile("SCMP_ACT_ERRNO", _EPERM, (), tuple(rules))


def select_rules(profile: Profile, *, capabilities: Collection[str], machine: str, kernel: str) -> Filter:
    """What holds for a container with these capabilities on this machine. Raises InvalidRequest (unknown words)."""
    rules: list[FilterRule] = []
    for rule in profile.syscalls or ():
        if not _applies(rule, capabilities, machine, kernel):
            continue
        comparisons = tuple(
            Comparison(argument.index, argument.op, argument.value, argument.value_two) for argument in rule.args or ()
        )
        names = rule.names or ((rule.name,) if rule.name else ())
        rules.append(FilterRule(names, rule.action, _EPERM if rule.errno_ret is None else rule.errno_ret, comparisons))
    return Filter(
        default_action=profile.default_action,
        default_errno=_EPERM if profile.default_errno is None else profile.default_errno,
        architectures=_SUBARCHITECTURES.get(machine, ()),
        rules=tuple(rules),
    )


def _applies(rule: Rule, capabilities: Collection[str], machine: str, kernel: str) -> bool:
    architecture = _DOCKER_ARCHITECTURE.get(machine, machine)
    wanted, refused = rule.includes, rule.excludes
    if wanted is not None:
        if wanted.arches and architecture not in wanted.arches:
            return False
        if not all(name in capabilities for name in wanted.caps):
            return False
        if wanted.min_kernel and _version(kernel) < _version(wanted.min_kernel):
            return False
    if refused is not None:
        if architecture in refused.arches or any(name in capabilities for name in refused.caps):
            return False
        if refused.min_kernel and _version(kernel) >= _version(refused.min_kernel):
            return False
    return True


def _version(text: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
