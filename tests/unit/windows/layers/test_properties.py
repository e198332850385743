"""Records of a layer's tar ↔ properties."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import InvalidRequest
from silo.model.tar_format import build_time
from silo.windows.layers import security
from silo.windows.layers.properties import Properties, build_records, parse_records, parse_time
from tests.support.windows_layers import descriptor, sid


def parse(records: dict[str, str], *, is_directory: bool = False) -> Properties:
    raw = {key: value.encode() for key, value in records.items()}
    return parse_records(raw, is_directory=is_directory, warn=lambda _: None)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_records_and_properties_go_both_ways() -> None:
    properties = Properties(
        attributes=0x2020,
        created_ns=-1_500_000_000,
        descriptor=descriptor(sid(18)),
        extended={"$KERNEL.PURGE.ESBCACHE": b"\0\xff"},
        is_junction=True,
    )
    built = build_records(properties, attributes=0x2020, modified_ns=7, is_directory=False, is_users=False)
    assert built["LIBARCHIVE.creationtime"] == b"-1.5" and built["atime"] == b"0.000000007"
    assert parse_records(built, is_directory=False, warn=lambda _: None) == properties


def test_the_default_descriptor_is_as_good_as_none() -> None:
    for is_directory in (False, True):
        built = build_records(Properties(), attributes=0, modified_ns=0, is_directory=is_directory, is_users=False)
        found = parse_records(built, is_directory=is_directory, warn=lambda _: None)
        assert found.descriptor == b"" and "MSWINDOWS.rawsd" in built


def test_old_descriptors_stay_text() -> None:
    found = parse({"MSWINDOWS.sd": "O:BAG:SY"})
    assert found.sddl == "O:BAG:SY"
    built = build_records(found, attributes=32, modified_ns=0, is_directory=False, is_users=False)
    assert built["MSWINDOWS.sd"] == b"O:BAG:SY" and "MSWINDOWS.rawsd" not in built
    assert parse({"MSWINDOWS.sd": "O:BA", "MSWINDOWS.rawsd": b64(descriptor(sid(18)))}).sddl == ""


def test_records_of_others_are_passed_over() -> None:
    assert parse({"SCHILY.xattr.user.a": "b", "comment": "c", "MSWINDOWS.unheard": "x"}) == Properties()


@pytest.mark.parametrize(
    "records",
    [
        {"MSWINDOWS.fileattr": "-1"},
        {"MSWINDOWS.fileattr": "4294967296"},
        {"MSWINDOWS.fileattr": "0x20"},
        {"MSWINDOWS.rawsd": "?"},
        {"MSWINDOWS.rawsd": b64(bytes(70_000))},
        {"MSWINDOWS.xattr.A": "%"},
        {"MSWINDOWS.xattr.A": b64(bytes(40_000)), "MSWINDOWS.xattr.B": b64(bytes(40_000))},
        {"MSWINDOWS.sd": "é"},
    ],
)
def test_damaged_records_are_refused(records: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        parse(records)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"0", 0),
        (b"5.25", 5_250_000_000),
        (b"1700000000.5000", 1_700_000_000_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"1.", 1_000_000_000),
        (b"1.12345678912345", 1_123_456_789),
        (b"-11644473600", -11_644_473_600_000_000_000),
        (b"-11644473601", None),
        (b"999999999999", None),
        (b"1e9", None),
        (b"", None),
        (b"-", None),
        (b"1.-5", None),
    ],
)
def test_times(raw: bytes, expected: int | None) -> None:
    assert parse_time(raw) == expected


@given(st.integers(-11_644_473_600_000_000_000, 1 << 62))
def test_times_go_both_ways(time_ns: int) -> None:
    assert parse_time(build_time(time_ns)) == time_ns


def test_a_time_that_is_none_is_told() -> None:
    told: list[str] = []
    found = parse_records({"LIBARCHIVE.creationtime": b"soon"}, is_directory=False, warn=told.append)
    assert found.created_ns is None and "soon" in told[0]


def test_whose_a_file_is() -> None:
    assert security.is_users(descriptor(sid(93, 2, 2)))
    assert not security.is_users(descriptor(sid(93, 2, 1)))
    assert not security.is_users(b"") and not security.is_users(bytes(40))
    assert security.is_users(security.default_descriptor(is_directory=True, is_users=True))


def test_default_descriptors_are_those_of_their_sddl() -> None:
    # O:BAG:SYD:(A;;FA;;;BA)(A;;FA;;;SY)(A;;0x1200a9;;;BU), put together by hand
    expected = (
        "01000480" "14000000" "24000000" "00000000" "30000000"
        "01020000000000052000000020020000" "010100000000000512000000"
        "02004C0003000000"
        "00001800FF011F0001020000000000052000000020020000"
        "00001400FF011F00010100000000000512000000"
        "00001800A900120001020000000000052000000021020000"
    )  # fmt: skip
    assert security.default_descriptor(is_directory=False, is_users=False).hex().upper() == expected
