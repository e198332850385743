"""References: the grammar of distribution/reference, and what a user is told when it is not met."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import InvalidRequest
from silo.images.references import parse_id_prefix, parse_reference, parse_tag_target

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("bitnami/redis", "docker.io/bitnami/redis", "bitnami/redis"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/a/b:1.0", "localhost:5000/a/b:1.0", "localhost:5000/a/b:1.0"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x", "127.0.0.1:5000/x"),
        ("[::1]:5000/x:t", "[::1]:5000/x:t", "[::1]:5000/x:t"),
        ("ghcr.io/o/p__q-r.s", "ghcr.io/o/p__q-r.s", "ghcr.io/o/p__q-r.s"),
        ("Registry/x", "Registry/x", "Registry/x"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}", f"alpine@{DIGEST}"),
        (f"alpine:3@{DIGEST}", f"docker.io/library/alpine:3@{DIGEST}", f"alpine:3@{DIGEST}"),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
    ],
)
def test_names(text: str, canonical: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (reference.canonical, reference.familiar) == (canonical, familiar)
    assert parse_reference(familiar) == parse_reference(canonical) == reference


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("UPPER", "must be lowercase"),
        ("a//b", "empty part"),
        ("/a", "empty part"),
        ("a/", "empty part"),
        ("-a", "may hold"),
        ("a..b", "may hold"),
        ("a___b", "may hold"),
        ("a:", "tag"),
        ("a:.x", "tag"),
        ("a:" + "t" * 129, "tag"),
        ("a b", "may hold"),
        ("a\n", "may hold"),
        ("a@sha256:123", "64 hexadecimal"),
        ("a@md5:" + "0" * 32, "64 hexadecimal"),
        (f"a@{DIGEST.upper()}", "64 hexadecimal"),
        ("0" * 64, "an id"),
        ("http://x/y", "registry's host"),
        ("host_name.x/y", "registry's host"),
        ("x" * 300, "longer than 255"),
        ("x" * 3000, "longer than 1024"),
        ("ä", "may hold"),
        ("a:\u0661", "tag"),
    ],
)
def test_what_is_none(text: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid reference format") as caught:
        parse_reference(text)
    assert why in caught.value.details
    assert len(str(caught.value)) < 1500


def test_targets_of_tag() -> None:
    assert parse_tag_target("a").canonical == "docker.io/library/a:latest"
    with pytest.raises(InvalidRequest, match="invalid reference"):
        parse_tag_target(f"a@{DIGEST}")


def test_id_prefixes() -> None:
    assert parse_id_prefix("sha256:ab") == "ab" and parse_id_prefix("0f") == "0f"
    assert parse_id_prefix("0g") is None and parse_id_prefix("") is None and parse_id_prefix("a" * 65) is None


@given(st.text(max_size=300))
def test_any_text_is_a_reference_or_an_invalid_request(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidRequest:
        return
    assert parse_reference(reference.canonical) == reference
    assert len(reference.name) <= 255
