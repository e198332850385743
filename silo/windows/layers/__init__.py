"""Layers of Windows images as registries have them: tar archives with Files/, Hives/ and what NTFS knows of files.

    is_windows_layer     a tar by its first member
    unpack_layer         tar → a directory for overlayfs, and registry deltas beside it
    find_hives           those deltas

docs/windows-layers.md says what is kept, tolerated and refused.
"""

from silo.windows.layers.hives import find_hives
from silo.windows.layers.member_names import is_windows_layer
from silo.windows.layers.unpack import unpack_layer

__all__ = ["is_windows_layer", "unpack_layer", "find_hives"]
