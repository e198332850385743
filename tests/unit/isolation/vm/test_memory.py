"""A template's memory: nobody writes to it once it is sealed, whoever holds it; private mappings still may."""

from __future__ import annotations

import mmap
import os

import pytest

from silo.errors import HostError
from silo.isolation.vm.memory import create_memory, is_sealed, seal_memory

SIZE = 1 << 20


def test_sealed_memory_is_the_same_for_ever() -> None:
    memory = create_memory(SIZE)
    os.pwrite(memory, b"template", 0)
    assert not is_sealed(memory)
    seal_memory(memory)
    assert is_sealed(memory)
    again = os.open(f"/proc/self/fd/{memory}", os.O_RDWR)  # as QEMU opens it
    for descriptor in (memory, again):
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"hostile!", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, SIZE * 2)
        with pytest.raises(PermissionError):
            mmap.mmap(descriptor, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with mmap.mmap(again, SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as clone:
        clone[:8] = b"clone's!"
        assert os.pread(memory, 8, 0) == b"template"
    os.close(again)
    os.close(memory)


def test_a_template_that_still_runs_cannot_be_sealed() -> None:
    memory = create_memory(SIZE)
    with mmap.mmap(memory, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE):
        with pytest.raises(HostError, match="still runs"):
            seal_memory(memory)
    seal_memory(memory)
    os.close(memory)
