"""/silo/v1/base: utility VMs by name, and the containers that need them."""

from __future__ import annotations

from typing import Any

from silo.model.image import ImageConfig
from tests.unit.api.test_routes import Site, run
from tests.unit.api.wire import call

VMS = "/silo/v1/base/vm"


async def names(site: Site) -> list[str]:
    return [row["Name"] for row in (await call(site.bench.socket_path, "GET", VMS)).json()]


def test_a_utility_vm_is_built_with_progress_and_then_shown() -> None:
    async def work(site: Site) -> None:
        site.bench.vm_images.names.clear()
        assert await names(site) == []
        lines = (await call(site.bench.socket_path, "POST", VMS)).lines()
        assert any(line.get("progressDetail") == {"current": 250, "total": 1000} for line in lines)
        assert lines[-1]["aux"] == {"ID": "ab" * 32}
        (shown,) = (await call(site.bench.socket_path, "GET", VMS)).json()
        assert shown == {
            "Id": "ab" * 32,
            "Name": "default",
            "Kernel": "6.12.1-amd64",
            "Created": 1_700_000_000,
            "Size": 7,
            "Directory": "/vm/ab",
        }

    run(work)


def test_several_are_built_imported_and_removed_by_name() -> None:
    async def work(site: Site) -> None:
        path = site.bench.socket_path
        await call(path, "POST", f"{VMS}?name=rt&kernel=linux-image-rt-amd64")
        assert site.bench.vm_images.kernels == ["linux-image-rt-amd64"]
        imported = await call(path, "POST", f"{VMS}/import?name=mine&directory=/srv/vm")
        assert imported.status == 201 and imported.json()["Name"] == "mine"
        assert await names(site) == ["default", "rt", "mine"]
        for query, word in (("directory=/srv/vm", "--name"), ("name=x&directory=vm", "absolute")):
            bad = await call(path, "POST", f"{VMS}/import?{query}")
            assert bad.status == 400 and word in bad.message
        assert (await call(path, "DELETE", f"{VMS}/rt")).status == 204
        gone = await call(path, "DELETE", f"{VMS}/rt")
        assert gone.status == 404 and "known: default, mine" in gone.message
        assert await names(site) == ["default", "mine"]

    run(work)


def test_a_container_names_its_utility_vm_by_a_label() -> None:
    async def work(site: Site) -> None:
        def labelled(name: str, isolation: str = "hyperv") -> dict[str, Any]:
            return {"Labels": {"com.silo.vm": name}, "HostConfig": {"Isolation": isolation}}

        site.bench.vm_images.names["rt"] = "cd" * 32
        container = await site.run("sleep", name="machine", **labelled("rt"))
        assert site.bench.vm_runtime.plans[container].vm == "rt"
        needed = await call(site.bench.socket_path, "DELETE", f"{VMS}/rt")
        assert needed.status == 409 and "needed by machine" in needed.message
        assert (await call(site.bench.socket_path, "DELETE", f"{VMS}/rt?force=1")).status == 204
        # 404 would make a client pull the image.
        body = {"Image": "bb", **labelled("none")}
        unknown = await site.call("POST", "/containers/create", body)
        assert unknown.status == 400 and "no utility VM named none" in unknown.message
        assert "known: default" in unknown.message and "silo base build vm --name none" in unknown.message
        astray = await site.call("POST", "/containers/create", {"Image": "bb", **labelled("default", "process")})
        assert astray.status == 400 and "--isolation hyperv" in astray.message
        await site.bench.vm_runtime.signal(container, 9)

    run(work)


def test_an_images_label_counts_less_than_the_containers_and_more_than_the_daemons_default() -> None:
    async def work(site: Site) -> None:
        site.bench.vm_images.names |= {"images": "cd" * 32, "own": "ef" * 32}
        machine = {"Isolation": "hyperv"}
        plans = site.bench.vm_runtime.plans
        plain = await site.finish("exit", "0", name="plain", HostConfig=machine)
        assert plans[plain].vm == "default"
        assert site.bench.images.image is not None
        config = ImageConfig(cmd=("sh",), labels={"com.silo.vm": "images"})
        object.__setattr__(site.bench.images, "image", _with_config(site.bench.images.image, config))
        inherited = await site.finish("exit", "0", name="inherited", HostConfig=machine)
        assert plans[inherited].vm == "images"
        own = await site.finish("exit", "0", name="own", HostConfig=machine, Labels={"com.silo.vm": "own"})
        assert plans[own].vm == "own"
        process = await site.finish("exit", "0", name="process")
        assert site.bench.runtime.plans[process].vm == ""

    run(work)


def _with_config(image: Any, config: ImageConfig) -> Any:
    return type(image)(
        **{name: getattr(image, name) for name in image.__struct_fields__ if name != "config"}, config=config
    )
