"""State that survives a crash: one SQLite database of documents, and the lock that keeps a second daemon out of it."""

from silo.state.database import Database
from silo.state.lock import lock

__all__ = ["Database", "lock"]
