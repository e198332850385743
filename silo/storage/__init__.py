"""Scratch layers, overlay views, volumes, and the tars of diff, commit, export and cp."""

from silo.storage.storage import LocalStorage

__all__ = ["LocalStorage"]
