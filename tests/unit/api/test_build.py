"""The query of `POST /build`: every option is understood or refused by name; and the answer's lines."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from silo.api.decode.build import parse_build
from silo.api.handlers.builds import BuildStream
from silo.engine.building.request import BuildRequest, Credentials
from silo.errors import InvalidRequest, Unsupported
from silo.model.container import Resources, Ulimit
from silo.model.platform import Isolation


class Query:
    """What parse_build needs of a call."""

    def __init__(self, words: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._values = parse_qs(urlencode(words, doseq=True), keep_blank_values=True)
        self.headers = headers or {}

    def values(self, key: str) -> list[str]:
        return self._values.get(key, [])

    def text(self, key: str, default: str = "") -> str:
        return self._values.get(key, [default])[0]

    def flag(self, key: str, default: bool = False) -> bool:
        values = self.values(key)
        return values[0] not in ("", "0", "false") if values else default

    def number(self, key: str) -> int | None:
        return int(self.text(key)) if self.text(key) else None


def parse(headers: dict[str, str] | None = None, **words: Any) -> BuildRequest:
    return parse_build(Query(words, headers), default_isolation=Isolation.PROCESS)


def test_everything_that_the_client_sends() -> None:
    request = parse(
        t=["a:1", "b", "a:1"], q="1", nocache="1", rm="0", forcerm="1", pull="1", target="stage", platform="Linux/AMD64",
        dockerfile="dir\\Dockerfile", buildargs='{"A":"1","B":null}', labels='{"l":"m"}', cachefrom='["c"]',
        extrahosts=["a:1.2.3.4,b=::1"], networkmode="host", isolation="hyperv", memory="1000", memswap="-1", cpushares="5",
        cpuperiod="6", cpuquota="7", cpusetcpus="0", cpusetmems="1", shmsize="8", version="1", session="x", buildid="y",
        ulimits='[{"Name":"nofile","Soft":1,"Hard":2}]', securityopt='["seccomp=unconfined"]', nanocpus="9",
    )  # fmt: skip
    assert request == BuildRequest(
        tags=("a:1", "b"), quiet=True, no_cache=True, remove=False, force_remove=True, pull=True, target="stage",
        platform="linux/amd64", dockerfile="dir/Dockerfile", build_args={"A": "1"}, labels={"l": "m"}, cache_from=("c",),
        extra_hosts=("a:1.2.3.4", "b:::1"), network_mode="host", isolation=Isolation.HYPERV, seccomp="unconfined",
        resources=Resources(
            memory_bytes=1000, memory_swap_bytes=-1, cpu_shares=5, cpu_period_us=6, cpu_quota_us=7, cpuset_cpus="0",
            cpuset_mems="1", shm_size_bytes=8, nano_cpus=9, ulimits=(Ulimit(name="nofile", soft=1, hard=2),),
        ),
    )  # fmt: skip


def test_nothing_said() -> None:
    assert parse() == BuildRequest()
    assert parse(buildargs="", labels="{}", cachefrom="null", ulimits="[]", outputs="[]") == BuildRequest()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"version": "2"}, "DOCKER_BUILDKIT=0"),
        ({"remote": "client-session"}, "session"),
        ({"squash": "1"}, "--squash"),
        ({"outputs": '[{"Type":"local"}]'}, "--output"),
        ({"cgroupparent": "x"}, "--cgroup-parent"),
        ({"securityopt": '["apparmor=x"]'}, "--security-opt apparmor=x"),
    ],
)
def test_what_is_refused_by_name(words: dict[str, str], named: str) -> None:
    with pytest.raises(Unsupported, match=named):
        parse(**words)


@pytest.mark.parametrize(
    "words",
    [
        {"dockerfile": "../x"},
        {"dockerfile": "a\\..\\..\\x"},
        {"buildargs": "["},
        {"buildargs": '{"a":1}'},
        {"labels": "[]"},
        {"ulimits": '[{"Name":"x"}]'},
        {"extrahosts": "nothing"},
        {"memory": "-5"},
        {"memswap": "-2"},
        {"isolation": "odd"},
        {"buildargs": "[" * 5000},
    ],
)
def test_what_is_malformed(words: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        parse(**words)


def test_credentials() -> None:
    both = base64.b64encode(b"me:secret").decode()
    logins = {
        "https://index.docker.io/v1/": {"username": "u", "password": "p"},
        "r.example": {"auth": both},
        "t": {"identitytoken": "x"},
    }
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        request = parse({"x-registry-config": encode(json.dumps(logins).encode()).decode()})
        assert request.credentials == {
            "https://index.docker.io/v1/": Credentials(username="u", password="p"),
            "r.example": Credentials(username="me", password="secret"),
        }
    assert parse({"x-registry-config": "e30="}).credentials == {}
    for text in ("*", base64.b64encode(b"[1]").decode(), "A" * 100_000):
        with pytest.raises(InvalidRequest):
            parse({"x-registry-config": text})


class Written:
    """A call that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.begun = 0

    def begin(self, _content_type: str) -> None:
        self.begun += 1

    async def write_json(self, value: Any) -> None:
        assert self.begun == 1
        self.lines.append(value)


def test_the_answer_begins_with_its_first_line() -> None:
    async def work() -> None:
        call = Written()
        output = BuildStream(call, quiet=False)  # type: ignore[arg-type]
        assert not call.begun
        await output.say("Step 1/1 : FROM x\n")
        output.report("layer", "Pulling", 1, 2)

        async def pulling() -> str:
            output.report("layer", "Pulling", 2, 2)
            await asyncio.sleep(0.05)
            return "done"

        assert await output.run(pulling()) == "done"
        await output.tell_image("sha256:x")
        assert call.lines[0] == {"stream": "Step 1/1 : FROM x\n"} and call.lines[-1] == {"aux": {"ID": "sha256:x"}}
        assert {"layer"} == {line["id"] for line in call.lines[1:-1]}

    asyncio.run(work())


def test_quiet_keeps_what_a_failure_needs() -> None:
    async def work() -> None:
        call = Written()
        output = BuildStream(call, quiet=True)  # type: ignore[arg-type]
        await output.say("one\n")
        for _ in range(100):
            await output.say("x" * 10_000)
        await output.say("last\n")
        assert not call.lines
        await output.tell_kept()
        assert len(call.lines) == 1 and call.lines[0]["stream"].endswith("last\n")
        assert len(call.lines[0]["stream"]) < 300_000

    asyncio.run(work())


def test_a_cancelled_answer_cancels_the_build() -> None:
    async def work() -> None:
        output = BuildStream(Written(), quiet=False)  # type: ignore[arg-type]
        ended: list[str] = []

        async def building() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0.01)
                ended.append("cleaned up")

        task = asyncio.ensure_future(output.run(building()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["cleaned up"]

    asyncio.run(work())
