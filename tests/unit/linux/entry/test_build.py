"""The program that waits in a container begun ahead: its build, and what it does as a process."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from silo.guest.entry import FIRST, encode_order
from silo.linux.entry.build import build_entry
from tests.support.probes import require_program


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_program("gcc")
    return build_entry(tmp_path_factory.mktemp("entry"))


def told(entry: Path, order: bytes) -> tuple[int, bytes, bytes]:
    """(exit status, its output, what it answered)"""
    order_read, order_write = os.pipe()
    answer_read, answer_write = os.pipe()
    with open(entry, "rb") as program, open(answer_read, "rb") as answer:
        theirs = " ".join(
            f"{FIRST + place}<&{descriptor}"
            for place, descriptor in enumerate((order_read, answer_write, program.fileno()))
        )
        child = subprocess.Popen(
            ["bash", "-c", f"exec {theirs}; exec /proc/self/fd/{FIRST + 2}"],
            pass_fds=(order_read, answer_write, program.fileno()),
            stdout=subprocess.PIPE,
        )
        os.close(order_read)
        os.close(answer_write)
        os.write(order_write, order)
        os.close(order_write)
        output, _ = child.communicate(timeout=20)
        return child.returncode, output, answer.read()


def test_the_same_source_gives_the_same_bytes(entry: Path, tmp_path: Path) -> None:
    again = build_entry(tmp_path)
    assert again.read_bytes() == entry.read_bytes() and again.parent.name == entry.parent.name
    assert again.read_bytes()[:4] == b"\x7fELF" and b"/usr/lib/" not in again.read_bytes()


def test_it_becomes_the_program(entry: Path) -> None:
    order = encode_order(["sh", "-c", "echo $1 $A; exit 5", "sh", "word"], ["A=b", "PATH=/nowhere:/usr/bin:/bin"])
    assert told(entry, order) == (5, b"word b\n", b"")


@pytest.mark.parametrize(
    ("program", "path", "number"),
    [
        ("none", "/bin", 2),
        ("/etc/passwd", "/bin", 13),
        ("group", "/none:/etc:/bin", 13),
        ("/etc", "", 13),
        ("", "/bin", 2),
    ],
)
def test_it_says_why_not(entry: Path, program: str, path: str, number: int) -> None:
    status, output, answer = told(entry, encode_order([program], [f"PATH={path}"]))
    assert (status, output, answer) == (125, b"", struct.pack("<i", number))


@pytest.mark.parametrize(
    "order",
    [
        b"",
        b"\x10\0\0\0",
        struct.pack("<III", 4, 0, 0),
        struct.pack("<III", 1 << 30, 1, 1),
        struct.pack("<III", 8, 5, 0),
        struct.pack("<III", 12, 1, 2**31) + b"sh\0\0",
        struct.pack("<III", 10, 2, 0) + b"sh",
    ],
)
def test_an_order_that_is_none_ends_it(entry: Path, order: bytes) -> None:
    assert told(entry, order) == (125, b"", b"")
