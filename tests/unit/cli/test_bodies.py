"""What silo sends for its flags is what Docker's client sends (recorded by tests/golden/cli_record.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from silo.cli.commands.executing import build_exec
from silo.cli.commands.life import build_update
from silo.cli.commands.networks import build_connect, build_network
from silo.cli.commands.volumes import build_volume
from silo.cli.create_body import build_body
from silo.cli.failure import UsageError
from silo.cli.grammar import parse
from silo.cli.index import find_command
from tests.golden.cli_record import GOLDEN, cases, prune

RECORDED = json.loads(GOLDEN.read_text())
BUILDERS: dict[str, Any] = {
    "create": build_body,
    "exec": build_exec,
    "update": build_update,
    "network create": build_network,
    "network connect": build_connect,
    "volume create": build_volume,
}


def test_every_case_is_recorded() -> None:
    assert [case["words"] for case in RECORDED] == cases()


@pytest.mark.parametrize(
    "case",
    [case for case in RECORDED if case["words"][:2] != ["network", "disconnect"]],
    ids=lambda c: " ".join(c["words"]),
)
def test_the_body_is_dockers(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSED_ON", "yes")
    command, rest = find_command(case["words"])
    assert prune(BUILDERS[command.words](parse(command, rest))) == case["body"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--restart", "always", "--rm"), "--restart and --rm"),
        (("-p", "80:90:100:110"), "invalid IP address"),
        (("-p", "99999"), "invalid port range"),
        (("-p", "1-3:5-6"), "not of the same length"),
        (("--mount", "type=bind,src=/a"), "target is missing"),
        (("--mount", "typ=bind,dst=/a"), "did you mean type"),
        (("--mount", "type=bind,dst=/a,volume-nocopy"), "do not fit type=bind"),
        (("--ulimit", "nofile=20:10"), "soft limit"),
        (("--env-file", "/nonexistent"), "--env-file /nonexistent"),
        (("--security-opt", "seccomp=/nonexistent"), "seccomp"),
        (("--device", "a:b:c:d"), "invalid device"),
        (("--add-host", "nothing"), "bad format"),
        (("--health-cmd", "x", "--no-healthcheck"), "conflicts"),
        (("--network", "name=a,nonsense=b"), "nonsense"),
        (("--restart", "on-failure:x"), "invalid restart policy"),
        (("-v", "a:b:c:d"), "invalid volume specification"),
        (("-a", "sideways"), "--attach"),
    ],
)
def test_wrong_words_are_told(words: tuple[str, ...], said: str) -> None:
    command, rest = find_command(["create", *words, "busybox"])
    with pytest.raises(UsageError, match=said):
        build_body(parse(command, rest))


def test_a_seccomp_profile_is_read_here(tmp_path: Any) -> None:
    profile = tmp_path / "p.json"
    profile.write_text('{\n "defaultAction": "SCMP_ACT_ALLOW" }')
    command, rest = find_command(["create", "--security-opt", f"seccomp={profile}", "x"])
    body = build_body(parse(command, rest))
    assert body["HostConfig"]["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']


def test_relative_sources_become_absolute(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command, rest = find_command(["create", "-v", "./a:/b", "--mount", "type=bind,src=../c,dst=/d", "x"])
    host = build_body(parse(command, rest))["HostConfig"]
    assert host["Binds"] == [f"{tmp_path}/a:/b"]
    assert host["Mounts"][0]["Source"] == str(tmp_path.parent / "c")
