"""Windows' paths land in drive_c or are refused; names without case find their true spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import InvalidRequest, SiloError, Unsupported
from silo.model import windows_paths
from silo.model.windows_paths import DRIVE_C, resolve_case, windows_path
from silo.windows.base import environment
from silo.windows.paths import map_path, normalize_path


def test_model_and_base_agree() -> None:
    assert windows_paths.DRIVE_C == environment.DRIVE_C
    assert windows_paths.PREFIX == environment.PREFIX
    assert windows_paths.USER_REGISTRY_DIRECTORY == environment.USER_REGISTRY_DIRECTORY
    assert windows_paths.REGISTRY_FILES == environment.REGISTRY_FILES


@pytest.mark.parametrize(
    ("path", "working_dir", "mapped"),
    [
        ("C:\\data", "C:\\", "/data"),
        ("c:/data/x", "C:\\", "/data/x"),
        ("\\data", "C:\\srv", "/data"),
        ("/data", "C:\\srv", "/data"),
        ("/c:\\data", "C:\\", "/data"),
        ("x\\y", "C:\\srv\\app", "/srv/app/x/y"),
        ("..\\x", "C:\\srv\\app", "/srv/x"),
        ("x", "srv", "/srv/x"),
        (".", "C:\\srv", "/srv"),
        ("", "C:\\srv", "/srv"),
        ("C:\\", "C:\\srv", ""),
        ("C:", "C:\\srv", ""),
        ("C:\\a\\\\b\\.\\c\\..\\d\\", "C:\\", "/a/b/d"),
        ("C:\\name. .\\Ünï", "C:\\", "/name/Ünï"),
        ("C:\\console\\com10\\auxiliary", "C:\\", "/console/com10/auxiliary"),
    ],
)
def test_mapped(path: str, working_dir: str, mapped: str) -> None:
    assert map_path(path, working_dir=working_dir) == DRIVE_C + mapped


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("D:\\x", Unsupported),
        ("z:/etc", Unsupported),
        ("\\\\server\\share", InvalidRequest),
        ("//server/share", InvalidRequest),
        ("\\\\?\\unix\\etc\\passwd", InvalidRequest),
        ("\\\\?\\C:\\x", InvalidRequest),
        ("\\\\.\\pipe\\x", InvalidRequest),
        ("C:x", InvalidRequest),
        ("C:\\..", InvalidRequest),
        ("C:\\a\\..\\..\\b", InvalidRequest),
        ("..", InvalidRequest),
        ("C:\\nul", InvalidRequest),
        ("C:\\a\\COM1.txt\\b", InvalidRequest),
        ("C:\\lpt9", InvalidRequest),
        ("C:\\con ", InvalidRequest),
        ("C:\\a:b", InvalidRequest),
        ("C:\\a*", InvalidRequest),
        ("C:\\a\0b", InvalidRequest),
        ("C:\\a\nb", InvalidRequest),
        ("C:\\...", InvalidRequest),
        ("C:\\" + "x" * 256, InvalidRequest),
    ],
)
def test_refused(path: str, kind: type[SiloError]) -> None:
    with pytest.raises(kind):
        map_path(path)


@given(st.text(max_size=40) | st.text(alphabet="c:C\\/. ab", max_size=20))
def test_nothing_leaves_the_drive(path: str) -> None:
    try:
        mapped = map_path(path)
    except SiloError:
        return
    assert mapped == DRIVE_C or mapped.startswith(DRIVE_C + "/")
    assert ".." not in mapped.split("/") and "\\" not in mapped and "\0" not in mapped
    assert map_path(windows_path(mapped) or "") == mapped


def test_normalized_and_shown() -> None:
    assert normalize_path("c:/Data//x/") == "C:\\Data\\x"
    assert normalize_path("/") == "C:\\"
    assert windows_path(f"{DRIVE_C}/Data/x") == "C:\\Data\\x"
    assert windows_path(DRIVE_C) == "C:\\"
    assert windows_path("/etc/passwd") is None


TREE = {
    DRIVE_C: ["windows", "Program Files", "Data", "DATA"],
    f"{DRIVE_C}/windows": ["temp", "Système", "Straße"],
    f"{DRIVE_C}/Program Files": ["App"],
}


@pytest.mark.parametrize(
    ("typed", "true"),
    [
        ("/WINDOWS/Temp", "/windows/temp"),
        ("/Windows/SYSTÈME", "/windows/Système"),
        # two names on NTFS, one to str.casefold
        ("/Windows/strasse", "/windows/strasse"),
        ("/Windows/STRAßE", "/windows/Straße"),
        ("/program files/app/New/Deep", "/Program Files/App/New/Deep"),
        ("/DATA", "/DATA"),
        ("/data", "/DATA"),
        ("/other/Windows", "/other/Windows"),
        ("", ""),
    ],
)
def test_case_is_resolved(typed: str, true: str) -> None:
    assert resolve_case(DRIVE_C + typed, lambda directory: TREE.get(directory, [])) == DRIVE_C + true


def test_other_paths_keep_their_case() -> None:
    assert resolve_case("/etc/HOSTS", lambda _directory: ["hosts"]) == "/etc/HOSTS"
