"""Deltas are applied as the kernel shows a stack of layers, and the delta between two trees makes the one into the other."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from silo.errors import InvalidRequest
from silo.windows.hives import Hive, Key, Layering, Value, diff_trees, merge_trees, read_hive, write_hive
from silo.windows.hives.tree import FLAG_LINK, MAXIMUM_DEPTH, find_key, tombstone, value_tombstone, walk
from tests.support.registry_trees import normalized, trees


def value(name: str, data: bytes = b"1") -> Value:
    return Value(name, 3, data)


BASE = Key(
    "base",
    subkeys=(
        Key(
            "App",
            values=(value("one"), value("Two")),
            subkeys=(Key("Sub", (value("deep"),), (Key("Deeper", class_name="c"),)), Key("Other")),
            modified=50,
            class_name="BaseClass",
            security=b"base",
        ),
        Key("Rest", (value("kept"),)),
    ),
)


def merged(*layers: Key) -> dict[str, tuple[str, ...]]:
    """Path → names of values."""
    return {
        path: tuple(value.name for value in key.values)
        for path, key in walk(merge_trees(BASE, *(Key("delta", subkeys=(layer,)) for layer in layers)))
    }


WHOLE = {
    "": (),
    "App": ("one", "Two"),
    "App\\Sub": ("deep",),
    "App\\Sub\\Deeper": (),
    "App\\Other": (),
    "Rest": ("kept",),
}


def test_merge() -> None:
    assert merged() == WHOLE
    delta = Key("APP", (value("TWO", b"new"), value("three")), (Key("Sub", subkeys=(Key("New"),)),))
    result = merged(delta)
    assert result["APP"] == ("one", "TWO", "three")
    assert result["APP\\Sub"] == ("deep",) and "APP\\Sub\\New" in result and "APP\\Other" in result
    assert merge_trees(BASE, Key("x", subkeys=(delta,))).name == "base"


def test_tombstones() -> None:
    rest = {path: names for path, names in WHOLE.items() if not path.startswith("App")}
    assert merged(tombstone("aPP")) == rest
    assert merged(tombstone("Nothing")) == WHOLE
    # a key that is made again in a later layer does not see through the tombstone
    assert merged(tombstone("App"), Key("App", (value("new"),))) == rest | {"App": ("new",)}
    result = merged(Key("App", (value_tombstone("ONE"), value_tombstone("nothing"))))
    assert result["App"] == ("Two",)


def test_supersede_local_hides_values_alone() -> None:
    delta = Key(
        "App", (value("new"), value_tombstone("x")), (Key("Other", (value("v"),)),), layering=Layering.SUPERSEDE_LOCAL
    )
    assert merged(delta) == WHOLE | {"App": ("new",), "App\\Other": ("v",)}


def test_supersede_tree_hides_everything_below() -> None:
    delta = Key(
        "App",
        (value("new"), value_tombstone("one")),
        (Key("Sub", layering=Layering.SUPERSEDE_TREE), tombstone("Other")),
        layering=Layering.SUPERSEDE_TREE,
    )
    assert merged(delta) == {"": (), "App": ("new",), "App\\Sub": (), "Rest": ("kept",)}


@pytest.mark.parametrize("layering", [Layering.MERGE, Layering.SUPERSEDE_LOCAL, Layering.SUPERSEDE_TREE])
def test_class_names_are_inherited_where_the_layer_says_so(layering: Layering) -> None:
    def class_name(*deltas: Key) -> str:
        key = find_key(merge_trees(BASE, *(Key("", subkeys=(delta,)) for delta in deltas)), "App")
        assert key is not None
        return key.class_name

    inheriting = Key("App", layering=layering, inherit_class=True)
    own = Key("App", layering=layering, class_name="Own")
    assert class_name(inheriting) == "BaseClass"
    assert class_name(own) == "Own" == class_name(own, inheriting)
    assert class_name(replace(own, class_name="")) == ""


def test_the_rest_of_a_key_is_that_of_the_uppermost_layer() -> None:
    def app(delta: Key) -> Key:
        key = find_key(merge_trees(BASE, Key("", subkeys=(delta,))), "App")
        assert key is not None
        return key

    changed = app(Key("App", modified=40, security=b"upper", flags=FLAG_LINK, user_flags=1))
    assert (changed.modified, changed.security, changed.flags, changed.user_flags) == (50, b"upper", FLAG_LINK, 1)
    assert app(Key("App", modified=60)).modified == 60
    assert app(Key("App")).security == b"base"


def test_what_did_not_change_is_shared() -> None:
    result = merge_trees(BASE, Key("", subkeys=(Key("App", (value("x"),)),)))
    assert result.subkeys[1] is BASE.subkeys[1] and result.subkeys[0].subkeys is BASE.subkeys[0].subkeys
    assert merge_trees(BASE) is BASE


def test_a_base_may_hold_what_means_nothing_without_a_layer_below() -> None:
    base = Key("", (value_tombstone("x"),), (tombstone("A"), Key("B", layering=Layering.SUPERSEDE_TREE)))
    assert merge_trees(base) == Key("", (), (Key("B"),))
    with pytest.raises(InvalidRequest, match="deletes the whole hive"):
        merge_trees(BASE, tombstone(""))


def test_a_delta_names_what_changed_and_nothing_else() -> None:
    app, rest = BASE.subkeys
    new = replace(
        BASE,
        subkeys=(
            replace(app, values=(value("one", b"2"), value("new")), subkeys=app.subkeys[1:], modified=70),
            replace(rest, modified=99),
        ),
    )
    assert diff_trees(BASE, new) == Key(
        "base",
        subkeys=(
            Key(
                "App",
                values=(value("one", b"2"), value("new"), value_tombstone("Two")),
                subkeys=(tombstone("Sub", 70),),
                modified=70,
                security=b"base",
                inherit_class=True,
            ),
        ),
        inherit_class=True,
    )


def test_no_change_is_no_delta() -> None:
    other_times = replace(BASE, name="x", subkeys=tuple(replace(key, modified=77) for key in reversed(BASE.subkeys)))
    assert diff_trees(BASE, BASE) is None is diff_trees(BASE, other_times)
    without_security = replace(BASE, subkeys=(replace(BASE.subkeys[0], security=b""), BASE.subkeys[1]))
    assert diff_trees(BASE, without_security) is None


@pytest.mark.parametrize(
    "change", [{"class_name": "x"}, {"flags": FLAG_LINK}, {"user_flags": 1}, {"security": b"x"}, {"name": "APP"}]
)
def test_a_change_of_the_key_itself(change: dict[str, object]) -> None:
    new = replace(BASE, subkeys=(replace(BASE.subkeys[0], **change), BASE.subkeys[1]))
    delta = diff_trees(BASE, new)
    assert delta is not None
    assert delta.subkeys[0].inherit_class == ("class_name" not in change)
    assert merge_trees(BASE, delta) == new


def test_layers_are_no_registries() -> None:
    with pytest.raises(InvalidRequest, match="a registry layer was given"):
        diff_trees(BASE, Key("", subkeys=(tombstone("A"),)))


@settings(deadline=None, max_examples=200)
@given(trees(), trees())
def test_the_delta_makes_the_one_into_the_other(old: Key, new: Key) -> None:
    delta = diff_trees(old, new)
    if delta is None:
        assert normalized(old) == normalized(new)
        return
    stored = read_hive(write_hive(Hive(root=delta, minor_version=6, layered=True))).root
    for layer in (delta, stored):
        assert normalized(merge_trees(old, layer)) == normalized(new)
    assert diff_trees(new, merge_trees(old, stored)) is None


@settings(deadline=None, max_examples=100)
@given(trees(), trees(layers=True), trees(layers=True))
def test_layers_apply_one_after_another_and_leave_a_plain_tree(base: Key, first: Key, second: Key) -> None:
    result = merge_trees(base, first, second)
    assert result == merge_trees(merge_trees(base, first), second)
    assert merge_trees(result) is result


def test_trees_as_deep_as_allowed() -> None:
    def chain(leaf: Key) -> Key:
        for _ in range(MAXIMUM_DEPTH - 1):
            leaf = Key("k", subkeys=(leaf,))
        return leaf

    old, new = chain(Key("k", (value("a"),))), chain(Key("k", (value("b"),)))
    delta = diff_trees(old, new)
    assert delta is not None
    assert diff_trees(new, merge_trees(old, delta)) is None


def test_a_large_base_with_three_deltas_merges_in_well_under_a_second() -> None:
    base = Key(
        "",
        subkeys=tuple(
            Key(
                f"Key {number}",
                (value("a"), value("b")),
                tuple(Key(f"Sub {index}", (value("c"),)) for index in range(16)),
            )
            for number in range(1000)
        ),
    )
    deltas = [
        Key("", subkeys=tuple(Key(f"key {number}", (value("a", b"x"),)) for number in range(start, 1000, 7)))
        for start in range(3)
    ]
    begin = time.process_time()
    result = merge_trees(base, *deltas)
    delta = diff_trees(base, result)
    took = time.process_time() - begin
    assert delta is not None and len(delta.subkeys) == sum(len(layer.subkeys) for layer in deltas)
    assert took < 1.5
