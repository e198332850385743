"""`silo registry`: what is asked of the daemon, and what becomes of its text."""

from __future__ import annotations

from pathlib import Path

from tests.unit.cli.conftest import Silo
from tests.unit.cli.fake_daemon import FakeDaemon

PATH = "/silo/v1/registry"
TEXT = "HKEY_LOCAL_MACHINE\\Software\n    é    REG_SZ    x\n"


def test_a_key_of_an_object(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["GET", f"{PATH}/query"] = (200, TEXT.encode())
    assert silo("registry", "query", "my/app:1.0", "HKLM\\Software").stdout == TEXT
    assert daemon.asked[-1].query == {"object": ["my/app:1.0"], "key": ["HKLM\\Software"]}
    silo("registry", "query", "-r", "-v", "Path", "--type", "container", "web", "HKLM")
    assert daemon.asked[-1].query == {
        "object": ["web"], "key": ["HKLM"], "recursive": ["1"], "value": ["Path"], "type": ["container"],
    }  # fmt: skip
    silo("registry", "query", "--value", "", "web", "HKLM")
    assert daemon.asked[-1].query == {"object": ["web"], "key": ["HKLM"], "default": ["1"]}


def test_an_error_is_the_daemons(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["GET", f"{PATH}/query"] = (404, {"message": "there is no registry key X"})
    done = silo("registry", "query", "web", "HKLM\\X")
    assert done.returncode == 1 and "there is no registry key X" in done.stderr and not done.stdout


def test_a_text_for_windows(daemon: FakeDaemon, silo: Silo, tmp_path: Path) -> None:
    daemon.answers["GET", f"{PATH}/export"] = (200, "Windows…\n\n[A]\n".encode())
    assert silo("registry", "export", "web").stdout == "Windows…\n\n[A]\n"
    assert silo("registry", "export", "-o", "out.reg", "web").stdout == ""
    assert (tmp_path / "out.reg").read_bytes() == b"\xff\xfe" + "Windows…\r\n\r\n[A]\r\n".encode("utf-16-le")
    done = silo("registry", "export", "-o", "no/such/out.reg", "web")
    assert done.returncode == 1 and "no/such/out.reg: No such file" in done.stderr


def test_a_comparison(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["GET", f"{PATH}/diff"] = (200, b"")
    assert silo("registry", "diff", "--base", "windows", "web", "HKCU").returncode == 0
    assert daemon.asked[-1].query == {"object": ["web"], "key": ["HKCU"], "base": ["windows"]}


def test_hives_are_sent(daemon: FakeDaemon, silo: Silo, tmp_path: Path) -> None:
    for verb in ("query", "export", "diff"):
        daemon.answers["POST", f"{PATH}/{verb}"] = (200, TEXT.encode())
    for name in ("Software_Delta", "a.hiv", "NTUSER.DAT", "other"):
        (tmp_path / name).write_bytes(name.encode())
    for words, name in {
        ("Software_Delta",): "Software_Delta",
        ("NTUSER.DAT", "Environment"): "NTUSER.DAT",
        ("./other",): "other",
        (str(tmp_path / "other"),): "other",
        ("--type", "file", "other"): "other",
    }.items():
        assert silo("registry", "query", *words).stdout == TEXT
        asked = daemon.asked[-1]
        assert asked.query["file"] == [name] and asked.body == name.encode()
    assert silo("registry", "diff", "--base", "a.hiv", "Software_Delta").returncode == 0
    asked = daemon.asked[-1]
    assert asked.query == {"file": ["Software_Delta"], "base": ["a.hiv"], "baseSize": ["5"]}
    assert asked.body == b"a.hivSoftware_Delta"


def test_what_cannot_be(daemon: FakeDaemon, silo: Silo, tmp_path: Path) -> None:
    assert "none.hiv: No such file" in silo("registry", "query", "none.hiv").stderr
    assert "--type volume: one of container, image, file" in silo("registry", "query", "--type", "volume", "x").stderr
    (tmp_path / "a.hiv").write_bytes(b"x")
    assert "compared with a file only" in silo("registry", "diff", "--base", "a.hiv", "web").stderr
    with (tmp_path / "large.hiv").open("wb") as file:
        file.truncate((64 << 20) + 1)
    assert "larger than" in silo("registry", "query", "large.hiv").stderr
    assert not daemon.asked
