"""Registry hives: the regf file format, the trees in it, the layering of container images' hives, and Wine's text files.

    read_hive, write_hive             a file ↔ its tree (Hive, Key, Value)
    merge_trees, diff_trees           base + deltas → tree; two trees → delta
    read_wine_text, write_wine_text   system.reg and its kin ↔ a tree
    export_reg_text                   a tree or a delta → what regedit would write

Everything read is untrusted: what is wrong with it is a DamagedRegistry that names the place.
"""

from silo.windows.hives.damage import DamagedRegistry
from silo.windows.hives.layering import diff_trees, merge_trees
from silo.windows.hives.reading import HiveLimits, read_hive
from silo.windows.hives.reg_text import export_reg_text
from silo.windows.hives.tree import Hive, Key, Layering, Value, ValueType
from silo.windows.hives.wine_text import WineRegistry, read_wine_text, write_wine_text
from silo.windows.hives.writing import write_hive

__all__ = [
    "read_hive",
    "write_hive",
    "merge_trees",
    "diff_trees",
    "read_wine_text",
    "write_wine_text",
    "export_reg_text",
    "Hive",
    "Key",
    "Value",
    "ValueType",
    "Layering",
    "WineRegistry",
    "HiveLimits",
    "DamagedRegistry",
]
