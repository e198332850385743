"""Thrown away is out of sight at once and deleted soon, also after a crash."""

from __future__ import annotations

from pathlib import Path

from silo.storage.trash import Trash


def test_thrown_away(tmp_path: Path) -> None:
    trash = Trash(tmp_path / "trash")
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/file").write_text("x")
    (tmp_path / "tree/link").symlink_to(tmp_path)
    (tmp_path / "kept").write_text("x")
    assert trash.throw(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert not trash.throw(tmp_path / "tree")
    trash.finish()
    assert not list((tmp_path / "trash").iterdir()) and (tmp_path / "kept").exists()


def test_what_a_crash_left(tmp_path: Path) -> None:
    (tmp_path / "trash/old/deep").mkdir(parents=True)
    trash = Trash(tmp_path / "trash")
    trash.empty()
    trash.finish()
    assert not list((tmp_path / "trash").iterdir())
    Trash(tmp_path / "none").empty()
