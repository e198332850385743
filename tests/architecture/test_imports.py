"""The architecture is what the imports say: one direction, siblings apart, processes started in one layer."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "silo"
SIBLINGS = ("images", "isolation", "linux", "windows", "network", "storage", "state", "display", "workspace")
EDGES = ("cli", "api", "daemon", "wiring")
FREE = frozenset({"model", "errors", "host"})
# The two that are built from Debian's packages.
DEBIAN_BUILDERS = ("isolation", "windows")
# layer → layers it may import besides model and errors
ALLOWED: dict[str, frozenset[str]] = {
    "model": frozenset(),
    "errors": frozenset(),
    "host": frozenset({"host"}),
    "debian": frozenset({"debian", "host"}),
    "guest": frozenset({"guest"}),
    # Pure, like model: what a file says. The builder is the engine's; the command line packs a context by .dockerignore.
    "dockerfile": frozenset({"dockerfile"}),
    "engine": frozenset({"engine", "dockerfile"}),
    "api": frozenset({"api", "engine"}),
    "cli": frozenset({"cli", "dockerfile"}),
    "config": frozenset({"config"}),
    **{name: frozenset({name, "host"}) for name in SIBLINGS},
    **{name: frozenset({name, "host", "debian"}) for name in DEBIAN_BUILDERS},
}


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "silo":
                found |= {f"silo.{alias.name}" for alias in node.names}
    return found


def _modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py"))


def _layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    layer = _layer(path)
    if layer in ("wiring", "daemon", "__main__", "__init__"):
        return
    allowed = ALLOWED[layer] | {"model", "errors"}
    # Ports' implementations may name a port's type; nothing else of the engine.
    ports = {"silo.engine.ports"} if layer in SIBLINGS else set()
    for name in sorted(_imports(path)):
        if name.startswith("silo.") and name not in ports:
            target = name.split(".")[1]
            assert target in allowed, f"{path.relative_to(ROOT)} ({layer}) imports {name}"


def test_what_reads_dockerfiles_does_no_input_or_output() -> None:
    touching = {"os", "io", "pathlib", "socket", "asyncio", "shutil", "tempfile", "glob", "urllib", "http"}
    for path in (ROOT / "dockerfile").glob("*.py"):
        assert not {name.split(".")[0] for name in _imports(path)} & touching, path
        assert not re.search(r"\bopen\(", path.read_text()), path


def test_what_the_command_line_needs_of_dockerfiles_is_standard_library_only() -> None:
    import sys

    needed = ["ignore"]
    for module in needed:
        for name in _imports(ROOT / "dockerfile" / f"{module}.py"):
            layer, _, inner = name.removeprefix("silo.").partition(".")
            if layer == "dockerfile" and inner not in needed:
                needed.append(inner)
            assert name.split(".")[0] in {*sys.stdlib_module_names, "silo"}, f"{module}.py imports {name}"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_host_layer_starts_processes(path: Path) -> None:
    # The command line starts the daemon, the keeper is a process of its own outside the daemon.
    if _layer(path) in ("host", "cli") or path.name.startswith("keeper"):
        return
    assert not _imports(path) & {"subprocess", "multiprocessing", "pty"}, path


@pytest.mark.parametrize("path", [path for path in _modules() if path.name == "__init__.py"], ids=str)
def test_packages_hold_only_exports(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        simple = isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign)
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert simple or docstring, f"{path}: {ast.unparse(node)[:60]}"


@pytest.mark.parametrize("folder", ["cli", "guest"])
def test_the_command_line_and_the_guest_agent_are_standard_library_only(folder: str) -> None:
    import sys

    for path in (ROOT / folder).rglob("*.py"):
        for name in _imports(path):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top == "silo", f"{path.name} imports {name}"


def test_the_guest_agent_needs_only_the_files_that_it_names() -> None:
    from silo.guest import FILES

    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in FILES}
    for path in [*(ROOT / "guest").glob("*.py"), *(ROOT.parent / name for name in FILES)]:
        for name in _imports(path):
            if name.startswith("silo.") and not name.startswith("silo.guest"):
                assert name in modules, f"{path.name} imports {name}"


def test_the_exit_code_of_what_was_killed_is_defined_once() -> None:
    named = re.compile(r"^[A-Z_]+ = (137|128 \+ signals?\.SIGKILL)$", re.MULTILINE)
    found = [path.relative_to(ROOT).as_posix() for path in _modules() if named.search(path.read_text())]
    assert found == ["model/exit_codes.py"]
