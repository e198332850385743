"""Every route over the real engine and fakes: status, shape, and what reaches the engine."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import uvloop

from silo.api.document import render_table
from silo.api.routes import UNSUPPORTED, build_routes
from silo.api.routing import Router
from silo.errors import ProcessStartFailed, ToolMissing
from silo.model.image import Healthcheck, ImageConfig
from tests.unit.api.bench import ApiBench
from tests.unit.api.wire import Answer, Client, call, parse_frames

Work = Callable[["Site"], Awaitable[None]]
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


class Site:
    def __init__(self, bench: ApiBench) -> None:
        self.bench = bench

    async def call(self, method: str, target: str, body: object = None, **options: Any) -> Answer:
        return await call(self.bench.socket_path, method, f"/v1.50{target}", body, **options)

    async def create(self, *command: str, name: str = "box", **members: Any) -> str:
        answer = await self.call("POST", f"/containers/create?name={name}", {"Image": "bb", "Cmd": command} | members)
        assert answer.status == 201, answer.body
        return str(answer.json()["Id"])

    async def run(self, *command: str, name: str = "box", **members: Any) -> str:
        made = await self.create(*command, name=name, **members)
        assert (await self.call("POST", f"/containers/{name}/start")).status == 204
        return made

    async def finish(self, *command: str, name: str = "box", **members: Any) -> str:
        """Run to the end."""
        made = await self.run(*command, name=name, **members)
        await self.call("POST", f"/containers/{name}/wait")
        return made

    async def hijack(self, client: Client, target: str, body: object = None) -> int:
        data = json.dumps(body).encode() if body is not None else b""
        head = f"POST /v1.50{target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(data)}"
        await client.send(head.encode() + b"\r\n\r\n" + data)
        status, self.headers = await client.head()
        return status


def run(work: Work) -> None:
    async def bounded() -> None:
        async with ApiBench().serving() as bench:
            await asyncio.wait_for(work(Site(bench)), 20)

    uvloop.run(bounded())


def test_ping_version_info() -> None:
    async def work(site: Site) -> None:
        for method in ("GET", "HEAD"):
            answer = await call(site.bench.socket_path, method, "/_ping")
            assert answer.status == 200 and answer.headers["api-version"] == "1.50"
            assert "no-cache" in answer.headers["cache-control"]
        version = (await site.call("GET", "/version")).json()
        assert version["ApiVersion"] == "1.50" and version["MinAPIVersion"] == "1.24"
        assert [part["Name"] for part in version["Components"]] == ["Engine", "fake", "fake-vm"]
        info = (await site.call("GET", "/info")).json()
        assert info["Images"] == 1 and ["network: firewall", "fake"] in info["DriverStatus"]

    run(work)


def test_a_docker_run_as_the_client_does_it() -> None:
    """create, attach, wait (whose head must come before the start), start."""

    async def work(site: Site) -> None:
        path = site.bench.socket_path
        made = await site.create("both")
        async with Client(path) as attached, Client(path) as waiting:
            target = f"/containers/{made}/attach?stdout=1&stderr=1&stream=1"
            assert await site.hijack(attached, target) == 101
            assert site.headers["content-type"] == "application/vnd.docker.multiplexed-stream"
            attached.writer.write_eof()
            await waiting.send(
                f"POST /v1.50/containers/{made}/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
            assert (await waiting.head())[0] == 200
            assert (await site.call("POST", f"/containers/{made}/start")).status == 204
            assert parse_frames(await attached.reader.read()) == [(1, b"out\n"), (2, b"err\n")]
            assert json.loads(await waiting.chunk()) == {"StatusCode": 0}
        assert (await site.call("POST", f"/containers/{made}/start")).status == 204

    run(work)


def test_an_image_that_is_missing_makes_the_client_pull() -> None:
    async def work(site: Site) -> None:
        answer = await site.call("POST", "/containers/create", {"Image": "nosuch"})
        assert answer.status == 404 and answer.message == "No such image: nosuch"

    run(work)


@pytest.mark.parametrize(
    ("kind", "words"), [("not_found", "executable file not found"), ("permission", "permission denied")]
)
def test_a_failing_start_says_what_the_client_turns_into_127_and_126(kind: str, words: str) -> None:
    async def work(site: Site) -> None:
        made = await site.create("fail", kind)
        answer = await site.call("POST", f"/containers/{made}/start")
        assert answer.status == 400 and words in answer.message

    run(work)


def test_words_for_a_failing_start_are_added_where_a_personality_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(site: Site) -> None:
        for number, (kind, wanted) in enumerate(
            (
                ("not_found", "executable file not found"),
                ("permission", "permission denied"),
                ("not_executable", "permission denied"),
            )
        ):

            async def fail(_id: str, kind: Any = kind) -> None:
                raise ProcessStartFailed("Windows error 3", kind=kind)

            made = await site.create("sleep", name=f"box{number}")
            monkeypatch.setattr(site.bench.runtime, "start", fail)
            answer = await site.call("POST", f"/containers/{made}/start")
            assert answer.status == 400 and answer.message == f"Windows error 3: {wanted}"

    run(work)


def test_states_of_a_container() -> None:
    async def work(site: Site) -> None:
        await site.run("sleep")
        shown = (await site.call("GET", "/containers/box/json")).json()
        assert shown["State"]["Status"] == "running" and shown["State"]["Pid"] == 4242 and shown["Name"] == "/box"
        assert shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"
        assert (await site.call("POST", "/containers/box/start")).status == 304
        for verb, status in (("pause", "paused"), ("unpause", "running")):
            assert (await site.call("POST", f"/containers/box/{verb}")).status == 204
            assert (await site.call("GET", "/containers/box/json")).json()["State"]["Status"] == status
        assert (await site.call("POST", "/containers/box/unpause")).status == 409
        assert (await site.call("DELETE", "/containers/box")).status == 409
        assert (await site.call("POST", "/containers/box/restart?t=1")).status == 204
        assert (await site.call("POST", "/containers/box/rename?name=other")).status == 204
        assert (await site.call("POST", "/containers/other/stop?t=1")).status == 204
        assert (await site.call("POST", "/containers/other/stop")).status == 304
        assert (await site.call("POST", "/containers/other/kill?signal=TERM")).status == 409
        assert (await site.call("DELETE", "/containers/other?v=1")).status == 204
        assert (await site.call("GET", "/containers/other/json")).status == 404

    run(work)


@pytest.mark.parametrize(
    "bad", ["stop?t=x", "kill?signal=NOSUCH", "resize?h=a&w=1", "resize?h=5", "wait?condition=moon"]
)
def test_bad_parameters(bad: str) -> None:
    async def work(site: Site) -> None:
        await site.run("sleep")
        assert (await site.call("POST", f"/containers/box/{bad}")).status == 400

    run(work)


def test_attach_with_input_and_detach_keys() -> None:
    async def work(site: Site) -> None:
        path = site.bench.socket_path
        await site.run("cat", OpenStdin=True, StdinOnce=True, Tty=True)
        query = "stdin=1&stdout=1&stream=1"
        async with Client(path) as client:
            assert await site.hijack(client, f"/containers/box/attach?{query}") == 101
            assert site.headers["content-type"] == "application/vnd.docker.raw-stream"
            await client.send(b"typed")
            assert await client.reader.readexactly(5) == b"typed"
            await client.send(b"\x10")
            await client.send(b"\x11")
            assert await client.reader.read() == b"", "ctrl-p ctrl-q ends the connection"
        async with Client(path) as client:
            assert await site.hijack(client, f"/containers/box/attach?{query}&detachKeys=a,b") == 101
            await client.send(b"xay")
            assert await client.reader.readexactly(3) == b"xay"
            await client.send(b"ab")
            assert await client.reader.read() == b""
        assert (await site.call("GET", "/containers/box/json")).json()["State"]["Running"]
        assert (await site.call("POST", "/containers/box/attach?detachKeys=ctrl-%C3%A4")).status == 400
        await site.call("POST", "/containers/box/resize?h=30&w=90")
        assert site.bench.runtime.sizes == [(30, 90)]

    run(work)


def test_the_end_of_input_reaches_a_container_without_terminal() -> None:
    async def work(site: Site) -> None:
        made = await site.create("cat", OpenStdin=True, StdinOnce=True)
        async with Client(site.bench.socket_path) as client:
            await site.hijack(client, f"/containers/{made}/attach?stdin=1&stdout=1&stream=1")
            await client.send(b"piped")
            client.writer.write_eof()
            await site.call("POST", f"/containers/{made}/start")
            assert parse_frames(await client.reader.read()) == [(1, b"piped")]

    run(work)


def test_logs_in_every_form() -> None:
    async def work(site: Site) -> None:
        await site.finish("both")
        answer = await site.call("GET", "/containers/box/logs?stdout=1&stderr=1")
        assert answer.headers["content-type"] == "application/vnd.docker.multiplexed-stream"
        assert parse_frames(answer.body) == [(1, b"out\n"), (2, b"err\n")]
        assert parse_frames((await site.call("GET", "/containers/box/logs?stderr=1")).body) == [(2, b"err\n")]
        await site.finish("echo", "hi", name="stamped")
        answer = await site.call("GET", "/containers/stamped/logs?stdout=1&timestamps=1&tail=5")
        assert parse_frames(answer.body) == [(1, b"2023-11-14T22:13:20.000000001Z hi\n")]
        assert (await site.call("GET", "/containers/stamped/logs?stdout=1&until=1600000000")).body == b""
        assert (await site.call("GET", "/containers/stamped/logs?stdout=1&tail=0")).body == b""
        old = await call(site.bench.socket_path, "GET", "/v1.41/containers/box/logs?stdout=1")
        assert old.headers["content-type"] == "application/vnd.docker.raw-stream"
        for bad in ("", "?stdout=1&tail=x", "?stdout=1&since=soon"):
            assert (await site.call("GET", f"/containers/box/logs{bad}")).status == 400

    run(work)


def test_logs_follow_until_the_program_ends() -> None:
    async def work(site: Site) -> None:
        made = await site.run("sleep")
        async with Client(site.bench.socket_path) as client:
            await client.send(
                f"GET /v1.50/containers/{made}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
            await client.head()
            site.bench.runtime.write(made, b"one\n")
            assert (await client.chunk())[8:] == b"one\n"
            site.bench.runtime.end(made)
            assert await client.chunk() == b""

    run(work)


def test_statistics() -> None:
    async def work(site: Site) -> None:
        made = await site.run("sleep")
        shown = (await site.call("GET", "/containers/box/stats?stream=0&one-shot=1")).json()
        assert shown["memory_stats"]["usage"] == 409600 and shown["networks"]["eth0"]["tx_bytes"] == 20
        assert shown["cpu_stats"]["online_cpus"] >= 1 and "system_cpu_usage" not in shown["precpu_stats"]
        async with Client(site.bench.socket_path) as client:
            await client.send(b"GET /v1.50/containers/box/stats HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.head()
            first, second = json.loads(await client.chunk()), json.loads(await client.chunk())
            assert first["id"] == made and second["precpu_stats"] == first["cpu_stats"]
            await site.call("DELETE", "/containers/box?force=1")
            assert await client.chunk() == b"", "the stream ends with the container"
        assert (await site.call("GET", "/containers/box/stats?stream=0")).status == 404

    run(work)


def test_lists_and_filters() -> None:
    async def work(site: Site) -> None:
        await site.run(
            "sleep", name="up", Labels={"a": "b"}, HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
        )
        await site.finish("exit", "3", name="down")

        async def names(**filters: list[str]) -> list[str]:
            text = quote(json.dumps(filters))
            answer = await site.call("GET", f"/containers/json?all=1&filters={text}")
            assert answer.status == 200, answer.body
            return sorted(row["Names"][0] for row in answer.json())

        both = ["/down", "/up"]
        (row,) = (await site.call("GET", "/containers/json")).json()
        assert row["Names"] == ["/up"] and row["Ports"] == [
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}
        ]
        assert row["Status"].startswith("Up ") and row["Command"] == "sleep" and row["State"] == "running"
        assert len((await site.call("GET", "/containers/json?limit=1")).json()) == 1
        assert (await site.call("GET", "/containers/json?size=1")).json()[0]["SizeRw"] == 7
        assert await names() == both and await names(ancestor=["bb"]) == both
        assert await names(label=["a"]) == ["/up"] and await names(label=["a=c"]) == []
        assert await names(status=["running"]) == ["/up"] and await names(exited=["3"]) == ["/down"]
        assert await names(name=["do"]) == ["/down"] and await names(name=["^/up$"]) == ["/up"]
        assert await names(publish=["8080"]) == ["/up"] and await names(publish=["81-90/udp"]) == []
        assert await names(expose=["80/tcp"]) == ["/up"] and await names(isolation=["DEFAULT"]) == both
        assert await names(isolation=["hyperv"]) == [] and await names(health=["none"]) == both
        assert await names(before=["down"]) == ["/up"] and await names(since=["up"]) == ["/down"]
        assert await names(network=["bridge"]) == both and await names(volume=["x"]) == []
        for bad in (
            {"nonsense": ["1"]},
            {"status": ["odd"]},
            {"health": ["ill"]},
            {"exited": ["x"]},
            {"publish": ["x"]},
        ):
            answer = await site.call("GET", f"/containers/json?filters={quote(json.dumps(bad))}")
            assert answer.status == 400 and "invalid filter" in answer.message

    run(work)


def test_exec() -> None:
    async def work(site: Site) -> None:
        await site.run("sleep")

        async def create(*command: str, **members: Any) -> str:
            flags = {"AttachStdout": True, "AttachStderr": True, "Cmd": command} | members
            answer = await site.call("POST", "/containers/box/exec", flags)
            assert answer.status == 201
            return str(answer.json()["Id"])

        both = await create("both")
        async with Client(site.bench.socket_path) as client:
            assert await site.hijack(client, f"/exec/{both}/start", {"Detach": False, "Tty": False}) == 101
            assert sorted(parse_frames(await client.reader.read())) == [(1, b"out\n"), (2, b"err\n")]
        shown = (await site.call("GET", f"/exec/{both}/json")).json()
        assert shown["ExitCode"] == 0 and shown["Running"] is False and shown["ProcessConfig"]["entrypoint"] == "both"
        assert (await site.call("POST", f"/exec/{both}/start", {})).status == 409

        cat = await create("cat", AttachStdin=True)
        async with Client(site.bench.socket_path) as client:
            await site.hijack(client, f"/exec/{cat}/start", {})
            await client.send(b"through")
            client.writer.write_eof()
            assert parse_frames(await client.reader.read()) == [(1, b"through")]

        five = await create("exit", "5")
        async with Client(site.bench.socket_path) as client:
            await site.hijack(client, f"/exec/{five}/start", {})
            await client.reader.read()
            assert (await site.call("GET", f"/exec/{five}/json")).json()["ExitCode"] == 5, "known when the stream ends"

        missing = await create("missing")
        async with Client(site.bench.socket_path) as client:
            await site.hijack(client, f"/exec/{missing}/start", {})
            ((stream, text),) = parse_frames(await client.reader.read())
            assert stream == 2 and b"executable file not found" in text
        assert (await site.call("GET", f"/exec/{missing}/json")).json()["ExitCode"] == 127

        terminal = await create("cat", AttachStdin=True, Tty=True, DetachKeys="ctrl-z")
        async with Client(site.bench.socket_path) as client:
            await site.hijack(client, f"/exec/{terminal}/start", {"Tty": True, "ConsoleSize": [20, 60]})
            assert site.headers["content-type"] == "application/vnd.docker.raw-stream"
            assert (await site.call("POST", f"/exec/{terminal}/resize?h=3&w=4")).status == 200
            assert site.bench.runtime.execs[-1].sizes == [(3, 4)]
            await client.send(b"ab")
            assert await client.reader.readexactly(2) == b"ab"
            await client.send(b"\x1a")
            assert await client.reader.read() == b""

        quiet = await create("exit", "0")
        assert (await site.call("POST", f"/exec/{quiet}/start", {"Detach": True})).status == 200
        assert (await site.call("POST", "/containers/box/exec", {"Cmd": []})).status == 400
        assert (await site.call("POST", "/containers/nosuch/exec", {"Cmd": ["x"]})).status == 404
        assert (await site.call("GET", "/exec/nosuch/json")).status == 404

    run(work)


def test_changing_and_looking_at_a_container() -> None:
    async def work(site: Site) -> None:
        await site.run("sleep")
        answer = await site.call(
            "POST", "/containers/box/update", {"Memory": 64 << 20, "RestartPolicy": {"Name": "always"}}
        )
        assert answer.json() == {"Warnings": None}
        host = (await site.call("GET", "/containers/box/json")).json()["HostConfig"]
        assert host["Memory"] == 64 << 20 and host["RestartPolicy"]["Name"] == "always"
        assert (await site.call("GET", "/containers/box/top?ps_args=aux")).json()["Titles"] == ["PID", "CMD"]
        assert (await site.call("GET", "/containers/box/changes")).json()[1] == {"Path": "/etc/new", "Kind": 1}
        assert "SizeRootFs" in (await site.call("GET", "/containers/box/json?size=1")).json()
        assert (await site.call("POST", "/containers/box/update", {"CgroupParent": "/x"})).status == 501
        assert (await site.call("POST", "/containers/prune")).json()["ContainersDeleted"] is None

    run(work)


def test_archives_and_export() -> None:
    async def work(site: Site) -> None:
        await site.create("true")
        answer = await site.call("HEAD", "/containers/box/archive?path=/etc/hosts")
        stat = json.loads(base64.b64decode(answer.headers["x-docker-container-path-stat"]))
        assert stat["name"] == "hosts" and answer.status == 200
        answer = await site.call("GET", "/containers/box/archive?path=/etc/hosts")
        assert answer.body == b"archive" and answer.headers["content-type"] == "application/x-tar"
        assert (await site.call("PUT", "/containers/box/archive?path=/tmp/.", raw=b"tar")).status == 200
        assert site.bench.storage.written == [("/tmp/.", b"tar")]
        assert (await site.call("HEAD", "/containers/box/archive?path=/absent")).status == 404
        assert (await site.call("GET", "/containers/box/archive")).status == 400
        assert (await site.call("GET", "/containers/box/archive?path=a%00b")).status == 400
        assert (await site.call("GET", "/containers/box/export")).body == b"rootfs"

    run(work)


def test_pull_and_push_stream_progress_and_errors() -> None:
    async def work(site: Site) -> None:
        auth = {"X-Registry-Auth": base64.urlsafe_b64encode(b'{"username":"u","password":"p"}').decode()}
        answer = await site.call("POST", "/images/create?fromImage=reg:5000/bb&tag=1", headers=auth)
        lines = answer.lines()
        assert lines[0] == {"status": "Pulling from reg:5000/bb", "id": "1"}
        assert {"current": 50, "total": 100} in [line.get("progressDetail") for line in lines]
        assert lines[-1]["status"].endswith("reg:5000/bb:1")
        request = site.bench.images.pulled[-1]
        assert (request.reference, request.username, request.password) == ("reg:5000/bb:1", "u", "p")
        digest = "sha256:" + "4" * 64
        await site.call("POST", f"/images/create?fromImage=bb&tag={digest}")
        assert site.bench.images.pulled[-1].reference == f"bb@{digest}"
        lines = (await site.call("POST", "/images/create?fromImage=missing:1")).lines()
        assert lines[-1]["error"] == lines[-1]["errorDetail"]["message"] and "missing" in lines[-1]["error"]
        lines = (await site.call("POST", "/images/bb/push?tag=latest", headers=auth)).lines()
        assert lines[-1]["aux"]["Digest"] == "sha256:" + "3" * 64
        assert (await site.call("POST", "/images/create")).status == 400
        assert (await site.call("POST", "/images/create?fromImage=a:1", headers={"X-Registry-Auth": "%"})).status == 400
        every = await site.call("POST", "/images/create?fromImage=reg:5000/a")
        assert every.status == 501 and "all tags" in every.message

    run(work)


def test_load_save_import_commit_tag_and_remove() -> None:
    async def work(site: Site) -> None:
        images = site.bench.images
        assert (await site.call("POST", "/images/load?quiet=1", raw=b"archive")).lines() == [
            {"stream": "Loaded image: bb:latest\n"}
        ]
        assert images.received == b"archive"
        assert (await site.call("GET", "/images/get?names=bb&names=bb:latest")).body == b"tar of bb,bb:latest"
        assert (await site.call("GET", "/images/bb/get")).body == b"tar of bb"
        assert (await site.call("GET", "/images/get?names=nosuch")).status == 404
        assert (await site.call("GET", "/images/get")).status == 400
        answer = await site.call("POST", "/images/create?fromSrc=-&repo=imp:2&changes=CMD+x", raw=b"rootfs")
        assert answer.lines()[-1]["status"] == images.image.id and images.options["reference"] == "imp:2"
        assert (await site.call("POST", "/images/create?fromSrc=http://x/y")).status == 501
        await site.create("true")
        answer = await site.call(
            "POST", "/commit?container=box&repo=made&tag=1&author=me&comment=why&changes=ENV%20A=1"
        )
        assert answer.status == 201 and images.options["reference"] == "made:1"
        assert "A=1" in images.options["config"].env and images.options["entry"].comment == "why"
        assert (await site.call("POST", "/images/bb/tag?repo=host:5000/x/y&tag=3")).status == 201
        assert images.tagged == ("bb", "host:5000/x/y:3")
        assert (await site.call("DELETE", "/images/bb")).status == 409
        changes = (await site.call("DELETE", "/images/bb?force=1")).json()
        assert changes == [{"Untagged": "bb"}, {"Deleted": images.image.id}]
        assert (await site.call("POST", "/images/prune")).json() == {"ImagesDeleted": None, "SpaceReclaimed": 0}

    run(work)


def test_images_as_lists_and_one_by_one() -> None:
    async def work(site: Site) -> None:
        (row,) = (await site.call("GET", "/images/json")).json()
        assert row["RepoTags"] == ["bb:latest"] and row["Size"] == 1234567 and row["Created"] == 1704067200
        assert (await site.call("GET", f"/images/json?filters={quote(json.dumps({'nonsense': ['1']}))}")).status == 400
        shown = (await site.call("GET", "/images/bb:latest/json")).json()
        assert shown["Os"] == "linux" and shown["RootFS"]["Layers"] == ["sha256:" + "2" * 64]
        (entry,) = (await site.call("GET", "/images/bb/history")).json()
        assert entry["CreatedBy"] == "ADD rootfs" and entry["Tags"] == ["bb:latest"]
        for name in ("no/such/image", "nosuch"):
            answer = await site.call("GET", f"/images/{name}/json")
            assert answer.status == 404 and answer.message == f"No such image: {name}"
        assert (await site.call("GET", "/images/search?term=x")).status == 501

    run(work)


def test_networks() -> None:
    async def work(site: Site) -> None:
        answer = await site.call("POST", "/networks/create", {"Name": "net1", "Labels": {"a": "b"}, "Driver": "bridge"})
        assert answer.status == 201 and re.fullmatch("[0-9a-f]{64}", answer.json()["Id"])
        assert (await site.call("POST", "/networks/create", {"Name": "net1"})).status == 409
        names = [row["Name"] for row in (await site.call("GET", "/networks")).json()]
        assert names == ["bridge", "host", "none", "net1"]
        await site.run("sleep")
        assert (await site.call("POST", "/networks/net1/connect", {"Container": "box"})).status == 200
        shown = (await site.call("GET", "/networks/net1")).json()
        assert [user["Name"] for user in shown["Containers"].values()] == ["box"]
        assert (await site.call("DELETE", "/networks/net1")).status == 409
        assert (await site.call("POST", "/networks/net1/disconnect", {"Container": "box"})).status == 200
        assert (await site.call("DELETE", "/networks/net1")).status == 204
        assert (await site.call("GET", "/networks/net1")).status == 404
        assert (await site.call("POST", "/networks/bridge/connect", {})).status == 400
        assert (await site.call("POST", "/networks/prune")).json() == {"NetworksDeleted": None}

    run(work)


def test_a_probe_of_the_image_with_another_interval() -> None:
    async def work() -> None:
        image = ImageConfig(cmd=("sleep",), healthcheck=Healthcheck(test=("CMD", "true"), interval_s=60))
        async with ApiBench(image=image).serving() as bench:
            site = Site(bench)
            await site.create("sleep", Healthcheck={"Interval": 5_000_000_000})
            shown = (await site.call("GET", "/containers/box/json")).json()["Config"]["Healthcheck"]
            assert shown["Test"] == ["CMD", "true"] and shown["Interval"] == 5_000_000_000

    uvloop.run(work())


def test_volumes() -> None:
    async def work(site: Site) -> None:
        answer = await site.call("POST", "/volumes/create", {"Name": "vol", "Labels": {"a": "b"}})
        assert answer.status == 201 and answer.json()["Driver"] == "local"
        assert [row["Name"] for row in (await site.call("GET", "/volumes")).json()["Volumes"]] == ["vol"]
        assert (await site.call("GET", "/volumes/vol")).json()["Labels"] == {"a": "b"}
        assert (await site.call("POST", "/volumes/create", {"Name": "/bad"})).status == 400
        assert (await site.call("DELETE", "/volumes/vol")).status == 204
        assert (await site.call("DELETE", "/volumes/vol")).status == 404
        assert (await site.call("DELETE", "/volumes/vol?force=1")).status == 204
        await site.call("POST", "/volumes/create")
        assert len((await site.call("POST", "/volumes/prune")).json()["VolumesDeleted"]) == 1

    run(work)


def test_events_past_and_live() -> None:
    async def work(site: Site) -> None:
        await site.create("true", name="early")
        async with Client(site.bench.socket_path) as client:
            filters = quote(json.dumps({"type": ["container"]}))
            await client.send(f"GET /v1.50/events?since=1&filters={filters} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await client.head()
            past = json.loads(await client.chunk())
            assert (
                past["Action"] == "create" and past["Actor"]["Attributes"]["name"] == "early" and past["from"] == "bb"
            )
            await site.create("true", name="live")
            assert json.loads(await client.chunk())["Actor"]["Attributes"]["name"] == "live"
        lines = (await site.call("GET", "/events?since=1&until=2")).lines()
        assert lines == []
        assert (await site.call("GET", f"/events?filters={quote(json.dumps({'odd': ['1']}))}")).status == 400
        assert (await site.call("GET", "/events?since=soon")).status == 400

    run(work)


def test_disk_usage_and_build_cache() -> None:
    async def work(site: Site) -> None:
        await site.create("true")
        shown = (await site.call("GET", "/system/df")).json()
        assert shown["LayersSize"] == 1234567 and shown["Images"][0]["Containers"] == 1
        assert shown["Containers"][0]["SizeRw"] == 7 and shown["BuildCache"] == []
        assert set((await site.call("GET", "/system/df?type=volume")).json()) == {"Volumes"}
        assert (await site.call("GET", "/system/df?type=odd")).status == 400

    run(work)


def test_login() -> None:
    async def work(site: Site) -> None:
        body = {"username": "u", "password": "p", "serveraddress": "reg"}
        assert (await site.call("POST", "/auth", body)).json()["Status"] == "Login Succeeded"
        assert site.bench.logins == [("u", "p", "reg")]

    run(work)


def test_the_windows_base_is_built_with_progress() -> None:
    async def work(site: Site) -> None:
        answer = await call(site.bench.socket_path, "POST", "/silo/v1/base/windows")
        lines = answer.lines()
        assert any(line.get("progressDetail") == {"current": 500, "total": 1000} for line in lines)
        assert lines[-1]["aux"]["Tags"] == ["bb:latest"]

    run(work)


def test_an_error_of_the_host_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(site: Site) -> None:
        def fail(*_args: object, **_options: object) -> None:
            raise ToolMissing("skopeo")

        monkeypatch.setattr(site.bench.images, "pull", fail)
        lines = (await site.call("POST", "/images/create?fromImage=x:1")).lines()
        assert "apt-get install skopeo" in lines[-1]["error"]

    run(work)


@pytest.mark.parametrize("route", UNSUPPORTED, ids=lambda route: f"{route.method} {route.pattern}")
def test_what_is_known_and_lacking_is_named(route: Any) -> None:
    router = Router(UNSUPPORTED)
    found = router.find(
        route.method, route.pattern.replace("{name*}", "a/b").replace("{name}", "x").replace("{checkpoint}", "c")
    )
    assert found is not None and found[0].handler is None and found[0].title


def test_a_lacking_call_is_501() -> None:
    async def work(site: Site) -> None:
        for method, target, words in (
            ("POST", "/swarm/init", "docker swarm"),
            ("POST", "/build/cancel", "cancelling a build"),
            ("GET", "/distribution/a/b/json", "distribution"),
            ("GET", "/plugins", "docker plugin"),
            ("GET", "/containers/x/attach/ws", "web socket"),
        ):
            answer = await site.call(method, target)
            assert answer.status == 501 and words in answer.message and "not supported" in answer.message

    run(work)


def test_every_row_is_reachable_and_listed_once() -> None:
    bench = ApiBench()
    rows = build_routes(bench.engine)
    router = Router(rows)
    seen = set()
    for row in rows:
        path = row.pattern.replace("{name*}", "a/b").replace("{name}", "n").replace("{checkpoint}", "c")
        found = router.find(row.method, path)
        assert found is not None and found[0] is row, row
        assert (row.method, row.pattern) not in seen
        seen.add((row.method, row.pattern))


def test_the_documentation_lists_the_table() -> None:
    document = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    assert render_table(build_routes(ApiBench().engine)) in document, "run: python -m silo.api.document docs/api.md"
