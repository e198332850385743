"""Key trees for tests: strategies that make them, and libhivex as a second opinion on their files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from silo.model.windows_names import fold
from silo.windows.hives import Key, Layering, Value
from silo.windows.hives.tree import FLAG_LINK, tombstone, value_tombstone
from tests.support.probes import require

PYTHON = "/usr/bin/python3"
PROGRAM = Path(__file__).with_name("hivex_program.py")

TIMES = st.integers(0, 2**63 - 1)
# few letters in both cases, so that names meet; then whatever UTF-16 holds, halves of pairs too
_LETTERS = st.characters(codec="utf-16", exclude_characters="\\", exclude_categories=("Cs",))
PLAIN_NAMES = st.one_of(st.text("abAB_ß", min_size=1, max_size=3), st.text(_LETTERS, min_size=1, max_size=12))
ANY_NAMES = PLAIN_NAMES | st.text('a\ud83d\ude00\x00\x07é[]"@', min_size=1, max_size=4).map(
    # two halves that meet are one character
    lambda text: text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
)
TYPES = st.one_of(st.integers(0, 11), st.sampled_from([0xFFFF0007, 0xFFFFFFFF]))
DATA = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=8).map(lambda text: text.encode("utf-16-le") + b"\0\0"),
    st.builds(
        lambda size, octet: bytes([octet]) * size,
        st.sampled_from([4, 5, 4000, 16344, 16345, 40000]),
        st.integers(0, 255),
    ),
)
SECURITY = st.sampled_from([b"\1\0\4\x80 one", b"\1\0\4\x80 another"])


def trees(
    *, names: st.SearchStrategy[str] = ANY_NAMES, layers: bool = False, security: bool = True, classes: bool = True
) -> st.SearchStrategy[Key]:
    """Trees, plain or with layer semantics. With `security` every key has a descriptor of its own."""

    def extend(below: st.SearchStrategy[Key]) -> st.SearchStrategy[Key]:
        values = st.lists(_values(names, layers), max_size=4, unique_by=lambda value: fold(value.name)).map(tuple)
        subkeys = st.lists(below, max_size=4, unique_by=lambda key: fold(key.name)).map(tuple)
        kinds = [Layering.MERGE, Layering.SUPERSEDE_LOCAL, Layering.SUPERSEDE_TREE] if layers else [Layering.MERGE]
        return st.builds(
            Key,
            name=names,
            values=values,
            subkeys=subkeys,
            modified=TIMES,
            class_name=st.sampled_from(["", "Class", "é"]) if classes else st.just(""),
            security=SECURITY if security else st.just(b""),
            flags=st.sampled_from([0, FLAG_LINK]),
            layering=st.sampled_from(kinds),
            inherit_class=st.booleans() if layers else st.just(False),
        )

    leaves = st.builds(Key, name=names, modified=TIMES, security=SECURITY if security else st.just(b""))
    if layers:
        leaves = leaves | st.builds(tombstone, names, TIMES).map(lambda key: replace(key, security=b"\1\0\4\x80 one"))
    # the root is never a tombstone
    return extend(st.recursive(leaves, extend, max_leaves=8))


def _values(names: st.SearchStrategy[str], layers: bool) -> st.SearchStrategy[Value]:
    any_name = st.just("") | names
    made = st.builds(Value, any_name, TYPES, DATA)
    return made | st.builds(value_tombstone, any_name) if layers else made


def normalized(key: Key) -> Key:
    """Without times, the order of values and keys, and the root's name."""
    return replace(_ordered(key), name="")


def _ordered(key: Key) -> Key:
    return replace(
        key,
        modified=0,
        values=tuple(sorted(key.values, key=lambda value: fold(value.name))),
        subkeys=tuple(sorted(map(_ordered, key.subkeys), key=lambda subkey: fold(subkey.name))),
    )


def as_document(key: Key) -> dict[str, Any]:
    """The form that hivex_program.py speaks."""
    return {
        "name": key.name,
        "time": key.modified,
        "values": [[value.name, value.type, value.data.hex()] for value in key.values],
        "subkeys": [as_document(subkey) for subkey in key.subkeys],
    }


@contextmanager
def running_hivex() -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that asks libhivex; an error of its is an AssertionError. Skips where there is none."""
    probe = subprocess.run([PYTHON, "-c", "import hivex"], capture_output=True, text=True)
    require("libhivex", probe.returncode == 0, f"{PYTHON} has no hivex; apt-get install python3-hivex")
    with subprocess.Popen(
        [PYTHON, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(**request: Any) -> dict[str, Any]:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            answer: dict[str, Any] = json.loads(stdout.readline())
            assert "error" not in answer, answer
            return answer

        yield ask
        stdin.close()
