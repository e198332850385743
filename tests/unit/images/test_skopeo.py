"""skopeo's command lines (golden), whom TLS is asked of, and what failures mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from silo.errors import AccessDenied, CommandFailed, HostError, NoSpace, NotFound, Unavailable
from silo.images.references import parse_reference
from silo.images.skopeo import (
    Access,
    build_authfile,
    build_inspect_config,
    build_inspect_manifest,
    build_login,
    build_pull,
    build_push,
    explain_failure,
    registry_domain,
    verifies_tls,
)

REFERENCE = parse_reference("registry.example/team/app:1.0")


def test_command_lines() -> None:
    plain = Access()
    keyed = Access(authfile=Path("/s/auth"), verify_tls=False, has_policy=False)
    assert build_inspect_manifest(REFERENCE, plain) == [
        "skopeo", "inspect", "--raw", "--retry-times=2", "--tls-verify=true", "--no-creds", "docker://registry.example/team/app:1.0",
    ]  # fmt: skip
    assert build_inspect_config(REFERENCE, keyed) == [
        "skopeo", "--insecure-policy", "inspect", "--config", "--raw", "--retry-times=2", "--tls-verify=false",
        "--authfile=/s/auth", "docker://registry.example/team/app:1.0",
    ]  # fmt: skip
    assert build_pull(REFERENCE, keyed, layout=Path("/s/l"), blobs=Path("/s/b")) == [
        "skopeo", "--insecure-policy", "copy", "--retry-times=2", "--src-tls-verify=false", "--src-authfile=/s/auth",
        "--dest-shared-blob-dir=/s/b", "docker://registry.example/team/app:1.0", "oci:/s/l:pulled",
    ]  # fmt: skip
    assert build_push(REFERENCE, plain, source=Path("/s/d"), digest_file=Path("/s/x")) == [
        "skopeo", "copy", "--preserve-digests", "--digestfile=/s/x", "--retry-times=2", "--dest-tls-verify=true",
        "--dest-no-creds", "dir:/s/d", "docker://registry.example/team/app:1.0",
    ]  # fmt: skip


def test_login() -> None:
    assert build_login("r.example", "ada", Access(authfile=Path("/s/a"))) == [
        "skopeo", "login", "--tls-verify=true", "--authfile=/s/a", "--username=ada", "--password-stdin", "r.example",
    ]  # fmt: skip
    servers = ("https://index.docker.io/v1/", "", "https://r.example:5000/v2/", "r.example")
    assert [registry_domain(server) for server in servers] == ["docker.io", "docker.io", "r.example:5000", "r.example"]


def test_the_authfile_names_one_registry() -> None:
    assert json.loads(build_authfile("r.example:5000", "ada", "pa:ss")) == {
        "auths": {"r.example:5000": {"auth": "YWRhOnBhOnNz"}}
    }


@pytest.mark.parametrize(
    ("domain", "verified"),
    [
        ("docker.io", True),
        ("localhost", False),
        ("localhost:5000", False),
        ("127.9.9.9:5000", False),
        ("[::1]:5000", False),
        ("[::1]", False),
        ("10.0.0.1:5000", True),
        ("localhost.evil.example", True),
        ("lab.example:5000", False),
        ("named.example", False),
        ("named.example:443", False),
    ],
)
def test_tls_is_left_out_for_loopback_and_named_registries_only(domain: str, verified: bool) -> None:
    assert verifies_tls(domain, ["lab.example:5000", "named.example"]) is verified


FATAL = 'time="2024-01-01T00:00:00Z" level=fatal msg="{}"\n'


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (
            "Error reading manifest 2 in r/x: manifest unknown: manifest unknown",
            NotFound,
            "manifest for registry.example/team/app:1.0 not",
        ),
        (
            "reading manifest latest in r/x: name unknown: repository name not known to registry",
            NotFound,
            "repository registry.example",
        ),
        (
            "reading manifest latest in docker.io/x/y: requested access to the resource is denied",
            AccessDenied,
            "docker login",
        ),
        ("unable to retrieve auth token: invalid username/password: unauthorized", AccessDenied, "pull access denied"),
        (
            "pinging container registry: dial tcp 1.2.3.4:443: connect: connection refused",
            Unavailable,
            "cannot be reached",
        ),
        ("dial tcp: lookup r on 1.1.1.1:53: no such host", Unavailable, "cannot be reached"),
        ('reading blob sha256:1: Get "http://r/v2/x/blobs/sha256:1": EOF', Unavailable, "cannot be reached"),
        ("toomanyrequests: You have reached your pull rate limit", Unavailable, "limits requests"),
        ("http: server gave HTTP response to HTTPS client", HostError, "insecure_registries"),
        ("x509: certificate signed by unknown authority", HostError, "TLS"),
        ("writing blob: write /x: no space left on device", NoSpace, "no space left"),
        ("something else entirely", HostError, "something else entirely"),
    ],
)
def test_failures(message: str, kind: type[Exception], text: str) -> None:
    error = explain_failure(CommandFailed(("skopeo",), 1, FATAL.format(message)), REFERENCE, pushing=False)
    assert type(error) is kind and text in str(error)


def test_failures_of_a_push() -> None:
    failed = CommandFailed(
        ("skopeo",), 1, FATAL.format("writing blob: denied: requested access to the resource is denied")
    )
    error = explain_failure(failed, REFERENCE, pushing=True)
    assert isinstance(error, AccessDenied) and error.hint == "docker login"


def test_what_skopeo_calls_a_name_is_not_told_as_the_cause() -> None:
    message = r"Error parsing image name \"docker://r.example/a:1\": pinging container registry r.example: dial tcp: no such host"
    error = explain_failure(CommandFailed(("skopeo",), 1, FATAL.format(message)), REFERENCE, pushing=False)
    assert isinstance(error, Unavailable) and error.details.startswith("pinging container registry")
