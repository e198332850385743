"""Contexts for builds, and docker's client speaking the classic build protocol."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.daemon import COMMAND_TIMEOUT_S, Docker

BUILD_TIMEOUT_S = 4 * COMMAND_TIMEOUT_S


def write_context(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Files by relative name; missing folders are made."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def context_tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A context as no well-meaning client would send it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o644
    return info, data


@dataclass(frozen=True)
class Builder:
    """`docker build` without BuildKit."""

    docker: Docker

    @property
    def environment(self) -> dict[str, str]:
        return dict(self.docker.environment) | {"DOCKER_BUILDKIT": "0"}

    def try_(self, context: Path | str, *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Whatever comes; warnings of the client about its age are not in the output."""
        done = subprocess.run(
            [self.docker.program, "build", *words, str(context)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.environment,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def __call__(self, context: Path | str, *words: str, stdin: bytes | None = None) -> str:
        """A build that must succeed; what it prints."""
        done = self.try_(context, *words, stdin=stdin)
        assert done.returncode == 0, f"docker build {' '.join(words)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def dockerfile(self, text: str, *words: str) -> str:
        """Of a Dockerfile that needs no context."""
        return self("-", *words, stdin=text.encode())

    def start(self, context: Path, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.docker.program, "build", *words, str(context)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def image_id(self, context: Path | str, *words: str, stdin: bytes | None = None) -> str:
        return self(context, "-q", *words, stdin=stdin).strip()


def silo(docker: Docker, *words: str, stdin: bytes | None = None, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """Our own client on the same daemon."""
    program = Path(__file__).resolve().parents[2] / "bin" / "silo"
    environment = os.environ | {"SILO_HOST": f"unix://{docker.silod.socket}"}
    return subprocess.run(
        [str(program), *words],
        input=stdin,
        capture_output=True,
        env=environment,
        timeout=BUILD_TIMEOUT_S,
        check=False,
        **more,
    )
