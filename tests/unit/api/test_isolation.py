"""Isolation levels in Docker's words, from create to inspect, ps and info."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import uvloop

from silo.model.platform import Isolation
from tests.unit.api.bench import ApiBench
from tests.unit.api.test_routes import Site, Work, run


def run_with(work: Work, default: Isolation) -> None:
    async def bounded() -> None:
        async with ApiBench(default_isolation=default).serving() as bench:
            await asyncio.wait_for(work(Site(bench)), 20)

    uvloop.run(bounded())


async def names(site: Site, isolation: str) -> list[str]:
    filters = quote(json.dumps({"isolation": [isolation]}))
    answer = await site.call("GET", f"/containers/json?all=1&filters={filters}")
    assert answer.status == 200, answer.body
    return [row["Names"][0] for row in answer.json()]


async def shown(site: Site, name: str) -> str:
    return str((await site.call("GET", f"/containers/{name}/json")).json()["HostConfig"]["Isolation"])


def test_a_container_in_a_virtual_machine() -> None:
    async def work(site: Site) -> None:
        container = await site.run("sleep", name="machine", HostConfig={"Isolation": "vm"})
        await site.create("sleep", name="plain")
        assert container in site.bench.vm_runtime.running and container not in site.bench.runtime.running
        assert await shown(site, "machine") == "hyperv" and await shown(site, "plain") == "process"
        assert await names(site, "vm") == await names(site, "hyperv") == ["/machine"]
        assert await names(site, "process") == await names(site, "default") == ["/plain"]
        assert (await site.call("GET", "/info")).json()["Isolation"] == "process"
        await site.bench.vm_runtime.signal(container, 9)

    run(work)


def test_the_daemons_default_is_for_those_who_name_no_level() -> None:
    async def work(site: Site) -> None:
        await site.create("sleep", name="a1")
        await site.create("sleep", name="b1", HostConfig={"Isolation": "default"})
        await site.create("sleep", name="c1", HostConfig={"Isolation": "process"})
        assert [await shown(site, name) for name in ("a1", "b1", "c1")] == ["hyperv", "hyperv", "process"]
        assert await names(site, "default") == ["/b1", "/a1"] and await names(site, "process") == ["/c1"]
        assert (await site.call("GET", "/info")).json()["Isolation"] == "hyperv"

    run_with(work, Isolation.HYPERV)


def test_a_refusal_names_option_level_and_a_way_out() -> None:
    async def work(site: Site) -> None:
        body = {"Image": "bb", "HostConfig": {"Isolation": "hyperv", "PidMode": "host"}}
        answer = await site.call("POST", "/containers/create", body)
        assert answer.status == 501 and "--pid host is not supported with --isolation hyperv" in answer.message
        assert "--isolation process" in answer.message

    run(work)
