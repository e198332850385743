"""Pull and push: skopeo moves the bytes, this module chooses, watches and verifies. Blocks.

A pull asks for the manifest first and keeps its very bytes, so that the digest is the registry's. Which platform of an index is
taken is decided here. Then skopeo fills a staging directory in which layers that the store holds are hard-linked already, so
they are not fetched again; what arrived is adopted under verification.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from silo.engine.ports import PullRequest
from silo.errors import CommandFailed, InvalidRequest, NotFound, SiloError, Unsupported
from silo.host.run import run
from silo.host.watch import run_watched
from silo.images import skopeo
from silo.images.blobs import BlobStore, check_room
from silo.images.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    document_type,
    parse_image,
    parse_index,
    parse_manifest,
    platform_of,
)
from silo.images.intake import Intake
from silo.images.limits import ImageLimits
from silo.images.platforms import PlatformWish, parse_platform, preference
from silo.images.records import ImageRecord, ManifestRecord
from silo.images.references import Reference, parse_reference
from silo.images.skopeo import Access
from silo.images.watching import CheckedProgress, PullWatch, PushWatch, short
from silo.images.windows_bases import build_of, check_build
from silo.images.workspace import Operation, Workspace

_INSPECT_TIME_LIMIT_S = 120.0
_ATTESTATION = "vnd.docker.reference.type"


class Transport:
    """Talks to registries through skopeo."""

    def __init__(
        self,
        workspace: Workspace,
        blobs: BlobStore,
        intake: Intake,
        limits: ImageLimits,
        *,
        insecure_registries: Sequence[str] = (),
        windows_version: str,
        bases_mirror: str = "",
    ) -> None:
        """`windows_version`: what Silo's base claims to be; images for newer builds are not chosen by themselves.

        `bases_mirror`: a registry that is asked instead of Microsoft's for the manifests of Windows' bases.
        """
        self._windows_version = windows_version
        self._bases_mirror = bases_mirror
        self._workspace = workspace
        self._blobs = blobs
        self._intake = intake
        self._limits = limits
        self._insecure = frozenset(insecure_registries)

    @contextlib.contextmanager
    def _access(self, operation: Operation, request: PullRequest, domain: str) -> Iterator[Access]:
        verify = not request.insecure and skopeo.verifies_tls(domain, self._insecure)
        access = Access(verify_tls=verify, has_policy=skopeo.POLICY_FILE.exists())
        if not request.username and not request.password:
            yield access
            return
        authfile = operation.path()
        descriptor = os.open(authfile, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(skopeo.build_authfile(domain, request.username, request.password))
            yield msgspec.structs.replace(access, authfile=authfile)
        finally:
            authfile.unlink()

    def pull(self, operation: Operation, request: PullRequest, progress: CheckedProgress) -> ImageRecord:
        """Raises NotFound, AccessDenied, Unavailable, InvalidRequest, NoSpace, HostError."""
        reference = parse_reference(request.reference).with_default_tag()
        wish = parse_platform(request.platform)
        with self._access(operation, request, reference.domain) as access:
            try:
                return self._pull(operation, reference, wish, request.base_layers, access, progress)
            except CommandFailed as error:
                raise skopeo.explain_failure(error, reference, pushing=False) from error

    def _pull(
        self,
        operation: Operation,
        reference: Reference,
        wish: PlatformWish,
        base_layers: int | None,
        access: Access,
        progress: CheckedProgress,
    ) -> ImageRecord:
        top = self._ask(operation, skopeo.build_inspect_manifest(reference, access), progress)
        top_digest = _digest(top)
        if reference.digest and reference.digest != top_digest:
            raise InvalidRequest(f"the registry answered {top_digest} when asked for {reference.digest}")
        raw, media_type = self._choose(operation, reference, top, wish, access, progress)
        exact = reference.with_digest(_digest(raw))
        manifest = parse_manifest(raw)
        record = self._intake.store_manifest(operation, raw, media_type)
        config = self._config(operation, exact, manifest, access, progress)
        self._check_platform(reference, config, wish)
        base = self._intake.find_base(
            operation,
            record,
            config,
            progress,
            told=base_layers,
            any_build=bool(wish.os_version),
            origin=reference.name,
        )
        replaced = len(base.diff_ids) if base else 0
        self._fetch(operation, exact, manifest, replaced, access, progress)
        image = self._intake.assemble(
            operation, record, manifest.config.digest, progress, status="Extracting", base=base
        )
        for packed in record.layers[replaced:]:
            progress(short(packed.digest), "Pull complete", 0, 0)
        return msgspec.structs.replace(
            image,
            tags=(msgspec.structs.replace(reference, digest="").canonical,)
            if reference.tag and not reference.digest
            else (),
            digests=(reference.with_digest(top_digest).canonical,),
        )

    @staticmethod
    def _ask(operation: Operation, argv: list[str], progress: CheckedProgress) -> bytes:
        return run_watched(
            argv,
            on_tick=lambda _: progress.check(),
            every_s=0.05,
            time_limit_s=_INSPECT_TIME_LIMIT_S,
            directory=operation.directory,
        ).stdout

    def _choose(
        self,
        operation: Operation,
        reference: Reference,
        top: bytes,
        wish: PlatformWish,
        access: Access,
        progress: CheckedProgress,
    ) -> tuple[bytes, str]:
        """The manifest for the platform, and its media type."""
        media_type = document_type(top)
        if media_type in MANIFEST_TYPES:
            return top, media_type
        if media_type not in INDEX_TYPES:
            parse_manifest(top)
            raise Unsupported(f"{reference.familiar} is of the type {media_type}, which is no image")
        manifests = parse_index(top).manifests
        chosen = choose_platform(manifests, wish, newest_build=build_of(self._windows_version))
        if chosen is None:
            newer = choose_platform(manifests, wish)
            if newer is not None and newer.platform is not None:
                build = build_of(platform_of(newer.platform).os_version)
                check_build(reference.familiar, build, self._windows_version)
            raise NotFound(
                f"no matching manifest for {describe_wish(wish)} in the manifest list entries of {reference.familiar}",
                hint="docker pull --platform os/architecture",
            )
        exact = reference.with_digest(chosen.digest)
        raw = self._ask(operation, skopeo.build_inspect_manifest(exact, access), progress)
        if _digest(raw) != chosen.digest:
            raise InvalidRequest(f"the registry answered {_digest(raw)} when asked for {chosen.digest}")
        return raw, document_type(raw, chosen.media_type)

    def _config(
        self, operation: Operation, exact: Reference, manifest: Manifest, access: Access, progress: CheckedProgress
    ) -> bytes:
        digest = manifest.config.digest
        operation.pin(digest)
        if self._workspace.blob_size(digest) is None:
            raw = self._ask(operation, skopeo.build_inspect_config(exact, access), progress)
            self._blobs.receive(operation, [raw], expected=digest, what="image config")
        return self._blobs.read(digest)

    @staticmethod
    def _check_platform(reference: Reference, config: bytes, wish: PlatformWish) -> None:
        platform = platform_of(parse_image(config)[0])
        if not wish.accepts(platform):
            raise NotFound(
                f"image with reference {reference.familiar} was found but its platform ({platform}) does not match the "
                f"specified platform ({describe_wish(wish)})"
            )

    def _fetch(
        self,
        operation: Operation,
        exact: Reference,
        manifest: Manifest,
        replaced: int,
        access: Access,
        progress: CheckedProgress,
    ) -> None:
        """Get the layers that are not here; of the lowest, `replaced` ones, nothing."""
        layout = operation.path()
        shared = operation.path()
        arriving = shared / "sha256"
        arriving.mkdir(parents=True)
        layout.mkdir()
        for blob in manifest.layers[:replaced]:
            # skopeo takes what lies there for fetched: not a byte of the base is asked for
            with (arriving / blob.digest.removeprefix("sha256:")).open("wb") as file:
                file.truncate(blob.size)
        missing = []
        for blob in {item.digest: item for item in manifest.layers[replaced:]}.values():
            operation.pin(blob.digest)
            if self._workspace.blob_size(blob.digest) is not None:
                (arriving / blob.digest.removeprefix("sha256:")).hardlink_to(self._workspace.blob_path(blob.digest))
                progress(short(blob.digest), "Already exists", 0, 0)
            elif blob.urls:
                raise Unsupported(
                    f"layer {blob.digest[:19]} of {exact.familiar_name} is not in the registry but elsewhere",
                    details=", ".join(blob.urls)[:300],
                    hint="if it belongs to Windows' base, say how many of the lowest layers do: silo pull --base-layers N",
                )
            else:
                missing.append(blob)
                progress(short(blob.digest), "Pulling fs layer", 0, 0)
        if not missing:
            return
        check_room(operation.directory, self._limits.free_bytes + sum(blob.size for blob in missing))
        watch = PullWatch(layout, arriving, missing, progress)
        try:
            run_watched(
                skopeo.build_pull(exact, access, layout=layout, blobs=shared),
                on_tick=watch.tick,
                directory=operation.directory,
            )
        except BaseException:
            self._adopt_finished(operation, arriving, missing)
            raise
        for blob in missing:
            self._blobs.adopt(operation, arriving / blob.digest.removeprefix("sha256:"), blob.digest, what="layer")

    def _adopt_finished(self, operation: Operation, arriving: Path, missing: Sequence[Descriptor]) -> None:
        """Of a pull that failed midway, the layers that had come: skopeo gives a file its name when it is whole."""
        for blob in missing:
            path = arriving / blob.digest.removeprefix("sha256:")
            if path.exists():
                with contextlib.suppress(SiloError):
                    self._blobs.adopt(operation, path, blob.digest, what="layer")

    def login(self, operation: Operation, domain: str, username: str, password: str) -> None:
        """Whether a registry takes these credentials; nothing of them is kept. Raises AccessDenied, Unavailable, HostError."""
        access = Access(
            authfile=operation.path(),
            verify_tls=skopeo.verifies_tls(domain, self._insecure),
            has_policy=skopeo.POLICY_FILE.exists(),
        )
        try:
            run(skopeo.build_login(domain, username, access), input=password.encode(), timeout_s=_INSPECT_TIME_LIMIT_S)
        except CommandFailed as error:
            raise skopeo.explain_login(error, domain) from error

    def push(
        self,
        operation: Operation,
        request: PullRequest,
        image_id: str,
        manifest: ManifestRecord,
        absent: int,
        progress: CheckedProgress,
    ) -> str:
        """Send an image under a name, without its `absent` lowest layers; answers the manifest's digest as the registry has it.

        Raises CommandFailed, which `explain_push` explains.
        """
        reference = parse_reference(request.reference).with_default_tag()
        source = operation.path()
        source.mkdir()
        (source / "version").write_text("Directory Transport Version: 1.1\n")
        (source / "manifest.json").write_bytes(self._blobs.read(manifest.digest))
        sent = manifest.layers[absent:]
        for digest in {image_id, *(layer.digest for layer in sent)}:
            (source / digest.removeprefix("sha256:")).hardlink_to(self._workspace.blob_path(digest))
        for layer in sent:
            progress(short(layer.digest), "Preparing", 0, 0)
        watch = PushWatch(manifest, progress)
        digest_file = operation.path()
        with self._access(operation, request, reference.domain) as access:
            argv = skopeo.build_push(reference, access, source=source, digest_file=digest_file)
            run_watched(argv, on_tick=watch.tick, directory=operation.directory)
        for layer in sent:
            progress(short(layer.digest), "Pushed", 0, 0)
        return digest_file.read_text().strip()

    @staticmethod
    def explain_push(error: CommandFailed, reference: Reference) -> SiloError:
        return skopeo.explain_failure(error, reference, pushing=True)

    def fetch_documents(
        self, operation: Operation, reference: Reference, progress: CheckedProgress
    ) -> tuple[bytes, bytes]:
        """Manifest and config of a Windows base, without credentials. Raises what `pull` raises."""
        asked = self._mirrored(reference)
        wish = parse_platform("windows/amd64")
        request = PullRequest(reference=asked.canonical)
        with self._access(operation, request, asked.domain) as access:
            try:
                top = self._ask(operation, skopeo.build_inspect_manifest(asked, access), progress)
                raw, _ = self._choose(operation, asked, top, wish, access, progress)
                exact = asked.with_digest(_digest(raw))
                config = self._ask(operation, skopeo.build_inspect_config(exact, access), progress)
            except CommandFailed as error:
                raise skopeo.explain_failure(error, asked, pushing=False) from error
        if _digest(config) != parse_manifest(raw).config.digest:
            raise InvalidRequest(f"the registry {asked.domain} answered another config than {asked.familiar} names")
        return raw, config

    def _mirrored(self, reference: Reference) -> Reference:
        """Where the documents of a Windows base are asked for."""
        if not self._bases_mirror:
            return reference
        return parse_reference(f"{self._bases_mirror}/{reference.path}:{reference.tag}")


def choose_platform(
    manifests: Sequence[Descriptor], wish: PlatformWish, *, newest_build: int | None = None
) -> Descriptor | None:
    """Linux for this machine first, then Windows for it (the newest build), unless the wish says otherwise.

    `newest_build`: of Windows, where the wish names no version.
    """
    candidates = []
    for position, descriptor in enumerate(manifests):
        if descriptor.platform is None or (descriptor.annotations or {}).get(_ATTESTATION):
            continue
        platform = platform_of(descriptor.platform)
        if platform.os == "unknown" or not wish.accepts(platform):
            continue
        rank = preference(platform)
        if not wish.architecture and rank > 1:  # another machine's programs only when asked for
            continue
        if newest_build is not None and not wish.os_version and build_of(platform.os_version) > newest_build:
            continue
        build = [-int(part) for part in platform.os_version.split(".") if part.isdigit()]
        candidates.append((rank, build, position, descriptor))
    return min(candidates, key=lambda row: row[:3], default=(0, [], 0, None))[3]


def describe_wish(wish: PlatformWish) -> str:
    parts = [part for part in (wish.os, wish.architecture, wish.variant) if part]
    text = "/".join(parts) or "this machine"
    return f"{text}:{wish.os_version}" if wish.os_version else text


def _digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"
