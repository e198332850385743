"""What `bench/run images` asks of registries: deltas for the layers of an image, and images that have them.

The base is Silo's own, filled up to 17,000 keys; each delta changes, adds and deletes keys as installers do, and sets the
machine's PATH.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

from bench.image_archives import MB, Contents, oci_archive, windows_config, windows_member, write_layer
from silo.windows.hives import Hive, Key, Layering, Value, ValueType, write_hive

LAYERS = 3
BASE_KEYS = 17_000
KEYS = 200
"""That one delta adds."""
TAG = "bench-deltas:latest"
BARE_TAG = "bench-no-deltas:latest"


def build_deltas(number: int) -> dict[str, bytes]:
    """The hives of one layer, by their names in its directory Hives."""
    vendor = Key(
        name=f"Vendor {number}",
        subkeys=tuple(
            Key(
                name=f"Component {count:04}",
                values=(_text("Path", f"C:\\Part {number}\\{count}"), _dword("Version", count)),
            )
            for count in range(KEYS)
        ),
    )
    changed = Key(name="Microsoft", subkeys=(Key(name="Bench", values=(_dword("Layer", number),)),))
    gone = Key(name=f"Vendor {number - 1}", subkeys=(Key(name="Component 0001", layering=Layering.TOMBSTONE),))
    software = Key(name="ROOT", subkeys=(changed, gone, vendor))
    environment = Key(name="Environment", values=(_text("Path", f"C:\\Windows\\system32;C:\\Part {number}"),))
    manager = Key(name="Session Manager", subkeys=(environment,))
    system = Key(name="ROOT", subkeys=(_nest(("ControlSet001", "Control"), manager),))
    user = Key(name="ROOT", subkeys=(Key(name="Software", subkeys=(changed,)),))
    roots = {"Software_Delta": software, "System_Delta": system, "DefaultUser_Delta": user}
    return {name: write_hive(Hive(root=root, minor_version=6, layered=True)) for name, root in roots.items()}


def filled_up(system_text: bytes) -> bytes:
    """Wine's `system.reg` with classes as installers register them, until it has BASE_KEYS keys that are written down."""
    blocks = [
        f"\n[Software\\\\Classes\\\\CLSID\\\\{{{number:08X}-0000-0000-C000-000000000046}}\\\\InprocServer32] 1704067200\n"
        f'@="C:\\\\Program Files\\\\Part\\\\server{number}.dll"\n"ThreadingModel"="Both"\n'
        for number in range(BASE_KEYS - system_text.count(b"\n["))
    ]
    return system_text + "".join(blocks).encode()


def registry_archives(directory: Path) -> tuple[Path, Path]:
    """Images above a Windows base, of LAYERS layers: (with deltas in each, with the same files and no deltas)."""
    return _archive(directory, TAG, build_deltas), _archive(directory, BARE_TAG, lambda _: {})


def _archive(directory: Path, tag: str, deltas: Callable[[int], dict[str, bytes]]) -> Path:
    contents = Contents(6)
    layers = []
    for number in range(LAYERS):
        members = [(windows_member(name, kind=tarfile.DIRTYPE), b"") for name in ("Files", "Hives")]
        data = contents.binary(MB)
        members.append((windows_member(f"Files/part{number}.bin", data), data))
        members += [(windows_member(f"Hives/{name}", hive), hive) for name, hive in deltas(number).items()]
        layers.append(write_layer(directory, f"{tag.partition(':')[0]}-{number}", iter(members), keep_plain=False))
    config = windows_config([layer.diff_id for layer in layers], with_base=True)
    return oci_archive(directory / f"{tag.partition(':')[0]}.tar", tag, config, [layer.packed for layer in layers])


def _nest(names: tuple[str, ...], below: Key) -> Key:
    for name in reversed(names):
        below = Key(name=name, subkeys=(below,))
    return below


def _text(name: str, text: str) -> Value:
    return Value(name, ValueType.SZ, f"{text}\0".encode("utf-16-le"))


def _dword(name: str, number: int) -> Value:
    return Value(name, ValueType.DWORD, number.to_bytes(4, "little"))
