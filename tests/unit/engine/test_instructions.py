"""`commit --change`: every instruction, shell and exec form, and what is refused."""

from __future__ import annotations

import pytest

from silo.engine.instructions import apply_instructions
from silo.errors import InvalidRequest
from silo.model.image import ImageConfig

SHELL = ("/bin/sh", "-c")


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("CMD echo hi", "cmd", ("/bin/sh", "-c", "echo hi")),
        ('CMD ["echo", "hi"]', "cmd", ("echo", "hi")),
        ('ENTRYPOINT ["run"]', "entrypoint", ("run",)),
        ("entrypoint run it", "entrypoint", ("/bin/sh", "-c", "run it")),
        ("ENV A=2 C='x y'", "env", ("B=1", "A=2", "C=x y")),
        ("ENV A old style", "env", ("B=1", "A=old style")),
        ("LABEL a=b", "labels", {"old": "1", "a": "b"}),
        ("EXPOSE 80 53/udp", "exposed_ports", ("80/tcp", "53/udp")),
        ('VOLUME ["/a", "/b"]', "volumes", ("/a", "/b")),
        ("USER me:us", "user", "me:us"),
        ("WORKDIR /w", "working_dir", "/w"),
        ("STOPSIGNAL SIGINT", "stop_signal", "SIGINT"),
        ("ONBUILD RUN x", "on_build", ("RUN x",)),
    ],
)
def test_each_instruction(text: str, field: str, value: object) -> None:
    before = ImageConfig(env=("A=1", "B=1"), labels={"old": "1"})
    assert getattr(apply_instructions(before, [text], shell=SHELL), field) == value


@pytest.mark.parametrize("text", ["RUN true", "FROM x", "CMD", "ENV A", "LABEL =x", "CMD [1]", 'CMD ["a"', "ENV A=1 B"])
def test_what_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        apply_instructions(ImageConfig(), [text], shell=SHELL)


@pytest.mark.parametrize(
    ("changes", "cmd"),
    [
        (('ENTRYPOINT ["run"]',), ()),
        (('CMD ["new"]', 'ENTRYPOINT ["run"]'), ("new",)),
        (('ENTRYPOINT ["run"]', 'CMD ["new"]'), ("new",)),
    ],
)
def test_a_new_entrypoint_drops_the_arguments_of_the_old_one(changes: tuple[str, ...], cmd: tuple[str, ...]) -> None:
    config = apply_instructions(ImageConfig(cmd=("old",)), changes, shell=("sh", "-c"))
    assert (config.entrypoint, config.cmd) == (("run",), cmd)
