"""QEMU's report on an untrusted disk: only what is all in its one file passes."""

from __future__ import annotations

from typing import Any

import pytest

from silo.errors import GuestError, InvalidRequest
from silo.isolation.vm.whole.command import DISK_IN_JAIL
from silo.isolation.vm.whole.disk import check_report
from silo.model.disk_guest import DiskFormat

GOOD = {"virtual-size": 1 << 30, "format": "vmdk", "filename": DISK_IN_JAIL}


def report(details: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    return {**GOOD, "format-specific": {"type": "vmdk", "data": details or {}}, **named}


def check(untrusted: Any, *, persist: bool = False) -> int:
    return check_report(untrusted, DiskFormat.VMDK, "the disk", persist=persist)


def test_the_size_that_the_guest_sees() -> None:
    assert check(GOOD) == 1 << 30
    own = {"extents": [{"filename": DISK_IN_JAIL, "format": ""}], "create-type": "monolithicSparse"}
    assert check(report(own), persist=True) == 1 << 30


@pytest.mark.parametrize(
    ("untrusted", "words"),
    [
        (report(backing_filename="base"), "names a backing file"),
        (report({"data-file": "data"}), "contents in other files"),
        (report({"extents": [{"filename": "/etc/shadow"}]}), "contents in other files"),
        (report({"extents": [{"filename": DISK_IN_JAIL}] * 2}), "contents in other files"),
        (report(encrypted=True), "encrypted"),
        (report(virtual_size=0), "a disk of 0 bytes"),
        (report(virtual_size=1 << 60), "a disk of"),
        (report(format="qcow2"), "is no vmdk disk"),
    ],
)
def test_refused(untrusted: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        check(untrusted)


def test_a_compressed_one_is_not_written_to() -> None:
    untrusted = report({"create-type": "streamOptimized"})
    assert check(untrusted) == 1 << 30
    with pytest.raises(InvalidRequest, match="compressed VMDK"):
        check(untrusted, persist=True)


@pytest.mark.parametrize(
    "untrusted", [None, [], {}, {"virtual-size": "x", "format": "vmdk"}, report(format_specific=7)]
)
def test_what_is_no_report(untrusted: Any) -> None:
    with pytest.raises(GuestError, match="cannot be read"):
        check(untrusted)
