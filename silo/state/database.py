"""Documents in SQLite: one row a document, its value as JSON.

Write-ahead log with synchronous=NORMAL: a commit costs about 0.05 ms and survives the death of the process at any instant; a
power failure may lose the last commits, never consistency. A lock around each transaction lets helper threads write too.

    database = Database(data_root / "state.db")
    containers = database.documents("containers", ContainerRecord)
    containers.put(record.id, record, name=record.name)
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, Generic, TypeVar

import msgspec

from silo.errors import Conflict, HostError, NoSpace, SiloError, Unavailable
from silo.state.ballast import Ballast
from silo.state.schema import STEPS, Step, upgrade

T = TypeVar("T")

_BUSY_MS = 5000


class Database:
    """The open database. Raises HostError for a file that is damaged, foreign or of a newer version."""

    def __init__(self, path: Path, *, steps: Sequence[Step] = STEPS) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._depth = 0
        self._ballast = Ballast(path.with_name(path.name + "-ballast"))
        try:
            self._connection = _connect(path, steps)
        except NoSpace:
            if not self._ballast.give_up():
                raise
            self._connection = _connect(path, steps)
        self._ballast.keep()

    def documents(self, table: str, kind: type[T]) -> _Table[T]:
        """The documents of one kind; `table` is their collection's name."""
        return _Table(self, table, kind)

    def close(self) -> None:
        """Idempotent. Brings the log into the main file."""
        with self.lock, contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """One statement, its rows as a list."""
        with self.lock:
            try:
                return self._connection.execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                explained = _explained(error, self.path)
                # A transaction on a full disk is gone as a whole: its caller tries again, with the room made here.
                if not (isinstance(explained, NoSpace) and self._ballast.give_up() and not self._depth):
                    raise explained from error
            try:
                return self._connection.execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                raise _explained(error, self.path) from error

    def settle(self) -> None:
        """Housekeeping after a write."""
        if not self._depth:
            self._ballast.keep()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, also nested. Do not await inside: others' writes would become part of it."""
        with self.lock:
            name = f"level{self._depth}"
            begin, commit, rollback = (
                (f"SAVEPOINT {name}", f"RELEASE {name}", f"ROLLBACK TO {name}")
                if self._depth
                else ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
            )
            self.execute(begin)
            self._depth += 1
            try:
                yield
                self.execute(commit)
            except BaseException:
                # a full disk may have ended the transaction already
                with contextlib.suppress(SiloError):
                    self.execute(rollback)
                raise
            finally:
                self._depth -= 1


def _connect(path: Path, steps: Sequence[Step]) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000, cached_statements=64
        )
        # documents hold environment variables of containers: nobody but root reads them
        path.chmod(0o600)
        _check_whole(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        upgrade(connection, path, steps)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, (sqlite3.Error, OSError)):
            raise _explained(error, path) from error
        raise
    return connection


class _Table(Generic[T]):
    """silo.model.persistence.Documents over one collection."""

    def __init__(self, database: Database, name: str, kind: type[T]) -> None:
        self._database = database
        self._name = name
        self._encoder = msgspec.json.Encoder(enc_hook=_encode)
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind, dec_hook=_decode)

    def get(self, key: str) -> T | None:
        rows = self._database.execute("SELECT value FROM documents WHERE collection = ? AND key = ?", (self._name, key))
        return self._read(key, rows[0][0]) if rows else None

    def put(self, key: str, value: T, *, name: str | None = None) -> None:
        """Insert or replace, name included. Raises Conflict when another key has the name, NoSpace."""
        try:
            self._database.execute(
                "INSERT INTO documents (collection, key, name, value) VALUES (?, ?, ?, ?) ON CONFLICT (collection, key) "
                "DO UPDATE SET name = excluded.name, value = excluded.value",
                (self._name, key, name, self._encoder.encode(value)),
            )
        except Conflict:
            raise Conflict(f"the name {name} is in use in {self._name}") from None
        self._database.settle()

    def delete(self, key: str) -> None:
        """Nothing there is fine."""
        self._database.execute("DELETE FROM documents WHERE collection = ? AND key = ?", (self._name, key))
        self._database.settle()

    def items(self) -> Iterator[tuple[str, T]]:
        """As of the call, in the order of keys; writing meanwhile is allowed."""
        rows = self._database.execute(
            "SELECT key, value FROM documents WHERE collection = ? ORDER BY key", (self._name,)
        )
        return ((key, self._read(key, value)) for key, value in rows)

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        return self._database.transaction()

    def _read(self, key: str, value: bytes) -> T:
        try:
            return self._decoder.decode(value)
        except msgspec.MsgspecError as error:
            raise HostError(
                f"{self._database.path}: the document {key} in {self._name} cannot be read",
                details=str(error),
                hint="it was written by another version or damaged; restore the file from a backup",
            ) from error


def _encode(value: object) -> object:
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"documents cannot hold {type(value).__name__}")


def _decode(kind: type, value: object) -> object:
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise NotImplementedError(f"documents cannot hold {kind.__name__}")


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    answer = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer[0] != "ok":
        raise _damaged(path, str(answer[0]))


def _damaged(path: Path, details: str) -> HostError:
    return HostError(
        f"the state database {path} is damaged",
        details=details,
        hint=f"restore it from a backup, or move {path.name}, {path.name}-wal and {path.name}-shm away to start empty "
        "(images, volumes and containers' files stay on disk, but containers are forgotten and cleaned up)",
    )


def _explained(error: sqlite3.Error | OSError, path: Path) -> SiloError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if isinstance(error, sqlite3.IntegrityError):
        return Conflict(str(error))
    if primary == sqlite3.SQLITE_FULL:
        return NoSpace(f"no space left to write {path}", hint="silo system prune frees space")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(f"{path} is in use by another process", details=str(error))
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(error))
    return HostError(f"the state database {path} cannot be used", details=str(error))
