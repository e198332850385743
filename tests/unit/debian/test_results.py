"""Finished builds on disk: what stays, what goes, what an interruption leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.debian import results

OLD, NEW = "0a" * 32, "1b" * 32


def write(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_outdated_builds_and_packages_are_removed(tmp_path: Path) -> None:
    builds, debs = tmp_path / "base", tmp_path / "debs"
    write(builds / OLD / "layout/index.json")
    write(builds / NEW / "layout/index.json")
    write(builds / ".lock")
    write(builds / "images/of another")
    results.point_to(builds, OLD)
    results.point_to(builds, NEW)
    write(debs / "a_1.deb")
    write(debs / "a_2.deb")
    results.remove_unnamed(builds)
    results.remove_unused(debs, {"a_2.deb"})
    assert sorted(path.name for path in builds.iterdir()) == [".lock", NEW, "current", "images"]
    assert [path.name for path in debs.iterdir()] == ["a_2.deb"]
    assert results.find_current_key(builds) == NEW


def test_a_build_stays_for_as_long_as_a_link_names_it(tmp_path: Path) -> None:
    for key in (OLD, NEW, "cd" * 32):
        write(tmp_path / key / "file")
    results.point_to(tmp_path, OLD)
    results.point_to(tmp_path, OLD, "current-other")
    results.point_to(tmp_path, NEW)
    results.remove_unnamed(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [OLD, NEW, "current", "current-other"]
    assert results.find_current_key(tmp_path, "current-other") == OLD
    assert results.find_current_key(tmp_path, "current-none") is None


def test_an_interrupted_build_is_swept_and_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / ".building-dead/rootfs/x", b"x")
    with pytest.raises(RuntimeError), results.building(tmp_path) as work:
        assert not (tmp_path / ".building-dead").exists()
        write(work / "rootfs/x", b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_finished_build_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    write(tmp_path / "key/broken")
    with results.only_builder(tmp_path), results.building(tmp_path) as work:
        write(work / "whole")
        results.publish(work, tmp_path, "key")
    assert [path.name for path in (tmp_path / "key").iterdir()] == ["whole"]
    assert results.find_current_key(tmp_path) is None
