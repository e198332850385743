"""The typed values of instructions, and what is refused with the instruction's place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from silo.dockerfile import options, run_options
from silo.dockerfile.expansion import expand, expand_heredoc, expand_words
from silo.dockerfile.modes import parse_mode
from silo.dockerfile.parser import parse_dockerfile
from silo.dockerfile.quantities import parse_duration_s, parse_size_bytes
from silo.dockerfile.run_options import MountType, RunMount, Sharing
from silo.dockerfile.syntax import Heredoc, Instruction
from silo.errors import InvalidRequest

VALUES = {"v": "value", "ports": "80 90/udp", "mode": "750"}


def _only(text: str, escape: str = "\\") -> Instruction:
    return parse_dockerfile(f"# escape={escape}\nFROM a\n{text}".encode()).stages[0].instructions[0]


def _fill(text: str) -> str:
    return expand(text, VALUES, escape="\\")


def _fill_windows(text: str) -> str:
    return expand(text, VALUES, escape="`", ignore_case=True)


def _copy(text: str) -> options.FileCopy:
    return options.parse_file_copy(_only(text), _fill, lambda heredoc: expand_heredoc(heredoc, VALUES))


def test_a_copy_with_everything() -> None:
    copied = _copy(
        "COPY --from=b --chown=$v:g --chmod=$mode --link --parents=false --exclude=*.a --exclude=!b x/$v <<E 'y' d/\n$v\nE"
    )
    assert copied.sources == ("x/value", "y")
    assert copied.contents == (Heredoc(name="E", text="value\n", expand=True),)
    assert (copied.destination, copied.owner, copied.source_stage) == ("d/", "value:g", "b")
    assert copied.mode and copied.mode.absolute == 0o750
    assert (copied.is_linked, copied.keeps_parents, copied.excludes) == (True, False, ("*.a", "!b"))


def test_a_copy_for_windows_keeps_backslashes() -> None:
    instruction = _only("COPY a\\*.exe b\\ C:\\$V\\", "`")
    copied = options.parse_file_copy(instruction, _fill_windows, lambda heredoc: heredoc.text)
    assert (copied.sources, copied.destination) == (("a\\*.exe", "b\\"), "C:\\value\\")


def test_an_add_has_flags_of_its_own() -> None:
    added = _copy(f"ADD --checksum=sha256:{'a' * 64} --keep-git-dir --unpack=false https://x/y /")
    assert (added.checksum, added.keeps_git_directory, added.unpacks) == ("sha256:" + "a" * 64, True, False)
    assert _copy("ADD a /").unpacks is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY --from=$v a b", "Dockerfile:3: 'from' doesn't support variable expansion"),
        ("COPY a b c", "Dockerfile:3: when using COPY with more than one source file, the destination must be a dir"),
        ("COPY a $none", "Dockerfile:3: the destination is empty"),
        ("COPY a $none b/", "Dockerfile:3: a source is empty"),
        ("COPY --chmod=9 a b", 'Dockerfile:3: invalid chmod parameter "9"'),
        (
            "COPY --chmod=17777 a b",
            'Dockerfile:3: invalid chmod parameter "17777" (an octal mode is between 0 and 7777)',
        ),
        ("COPY <<a/b c\na/b", "Dockerfile:3: a heredoc's name is a file's name"),
        ("ADD --checksum=md5:1 a b", 'Dockerfile:3: invalid checksum "md5:1"'),
        (f"ADD --checksum=sha256:{'0' * 64} a b c/", "Dockerfile:3: checksum can't be specified for multiple sources"),
    ],
)
def test_a_copy_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _copy(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("destination", ["d/", "d\\", ".", "/a/.", "../.."])
def test_several_sources_go_to_a_directory(destination: str) -> None:
    assert _copy(f'COPY ["a", "b", "{destination}"]'.replace("\\", "\\\\\\\\")).sources == ("a", "b")


@pytest.mark.parametrize(
    ("text", "mode", "is_directory", "result"),
    [
        ("755", 0o600, False, 0o755),
        ("4755", 0o600, False, 0o4755),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("u=rwX,go=rX", 0o610, False, 0o755),
        ("+x", 0o644, False, 0o755),
        ("a-w", 0o666, False, 0o444),
        ("g=u", 0o740, False, 0o770),
        ("go=u-w", 0o700, False, 0o755),
        ("go=", 0o777, False, 0o700),
        ("u+s,g+s,+t", 0o755, False, 0o7755),
        ("o+s", 0o755, False, 0o755),
        ("u-s", 0o4755, False, 0o755),
        ("ug+rw-x", 0o111, False, 0o661),
    ],
)
def test_modes(text: str, mode: int, is_directory: bool, result: int) -> None:
    assert parse_mode(text).apply(mode, is_directory=is_directory) == result


@pytest.mark.parametrize("text", ["", "8", "u", "u=q", "x=r", "u=r,", "+r" * 200, "0o7", "-1"])
def test_what_is_no_mode(text: str) -> None:
    with pytest.raises(ValueError, match="octal"):
        parse_mode(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), (".5s", 0.5), ("1h2m3s", 3723)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "-5s", "s", "1d", "1s ", "9" * 30 + "h", "1s" * 60])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64m", 64 << 20), ("1.5G", 3 << 29), ("10", 10), ("1KiB", 1024), ("2gb", 2 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size_bytes(text) == size


def test_a_health_check_has_dockers_defaults() -> None:
    shell = options.parse_healthcheck(_only("HEALTHCHECK --interval=1m30s --start-period=2s --retries=5 CMD a || b"))
    assert shell.test == ("CMD-SHELL", "a || b")
    assert (shell.interval_s, shell.timeout_s, shell.start_period_s, shell.start_interval_s, shell.retries) == (
        90,
        30,
        2,
        5,
        5,
    )
    listed = options.parse_healthcheck(_only('HEALTHCHECK --timeout=0 CMD ["a", "b"]'))
    assert (listed.test, listed.timeout_s, listed.retries) == (("CMD", "a", "b"), 30, 3)
    assert options.parse_healthcheck(_only("HEALTHCHECK NONE")).test == ("NONE",)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--interval=5", "Dockerfile:3: --interval=5 (a duration is"),
        ("--interval=100us", "Dockerfile:3: interval interval cannot be less than 1ms"),
        ("--retries=-1", "Dockerfile:3: --retries=-1 is no count"),
        ("--retries=x", "Dockerfile:3: --retries=x is no count"),
    ],
)
def test_a_health_check_that_cannot_be_is_refused(flag: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        options.parse_healthcheck(_only(f"HEALTHCHECK {flag} CMD a"))
    assert str(caught.value).startswith(message)


def _ports(text: str) -> tuple[str, ...]:
    return options.parse_exposed_ports(_only(text), lambda word: expand_words(word, VALUES, escape="\\"))


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("EXPOSE 80", ("80/tcp",)),
        ("EXPOSE 80/UDP 80 80/tcp", ("80/udp", "80/tcp")),
        ("EXPOSE $ports", ("80/tcp", "90/udp")),
        ("EXPOSE 7-9/sctp", ("7/sctp", "8/sctp", "9/sctp")),
        ("EXPOSE 8080:80 127.0.0.1:81:82/udp", ("80/tcp", "82/udp")),
    ],
)
def test_ports(text: str, ports: tuple[str, ...]) -> None:
    assert _ports(text) == ports


@pytest.mark.parametrize("port", ["x", "9-8", "65536", "80/icmp", "-1", "80-", "/tcp", "٣", "0-65535 " * 4])
def test_what_is_no_port(port: str) -> None:
    with pytest.raises(InvalidRequest, match=r"Dockerfile:3: (invalid port|more than)"):
        _ports(f"EXPOSE {port}")


def test_pairs_and_arguments() -> None:
    assert options.parse_pairs(_only("ENV A=$v B=\"$A x\" C='$v'"), _fill) == (("A", "value"), ("B", " x"), ("C", "$v"))
    assert options.parse_pairs(_only("LABEL a.b some $v text"), _fill) == (("a.b", "some value text"),)
    windows = options.parse_pairs(_only(r'ENV P="C:\Program Files\x" Q=C:\a', "`"), _fill_windows)
    assert windows == (("P", r"C:\Program Files\x"), ("Q", r"C:\a"))
    assert options.parse_arguments(_only("ARG A B= C=$x=y")) == (("A", None), ("B", ""), ("C", "$x=y"))
    with pytest.raises(InvalidRequest, match="names can not be blank"):
        options.parse_pairs(_only("ENV $none=x"), _fill)


@pytest.mark.parametrize("text", ["ENV {}", "COPY {} d/", "VOLUME {}"])
def test_a_long_value_that_is_named_often_is_refused(text: str) -> None:
    instruction = _only(text.format(" ".join(f"a{number}=$v" for number in range(20))))
    values = {"v": "x" * 500_000}

    def fill(word: str) -> str:
        return expand(word, values, escape="\\")

    calls: dict[str, Callable[[], object]] = {
        "ENV": lambda: options.parse_pairs(instruction, fill),
        "COPY": lambda: options.parse_file_copy(instruction, fill, lambda heredoc: heredoc.text),
        "VOLUME": lambda: options.parse_volumes(instruction, fill),
    }
    with pytest.raises(InvalidRequest, match="Dockerfile:3: its variables make more than 4194304 characters"):
        calls[instruction.name]()


@pytest.mark.parametrize("name", ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-2", "64"])
def test_stop_signals(name: str) -> None:
    assert options.parse_stop_signal(_only(f"STOPSIGNAL {name}"), _fill) == name


@pytest.mark.parametrize("name", ["SIGX", "0", "65", "-1", "RTMIN+31", "SIGSIGTERM", "²", "9" * 100])
def test_what_is_no_signal(name: str) -> None:
    with pytest.raises(InvalidRequest, match="unknown signal"):
        options.parse_stop_signal(_only(f"STOPSIGNAL {name}"), _fill)


def test_those_of_one_word() -> None:
    assert options.parse_user(_only("USER ContainerAdministrator"), _fill) == "ContainerAdministrator"
    assert options.parse_user(_only("USER CORP\\me", "`"), _fill_windows) == "CORP\\me"
    assert options.parse_path(_only("WORKDIR C:\\$V x", "`"), _fill_windows) == "C:\\value x"
    assert options.parse_volumes(_only("VOLUME /a $v /a"), _fill) == ("/a", "value")
    refused: list[tuple[Callable[..., Any], str]] = [
        (options.parse_path, "WORKDIR $none"),
        (options.parse_volumes, "VOLUME $none"),
        (options.parse_user, "USER a\x07"),
    ]
    for parse, text in refused:
        with pytest.raises(InvalidRequest, match="Dockerfile:3: "):
            parse(_only(text), _fill)


def _mount(text: str) -> RunMount:
    return run_options.parse_run_options(_only(f"RUN --mount={text} a"), _fill).mounts[0]


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/a", RunMount(target="/a")),
        ("type=bind,from=b,src=x,dst=/$v,rw", RunMount(source_stage="b", source="x", target="/value", read_only=False)),
        (
            "type=cache,target=/c,sharing=locked,uid=5,mode=0700",
            RunMount(
                type=MountType.CACHE, target="/c", id="/c", sharing=Sharing.LOCKED, uid=5, mode=0o700, read_only=False
            ),
        ),
        ("type=cache,id=i,destination=/c,ro=1", RunMount(type=MountType.CACHE, target="/c", id="i")),
        (
            "type=tmpfs,target=/t,size=1g",
            RunMount(type=MountType.TMPFS, target="/t", size_bytes=1 << 30, read_only=False),
        ),
        ("type=secret,id=s,env=E,required", RunMount(type=MountType.SECRET, id="s", variable="E", is_required=True)),
        ("type=secret,target=/x/y", RunMount(type=MountType.SECRET, id="y", target="/x/y")),
        ("type=SSH", RunMount(type=MountType.SSH, id="default")),
        ("'\"target=/a,b\",readonly=false'", RunMount(target="/a,b", read_only=False)),
    ],
)
def test_mounts_of_run(text: str, mount: RunMount) -> None:
    assert _mount(text) == mount


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=bnd,target=/a", 'unsupported type "bnd" (one of bind, cache'),
        ("tagret=/a", 'unexpected key "tagret" (did you mean target?)'),
        ("type=cache", "a cache mount has a target"),
        ("type=bind,target=/a,size=5", 'unexpected key "size" for mount type "bind"'),
        ("type=tmpfs,target=/a,size=x", "a size is a number"),
        ("type=secret", "invalid secret mount"),
        ("type=secret,id=a,src=b", "both source and id can't be set"),
        ("target=/a,from=$v", "'from' doesn't support variable expansion"),
        ("target", 'invalid field "target" must be a key=value pair'),
        ("target=/a,ro=maybe", 'invalid value for ro: "maybe"'),
        ("type=cache,target=/a,mode=9", 'invalid value "9" for mode'),
        ("type=cache,target=/a,uid=4294967295", "the uid 4294967295 is too large"),
        ("type=cache,target=/a,sharing=no", 'unsupported sharing "no"'),
    ],
)
def test_a_mount_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _mount(text)
    assert str(caught.value).startswith(f"Dockerfile:3: --mount={text}: {message}")


def test_network_and_security_of_run() -> None:
    parsed = run_options.parse_run_options(_only("RUN --network=none --security=insecure --device=x a"), _fill)
    assert (parsed.network, parsed.security, parsed.devices) == ("none", "insecure", ("x",))
    for flag in ("--network=bridge", "--security=off"):
        with pytest.raises(InvalidRequest, match="Dockerfile:3: unsupported"):
            run_options.parse_run_options(_only(f"RUN {flag} a"), _fill)


def test_what_a_run_runs() -> None:
    def run(text: str) -> run_options.RunCommand:
        return run_options.parse_run_command(_only(text))

    assert run('RUN ["a", "b"]').words == ("a", "b")
    assert run("RUN a && b").script == "a && b"
    assert run("RUN <<E\na\nb\nE").script == "a\nb\n"
    program = run("RUN <<E\n#!/bin/x\nb\nE").program
    assert program and program.text == "#!/bin/x\nb\n"
    assert run("RUN <<E cat > /f\na\nE").script == "<<E cat > /f\na\nE"
    assert run("RUN a <<E && b <<-F\n1\nE\n\t2\n\tF").script == "a <<E && b <<-F\n1\nE\n2\nF"
