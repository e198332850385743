"""Random stacks of Windows layers, compared with a small model of what Windows would show; and damaged archives.

The model is a dictionary without case and knows nothing of overlayfs, spellings or tar.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from silo.errors import SiloError
from silo.host.beneath import Links, Root
from silo.model.tarstream import ByteStream, TarReader
from silo.storage.tar_tree import write_layer as write_scratch
from silo.storage.views import Views
from silo.windows.layers import RegistryChanges, convert_layer, unpack_layer
from tests.support.overlays import mounted
from tests.support.probes import require_root
from tests.support.windows_layers import (
    Member,
    file,
    folder,
    hardlink,
    layer,
    members,
    opaque,
    stream,
    symlink,
    whiteout,
)

ROUNDS = int(os.environ.get("SILO_FUZZ_ROUNDS", "40"))
DRIVE = "silo/prefix/drive_c"
NAMES = ("a", "B", "Ünit", "straße", "strasse", "Long Name.txt", "x.dll")
FILE, DIRECTORY, LINK = "file", "directory", "link"


@dataclass
class Node:
    """A file, directory or link; children by folded name."""

    kind: str
    data: bytes = b""
    target: tuple[str, ...] = ()
    children: dict[str, Node] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    is_opaque: bool = False


def folded(name: str) -> str:
    """Enough for the names above, and not the code under test."""
    return "".join(letter if letter == "ß" else letter.upper() for letter in name)


def child(node: Node, path: tuple[str, ...]) -> Node | None:
    for name in path:
        if node.kind != DIRECTORY or folded(name) not in node.children:
            return None
        node = node.children[folded(name)]
    return node


def merge(below: Node | None, own: Node) -> Node:
    """What shows of a layer's node over what is below."""
    if own.kind != DIRECTORY:
        return copy.deepcopy(own)
    shown = Node(DIRECTORY)
    lower = below.children if below is not None and below.kind == DIRECTORY and not own.is_opaque else {}
    for name, node in lower.items():
        if name not in own.hidden:
            shown.children[name] = copy.deepcopy(node)
    for name, node in own.children.items():
        shown.children[name] = merge(None if name in own.hidden else lower.get(name), node)
    return shown


class Maker:
    """One random layer: its members, and its tree in the model."""

    def __init__(self, chance: random.Random, below: Node) -> None:
        self.chance = chance
        self.below = below
        self.own = Node(DIRECTORY)
        self.members: list[Member] = [folder("Files"), folder("Hives")]
        self.links: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def name(self) -> str:
        name = self.chance.choice(NAMES)
        return self.chance.choice([name, name.upper() if "ß" not in name else name, name.lower(), name])

    def path(self) -> tuple[str, ...]:
        return tuple(self.name() for _ in range(self.chance.choice([1, 1, 2, 2, 3])))

    def parent(self, path: tuple[str, ...]) -> Node | None:
        """The directory of a path, made where it is missing; None if something else is in the way."""
        for count in range(1, len(path)):
            found = child(self.own, path[:count])
            if found is not None and found.kind != DIRECTORY:
                return None
        node = self.own
        for index, name in enumerate(path[:-1]):
            if folded(name) not in node.children:
                node.children[folded(name)] = Node(DIRECTORY)
                if self.chance.random() < 0.8:
                    self.members.append(folder("Files/" + "/".join(path[: index + 1])))
            node = node.children[folded(name)]
        return node

    def add(self) -> None:
        path = self.path()
        shown, key = "Files/" + "/".join(path), folded(path[-1])
        parent = self.parent(path)
        if parent is None:
            return
        kind = self.chance.randrange(10)
        data = self.chance.randbytes(self.chance.choice([0, 3, 700]))
        if kind < 4:
            parent.children[key] = Node(FILE, data)
            self.members.append(file(shown, data))
            if self.chance.random() < 0.2:
                self.members.append(stream(f"{shown}:s", b"stream"))
        elif kind < 6:
            if parent.children.get(key, Node(FILE)).kind != DIRECTORY:
                parent.children[key] = Node(DIRECTORY)
            self.members.append(folder(shown))
        elif kind < 8:
            parent.hidden.add(key)
            found = parent.children.get(key)
            if found is not None and found.kind == DIRECTORY:
                found.is_opaque = True
            self.members.append(whiteout(shown))
        elif kind == 8:
            target = self.path()
            parent.children[key] = Node(LINK, target=target)
            spelled = "C:\\" + "\\".join(target) if self.chance.random() < 0.5 else self.relative(path, target)
            self.members.append(symlink(shown, spelled, junction=spelled.startswith("C:")))
        elif len(path) > 1:
            parent.is_opaque = True
            self.members.append(opaque("Files/" + "/".join(path[:-1])))

    @staticmethod
    def relative(path: tuple[str, ...], target: tuple[str, ...]) -> str:
        return "\\".join([*[".."] * (len(path) - 1), *target])

    def finish(self) -> Node:
        for _ in range(self.chance.randrange(3)):
            path, target = self.path(), self.path()
            source = child(self.own, target) or child(self.below, target)
            if source is None or source.kind != FILE or [*map(folded, path[: len(target)])] == [*map(folded, target)]:
                continue
            if (child(self.own, path) or Node(FILE)).kind == DIRECTORY or (parent := self.parent(path)) is None:
                continue
            parent.children[folded(path[-1])] = Node(FILE, source.data)
            self.members.append(hardlink("Files/" + "/".join(path), "Files/" + "/".join(target)))
        settle(self.own)
        return merge(self.below, self.own)


def settle(node: Node) -> None:
    """A whiteout hides what is below, whatever comes before or after it in the layer."""
    for key, found in node.children.items():
        if found.kind == DIRECTORY:
            found.is_opaque = found.is_opaque or key in node.hidden
            settle(found)


def read(root: Path, top: Path | None = None) -> Node:
    """A tree on the disk; links as the path of the drive that they mean."""
    top = top or root
    node = Node(DIRECTORY)
    for path in sorted(root.iterdir()):
        key = folded(path.name)
        assert key not in node.children, f"{path} is there in two spellings"
        if path.is_symlink():
            text = os.fspath(path.readlink()).replace(f"/{DRIVE}", os.fspath(top))
            meant = os.path.relpath(path.parent / text, top)
            node.children[key] = Node(LINK, target=tuple(meant.split("/")))
        elif path.is_dir():
            node.children[key] = read(path, top)
        else:
            node.children[key] = Node(FILE, path.read_bytes())
    return node


def flat(node: Node, above: str = "") -> Iterator[tuple[str, str, object]]:
    for key, found in sorted(node.children.items()):
        path = f"{above}/{key}"
        what = tuple(map(folded, found.target)) if found.kind == LINK else found.data
        yield path, found.kind, what
        yield from flat(found, path)


def spellings(root: Path) -> dict[str, str]:
    paths = (path.relative_to(root).as_posix() for path in root.rglob("*"))
    return {folded(path): path for path in paths}


def unpack(target: Path, data: bytes, below: list[Path]) -> None:
    target.mkdir()
    unpack_layer(target, target.with_suffix(".hives"), TarReader(ByteStream(iter([data]))), below)


def check_links(root: Path, model: Node) -> None:
    """A link whose target is there leads to it, for the kernel as well."""
    for path in root.rglob("*"):
        if path.is_symlink():
            meant = os.path.relpath(path.parent / path.readlink(), root)
            found = child(model, tuple(meant.split("/")))
            if found is not None and found.kind != LINK and (root / meant).exists():
                assert path.exists()


@pytest.mark.parametrize("seed", range(4))
def test_stacks_show_what_windows_would_show(tmp_path: Path, seed: int) -> None:
    require_root()
    for number in range(ROUNDS):
        chance = random.Random(f"{seed} {number}")
        place = tmp_path / str(number)
        base = place / "base"
        (base / DRIVE).mkdir(parents=True)
        layers, model, before = [base], Node(DIRECTORY), dict[str, str]()
        for level in range(chance.randint(1, 4)):
            maker = Maker(chance, model)
            for _ in range(chance.randint(1, 14)):
                maker.add()
            model = maker.finish()
            data = layer(maker.members)
            unpack(place / f"layer{level}", data, layers)
            unpack(place / "again", data, layers)
            assert described(place / "again") == described(place / f"layer{level}"), f"round {number}"
            shutil.rmtree(place / "again")
            layers.insert(0, place / f"layer{level}")
            with mounted(place / "mounts", layers) as root:
                assert list(flat(read(root / DRIVE))) == list(flat(model)), f"round {number}, layer {level}"
                check_links(root / DRIVE, model)
                before = check_spellings(before, spellings(root / DRIVE), maker.own)
        convert_and_compare(place, layers, chance)
        shutil.rmtree(place)


def check_spellings(before: dict[str, str], now: dict[str, str], own: Node) -> dict[str, str]:
    """A name keeps its spelling while it is there, unless all of its directory was hidden."""
    for key, spelled in now.items():
        parts = key.split("/")
        above = [child(own, tuple(parts[:count])) for count in range(len(parts))]
        if key in before and not any(node is not None and node.is_opaque for node in above):
            assert spelled == before[key]
    return now


def described(root: Path) -> list[tuple[object, ...]]:
    """All that a layer is."""
    rows: list[tuple[object, ...]] = []
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        shown = path.relative_to(root).as_posix()
        times = (status.st_mtime_ns,) if shown != "." else ()
        rows.append((shown, status.st_mode, status.st_uid, times, sorted(attributes.items()), content, status.st_rdev))
    return rows


def change(root: Path, chance: random.Random) -> None:
    """What a container might do, through the mounted root."""
    for _ in range(chance.randrange(8)):
        there = [path for path in root.rglob("*") if not path.is_symlink()]
        directories = [root, *(path for path in there if path.is_dir())]
        place = chance.choice(directories)
        kind = chance.randrange(8)
        name = chance.choice(NAMES)
        taken = {folded(path.name): path for path in place.iterdir()}.get(folded(name))
        if kind == 0 and there:
            victim = chance.choice(there)
            shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
        elif kind == 1 and len(directories) > 1:
            again = chance.choice(directories[1:])
            shutil.rmtree(again)
            again.mkdir()
            (again / chance.choice(NAMES)).write_bytes(b"in a new directory")
        elif kind == 2 and taken is None:
            (place / name).mkdir()
        elif kind == 3 and taken is None:
            (place / name).symlink_to(chance.choice([".", "..", f"/{DRIVE}/{name}"]) if place != root else "x")
        elif kind == 4 and taken is None and any(path.is_file() for path in there):
            os.link(chance.choice([path for path in there if path.is_file()]), place / name)
        elif kind in (6, 7) and taken is None and len(directories) > 1:
            moved = chance.choice(directories[1:])
            if moved not in (place, *place.parents):
                moved.rename(place / name)
        elif taken is None or (taken.is_file() and not taken.is_symlink()):
            (taken or place / name).write_bytes(chance.randbytes(9))


def convert_and_compare(place: Path, layers: list[Path], chance: random.Random) -> None:
    """A container's changes, written as a Windows layer and unpacked again, show the same tree."""
    upper = place / "upper"
    with mounted(place / "mounts", layers, upper=upper) as root:
        change(root / DRIVE, chance)
        expected = list(flat(read(root / DRIVE)))
    setting = Views(place / "views").setting(upper, layers)
    with Root(upper, links=Links.REFUSE) as scratch:
        written = write_scratch(scratch, setting)
        data = b"".join(convert_layer(written, layers, registry_diff=lambda _: RegistryChanges()))
    check_for_windows(data)
    unpack(place / "committed", data, layers)
    with mounted(place / "mounts", [place / "committed", *layers]) as root:
        assert list(flat(read(root / DRIVE))) == expected


def check_for_windows(data: bytes) -> None:
    """What hcsshim insists on: every name once, directories before what is in them, targets before links."""
    known: set[str] = set()
    for member in members(data):
        parent, _, last = member.name.rpartition("/")
        assert not parent or parent in known, member.name
        assert last != ".wh..wh..opq" and folded(member.name) not in map(folded, known), member.name
        assert not last.startswith(".wh.") or f"{parent}/{last[4:]}" not in known
        assert not member.link.startswith("Files/") or member.link in known
        known.add(member.name)


def mutate(data: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(data))
        kind = chance.randrange(5)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at : at + chance.randrange(1200)]
        elif kind == 2:
            block = at - at % 512
            data[block:block] = data[block : block + 512 * chance.randrange(4)]
        else:
            words = [
                b"../../outside/x",
                b"Files/..",
                b"\\??\\C:\\",
                b".wh..wh..opq",
                b"\xff" * 9,
                b":$DATA",
                b"Hives/",
                b"=" * 30,
            ]
            # names and targets, with a header that holds
            found = chance.choice(words)
            data = bytearray(bytes(data).replace(b"victim", found[:6].ljust(6, b"x")))
    return bytes(data)


NASTY = (
    "..",
    "../outside",
    ".",
    "C:",
    "victim",
    ".wh.victim",
    ".wh...",
    "a:b:c",
    "nul",
    "x ",
    "\\..\\..",
    "/",
    "",
    "\x01",
    "a" * 300,
)


@pytest.mark.parametrize("seed", range(4))
def test_hostile_layers_leave_nothing_outside(tmp_path: Path, seed: int) -> None:
    require_root()
    chance = random.Random(seed)
    base = tmp_path / "base"
    (base / DRIVE / "victim").mkdir(parents=True)
    (base / DRIVE / "victim/f").write_bytes(b"base")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"untouched")
    failures = 0
    for number in range(ROUNDS * 5):
        rows = [folder("Files"), folder("Hives")]
        for _ in range(chance.randint(1, 8)):
            name = "/".join(
                [
                    chance.choice(["Files", "files", "Hives"]),
                    *(chance.choice(NASTY) for _ in range(chance.randint(1, 3))),
                ]
            )
            link = chance.choice(["", "Files/"]) + "/".join(chance.choice([*NASTY, str(outside)]) for _ in range(2))
            rows.append(
                chance.choice(
                    [file(name, b"x"), folder(name), symlink(name, link), hardlink(name, link), whiteout(name)]
                )
            )
        data = layer(rows)
        if chance.random() < 0.5:
            data = mutate(bytearray(data), chance)
        target = tmp_path / "target"
        try:
            unpack(target, data, [base])
        except SiloError:
            failures += 1
        for path in target.rglob("*"):
            if path.is_symlink():
                leads = Path(os.path.normpath(path.parent / path.readlink()))
                assert leads.is_relative_to(target / DRIVE), f"seed {seed}, round {number}: {path.readlink()}"
        shutil.rmtree(target)
        shutil.rmtree(tmp_path / "target.hives", ignore_errors=True)
        assert [path.name for path in outside.iterdir()] == ["x"] and (outside / "x").read_bytes() == b"untouched"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "outside"]
        assert (base / DRIVE / "victim/f").read_bytes() == b"base" and (base / DRIVE / "victim/f").stat().st_nlink == 1
    assert 0 < failures < ROUNDS * 5
