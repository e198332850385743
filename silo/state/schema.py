"""The schema as a table of steps: step n brings a database from version n-1 to version n.

A released step is never changed; a new version is a new step. The version lies in SQLite's `user_version`, the mark that the
file is Silo's in `application_id`; each step and its version are one transaction, so a crash on the way loses nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from silo.errors import HostError

Step = Callable[[sqlite3.Connection], None]

APPLICATION_ID = 0x53494C4F  # "SILO"


def _create_documents(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE documents (collection TEXT NOT NULL, key TEXT NOT NULL, name TEXT, value BLOB NOT NULL, "
        "PRIMARY KEY (collection, key)) WITHOUT ROWID"
    )
    connection.execute("CREATE UNIQUE INDEX names ON documents (collection, name) WHERE name IS NOT NULL")


STEPS: tuple[Step, ...] = (_create_documents,)


def upgrade(connection: sqlite3.Connection, path: Path, steps: Sequence[Step]) -> None:
    """Bring the database to version len(steps). Raises HostError for a foreign or a newer one, which is left as it is."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    mark = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if mark != APPLICATION_ID and (tables or version or mark):
        raise HostError(
            f"{path} is a database of another program", hint="move it away, or set another data_root for Silo"
        )
    if version > len(steps):
        raise HostError(
            f"{path} was written by a newer Silo (schema {version}, this one knows up to {len(steps)})",
            hint="run that Silo again, or give this one a data_root of its own; nothing was changed",
        )
    for number in range(version, len(steps)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            steps[number](connection)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
