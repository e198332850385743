"""Sizes, times, tables, templates, JSON, ports: what is printed."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from silo.cli.commands.containers import describe_ports, quote_go
from silo.cli.commands.images import image_rows, split_reference
from silo.cli.failure import Failure, UsageError
from silo.cli.json_text import dumps, loads
from silo.cli.listing import render_listing
from silo.cli.moments import to_timestamp
from silo.cli.table import align, clean
from silo.cli.template import compile_template
from silo.cli.units import binary_size, ellipsis, human_duration, human_size, parse_time


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (3540, "59 minutes"),
        (3600, "About an hour"), (2.6 * 3600, "3 hours"), (47 * 3600, "47 hours"), (50 * 3600, "2 days"),
        (15 * 86400, "2 weeks"), (70 * 86400, "2 months"), (3 * 365 * 86400, "3 years"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds: float, words: str) -> None:
    assert human_duration(seconds) == words


def test_sizes_in_words() -> None:
    assert [human_size(n) for n in (0, 999, 1000, 1_982_464, 5_000_000_000)] == ["0B", "999B", "1kB", "1.98MB", "5GB"]
    assert [binary_size(n) for n in (512, 1024, 1536 << 20)] == ["512B", "1KiB", "1.5GiB"]


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-28T23:59:59Z", "2024-02-29T12:00:00.123456789Z", "2024-03-01T00:00:00+05:30", "1999-12-31T23:59:59-08:00",
        "2100-03-01T00:00:00Z",
    ],
)  # fmt: skip
def test_times_are_those_of_the_library(text: str) -> None:
    assert parse_time(text) == pytest.approx(datetime.fromisoformat(text).timestamp(), abs=1e-5)


def test_no_time() -> None:
    assert parse_time("0001-01-01T00:00:00Z") == 0.0
    assert parse_time("yesterday, about noon") == 0.0


def test_moments() -> None:
    assert to_timestamp("") == ""
    assert to_timestamp("1700000000.5") == "1700000000.5"
    assert to_timestamp("2024-01-01T00:00:00Z") == "1704067200.000000000"
    assert float(to_timestamp("1h")) < float(to_timestamp("1m"))
    with pytest.raises(UsageError, match="invalid time"):
        to_timestamp("teatime")


def test_columns_are_dockers() -> None:
    assert align([["ID", "LONGER TITLE", "LAST"], ["a", "b", ""]]) == [
        "ID        LONGER TITLE   LAST",
        "a         b              ",
    ]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert clean("a\x1b[31mb\r") == "a\\x1b[31mb\\x0d"
    assert ellipsis("abcdef", 4) == "abc…"
    assert quote_go('a "b"\n') == '"a \\"b\\"\\n"'


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}: {{.State.Code}}", "web: 3"),
        ("{{json .}}", '{"Name":"web","State":{"Code":3,"Up":true},"Args":["a","b"],"Nets":{"n":{"IP":"1"}}}'),
        ("{{json .Args}}", '["a","b"]'),
        ("{{upper .Name}} {{.Name | upper | lower}}", "WEB web"),
        ('{{join .Args ", "}} {{len .Args}}', "a, b 2"),
        ("{{range .Args}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range $k, $v := .Nets}}{{$k}}={{$v.IP}}{{end}}", "n=1"),
        ("{{if .State.Up}}up{{else}}down{{end}}", "up"),
        ("{{if not .State.Up}}down{{end}}", ""),
        ('{{(index .Nets "n").IP}}', "1"),
        ('{{(index (index .Nets "n") "IP")}}', "1"),
        ('{{index .Args 1}}{{"\\n"}}', "b\n"),
        ("{{.Missing}} {{.Args}} {{.State}}", "<no value> [a b] map[Code:3 Up:true]"),
        ("a\\tb", "a\tb"),
        ("x  {{- /* nothing */ -}}  y", "xy"),
    ],
)
def test_templates(template: str, text: str) -> None:
    value = {"Name": "web", "State": {"Code": 3, "Up": True}, "Args": ["a", "b"], "Nets": {"n": {"IP": "1"}}}
    assert compile_template(template)(value) == text


@pytest.mark.parametrize(
    "template", ["{{.A", "{{printf .A}}", "{{range .A}}", '{{template "x"}}', "{{and .A .B}}", "{{with .A}}{{end}}"]
)
def test_what_templates_cannot_do_is_told(template: str) -> None:
    with pytest.raises(Failure, match="template"):
        compile_template(template)


def test_strict_templates_want_fields_that_exist() -> None:
    assert compile_template("{{if .B}}x{{end}}{{.A}}", strict=True)({"A": 1}) == "1"
    with pytest.raises(Failure, match="no field"):
        compile_template("{{.B.C}}", strict=True)({"A": 1})


def test_listings_in_their_three_forms() -> None:
    rows = [{"ID": "1", "Names": "web", "Other": "x"}]
    columns, titles = (
        (("ID", "CONTAINER ID"), ("Names", "NAMES")),
        {"ID": "CONTAINER ID", "Names": "NAMES", "Other": "OTHER"},
    )
    assert render_listing(rows, columns, "", titles) == ["CONTAINER ID   NAMES", "1              web"]
    assert render_listing(rows, columns, "json", titles) == ['{"ID":"1","Names":"web","Other":"x"}']
    assert render_listing(rows, columns, "{{.Other}}", titles) == ["x"]
    assert render_listing(rows, columns, "table {{.Names}}\\t{{.Other}}", titles) == ["NAMES     OTHER", "web       x"]
    with pytest.raises(Failure, match=r"no field Name \(known: ID, Names, Other\)"):
        render_listing(rows, columns, "{{.Name}}", titles)


@pytest.mark.parametrize(
    "value",
    [{}, [], {"a": [1, -2.5, 1e300, True, None, 'q"\\\n\x01é€😀']}, [[{}], {"b": []}], "x", 12345678901234567890],
)
def test_json_is_the_librarys(value: object) -> None:
    assert json.loads(dumps(value)) == value == loads(json.dumps(value))
    assert dumps(value, indent="    ") == json.dumps(value, indent=4, ensure_ascii=False)


@pytest.mark.parametrize("text", ["", "{", '{"a":}', "[1,]", "{} x", '"\\x"'])
def test_bad_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


def test_ports_are_grouped() -> None:
    def tcp(inner: int, outer: int = 0, ip: str = "", kind: str = "tcp") -> dict[str, object]:
        return {"PrivatePort": inner, "Type": kind} | ({"PublicPort": outer, "IP": ip} if ip else {})

    assert describe_ports([tcp(80), tcp(81), tcp(90)]) == "80-81/tcp, 90/tcp"
    assert describe_ports([tcp(80, 8080, "0.0.0.0"), tcp(80, 8080, "::")]) == "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
    assert describe_ports([tcp(7, 7, "0.0.0.0", "udp"), tcp(8, 8, "0.0.0.0", "udp")]) == "0.0.0.0:7-8->7-8/udp"


def test_image_names() -> None:
    assert split_reference("host:5000/a/b") == ("host:5000/a/b", "")
    assert split_reference("host:5000/a:1") == ("host:5000/a", "1")
    image = {"RepoTags": ["a:1", "a:2"], "RepoDigests": ["a@sha256:x", "b@sha256:y"]}
    assert image_rows(image, digests=False) == [("a", "1", "<none>"), ("a", "2", "<none>"), ("b", "<none>", "sha256:y")]
    assert image_rows({}, digests=True) == [("<none>", "<none>", "<none>")]
