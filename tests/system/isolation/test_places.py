"""What a silo has of drives, paths, users, names, time; each with a case in which the host's was shared on purpose."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Docker

pytestmark = pytest.mark.system

Places = Callable[..., dict[str, list[str]]]


@pytest.fixture
def places(docker: Docker, folder: Path, level: str) -> Places:
    """Runs places.exe in a container with these flags; what it said, first word → the rests of its lines."""

    def look(*flags: str, paths: tuple[str, ...] = ()) -> dict[str, list[str]]:
        mount = f"{folder}:C:\\tests:ro"
        said: dict[str, list[str]] = {}
        run = ("run", "--rm", "--isolation", level, "-v", mount, *flags, "windows")
        for line in docker(*run, "C:\\tests\\places.exe", *paths).splitlines():
            word, _, rest = line.strip().partition(" ")
            said.setdefault(word, []).append(rest)
        return said

    return look


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file of the host that anybody may read."""
    folder = Path("/tmp", f"silo-canary-{time.monotonic_ns()}")
    folder.mkdir()
    (folder / "file").write_text("from the host")
    yield folder
    (folder / "file").unlink()
    folder.rmdir()


def test_one_drive_and_one_volume(places: Places) -> None:
    said = places()
    assert said["drives"] == ["C"]
    assert said["volume"] == ["C:\\"]


def _ways_to(path: Path) -> tuple[str, ...]:
    tail = str(path).replace("/", "\\")
    servers = ("localhost", "127.0.0.1", "host.docker.internal")
    return (
        f"Z:{tail}",
        f"\\\\?\\unix{tail}",
        f"\\\\.\\unix{tail}",
        f"\\\\?\\unix\\proc\\1\\root{tail}",
        f"C:{tail}",
        *(f"\\\\{server}\\c${tail}" for server in servers),
    )


def test_no_path_leads_to_a_file_of_the_host(places: Places, canary: Path) -> None:
    ways = _ways_to(canary / "file")
    assert sorted(places(paths=ways)["absent"]) == sorted(ways)


def test_a_shared_folder_is_found_by_every_way_there_is(places: Places, canary: Path) -> None:
    inside = ("C:\\canary\\file", "c:\\CANARY\\FILE", "\\\\?\\unix\\silo\\prefix\\drive_c\\canary\\file")
    said = places("-v", f"{canary}:C:\\canary", paths=inside)
    assert sorted(said["present"]) == sorted(inside)


def test_what_unix_paths_show_is_the_containers_own_root(docker: Docker, level: str) -> None:
    users = docker("run", "--rm", "--isolation", level, "windows", "cmd", "/c", "type \\\\?\\unix\\etc\\passwd")
    assert "ContainerAdministrator" in users
    assert len(users.splitlines()) < len(Path("/etc/passwd").read_text().splitlines())


@pytest.mark.parametrize("user", ["ContainerAdministrator", "ContainerUser"])
def test_users(places: Places, docker: Docker, level: str, user: str) -> None:
    assert places("-u", user)["user"] == [user]
    script = "echo x > C:\\windows\\new.txt && echo written & echo x > %TEMP%\\new.txt && echo kept"
    said = docker.try_("run", "--rm", "--isolation", level, "-u", user, "windows", "cmd", "/c", script).stdout.split()
    assert said == (["written", "kept"] if user == "ContainerAdministrator" else ["kept"])


def test_computer_name(places: Places) -> None:
    assert places("--hostname", "first-box")["computer"] == ["FIRST-BOX"]
    assert places("--hostname", "second-box")["computer"] == ["SECOND-BOX"]


def test_time_zone_is_private_and_the_clock_shared(places: Places) -> None:
    seattle, nowhere = places("-e", "TZ=PST8PDT,M3.2.0,M11.1.0"), places()
    assert seattle["zone"] == ["28800"]
    assert seattle["windows"][0].startswith("zone 480 ") and "Pacific Standard Time" in seattle["windows"][0]
    assert nowhere["zone"] == ["0"]
    assert nowhere["windows"][0].startswith("zone 0 0 ")
    assert abs(int(seattle["clock"][0]) - time.time()) < 10
    assert seattle["set"] == ["0"], "a container must not set the host's clock"
    assert abs(int(places()["clock"][0]) - time.time()) < 10


@pytest.mark.parametrize("shared", [False, True])
def test_a_volume_is_shared_by_those_that_mount_it(docker: Docker, level: str, shared: bool) -> None:
    volume = ("-v", "silos-meet:C:\\meet")
    run = ("run", "--rm", "--isolation", level)
    docker(*run, *volume, "windows", "cmd", "/c", "echo hello> C:\\meet\\file.txt")
    flags = volume if shared else ()
    done = docker.try_(*run, *flags, "windows", "cmd", "/c", "type C:\\meet\\file.txt")
    docker("volume", "rm", "silos-meet")
    assert (done.returncode == 0 and "hello" in done.stdout) is shared


def test_what_each_user_may_write(docker: Docker, level: str) -> None:
    places = {
        "C:\\root.txt": False,
        "C:\\windows\\system32\\new.dll": False,
        "C:\\Users\\ContainerAdministrator\\x.txt": False,
        "C:\\ProgramData\\x.txt": True,
        "C:\\Users\\ContainerUser\\x.txt": True,
        "%TEMP%\\x.txt": True,
    }
    script = "& ".join(f"(echo x> {place}) && echo {place}" for place in places)
    run = ("run", "--rm", "--isolation", level)
    said = docker.try_(*run, "-u", "ContainerUser", "windows", "cmd", "/c", script).stdout.lower().split()
    expanded = [place.replace("%TEMP%", "C:\\Users\\ContainerUser\\AppData\\Local\\Temp").lower() for place in places]
    assert said == [place for place, allowed in zip(expanded, places.values(), strict=True) if allowed]
    # the profile of the other user is an administrator's to write, too
    said = docker(*run, "windows", "cmd", "/c", script).split()
    assert len(said) == len(places)


def test_setx_of_both_users_and_the_machine_lives_on_in_images(docker: Docker, level: str) -> None:
    """As Dockerfiles do it that change the USER to and fro."""
    users = ("ContainerAdministrator", "ContainerUser", "ContainerAdministrator", "ContainerUser")
    image = "windows"
    for number, user in enumerate(users):
        script = f"setx OWN{number} %USERNAME% & setx PATH %SHARED%;C:\\{user}"
        script += " & setx /M SHARED C:\\shared" if number == 2 else ""
        docker("run", "--name", "step", "--isolation", level, "-u", user, image, "cmd", "/c", script)
        image = f"steps:{number}"
        docker("commit", "step", image)
        docker("rm", "step")
    show = ("cmd", "/c", "echo %OWN0%,%OWN1%,%OWN2%,%OWN3%,%PATH%")
    for user, own in ((users[0], "{0},%OWN1%,{0},%OWN3%"), (users[1], "%OWN0%,{0},%OWN2%,{0}")):
        said = docker("run", "--rm", "--isolation", level, "-u", user, image, *show).strip()
        assert said.startswith(own.format(user) + ",C:\\windows\\system32;")
        assert said.endswith(f";C:\\shared;C:\\{user}")
    for number in range(len(users)):
        docker("rmi", f"steps:{number}")
