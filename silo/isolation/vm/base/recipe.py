"""What a utility VM is made of: packages, kernel modules and what is left out, each with its reason.

Pure data and one hash. The hash names an image: the same recipe, package versions and extra files, packed by the same release of
mkfs.erofs, give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from silo.debian.packages import Package

BUILDER_VERSION = 2
"""Raise it with every change of this package that changes the image."""

KERNEL_PACKAGE = "linux-image-amd64"
"""Depends on the kernel proper; the one that an image gets unless another is asked for. Not the flavour "cloud", which lacks
9p (live folders of the host), VMGENID and DRM."""

CLOSED_PACKAGES = ("crun", "e2fsprogs", "libpython3-stdlib", "python3-minimal")
"""Unpacked with everything that they depend on: the agent's Python, what runs containers, and mkfs.ext4 for their disks."""

LONE_PACKAGES = ("busybox-static",)
"""Unpacked without their dependencies. The same busybox serves initrd and root."""

UNWANTED_PACKAGES = (
    # only for maintainer scripts
    "debconf",
    "dpkg",
    "gcc-14-base",
    "libacl1",
    "libdb5.3t64",
    "libmd0",
    "libpcre2-8-0",
    "libselinux1",
    "readline-common",
    "tar",
    # only for modules of the standard library that EXCLUDED_FILES leaves out
    "libncursesw6",
    "libreadline8t64",
    "libsqlite3-0",
    "libssl3t64",
    "libtinfo6",
    "media-types",
    "netbase",
    "openssl-provider-legacy",
    "tzdata",
    # e2scrub
    "logsave",
)
"""In the closure, but not used."""

EXCLUDED_FILES = (
    "./boot/System.map-*",
    "./boot/config-*",
    "./etc/cron.d",
    "./etc/e2scrub.conf",
    "./etc/ld.so.conf.d/fakeroot*",
    "./usr/bin/crun-wasm",
    "./usr/bin/py3*",
    "./usr/lib/systemd",
    "./usr/lib/udev",
    "./usr/lib/x86_64-linux-gnu/e2fsprogs",
    "./usr/lib/x86_64-linux-gnu/e2initrd_helper",
    "./usr/lib/x86_64-linux-gnu/gconv",
    "./usr/lib/x86_64-linux-gnu/libmvec.so.1",
    "./usr/lib/x86_64-linux-gnu/*.a",
    "./usr/sbin/e2scrub*",
    "./usr/share",
    # the standard library without what a small agent on a console of its own never imports
    *(f"./usr/lib/python3.*/{name}" for name in ("__phello__", "_pyrepl", "curses", "dbm", "ensurepip", "idlelib")),
    *(f"./usr/lib/python3.*/{name}" for name in ("lib2to3", "pydoc_data", "sqlite3", "test", "tkinter", "turtle*")),
    *(f"./usr/lib/python3.*/{name}" for name in ("unittest", "venv", "wsgiref", "xmlrpc", "pydoc.py", "doctest.py")),
    *(f"./usr/lib/python3.*/lib-dynload/{name}.*.so" for name in ("_curses*", "_dbm", "_hashlib", "_ssl", "_sqlite3")),
    *(f"./usr/lib/python3.*/lib-dynload/{name}.*.so" for name in ("_ctypes_test", "_test*", "_xx*", "xx*", "readline")),
)
"""tar patterns: documentation, translations, services of a distribution that is not booted. hashlib works without _hashlib."""

APPLETS = (
    *("[", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dmesg", "du", "echo", "env", "false", "find"),
    *("free", "grep", "head", "hostname", "id", "ifconfig", "ip", "kill", "ln", "ls", "lsmod", "mkdir", "mknod"),
    *("mount", "mv", "nc", "netstat", "ping", "poweroff", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "route"),
    *("sed", "sh", "sleep", "sort", "stat", "sync", "tail", "tar", "test", "top", "touch", "true", "udhcpc", "umount"),
    *("uname", "vi", "wc", "which", "xargs"),
)
"""Links to busybox in the root's /usr/bin, for a person on the console and the hooks of containers."""

MODULES = (
    # A checksum that ext4, jbd2 and libcrc32c ask for by the name of the algorithm: no dependency says so.
    "crc32c_generic",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    "virtio_pmem",
    # drives the memory that virtio_pmem finds, as /dev/pmem0
    "nd_pmem",
    "erofs",
    "overlay",
    "ext4",
    "9p",
    "9pnet_virtio",
    "loop",
)
"""Loaded with their dependencies, in this order, by init.sh; those that the kernel has built in are skipped."""

ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "hostname": "silo\n",
}
"""Files in /etc that no package brings. 5 is the group of terminals that init.sh gives to devpts."""

PMEM_ALIGNMENT = 2 << 20
"""root.erofs is padded to a multiple of this: Linux gives memory to a pmem device in sections of 2 MiB."""


def recipe_hash(
    packages: Iterable[Package], extra_files: Mapping[str, str], *, init: bytes, kernel: str = KERNEL_PACKAGE
) -> str:
    """The key of an image: SHA-256 of the recipe, the packages, init.sh, and extra files (path → their own SHA-256)."""
    inputs: dict[str, object] = {
        "builder": BUILDER_VERSION,
        "packages": sorted([row.name, row.version, row.architecture, row.sha256] for row in packages),
        "extra_files": dict(sorted(extra_files.items())),
        "excluded": EXCLUDED_FILES,
        "applets": APPLETS,
        "modules": MODULES,
        "accounts": ACCOUNTS,
        "init": hashlib.sha256(init).hexdigest(),
    }
    if kernel != KERNEL_PACKAGE:
        inputs["kernel"] = kernel
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
