"""Whole builds over fakes: steps and their numbers, the cache, stages, failures with lines, and what the next image says."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from silo.engine.building.failure import StepFailed
from silo.engine.building.request import Credentials
from silo.errors import InvalidRequest, NotFound, SiloError, Unsupported
from silo.model.image import Image
from tests.unit.engine.building.fakes import WINDOWS, Site, base


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_steps_become_images_one_after_another() -> None:
    site = Site()
    text = "FROM bb\nENV A=1\nRUN make $A\nLABEL l=$A\nCMD run\n"
    image: Image = run(site.build(text, tags=("app:1",), labels={"x": "y"}))
    assert [entry.created_by for entry in image.history] == [
        "bb",
        "/bin/sh -c #(nop)  ENV A=1",
        "/bin/sh -c make $A",
        "/bin/sh -c #(nop)  LABEL l=1",
        '/bin/sh -c #(nop)  CMD ["/bin/sh" "-c" "run"]',
        "/bin/sh -c #(nop)  LABEL x=y",
    ]
    assert [entry.empty_layer for entry in image.history[1:]] == [True, False, True, True, True]
    assert image.config.labels == {"l": "1", "x": "y"} and image.config.cmd == ("/bin/sh", "-c", "run")
    assert "Step 6/6 : LABEL 'x'='y'\n" in site.output.text and "Step 1/6 : FROM bb\n" in site.output.text
    assert site.store.find("app:1") is not None
    parents = [image.parent]
    while parents[-1] in site.store.images and site.store.images[parents[-1]].parent:
        parents.append(site.store.images[parents[-1]].parent)
    assert len(parents) == 5


def test_the_second_build_is_the_first_one() -> None:
    site = Site()
    text = "FROM bb\nARG V=1\nWORKDIR /x\nCOPY a /a\nRUN make\nUSER u\n"
    first = run(site.build(text, {"a": "1"}))
    assert run(site.build(text, {"a": "1"})).id == first.id
    assert site.output.text.count("Using cache") == 5
    assert not site.runner.steps and not site.files.changes
    changed = run(site.build(text, {"a": "2"}))
    assert changed.id != first.id and site.output.text.count("Using cache") == 2
    assert run(site.build(text, {"a": "1"}, no_cache=True)).id not in (first.id, changed.id)


def test_only_what_the_target_needs_is_built() -> None:
    site = Site()
    text = (
        "FROM bb AS a\nRUN one\nFROM bb AS b\nRUN two\nFROM scratch AS c\nCOPY --from=a /out/app /x\n"
        "FROM c\nRUN --mount=type=bind,from=1,source=out/app,target=/y three\n"
    )
    run(site.build(text, target="c"))
    assert [step.command.args[-1] for step in site.runner.steps] == ["one"]
    run(site.build(text, no_cache=True))
    assert [step.command.args[-1] for step in site.runner.steps] == ["one", "two", "three"]


def test_build_arguments_are_seen_where_they_are_declared() -> None:
    site = Site(base(), base("other"))
    text = "ARG FROM_=other\nARG G=g\nFROM ${FROM_} AS one\nRUN before\nARG A=default\nARG G\nRUN after\nFROM one\nRUN child\n"
    run(site.build(text, build_args={"A": "given", "http_proxy": "p"}))
    before, after, child = (step.env for step in site.runner.steps)
    assert before == ("http_proxy=p",)
    assert after == ("A=given", "G=g", "http_proxy=p") and child == after
    image = run(site.build(text, build_args={"A": "given", "http_proxy": "other"}))
    assert image.history[-1].created_by == "|2 A=given G=g /bin/sh -c child"
    assert site.output.text.count("Using cache") == 5  # a proxy changes nothing
    run(site.build(text, build_args={"NOBODY": "x"}))
    assert "[Warning] One or more build-args [NOBODY] were not consumed\n" in site.output.text


def test_environment_wins_over_arguments_and_path_is_there() -> None:
    site = Site()
    image = run(site.build("FROM bb\nARG A=1\nENV A=2 PATH=$PATH:/x\nRUN show\nLABEL l=$A\n"))
    assert site.runner.steps[0].env == () and image.config.labels == {"l": "2"}
    assert image.config.env == (
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/x",
        "A=2",
    )


def test_copies() -> None:
    site = Site()
    text = (
        "FROM bb\nWORKDIR /w\nCOPY a b ./\nCOPY --chown=u --chmod=600 a /etc\nADD a c\nCOPY . /all\n"
        "COPY <<one <<two /in/\n1\none\n2\ntwo\n"
    )
    run(site.build(text, {"a": "1", "b": "2"}))
    assert site.files.done == [
        "mkdir /w (0, 0)", "a -> /w/ (0, 0)", "b -> /w/ (0, 0)", "a -> /etc/ (7, 7) 600", "a -> /w/c (0, 0)", ". -> /all (0, 0)",
        "one -> /in/ (0, 0)", "two -> /in/ (0, 0)",
    ]  # fmt: skip


def test_windows_dockerfiles() -> None:
    site = Site()
    text = (
        "# escape=`\nFROM win\nENV App=C:\\app\nENV APP=C:\\other\nWORKDIR sub\n"
        "WORKDIR C:/x\\y\nCOPY a `\n  C:\\App\\\nRUN dir /b %APP%\n"
        'RUN ["cmd", "/c", "ver"]\nENV PATH=C:\\t;$path\nCMD type a\nENTRYPOINT go\n'
    )
    image = run(site.build(text, {"a": "1"}))
    assert image.config.env == ("APP=C:\\other", "PATH=C:\\t;c:\\Windows\\System32;c:\\Windows")
    assert image.config.working_dir == "C:\\x\\y"
    shell, exec_form = (step.command for step in site.runner.steps)
    assert shell.args == ("cmd /S /C dir /b %APP%",) and shell.args_escaped
    assert exec_form.args == ("cmd", "/c", "ver") and not exec_form.args_escaped
    assert image.config.cmd == ("cmd /S /C type a",) and image.config.entrypoint == ("cmd /S /C go",)
    assert image.config.args_escaped
    assert site.files.done[-1] == "a -> /silo/prefix/drive_c/App/ (0, 0)"
    assert site.files.done[0] == "mkdir /silo/prefix/drive_c/sub (0, 0)"


def test_triggers_are_for_one_generation() -> None:
    site = Site()
    parent = run(site.build("FROM bb\nONBUILD RUN one\nONBUILD ENV a=b\n", tags=("parent:latest",)))
    assert parent.config.on_build == ("RUN one", "ENV a=b")
    child = run(site.build("FROM parent\nRUN two\n", tags=("child:latest",)))
    assert child.config.on_build == () and "a=b" in child.config.env
    run(site.build("FROM child\nRUN three\n"))
    assert [step.command.args[-1] for step in site.runner.steps] == ["three"]
    failing = run(site.build("FROM bb\nONBUILD RUN exit 4\n", tags=("bad:latest",)))
    assert failing.config.on_build
    with pytest.raises(StepFailed, match=r"Dockerfile:2: ONBUILD:1: The command .* code: 4"):
        run(site.build("# x\nFROM bad\n"))


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            "FROM bb\n\nRUN exit 3",
            StepFailed,
            "Dockerfile:3: The command '/bin/sh -c exit 3' returned a non-zero code: 3",
        ),
        ("FROM bb\nCOPY none /x", NotFound, "Dockerfile:2: COPY failed: file not found in build context"),
        ("FROM bb\nCOPY --from=one none /x", NotFound, "Dockerfile:2: --from=one is neither"),
        ("FROM none", NotFound, "Dockerfile:1: pull access denied"),
        ("FROM $none", InvalidRequest, "Dockerfile:1: base name"),
        ("FROM scratch", InvalidRequest, "No image was generated"),
        ("FROM bb\nCOPY [ab] /x", InvalidRequest, "Dockerfile:2: When using COPY with more than one source"),
        ("FROM bb\nCOPY z* /x", InvalidRequest, "Dockerfile:2: COPY failed: no source files"),
        ("FROM bb\nRUN --device=x y", Unsupported, "Dockerfile:2: RUN --device=x is not supported"),
        ("FROM bb\nADD git@host:x /x", Unsupported, "Dockerfile:2: ADD of a git repository"),
        ("FROM bb\nRUN --mount=type=secret,id=a,required x", Unsupported, "cannot hand over a secret"),
        ("FROM bb\nRUN --mount=type=bind,target=/x,rw y", Unsupported, "rw is not supported"),
        ("FROM bb\nRUN --mount=type=cache,target=/x,uid=5 y", Unsupported, "uid, gid, mode"),
        ("FROM win\nCOPY --chown=1 a C:/x", Unsupported, "Dockerfile:2: COPY --chown is not supported for Windows"),
        ("FROM win\nRUN more <<X\nX\n", Unsupported, "Dockerfile:2: this heredoc"),
        ("FROM bb\nRUN ", InvalidRequest, "Dockerfile:2: RUN names no command"),
    ],
)
def test_failures_name_the_line(text: str, kind: type[SiloError], words: str) -> None:
    site = Site()
    with pytest.raises(kind) as raised:
        run(site.build(text, {"a": "", "b": ""}))
    assert words in str(raised.value)


def test_pulls() -> None:
    site = Site()
    site.store.remote = {"registry.example/x": base("x"), "bb": base("fresh")}
    logins = {
        "registry.example": Credentials(username="u", password="p"),
        "https://index.docker.io/v1/": Credentials(username="h"),
    }
    run(site.build("FROM registry.example/x\nCOPY --from=registry.example/x out/app /a\n", credentials=logins))
    assert [(pull.reference, pull.username) for pull in site.store.pulls] == [("registry.example/x", "u")]
    run(site.build("FROM bb\nENV a=b\n", pull=True, credentials=logins, platform="linux/amd64"))
    assert site.store.pulls[-1].username == "h" and site.store.pulls[-1].platform == "linux/amd64"


def test_the_windows_base_is_built_by_its_first_use() -> None:
    site = Site()
    image = run(site.build("FROM windows\nRUN ver\n", pull=True))
    assert image.platform.os == "windows" and not site.store.pulls
    assert "Building the image windows" in site.output.text
    run(site.build("FROM windows\nRUN ver\n", pull=True))
    assert "Building the image windows" not in site.output.text
    with pytest.raises(NotFound):
        run(site.build("FROM --platform=linux/amd64 windows\n"))


def test_platforms() -> None:
    site = Site(base("both"), base("both", platform=WINDOWS))
    text = "FROM --platform=$BUILDPLATFORM both\nARG TARGETPLATFORM\nARG TARGETOS=x\nLABEL t=$TARGETPLATFORM/$TARGETOS b=$BUILDOS\n"
    image = run(site.build(text, platform="windows/amd64"))
    assert image.platform.os == "linux" and image.config.labels == {"t": "windows/amd64/x", "b": ""}
    assert run(site.build("FROM both\nENV a=b\n", platform="windows/amd64")).platform.os == "windows"


def test_steps_of_another_image_are_taken_over() -> None:
    one, text = Site(), "FROM bb\nENV a=b\nRUN make\nRUN more\n"
    built = run(one.build(text))
    two = Site()
    two.store.images[built.id] = Image(
        id=built.id,
        platform=built.platform,
        config=built.config,
        layers=built.layers,
        history=built.history,
        tags=("c:latest",),
    )
    image = run(two.build(text + "RUN last\n", cache_from=("c", "unknown")))
    assert two.output.text.count("Using cache") == 3 and len(two.runner.steps) == 1
    assert image.layers[:-1] == built.layers
    run(two.build("FROM bb\nENV a=b\nRUN other\nRUN more\n", cache_from=("c",)))
    assert [step.shown for step in two.runner.steps] == ["/bin/sh -c other", "/bin/sh -c more"]


def test_the_context_by_a_url_and_by_its_own_ignore_file() -> None:
    site = Site()
    site.files.web["http://h/Dockerfile"] = ("Dockerfile", b"FROM bb\nENV a=b\n")
    assert "a=b" in run(site.build("", remote="http://h/Dockerfile")).config.env
    with pytest.raises(Unsupported, match="git"):
        run(site.build("", remote="https://h/x.git"))
    one = run(site.build("FROM bb\nCOPY . /\n", {".dockerignore": "Dockerfile\n.dockerignore\n", "a": "1"}))
    two = run(site.build("FROM bb\nCOPY . /\n# other\n", {".dockerignore": "Dockerfile\n.dockerignore\n#\n", "a": "1"}))
    assert one.id == two.id
    with pytest.raises(InvalidRequest, match="Cannot locate specified Dockerfile: other"):
        run(site.build("FROM bb\n", dockerfile="other"))


def test_an_author_stays_and_counts() -> None:
    site = Site()
    image = run(site.build("FROM bb\nMAINTAINER me\nENV a=b\n"))
    assert image.author == "me"
    assert run(site.build("FROM bb\nENV a=b\n")).author == ""
