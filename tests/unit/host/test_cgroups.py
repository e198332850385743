"""The layout of a host from its mounts, and statistics from files; nothing real is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.errors import HostError, Unsupported
from silo.host.cgroup_files import FileWrite
from silo.host.cgroup_statistics import load_v1, load_v2
from silo.host.cgroups import CgroupTree, Layout, find_layout, parse_processors
from silo.model.container import Resources

V1 = """30 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
31 24 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 24 0:29 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd
"""
UNIFIED = "33 24 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"


def test_layouts() -> None:
    legacy = find_layout(V1)
    assert legacy.version == 1
    assert legacy.hierarchies["cpu"] == legacy.hierarchies["cpuacct"] == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert len(legacy.roots) == 3 and "systemd" in legacy.hierarchies
    assert find_layout(V1 + UNIFIED).hybrid
    assert not find_layout(V1.replace("/sys/fs/cgroup", "/nowhere")).hybrid
    assert find_layout(UNIFIED.replace("/unified", "")).version == 2
    with pytest.raises(HostError):
        find_layout("1 1 0:1 / /proc rw - proc proc rw\n")


def test_a_limit_without_its_controller_is_refused(tmp_path: Path) -> None:
    tree = CgroupTree(Layout(1, False, {"memory": tmp_path}))
    tree.open()
    tree.create("x")
    for limits, word in ((Resources(pids_limit=5), "pids"), (Resources(cpuset_cpus="0"), "cpuset")):
        with pytest.raises(HostError, match=word):
            tree.apply("x", limits)


def test_lists_of_processors() -> None:
    assert parse_processors("0-2,5\n") == {0, 1, 2, 5}
    assert parse_processors("\n") == frozenset()
    with pytest.raises(ValueError):
        parse_processors("a-b")


def test_a_group_is_narrowed_and_widened(tmp_path: Path) -> None:
    tree = CgroupTree(Layout(1, False, {"cpuset": tmp_path}))
    group = tree.path("x", "cpuset")
    group.mkdir(parents=True)
    (group.parent / "cpuset.cpus").write_text("0-3\n")
    (group / "cpuset.cpus").write_text("0-3\n")
    assert tree.narrow("x") == {0, 1, 2, 3}
    first = (group / "cpuset.cpus").read_text()
    assert first in ("0", "1", "2", "3")
    assert tree.narrow("x") == frozenset()  # one is left: there is nothing to narrow
    tree.widen("x", Resources())
    assert (group / "cpuset.cpus").read_text() == "0-3\n"
    tree.narrow("x")
    assert (group / "cpuset.cpus").read_text() != first  # the next start takes the next processor
    tree.widen("x", Resources(cpuset_cpus="2-3"))
    assert (group / "cpuset.cpus").read_text() == "2-3\n"


def test_narrowing_a_unified_group(tmp_path: Path) -> None:
    tree = CgroupTree(Layout(2, False, {"cpuset": tmp_path, "": tmp_path}))
    group = tree.path("x")
    group.mkdir(parents=True)
    (group / "cpuset.cpus.effective").write_text("0-1\n")
    assert tree.narrow("x") == {0, 1}
    assert (group / "cpuset.cpus").read_text() in ("0", "1")
    tree.widen("x", Resources())
    assert (group / "cpuset.cpus").read_text() == "\n"


def test_without_the_controller_nothing_is_narrowed(tmp_path: Path) -> None:
    tree = CgroupTree(Layout(2, False, {"": tmp_path}))
    tree.path("x").mkdir(parents=True)
    (tree.path("x") / "cpuset.cpus.effective").write_text("0-1\n")
    assert tree.narrow("x") == frozenset()
    tree.widen("x", Resources())
    assert not (tree.path("x") / "cpuset.cpus").exists()


def test_a_limit_that_this_kernel_lacks_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path, _: str) -> None:
        raise FileNotFoundError(self)

    tree = CgroupTree(Layout(1, False, dict.fromkeys(("blkio", "memory", "cpu", "pids"), tmp_path)))
    monkeypatch.setattr(Path, "write_text", missing)
    for limits, option in (
        (Resources(blkio_weight=500), "--blkio-weight"),
        (Resources(nano_cpus=10**9), "--cpus"),
        (Resources(memory_swap_bytes=10), "--memory-swap"),
    ):
        with pytest.raises(Unsupported, match=option):
            tree.apply("x", limits)
    tree._write_all("x", [FileWrite("memory", "memory.memsw.limit_in_bytes", "-1", "memory swap", optional=True)])


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    tree = CgroupTree(Layout(2, False, {"": tmp_path, "memory": tmp_path}))
    (tmp_path / "silo").mkdir()
    tree.create("x")
    group = tree.path("x")
    tree.apply("x", Resources(memory_bytes=100))
    assert sorted(file.name for file in group.iterdir()) == ["memory.max", "memory.swap.max"]
    tree.apply("x", Resources(), before=Resources(memory_bytes=100))
    assert (group / "memory.max").read_text() == "max"


def test_swap_grows_before_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(Path, "write_text", lambda self, _: order.append(self.name))
    tree = CgroupTree(Layout(1, False, {"memory": tmp_path}))
    small, large = Resources(memory_bytes=100), Resources(memory_bytes=200)
    tree.apply("x", large, before=small)
    tree.apply("x", small, before=large)
    memory, swap = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
    assert order == [swap, memory, memory, swap]


def test_statistics(tmp_path: Path) -> None:
    files = {
        "cpuacct.usage": "5000",
        "memory.usage_in_bytes": "77",
        "memory.limit_in_bytes": "9223372036854771712",
        "memory.stat": "total_inactive_file 7\nodd line here\n",
        "cpu.stat": "nr_periods 3\nnr_throttled 2\nthrottled_time 1\n",
        "pids.max": "max",
        "blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 20\nTotal 30\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = load_v1(dict.fromkeys(("cpu", "cpuacct", "memory", "pids", "blkio"), tmp_path))
    assert (found.cpu_total_ns, found.memory_bytes, found.memory_limit_bytes, found.pids_limit) == (5000, 77, 0, 0)
    assert (found.memory_inactive_file_bytes, found.throttled_periods) == (7, 2)
    assert (found.block_read_bytes, found.block_write_bytes) == (10, 20)
    (tmp_path / "cpu.stat").write_text("usage_usec 9\nuser_usec 4\n")
    (tmp_path / "io.stat").write_text("8:0 rbytes=1 wbytes=2 rios=3\n")
    (tmp_path / "memory.max").write_text("4096")
    found = load_v2(tmp_path)
    assert (found.cpu_total_ns, found.cpu_user_ns, found.memory_limit_bytes) == (9000, 4000, 4096)
    assert (found.block_read_bytes, found.block_write_bytes) == (1, 2)
