"""Layers are merged into Wine's files and found between them as whole trees would be, with only what changed parsed and written."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from silo.errors import InvalidRequest
from silo.model.windows_names import fold
from silo.windows.hives import (
    DamagedRegistry,
    Hive,
    Key,
    Layering,
    Value,
    WineRegistry,
    diff_trees,
    merge_trees,
    read_hive,
    read_wine_text,
    write_hive,
    write_wine_text,
)
from silo.windows.hives.tree import FLAG_LINK, find_key, find_value, tombstone, value_tombstone, walk
from silo.windows.registry import diff_registry, merge_registry
from silo.windows.registry.comparing import diff_wine_file
from silo.windows.registry.merging import merge_wine_file
from tests.support.registry_trees import normalized, trees

HEADER = "WINE REGISTRY Version 2\n;; All keys relative to REGISTRY\\\\Machine\n\n#arch=win64\n"
ENVIRONMENT = "System\\\\ControlSet001\\\\Control\\\\Session Manager\\\\Environment"
BASE = (
    HEADER
    + """
[Software\\\\App] 1700000000
#time=1da1747c66d0000
"b"=dword:00000001
"A"="out of order"

[Software\\\\App\\\\Sub\\\\Deep] 1700000000
#time=1da1747c66d0000
"x"=hex:01,02,\\
  03

[Software\\\\Classes\\\\AppId] 1700000000
"here"="1"

[Software\\\\Wow6432Node\\\\AppId] 1700000000
#link
"SymbolicLinkValue"=hex(6):"""
    + "\\Registry\\Machine\\Software\\Classes\\AppId".encode("utf-16-le").hex(",")
    + f"""

[{ENVIRONMENT}] 1700000000
"Path"=str(2):"%SystemRoot%\\\\system32"
"OS"="Windows_NT"

[System\\\\Empty] 1700000000
"""
)


def sz(text: str, kind: int = 1) -> Value:
    return Value("", kind, text.encode("utf-16-le") + b"\0\0")


def named(name: str, value: Value) -> Value:
    return replace(value, name=name)


def chain(path: str, key: Key) -> Key:
    """A delta's root that says `key` (its name aside) at a path."""
    *above, last = path.split("\\")
    key = replace(key, name=last)
    for name in reversed(above):
        key = Key(name, subkeys=(key,), inherit_class=True)
    return Key("ROOT", subkeys=(key,), inherit_class=True)


def hive(root: Key) -> bytes:
    return write_hive(Hive(root=root, minor_version=6, layered=True))


def merged(*layers: dict[str, bytes], base: str = BASE) -> str:
    files = merge_registry({"system.reg": base.encode(), "userdef.reg": b"untouched"}, layers)
    assert files.keys() <= {"system.reg"}
    return files.get("system.reg", base.encode()).decode()


def key_of(text: str | bytes, path: str) -> Key | None:
    data = text if isinstance(text, bytes) else text.encode()
    return find_key(read_wine_text(data).root, path)


def test_what_a_layer_does_not_touch_goes_through_byte_for_byte() -> None:
    assert merged() == BASE == merged({}) == merged({"Unknown_Delta": b"x"})
    text = merged(
        {"software_DELTA": hive(chain("App\\Sub", Key("", (Value("new", 4, b"\2\0\0\0"),), modified=1 << 57)))}
    )
    start = text.index("\n[Software\\\\App\\\\Sub]")
    assert text[:start] == BASE
    assert text[start:] == '\n[Software\\\\App\\\\Sub] 2767045207\n#time=200000000000000\n"new"=dword:00000002\n'


def test_a_changed_block_is_written_in_its_place_and_in_the_files_spelling() -> None:
    text = merged({"Software_Delta": hive(chain("APP", Key("", (value_tombstone("A"), named("c", sz("é"))))))})
    assert text == BASE.replace('"b"=dword:00000001\n"A"="out of order"\n', '"b"=dword:00000001\n"c"="\\xe9"\n')


def test_deleted_keys_take_all_below_with_them() -> None:
    text = merged({"Software_Delta": hive(Key("ROOT", subkeys=(tombstone("app"),), inherit_class=True))})
    begin, end = BASE.index("[Software\\\\App]"), BASE.index("[Software\\\\Classes")
    assert text == BASE[:begin] + BASE[end:]
    # made again by the next layer, it does not see through
    again = merged(
        {"Software_Delta": hive(Key("ROOT", subkeys=(tombstone("App"),), inherit_class=True))},
        {"Software_Delta": hive(chain("App\\Sub", Key("")))},
    )
    assert key_of(again, "Software\\App\\Sub") is not None and key_of(again, "Software\\App\\Sub\\Deep") is None


def test_a_key_whose_last_subkey_goes_is_still_there() -> None:
    text = merged(
        {"Software_Delta": hive(chain("App\\Sub", Key("", subkeys=(tombstone("Deep"),), inherit_class=True)))}
    )
    assert "[Software\\\\App\\\\Sub]" in text and "Deep" not in text


def test_a_link_below_means_its_target() -> None:
    delta = chain("Wow6432Node\\AppId\\{1}", Key("", (named("n", sz("v")),)))
    text = merged({"Software_Delta": hive(delta)})
    assert key_of(text, "Software\\Classes\\AppId\\{1}") is not None
    link = key_of(text, "Software\\Wow6432Node\\AppId")
    assert link is not None and not link.subkeys and link.flags == FLAG_LINK
    # a layer that deletes or replaces the link means the link
    gone = merged({"Software_Delta": hive(chain("Wow6432Node", Key("", subkeys=(tombstone("AppId"),))))})
    assert key_of(gone, "Software\\Wow6432Node\\AppId") is None and key_of(gone, "Software\\Classes\\AppId") is not None
    own = merged({"Software_Delta": hive(chain("Wow6432Node\\AppId", Key("", layering=Layering.SUPERSEDE_TREE)))})
    key = key_of(own, "Software\\Wow6432Node\\AppId")
    assert key is not None and key.flags == 0 and not key.values


def test_a_link_that_became_a_key_and_a_key_that_became_a_link() -> None:
    begin = BASE.index("[Software\\\\Wow6432Node")
    end = BASE.index(f"\n[{ENVIRONMENT}")
    own = BASE[:begin] + '[Software\\\\Wow6432Node\\\\AppId\\\\Own] 1\n"own"="1"\n' + BASE[end:]
    for before, after in ((BASE, own), (own, BASE)):
        layer = diff_registry({"system.reg": before.encode()}, {"system.reg": after.encode()})
        text = merged(layer, base=before)
        assert diff_registry({"system.reg": text.encode()}, {"system.reg": after.encode()}) == {}


def test_links_in_a_circle_are_an_error() -> None:
    target = "\\Registry\\Machine\\Software\\Loop\\In".encode("utf-16-le").hex(",")
    base = HEADER + f'\n[Software\\\\Loop] 1\n#link\n"SymbolicLinkValue"=hex(6):{target}\n'
    with pytest.raises(InvalidRequest, match=r"Software_Delta of layer 0 .*: .* round in a circle"):
        merged({"Software_Delta": hive(chain("Loop\\x", Key("")))}, base=base)


@pytest.mark.parametrize("control_set", ["ControlSet001", "CurrentControlSet"])
def test_a_setx_of_windows_is_the_machines_path(control_set: str) -> None:
    path = named("Path", sz("%SystemRoot%\\system32;C:\\app", 2))
    delta = chain(f"{control_set}\\Control\\Session Manager\\Environment", Key("", (path,), inherit_class=True))
    text = merged({"System_Delta": hive(delta)})
    assert '"Path"=str(2):"%SystemRoot%\\\\system32;C:\\\\app"' in text and "CurrentControlSet" not in text
    (name,) = found = diff_registry({"system.reg": BASE.encode()}, {"system.reg": text.encode()})
    key = find_key(read_hive(found[name]).root, "ControlSet001\\Control\\Session Manager\\Environment")
    assert name == "System_Delta" and key is not None and key.values == (path,)


def test_every_type_of_value_survives_both_ways() -> None:
    values = (
        *(Value(f"type {kind}", kind, b"\1\2\3\4") for kind in (*range(12), 0xFFFF0007, 0xFFFFFFFF)),
        *(Value(f"text {kind}", kind, b"a\0b\0\0\0") for kind in (1, 2, 7)),
        *(Value("", 7, "one\0two\0\0".encode("utf-16-le")), Value("odd", 1, b"abc"), Value("empty", 3, b"")),
    )
    text = merged({"Software_Delta": hive(chain("Types", Key("", values, class_name="Class")))})
    key = key_of(text, "Software\\Types")
    assert key is not None and set(key.values) == set(values) and key.class_name == "Class"
    back = read_hive(diff_registry({"system.reg": BASE.encode()}, {"system.reg": text.encode()})["Software_Delta"]).root
    key = find_key(back, "Types")
    assert key is not None and set(key.values) == set(values) and key.class_name == "Class"


def test_errors_name_layer_hive_and_offset() -> None:
    good = hive(chain("App", Key("")))
    bad = bytearray(good)
    bad[4096] ^= 1
    layers = ({"Software_Delta": good}, {"SYSTEM_delta": bytes(bad)})
    with pytest.raises(DamagedRegistry, match="hive System_Delta of layer 1 at offset 0x1000") as caught:
        merged(*layers)
    assert caught.value.offset == 0x1000
    with pytest.raises(InvalidRequest, match=r"Sam_Delta of layer 0 cannot be applied: .* deletes the whole hive"):
        merged({"Sam_Delta": hive(tombstone("ROOT"))})
    with pytest.raises(DamagedRegistry, match="the first line"):
        merge_registry({"system.reg": b"nothing"}, [{"Software_Delta": good}])
    broken = BASE.replace('"b"=dword:00000001', '"b"=dword:zz')
    with pytest.raises(DamagedRegistry) as damaged:
        merged({"Software_Delta": good}, base=broken)
    assert broken[damaged.value.offset :].startswith('"b"=dword:zz')
    # what nothing touches is not even looked at
    assert '"b"=dword:zz' in merged({"System_Delta": hive(chain("Empty\\x", Key("")))}, base=broken)
    deep = chain("\\".join("k" * 511), Key(""))
    with pytest.raises(InvalidRequest, match=r"Software_Delta of layer 0 .* deeper than 512"):
        merged({"Software_Delta": hive(deep)})


def test_the_default_user_is_a_file_of_its_own() -> None:
    base = {"userdef.reg": HEADER.replace("Machine", "User\\\\.Default").encode()}
    files = merge_registry(base, [{"DefaultUser_Delta": hive(chain("Environment", Key("", (named("A", sz("1")),))))}])
    assert files["userdef.reg"] == base["userdef.reg"] + b'\n[Environment]\n"A"="1"\n'
    assert read_hive(diff_registry(base, files)["DefaultUser_Delta"]).root.subkeys[0].name == "Environment"
    # a file that the image does not have
    assert merge_registry({}, [{"DefaultUser_Delta": hive(chain("A", Key("")))}])["userdef.reg"].endswith(b"\n[A]\n")


def test_a_delta_has_what_changed_and_nothing_else() -> None:
    after = (
        BASE.replace('"OS"="Windows_NT"\n', "")
        .replace("[Software\\\\Classes\\\\AppId]", "[Software\\\\Classes\\\\Other]")
        .replace("1700000000", "1800000000")
        + '\n[SAM\\\\Domains] 1\n@="x"\n\n[Elsewhere] 1\n"ignored"="x"\n'
    )
    found = diff_registry({"system.reg": BASE.encode()}, {"system.reg": after.encode()})
    assert found.keys() == {"Software_Delta", "System_Delta", "Sam_Delta"}
    software, system = (read_hive(found[name]).root for name in ("Software_Delta", "System_Delta"))
    (classes,) = software.subkeys
    assert {(key.name, key.layering) for key in classes.subkeys} == {
        ("AppId", Layering.TOMBSTONE),
        ("Other", Layering.MERGE),
    }
    environment = find_key(system, "ControlSet001\\Control\\Session Manager\\Environment")
    assert environment is not None and environment.values == (value_tombstone("OS"),)
    assert system.subkeys[0].name == "ControlSet001" and system.inherit_class


def test_nothing_changed() -> None:
    other = BASE.replace("1700000000", "1800000000").replace("1da1747c66d0000", "1da1747c66d0001")
    # in another order, and with the values of a key in another order
    blocks = other.replace('"b"=dword:00000001\n"A"="out of order"', '"A"="out of order"\n"b"=dword:00000001').split(
        "\n["
    )
    shuffled = "\n[".join((blocks[0], *reversed(blocks[1:])))
    for after in (BASE, other, shuffled):
        assert diff_registry({"system.reg": BASE.encode()}, {"system.reg": after.encode()}) == {}
    assert diff_registry({"system.reg": BASE.encode()}, {}) == {} == diff_registry({}, {"user.reg": BASE.encode()})


def test_keys_that_exist_only_by_those_below_them_are_not_taken_for_deleted() -> None:
    # App loses its values, so Wine no longer writes a block for it
    begin, end = BASE.index("[Software\\\\App]"), BASE.index("[Software\\\\App\\\\Sub")
    delta = diff_wine_file("system.reg", BASE.encode(), (BASE[:begin] + BASE[end:]).encode())
    app = find_key(delta or Key(""), "Software\\App")
    assert app is not None and app.layering is Layering.MERGE and {value.name for value in app.values} == {"b", "A"}
    assert not app.subkeys and all(value.tombstone for value in app.values)
    # and the other way round
    delta = diff_wine_file("system.reg", (BASE[:begin] + BASE[end:]).encode(), BASE.encode())
    app = find_key(delta or Key(""), "Software\\App")
    assert app is not None and len(app.values) == 2 and not app.subkeys


def test_trees_as_deep_as_allowed() -> None:
    def file(value: str) -> bytes:
        return (HEADER + "\n[Software" + "\\\\k" * 510 + f']\n"x"="{value}"\n').encode()

    before, after = {"system.reg": file("a")}, {"system.reg": file("b")}
    assert before | merge_registry(before, [diff_registry(before, after)]) == after
    deeper = file("b").replace(b"Software\\\\", b"Software\\\\k\\\\")
    with pytest.raises(DamagedRegistry, match="deeper than 512"):
        diff_registry(before, {"system.reg": deeper})


def test_a_deleted_hive_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="Software was deleted"):
        diff_registry({"system.reg": BASE.encode()}, {"system.reg": HEADER.encode()})


def wine(root: Key, architecture: str = "win64") -> bytes:
    return write_wine_text(WineRegistry(replace(root, name=""), "REGISTRY\\Machine", architecture))


def tree(data: bytes) -> Key:
    return spelled_alike(read_wine_text(data).root)


def spelled_alike(key: Key) -> Key:
    """Normalized; a key's name is the one that the image has, however a layer or a container spells it."""
    return normalized(_folded(key))


def _folded(key: Key) -> Key:
    return replace(key, name=fold(key.name), subkeys=tuple(map(_folded, key.subkeys)))


PLAIN = trees(security=False)
LAYERS = st.lists(trees(layers=True, security=False), max_size=3)


@settings(deadline=None, max_examples=150)
@given(PLAIN, PLAIN)
def test_the_delta_is_that_of_the_whole_trees(old: Key, new: Key) -> None:
    before, after = wine(old), wine(new)
    found = diff_wine_file("other.reg", before, after)
    plain = [_folded(read_wine_text(data).root) for data in (before, after)]
    expected = diff_trees(*plain)
    assert (found is None) == (expected is None)
    if found is None or expected is None:
        return
    assert spelled_alike(merge_trees(plain[0], found)) == spelled_alike(plain[1])
    if not any(key.flags & FLAG_LINK for _, key in walk(plain[0])):
        assert spelled_alike(found) == spelled_alike(expected)


@settings(deadline=None, max_examples=150)
@given(PLAIN, LAYERS)
def test_merging_is_that_of_the_whole_trees(base: Key, layers: list[Key]) -> None:
    before = wine(base)
    after = merge_wine_file("other.reg", before, [("x", layer) for layer in layers])
    expected = normalized(merge_trees(read_wine_text(before).root, *layers))
    # the text has no security descriptors, and of flags the link alone
    assert tree(after) == tree(wine(expected))


@settings(deadline=None, max_examples=200)
@given(PLAIN, PLAIN)
def test_an_image_with_its_layer_is_the_container(old: Key, new: Key) -> None:
    roots = [Key("", subkeys=(replace(root, name="Software"), Key("System"))) for root in (old, new)]
    before, after = ({"system.reg": wine(root)} for root in roots)
    layer = diff_registry(before, after)
    assert (layer == {}) == (tree(before["system.reg"]) == tree(after["system.reg"]))
    result = before | merge_registry(before, [layer])
    assert tree(result["system.reg"]) == tree(after["system.reg"])
    assert diff_registry(result, after) == {}


def test_a_base_of_17000_keys_with_three_layers_is_merged_in_well_under_a_second() -> None:
    block = (
        '\n[Software\\\\Classes\\\\Key{0}\\\\Sub] 1700000000\n#time=1da1747c66d0000\n@="text {0}"\n"b"=dword:00000001\n'
    )
    base = {"system.reg": (BASE + "".join(block.format(number) for number in range(17_000))).encode()}
    layers = [
        {
            "Software_Delta": hive(
                chain("Classes", Key("", subkeys=tuple(Key(f"key{n}", (sz("x"),)) for n in range(start, 17_000, 40))))
            ),
            "System_Delta": hive(chain("ControlSet001\\Services\\App", Key("", (sz("y"),)))),
        }
        for start in range(3)
    ]
    begin = time.process_time()
    merged_files = merge_registry(base, layers)
    took = time.process_time() - begin
    assert merged_files["system.reg"].count(b"\n[") == base["system.reg"].count(b"\n[") + 3 * 425 + 1
    assert took < 2
    changed = merged_files["system.reg"].replace(b'@="text 500"', b'@="other"')
    begin = time.process_time()
    delta = diff_registry(merged_files, {"system.reg": changed})
    assert time.process_time() - begin < 2
    key = find_key(read_hive(delta["Software_Delta"]).root, "Classes\\Key500\\Sub")
    assert key is not None and find_value(key, "") == sz("other")
