"""The true spelling of names on C: while an archive is extracted."""

from __future__ import annotations

from pathlib import Path

from silo.model.windows_paths import DRIVE_C
from silo.model.windows_spelling import Spelling


def test_names_are_found_as_windows_compares_them(tmp_path: Path) -> None:
    drive = DRIVE_C[1:]
    (tmp_path / drive / "Straße").mkdir(parents=True)

    def names(directory: str) -> list[str]:
        place = tmp_path / directory
        return [path.name for path in place.iterdir()] if place.is_dir() else []

    spelling = Spelling(names, lambda path: (tmp_path / path).exists())
    assert spelling.resolve(f"{drive}/STRAßE/x") == f"{drive}/Straße/x"
    assert spelling.resolve(f"{drive}/strasse") == f"{drive}/strasse"
    (tmp_path / drive / "New").mkdir()
    spelling.note(f"{drive}/New")
    assert spelling.resolve(f"{drive}/NEW/Y") == f"{drive}/New/Y"
    assert spelling.resolve("etc/STRASSE") == "etc/STRASSE"
