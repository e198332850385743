"""Files by the guest's agent, which may lie about every size."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from silo.errors import GuestError, NotFound, Unsupported
from silo.isolation.vm.whole.guest_agent import GuestAgent
from silo.isolation.vm.whole.guest_files import PIECE_BYTES, GuestFiles, one_piece
from tests.unit.isolation.vm.whole.fake_agent import FakeAgent, Refusal, scenario

NO_TAR = Refusal("GenericError", "Failed to execute child process (The system cannot find the file specified.)")


class Disk:
    """guest-file-*, and programs by a function of their words: (code, stdout, stderr)."""

    def __init__(self, fake: FakeAgent, program: Callable[[list[str]], tuple[int, bytes, bytes]]) -> None:
        self.files: dict[str, bytes] = {}
        self.ran: list[list[str]] = []
        self._program = program
        self._handles: dict[int, list[Any]] = {}
        self._results: list[tuple[int, bytes, bytes]] = []
        for name in ("open", "close", "read", "write", "seek"):
            fake.answers[f"guest-file-{name}"] = getattr(self, name)
        fake.answers["guest-exec"] = self.run
        fake.answers["guest-exec-status"] = self.status

    def open(self, arguments: Any) -> int:
        path, mode = arguments["path"], arguments["mode"]
        if mode == "wb":
            self.files[path] = b""
        elif path not in self.files:
            raise Refusal("GenericError", f"failed to open file '{path}': No such file or directory")
        self._handles[len(self._handles) + 1000] = [path, 0]
        return len(self._handles) + 999

    def close(self, arguments: Any) -> dict[str, Any]:
        del self._handles[arguments["handle"]]
        return {}

    def read(self, arguments: Any) -> dict[str, Any]:
        handle = self._handles[arguments["handle"]]
        data = self.files[handle[0]][handle[1] : handle[1] + arguments["count"]]
        handle[1] += len(data)
        return {"count": len(data), "buf-b64": base64.b64encode(data).decode(), "eof": not data}

    def write(self, arguments: Any) -> dict[str, Any]:
        """At most 100,000 bytes at a time."""
        data = base64.b64decode(arguments["buf-b64"])[:100_000]
        self.files[self._handles[arguments["handle"]][0]] += data
        return {"count": len(data), "eof": False}

    def seek(self, arguments: Any) -> dict[str, Any]:
        return {"position": len(self.files[self._handles[arguments["handle"]][0]]), "eof": False}

    def run(self, arguments: Any) -> dict[str, Any]:
        words = [arguments["path"], *arguments["arg"]]
        self.ran.append(words)
        self._results.append(self._program(words))
        return {"pid": len(self._results)}

    def status(self, arguments: Any) -> dict[str, Any]:
        code, out, err = self._results[arguments["pid"] - 1]
        texts = {"out-data": base64.b64encode(out).decode(), "err-data": base64.b64encode(err).decode()}
        return {"exited": True, "exitcode": code, **texts}


Body = Callable[[GuestFiles, Disk, FakeAgent], Awaitable[None]]


def with_disk(body: Body, program: Any = lambda words: (0, b"", b""), *, windows: bool = False) -> None:
    async def whole(agent: GuestAgent, fake: FakeAgent) -> None:
        disk = Disk(fake, program)
        await body(GuestFiles(agent, windows=windows), disk, fake)
        assert not disk._handles

    scenario(whole)


async def gather(pieces: Any) -> bytes:
    return b"".join([piece async for piece in pieces])


def linux(words: list[str]) -> tuple[int, bytes, bytes]:
    return (0, b"/var/tmp/silo.x\n", b"") if "mktemp" in words[-1] else (0, b"", b"")


def test_a_file_there_and_back_in_pieces() -> None:
    async def body(files: GuestFiles, disk: Disk, fake: FakeAgent) -> None:
        content = bytes(range(256)) * 6000
        await files.write("/file", one_piece(content))
        assert disk.files["/file"] == content and len(content) > 2 * PIECE_BYTES
        assert await gather(files.read("/file")) == content
        with pytest.raises(NotFound):
            await gather(files.read("/nothing"))

    with_disk(body)


def test_archives_pass_through_a_file_that_is_removed() -> None:
    async def body(files: GuestFiles, disk: Disk, fake: FakeAgent) -> None:
        await files.archive_in("/srv/", one_piece(b"archive"))
        assert disk.files["/var/tmp/silo.x"] == b"archive"
        assert ["tar", "-C", "/srv", "-xpf", "/var/tmp/silo.x", "--no-same-owner"] in disk.ran
        assert disk.ran[-1] == ["rm", "-f", "--", "/var/tmp/silo.x"]
        assert await gather(files.archive_out("/srv/-tree")) == b"archive"
        assert ["tar", "-C", "/srv", "-cf", "/var/tmp/silo.x", "--", "-tree"] in disk.ran
        assert disk.ran[-1][0] == "rm"

    with_disk(body, linux)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"tar: x: Cannot stat: No such file or directory", NotFound), (b"tar: damaged\x1b[1m", GuestError)],
)
def test_what_tar_complains_of(text: bytes, expected: type[Exception]) -> None:
    def program(words: list[str]) -> tuple[int, bytes, bytes]:
        return (2, b"", text) if words[0] == "tar" else linux(words)

    async def body(files: GuestFiles, disk: Disk, fake: FakeAgent) -> None:
        with pytest.raises(expected) as failed:
            await gather(files.archive_out("/x"))
        assert "\x1b" not in str(failed.value) and disk.ran[-1][0] == "rm"

    with_disk(body, program)


def windows(words: list[str]) -> tuple[int, bytes, bytes]:
    if words[0] == "tar":
        raise NO_TAR
    return 0, b"", b""


def test_a_windows_without_tar_gives_single_files_and_takes_none() -> None:
    async def body(files: GuestFiles, disk: Disk, fake: FakeAgent) -> None:
        content = bytes(range(256)) * 5
        disk.files["C:\\data\\one.bin"] = content
        packed = await gather(files.archive_out("C:/data/one.bin"))
        assert len(packed) % 10240 == 0
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            assert archive.getnames() == ["one.bin"]
            member = archive.extractfile("one.bin")
            assert member is not None and member.read() == content
        assert (await files.stat("C:\\data\\one.bin")).size == len(content)
        with pytest.raises(Unsupported, match="no tar"):
            await files.archive_in("C:\\data", one_piece(b"x"))
        assert disk.ran[-1][:4] == ["cmd.exe", "/d", "/c", "del"]

    with_disk(body, windows, windows=True)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"count": 5, "buf-b64": "?", "eof": True}, "base64"),
        ({"count": "x"}, "cannot be read"),
        ([], "cannot be read"),
    ],
)
def test_a_guest_that_lies_about_a_file(answer: Any, words: str) -> None:
    async def body(files: GuestFiles, disk: Disk, fake: FakeAgent) -> None:
        disk.files["/x"] = b"x"
        fake.answers["guest-file-read"] = lambda _: answer
        with pytest.raises(GuestError, match=words):
            await gather(files.read("/x"))

    with_disk(body)


@pytest.mark.parametrize("count", [0, -1, 99])
def test_a_guest_that_lies_about_what_it_has_written(count: int) -> None:
    async def body(files: GuestFiles, disk: Disk, fake: FakeAgent) -> None:
        fake.answers["guest-file-write"] = lambda _: {"count": count}
        with pytest.raises(GuestError, match="says that it has written"):
            await files.write("/x", one_piece(b"data"))

    with_disk(body)


@pytest.mark.parametrize("text", [b"", b"zz 1 2 3 4\n", b"81a4 1 2 3\n", b"81a4 -1 2 3 4\n", b"a1ff 1 2 3 4\n"])
def test_a_status_that_cannot_be_read(text: bytes) -> None:
    async def body(files: GuestFiles, disk: Disk, fake: FakeAgent) -> None:
        if text.startswith(b"a1ff"):
            assert (await files.stat("/x")).link == ""
        else:
            with pytest.raises(GuestError, match="cannot be read"):
                await files.stat("/x")

    with_disk(body, lambda words: (0, text, b""))
