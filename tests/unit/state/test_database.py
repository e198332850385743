"""Documents survive, names are unique, and a database that cannot be used says why."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from silo.errors import Conflict, HostError, NoSpace
from silo.model.persistence import Documents
from silo.state import Database
from silo.state.schema import STEPS

ROOT = Path(__file__).resolve().parents[3]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    path: Path = Path("/")
    more: dict[str, str] = {}


def open_items(path: Path) -> tuple[Database, Documents[Item]]:
    database = Database(path)
    return database, database.documents("items", Item)


def test_documents_survive_closing(tmp_path: Path) -> None:
    database, items = open_items(tmp_path / "state.db")
    items.put("b", Item(text="ü\0", path=Path("/srv/data"), more={"k": "v"}))
    items.put("a", Item(text="1"))
    items.put("a", Item(text="2"))
    items.put("c", Item(text="3"))
    items.delete("c")
    items.delete("never there")
    database.close()
    database.close()
    database, items = open_items(tmp_path / "state.db")
    assert dict(items.items()) == {
        "a": Item(text="2"),
        "b": Item(text="ü\0", path=Path("/srv/data"), more={"k": "v"}),
    }
    assert items.get("c") is None
    assert database.documents("others", Item).get("a") is None
    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600
    database.close()


def test_names_are_unique_within_a_collection(tmp_path: Path) -> None:
    database, items = open_items(tmp_path / "state.db")
    items.put("1", Item(text="x"), name="web")
    database.documents("others", Item).put("1", Item(text="x"), name="web")
    with pytest.raises(Conflict, match="web"):
        items.put("2", Item(text="y"), name="web")
    assert items.get("2") is None
    items.put("1", Item(text="x"), name="renamed")
    items.put("2", Item(text="y"), name="web")
    items.put("3", Item(text="nameless"))
    items.put("4", Item(text="nameless"))
    items.delete("1")
    items.put("5", Item(text="z"), name="renamed")
    database.close()


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    database, items = open_items(tmp_path / "state.db")
    with pytest.raises(RuntimeError), items.transaction():
        items.put("a", Item(text="1"))
        raise RuntimeError
    assert items.get("a") is None
    with items.transaction():
        items.put("a", Item(text="1"))
        with pytest.raises(Conflict), items.transaction():
            items.put("b", Item(text="2"), name="n")
            items.put("c", Item(text="3"), name="n")
        items.put("d", Item(text="4"))
    assert [key for key, _ in items.items()] == ["a", "d"]
    database.close()


def test_threads_may_write_too(tmp_path: Path) -> None:
    database, items = open_items(tmp_path / "state.db")

    def write(prefix: str) -> None:
        for number in range(50):
            with items.transaction():
                items.put(f"{prefix}{number}", Item(text="x"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(items.items())) == 200
    database.close()


def test_items_may_be_written_while_read(tmp_path: Path) -> None:
    database, items = open_items(tmp_path / "state.db")
    for number in range(3):
        items.put(str(number), Item(text="x"))
    for key, _ in items.items():
        items.delete(key)
        items.put(f"new{key}", Item(text="y"))
    assert [key for key, _ in items.items()] == ["new0", "new1", "new2"]
    database.close()


_WRITER = """
import sys
from pathlib import Path
import msgspec
from silo.state import Database
class Item(msgspec.Struct): text: str
database = Database(Path(sys.argv[1]))
items = database.documents("items", Item)
number = 0
while True:
    with items.transaction():
        items.put(f"{number:06}a", Item(text="x" * 2000))
        items.put(f"{number:06}b", Item(text="x" * 2000))
    print(number, flush=True)
    number += 1
"""


def test_kill_at_any_instant_loses_no_commit(tmp_path: Path) -> None:
    """What the writer reported as committed is there, and no transaction is there by half."""
    for round_number in range(3):
        path = tmp_path / f"{round_number}.db"
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
        assert writer.stdout is not None
        for _ in range(100 + 137 * round_number):
            writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        reported = writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        database, items = open_items(path)
        keys = {key for key, _ in items.items()}
        database.close()
        last = int(reported[-1]) if reported else 99 + 137 * round_number
        assert {f"{number:06}{half}" for number in range(last + 1) for half in "ab"} <= keys
        assert {key[:-1] for key in keys if key.endswith("a")} == {key[:-1] for key in keys if key.endswith("b")}


def test_an_older_schema_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database, items = open_items(path)
    items.put("a", Item(text="old"))
    database.close()

    def upper_case(connection: sqlite3.Connection) -> None:
        for key, value in connection.execute("SELECT key, value FROM documents").fetchall():
            document = json.loads(value) | {"text": json.loads(value)["text"].upper()}
            connection.execute("UPDATE documents SET value = ? WHERE key = ?", (json.dumps(document).encode(), key))

    def add_column(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE documents ADD COLUMN note TEXT")

    newer = Database(path, steps=(*STEPS, upper_case, add_column))
    assert newer.documents("items", Item).get("a") == Item(text="OLD")
    assert newer.execute("PRAGMA user_version") == [(len(STEPS) + 2,)]
    newer.close()
    with pytest.raises(HostError, match="newer Silo") as caught:
        Database(path)
    assert str(path) in caught.value.brief and "nothing was changed" in caught.value.hint


def test_a_failing_migration_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database, items = open_items(path)
    items.put("a", Item(text="old"))
    database.close()

    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM documents")
        raise OSError("power")

    with pytest.raises(HostError):
        Database(path, steps=(*STEPS, fails))
    database, items = open_items(path)
    assert items.get("a") == Item(text="old")
    database.close()


@pytest.mark.parametrize(
    "content", [b"this is not a database, but longer than a header " * 10, b"SQLite format 3\0" * 99]
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(HostError) as caught:
        Database(path)
    assert str(path) in caught.value.brief and "move" in caught.value.hint
    assert path.read_bytes() == content


def test_damage_within_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database, items = open_items(path)
    for number in range(200):
        items.put(str(number), Item(text="x" * 500))
    database.close()
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 20] = os.urandom(4096 * 17)
    path.write_bytes(data)
    with pytest.raises(HostError, match="damaged"):
        Database(path)


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE bookmarks (url TEXT)")
    foreign.close()
    with pytest.raises(HostError, match="another program"):
        Database(path)


def test_an_unreadable_document_is_named(tmp_path: Path) -> None:
    database, items = open_items(tmp_path / "state.db")
    database.execute("INSERT INTO documents VALUES ('items', 'k1', NULL, ?)", (b'{"text": 1}',))
    with pytest.raises(HostError, match="k1"):
        items.get("k1")
    database.close()


def test_a_full_disk_is_no_space(tmp_path: Path) -> None:
    database, items = open_items(tmp_path / "state.db")
    database.execute("PRAGMA max_page_count = 20")
    with pytest.raises(NoSpace):
        for number in range(100):
            items.put(str(number), Item(text="x" * 4000))
    items.delete("0")
    assert items.get("1") is not None
    database.close()


def test_a_put_is_fast(tmp_path: Path) -> None:
    database, items = open_items(tmp_path / "state.db")
    item = Item(text="x" * 3000)
    times = []
    for number in range(300):
        begin = time.perf_counter()
        items.put(str(number % 20), item, name=str(number % 20))
        times.append(time.perf_counter() - begin)
    database.close()
    # 0.2 ms is the goal on an idle machine; the minimum shows it on a busy one
    assert min(times) < 0.0002
    assert statistics.median(times) < 0.002
