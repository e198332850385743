"""QEMU's words and its jail's: what a template and its clones share, and what keeps a machine in."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from silo.errors import InvalidRequest
from silo.isolation.vm.command import Accelerator, Descriptors, Machine, Role, build_qemu
from silo.isolation.vm.jail import Jail, build_jail

GUEST = Machine(
    memory_bytes=256 << 20,
    accelerator=Accelerator.TCG,
    kernel=PurePosixPath("/guest/vmlinuz"),
    initrd=PurePosixPath("/guest/initrd.img"),
    append="console=ttyS0",
    root=PurePosixPath("/guest/root.erofs"),
    root_bytes=128 << 20,
)
DESCRIPTORS = Descriptors(monitor=3, agent=4, console=5, memory=6)


def after(words: tuple[str, ...], option: str) -> list[str]:
    return [words[place + 1] for place, word in enumerate(words) if word == option]


def test_a_clone_is_its_template_but_for_memory_and_state() -> None:
    template, clone = (build_qemu(GUEST, DESCRIPTORS, role) for role in (Role.TEMPLATE, Role.CLONE))
    assert template[-1] == "-S" and clone[-2:] == ("-incoming", "defer")
    different = [pair for pair in zip(template[:-1], clone[:-2], strict=True) if pair[0] != pair[1]]
    ((ours, theirs),) = different
    assert ours == f"memory-backend-file,id=ram,size={256 << 20},mem-path=/dev/fd/6,share=on"
    assert theirs == ours.replace("share=on", "share=off")


def test_nothing_that_was_not_asked_for() -> None:
    words = build_qemu(GUEST, DESCRIPTORS, Role.COLD)
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(words)
    (sandbox,) = after(words, "-sandbox")
    assert sandbox.split(",") == ["on", "obsolete=deny", "elevateprivileges=deny", "spawn=deny", "resourcecontrol=deny"]
    assert after(words, "-display") == ["none"] and "-netdev" not in words


def test_what_the_daemon_made_is_passed_as_descriptors() -> None:
    sockets = after(build_qemu(GUEST, DESCRIPTORS, Role.COLD), "-chardev")
    assert sockets == [
        "socket,id=monitor,fd=3,server=on,wait=off",
        "socket,id=console,fd=5",
        "socket,id=agent,fd=4,server=on,wait=off",
    ]
    assert all("path=" not in word for word in sockets)


def test_the_root_is_mapped_and_never_written() -> None:
    words = build_qemu(GUEST, DESCRIPTORS, Role.COLD)
    assert f"memory-backend-file,id=root,mem-path=/guest/root.erofs,size={128 << 20},share=on,readonly=on" in words
    assert after(words, "-m") == [f"256M,maxmem={256 + 128 + 1024}M"]


def test_memory_of_its_own_when_there_is_no_file() -> None:
    words = build_qemu(Machine(memory_bytes=64 << 20, accelerator=Accelerator.KVM), Descriptors(3, 4, 5), Role.COLD)
    assert f"memory-backend-ram,id=ram,size={64 << 20}" in words
    assert after(words, "-m") == ["64M"] and after(words, "-cpu") == ["host"] and after(words, "-accel") == ["kvm"]
    assert "-kernel" not in words and "-append" not in words


def test_the_jail_holds_qemu_and_the_guests_files() -> None:
    words = build_jail(Jail(uid=300000, files={"/guest/vmlinuz": Path("/host/vmlinuz")}), ("qemu", "-S"))
    assert words[0] == "bwrap" and words[-2:] == ("qemu", "-S")
    assert {"--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--as-pid-1"} <= set(words)
    bound = [words[place + 2] for place, word in enumerate(words) if word == "--ro-bind"]
    assert bound[-1] == "/guest/vmlinuz" and "--bind" not in words and "--dev-bind" not in words
    assert not {"/", "/etc", "/usr", "/run", "/var", "/proc"} & set(bound)
    dropped = words[words.index("--", words.index("--remount-ro")) + 1 : -2]
    assert {"--reuid=300000", "--regid=300000", "--clear-groups", "--no-new-privs", "--bounding-set=-all"} <= set(
        dropped
    )


def test_kvm_is_shown_only_where_it_is_used() -> None:
    words = build_jail(Jail(uid=300000, kvm_group=105), ("qemu",))
    place = words.index("--dev-bind")
    assert words[place + 1 : place + 3] == ("/dev/kvm", "/dev/kvm")
    assert "--groups=105" in words and "--clear-groups" not in words


@pytest.mark.parametrize("uid", [0, 999])
def test_a_vm_is_no_user_of_the_host(uid: int) -> None:
    with pytest.raises(InvalidRequest, match="host's own"):
        build_jail(Jail(uid=uid), ("qemu",))


@pytest.mark.parametrize("place", ["/etc/passwd", "guest/x", "/guest/../etc/passwd", "/guestx"])
def test_files_stay_in_their_place(place: str) -> None:
    with pytest.raises(InvalidRequest, match="no place for a guest's file"):
        build_jail(Jail(uid=300000, files={place: Path("/x")}), ("qemu",))


def test_what_it_may_write_to_is_named_apart() -> None:
    words = build_jail(Jail(uid=300000, writable={"/guest/tpm": Path("/host/tpm")}), ("swtpm",))
    place = words.index("--bind")
    assert words[place + 1 : place + 3] == ("/host/tpm", "/guest/tpm") and words.count("--bind") == 1
    with pytest.raises(InvalidRequest, match="no place for a guest's file"):
        build_jail(Jail(uid=300000, writable={"/usr": Path("/x")}), ("swtpm",))
