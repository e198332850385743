"""`commit --change`: every instruction, shell and exec form, and what is refused."""

from __future__ import annotations

import pytest

from silo.engine.instructions import apply_instructions
from silo.errors import InvalidRequest
from silo.model.image import Healthcheck, ImageConfig


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("CMD echo hi", "cmd", ("/bin/sh", "-c", "echo hi")),
        ('CMD ["echo", "hi"]', "cmd", ("echo", "hi")),
        ('ENTRYPOINT ["run"]', "entrypoint", ("run",)),
        ("entrypoint run it", "entrypoint", ("/bin/sh", "-c", "run it")),
        ("ENV A=2 C='x y'", "env", ("A=2", "B=1", "C=x y")),
        ("ENV A old style", "env", ("A=old style", "B=1")),
        ("LABEL a=b", "labels", {"old": "1", "a": "b"}),
        ("EXPOSE 80 53/udp", "exposed_ports", ("53/udp", "80/tcp")),
        ('VOLUME ["/a", "/b"]', "volumes", ("/a", "/b")),
        ("USER me:us", "user", "me:us"),
        ("WORKDIR /w", "working_dir", "/w"),
        ("WORKDIR below", "working_dir", "/below"),
        ("WORKDIR $B/x", "working_dir", "/1/x"),
        ("HEALTHCHECK --retries=9 CMD true", "healthcheck", Healthcheck(test=("CMD-SHELL", "true"), retries=9)),
        ("STOPSIGNAL SIGINT", "stop_signal", "SIGINT"),
        ("ONBUILD RUN x", "on_build", ("RUN x",)),
    ],
)
def test_each_instruction(text: str, field: str, value: object) -> None:
    before = ImageConfig(env=("A=1", "B=1"), labels={"old": "1"})
    assert getattr(apply_instructions(before, [text], windows=False), field) == value


@pytest.mark.parametrize("text", ["RUN true", "FROM x", "", "ENV A", "LABEL =x", "CMD a\nCMD b", "ENV A=1 B"])
def test_what_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        apply_instructions(ImageConfig(), [text], windows=False)


@pytest.mark.parametrize(
    ("changes", "cmd"),
    [
        (('ENTRYPOINT ["run"]',), ()),
        (('CMD ["new"]', 'ENTRYPOINT ["run"]'), ("new",)),
        (('ENTRYPOINT ["run"]', 'CMD ["new"]'), ("new",)),
    ],
)
def test_a_new_entrypoint_drops_the_arguments_of_the_old_one(changes: tuple[str, ...], cmd: tuple[str, ...]) -> None:
    config = apply_instructions(ImageConfig(cmd=("old",)), changes, windows=False)
    assert (config.entrypoint, config.cmd) == (("run",), cmd)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("ENV Path=C:\\tools;%PATH%", "env", ("Path=C:\\tools;%PATH%",)),
        ("ENV Path=C:\\\\tools;D:\\x", "env", ("Path=C:\\tools;D:\\x",)),
        ("WORKDIR C:\\app", "working_dir", "C:\\app"),
        ("WORKDIR below", "working_dir", "C:\\start\\below"),
        ("CMD echo %A% & ver", "cmd", ("cmd /S /C echo %A% & ver",)),
        ("CMD echo", "args_escaped", True),
        ('CMD ["cmd", "/c", "C:\\\\x"]', "cmd", ("cmd", "/c", "C:\\x")),
        ("LABEL place=C:\\x", "labels", {"place": "C:\\x"}),
    ],
)
def test_windows_paths_keep_their_backslashes(text: str, field: str, value: object) -> None:
    before = ImageConfig(env=("PATH=C:\\old",), working_dir="C:\\start\\")
    assert getattr(apply_instructions(before, [text], windows=True), field) == value
