"""Layers of Windows images as registries have them: tar archives with Files/, Hives/ and what NTFS knows of files.

    unpack_layer         tar → a directory for overlayfs, and registry deltas beside it
    find_hives           those deltas
    convert_layer        a container's changes as an OCI layer → the tar of a Windows layer
    write_layer          members → such a tar

docs/windows-layers.md says what is kept, tolerated and refused.
"""

from silo.windows.layers.convert import RegistryChanges, convert_layer
from silo.windows.layers.hives import find_hives
from silo.windows.layers.unpack import unpack_layer
from silo.windows.layers.writing import DataStream, LayerMember, MemberKind, write_layer

__all__ = [
    "unpack_layer",
    "find_hives",
    "convert_layer",
    "RegistryChanges",
    "write_layer",
    "LayerMember",
    "MemberKind",
    "DataStream",
]
