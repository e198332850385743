"""The jail that a QEMU runs in: what a guest finds that breaks out of its VM. It holds QEMU and the guest's files, nothing else.

Own mount, process, network, IPC and host-name namespaces by bubblewrap; a user id of this VM's own without any capability and with
no_new_privs by setpriv; QEMU's own seccomp filter comes on top of that (command.py). Sockets and the guest's memory are made by
the daemon and passed as descriptors, so the jail needs no directory that it may write to. bubblewrap stays outside as the parent
that reaps QEMU; killing it leaves QEMU alive, killing process 1 of the jail, which is QEMU, ends all.

A VM that may get folders of the host serves them itself (virtio-9p), with all the owners that their files have. Its QEMU is root in
a user namespace of its own, where the few capabilities of a file server reach nothing but the trees that are mounted for it at
FOLDERS, id-mapped into that namespace.

Pure: the words are built here and run elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from silo.errors import InvalidRequest

QEMU = "/usr/bin/qemu-system-x86_64"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
_NSENTER, _SETPRIV = "/usr/bin/nsenter", "/usr/bin/setpriv"
_DATA = ("/usr/share/qemu", "/usr/share/seabios")
# The dynamic loader is /lib64/ld-linux-x86-64.so.2 by its ABI, which merged /usr makes a link.
_LINKS = (("usr/lib", "/lib"), ("usr/lib64", "/lib64"), ("usr/bin", "/bin"))
_LOADER = "/usr/lib64"
_PARENTS = ("/usr", "/usr/bin", "/usr/lib", "/usr/share", "/guest")
_LOWEST_UID = 1000
FOLDERS = "/folders"
"""An empty directory in which the daemon mounts the host's folders later, in the mount namespace of the jail."""
_FILE_SERVER = "-all,+chown,+dac_override,+dac_read_search,+fowner,+fsetid"


@dataclass(frozen=True, slots=True)
class Jail:
    """`uid` is the user and group id; `files` maps absolute paths in the jail to files of the host, seen read-only.

    `writable` are those that it may write to as far as `uid` may. `kvm_group` is the group that may open /dev/kvm; None leaves
    the device out. `user_namespace` is a descriptor, to be passed on: QEMU is then its root, which is `uid` on the host, and
    `kvm_group` is a group of that namespace.
    """

    uid: int
    files: Mapping[str, Path] = field(default_factory=dict)
    writable: Mapping[str, Path] = field(default_factory=dict)
    kvm_group: int | None = None
    user_namespace: int = -1


def build_jail(jail: Jail, argv: Sequence[str]) -> tuple[str, ...]:
    """The command that runs `argv` (QEMU's) in the jail, to be started as root with the descriptors that argv names.

    Raises InvalidRequest for an id that belongs to the host's own users, or a place that hides the jail's own.
    """
    if jail.uid < _LOWEST_UID:
        raise InvalidRequest(f"the user id {jail.uid} is one of the host's own and cannot be a VM's")
    words = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--as-pid-1", "--new-session"]
    words += ["--cap-drop", "ALL"]
    for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
        words += ["--cap-add", capability]
    # bubblewrap makes parents of its own that only root can pass
    for place in _PARENTS:
        words += ["--perms", "0755", "--dir", place]
    for place in (QEMU, _NSENTER, _SETPRIV, LIBRARIES, _LOADER, *_DATA):
        words += ["--ro-bind", place, place]
    for target, place in _LINKS:
        words += ["--symlink", target, place]
    # QEMU reads its own threads' states; of other processes there are none to see.
    words += ["--proc", "/proc", "--dev", "/dev"]
    if jail.kvm_group is not None:
        words += ["--dev-bind", "/dev/kvm", "/dev/kvm"]
    shown = [("--ro-bind", *pair) for pair in jail.files.items()]
    for option, place, file in (*shown, *(("--bind", *pair) for pair in jail.writable.items())):
        if not place.startswith("/guest/") or ".." in place.split("/"):
            raise InvalidRequest(f"{place!r} is no place for a guest's file", hint="they lie below /guest")
        words += [option, str(file), place]
    if jail.user_namespace >= 0:
        words += ["--perms", "0755", "--size", "65536", "--tmpfs", FOLDERS]
    words += ["--chdir", "/", "--remount-ro", "/", "--", *_drop(jail), *argv]
    return tuple(words)


def _drop(jail: Jail) -> tuple[str, ...]:
    groups = "--clear-groups" if jail.kvm_group is None else f"--groups={jail.kvm_group}"
    if jail.user_namespace < 0:
        ids = (f"--reuid={jail.uid}", f"--regid={jail.uid}", groups)
        return (_SETPRIV, *ids, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--")
    enter = (_NSENTER, f"--user=/proc/self/fd/{jail.user_namespace}", "--setuid=0", "--setgid=0", "--")
    return (*enter, _SETPRIV, groups, "--no-new-privs", f"--bounding-set={_FILE_SERVER}", "--inh-caps=-all", "--")
