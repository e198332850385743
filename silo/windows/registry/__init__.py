"""The registry of Windows images and containers: layers' hives ↔ Wine's files.

merge_registry                      base and deltas of layers → Wine's files, at pull
diff_registry                       files of an image and of a container → deltas of a layer, at commit
build_user_hive, merge_user_hive    the same for HKEY_CURRENT_USER, a whole hive among a layer's files

sections    a file as the places of its blocks      merging, comparing    the two above
links       what lies below a registry link          noise                what Wine itself writes
profiles    users
"""

from silo.windows.registry.comparing import diff_registry
from silo.windows.registry.merging import merge_registry
from silo.windows.registry.profiles import build_user_hive, merge_user_hive, user_hive_path, user_text_path

__all__ = [
    "merge_registry",
    "diff_registry",
    "build_user_hive",
    "merge_user_hive",
    "user_hive_path",
    "user_text_path",
]
