"""/silo/v1/registry: keys and hives on their way to the engine, texts and errors on their way back."""

from __future__ import annotations

from urllib.parse import quote

from silo.windows.hives import Hive, Key, Value, write_hive
from silo.windows.hives.reg_text import HEADER
from tests.unit.api.test_routes import Site, run
from tests.unit.api.wire import Answer, call

PATH = "/silo/v1/registry"


def hive(*subkeys: Key) -> bytes:
    return write_hive(Hive(root=Key("ROOT", subkeys=subkeys)))


APP = hive(Key("App", (Value("x", 4, b"\1\0\0\0"), Value("", 1, "é\0".encode("utf-16-le")))))
NEWER = hive(Key("App", (Value("x", 4, b"\2\0\0\0"), Value("", 1, "é\0".encode("utf-16-le")))))


async def post(site: Site, verb: str, body: bytes, **query: str) -> Answer:
    words = "&".join(f"{name}={quote(value)}" for name, value in query.items())
    return await call(site.bench.socket_path, "POST", f"{PATH}/{verb}?{words}", raw=body)


def test_a_hive_is_queried_exported_and_compared() -> None:
    async def work(site: Site) -> None:
        shown = await post(site, "query", APP, file="Software_Delta", key="App")
        assert shown.status == 200 and shown.headers["content-type"] == "text/plain; charset=utf-8"
        assert shown.body.decode() == (
            "HKEY_LOCAL_MACHINE\\Software\\App\n    x    REG_DWORD    0x1\n    (Default)    REG_SZ    é\n"
        )
        for query, line in ((("value", "X"), "x"), (("default", "1"), "(Default)")):
            lines = (await post(site, "query", APP, file="a", key="App", **dict([query]))).body.decode().splitlines()
            assert len(lines) == 2 and lines[1].strip().startswith(line)
        recursive = await post(site, "query", APP, file="a.hiv", key="A", recursive="1")
        assert recursive.status == 404 and "the nearest that exists is a" in recursive.message
        exported = await post(site, "export", APP, file="a.hiv")
        assert exported.body.decode().startswith(f"{HEADER}\n\n[a]\n\n[a\\App]\n")
        compared = await post(site, "diff", APP + NEWER, file="a.hiv", base="b.hiv", baseSize=str(len(APP)))
        assert compared.body.decode() == f'{HEADER}\n\n[a\\App]\n"x"=dword:00000002\n'

    run(work)


def test_what_is_wrong_is_said() -> None:
    async def work(site: Site) -> None:
        damaged = await post(site, "query", APP[:4096] + bytes(4096), file="a.hiv")
        assert damaged.status == 400 and "offset 0x1000" in damaged.message
        for size in ("0", str(len(APP) + 1), "-1"):
            assert (await post(site, "diff", APP, file="a", base="b", baseSize=size)).status == 400
        nameless = await post(site, "query", APP)
        assert nameless.status == 400 and "name of the hive is missing" in nameless.message
        missing = await call(site.bench.socket_path, "GET", f"{PATH}/query")
        assert missing.status == 400 and "(object)" in missing.message
        linux = await call(site.bench.socket_path, "GET", f"{PATH}/diff?object=bb")
        assert linux.status == 400 and "the image bb is not a Windows one" in linux.message
        container = await call(site.bench.socket_path, "GET", f"{PATH}/export?object=none&type=container")
        assert container.status == 404

    run(work)
