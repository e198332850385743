"""Images: list, look at, pull, push, load, save, import, tag, remove, commit; and registry login."""

from __future__ import annotations

from typing import Any

import msgspec

from silo.api.call import Call, Reply, reply_json
from silo.api.decode.commit import parse_commit_config
from silo.api.decode.registry import check_auth, parse_registry_auth
from silo.api.decode.shapes import decode_struct
from silo.api.decode.wire import AuthBody, ConfigBody
from silo.api.encode.images import encode_history, encode_image, encode_image_summary
from silo.api.handlers.archives import send_tar
from silo.api.handlers.progress import stream_progress
from silo.engine.engine import Engine
from silo.engine.ports import ImageChange, Progress, PullRequest
from silo.errors import ImageNotFound, InvalidRequest, Unsupported
from silo.model.image import BASE_REFERENCE_LABEL, Image

_MOST_BASE_LAYERS = 127


class ImageHandlers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._images = engine.images

    async def list(self, call: Call) -> Reply:
        filters = call.filters()
        if name := call.text("filter"):
            # Clients before 1.28.
            filters["reference"] = (*filters.get("reference", ()), name)
        counts: dict[str, int] = {}
        for record in self._engine.containers.all():
            counts[record.image_id] = counts.get(record.image_id, 0) + 1
        images = self._images.all(filters, intermediate=call.flag("all"))
        return reply_json([encode_image_summary(image, containers=counts.get(image.id, 0)) for image in images])

    def _get(self, call: Call) -> Image:
        try:
            return self._images.get(call.name, platform=_platform(call))
        except ImageNotFound as error:
            # The words by which clients know that it was an image they asked for.
            if "No such image" in str(error):
                raise
            raise ImageNotFound(f"No such image: {call.name}", details=str(error)) from None

    async def inspect(self, call: Call) -> Reply:
        return reply_json(encode_image(self._get(call)))

    async def history(self, call: Call) -> Reply:
        image = self._get(call)
        return reply_json(encode_history(image, self._images.ancestors(image)))

    async def create(self, call: Call) -> None:
        """`docker pull`, and `docker import` when `fromSrc` is given."""
        if call.text("fromSrc"):
            await self._import(call)
            return
        name, tag = call.text("fromImage"), call.text("tag")
        if not name:
            raise InvalidRequest("the image is missing", hint="fromImage=name&tag=tag")
        if not tag and "@" not in name and ":" not in name.rpartition("/")[2]:
            # to Docker that is every tag of the repository
            raise Unsupported("pulling all tags of a repository is not supported", hint="name the tag")
        reference = _join(name, tag)
        auth = parse_registry_auth(call.headers)
        request = PullRequest(
            reference=reference,
            platform=call.text("platform"),
            username=auth.username,
            password=auth.password,
            base_layers=_base_layers(call),
        )
        known = self._find(reference)

        def last(image: Image) -> list[dict[str, Any]]:
            digest = next((text.partition("@")[2] for text in image.digests), image.id)
            fresh = "Image is up to date for" if known == image.id else "Downloaded newer image for"
            lines = [{"status": f"Digest: {digest}"}, {"status": f"Status: {fresh} {reference}"}]
            return [*_replaced(image), *lines]

        shown = tag if tag and not tag.startswith("sha256:") else ""
        await stream_progress(
            call,
            lambda progress: self._images.pull(request, progress),
            first=[{"status": f"Pulling from {name}", "id": shown or "latest"}],
            last=last,
        )

    def _find(self, reference: str) -> str:
        try:
            return self._images.get(reference).id
        except (ImageNotFound, InvalidRequest):
            return ""

    async def _import(self, call: Call) -> None:
        source = call.text("fromSrc")
        if source != "-":
            raise Unsupported("importing from a URL is not supported", hint="docker import - < file.tar")
        repo, tag = _split(call.text("repo"), call.text("tag"))
        changes = _instructions(call)

        async def work(_progress: Progress) -> Image:
            return await self._images.import_(
                call.chunks(),
                repo=repo,
                tag=tag,
                message=call.text("message"),
                changes=changes,
                platform=call.text("platform"),
            )

        await stream_progress(call, work, last=lambda image: [{"status": image.id}])

    async def push(self, call: Call) -> None:
        auth = parse_registry_auth(call.headers)
        tag = call.text("tag")
        if call.text("platform"):
            raise Unsupported("push --platform is not supported")
        reference = _join(call.name, tag)
        image = self._images.get(reference)
        request = PullRequest(
            reference=reference, username=auth.username, password=auth.password, silo_base=call.flag("siloBase")
        )

        def last(digest: str) -> list[dict[str, Any]]:
            shown = tag or "latest"
            return [
                {"status": f"{shown}: digest: {digest} size: {image.size_bytes}"},
                {"progressDetail": {}, "aux": {"Tag": shown, "Digest": digest, "Size": image.size_bytes}},
            ]

        await stream_progress(
            call,
            lambda progress: self._images.push(request, progress),
            first=[{"status": f"The push refers to repository [{call.name}]"}],
            last=last,
        )

    async def load(self, call: Call) -> None:
        if call.text("platform"):
            raise Unsupported("load --platform is not supported")

        def last(images: tuple[Image, ...]) -> list[dict[str, Any]]:
            told = [{"stream": line["status"] + "\n"} for image in images for line in _replaced(image)]
            return told + [
                {"stream": f"Loaded image: {tag}\n"} if tag else {"stream": f"Loaded image ID: {image.id}\n"}
                for image in images
                for tag in image.tags or ("",)
            ]

        await stream_progress(
            call,
            lambda progress: self._images.load(call.chunks(), progress, base_layers=_base_layers(call)),
            quiet=call.flag("quiet", default=True),
            last=last,
        )

    async def save(self, call: Call) -> None:
        names = (
            [call.name] if "name" in call.variables else [n for text in call.values("names") for n in text.split(",")]
        )
        if not names:
            raise InvalidRequest("no image is named", hint="names=…")
        if call.text("platform"):
            raise Unsupported("save --platform is not supported")
        await send_tar(call, self._images.save(names))

    async def tag(self, call: Call) -> Reply:
        repo = call.text("repo")
        if not repo:
            raise InvalidRequest("the new name is missing", hint="repo=name&tag=tag")
        self._images.tag(call.name, *_split(repo, call.text("tag")))
        return Reply(201)

    async def remove(self, call: Call) -> Reply:
        changes = self._images.remove(call.name, force=call.flag("force"), noprune=call.flag("noprune"))
        return reply_json([_change(change) for change in changes])

    async def prune(self, call: Call) -> Reply:
        changes, freed = await self._images.prune(call.filters())
        return reply_json({"ImagesDeleted": [_change(change) for change in changes] or None, "SpaceReclaimed": freed})

    async def search(self, call: Call) -> Reply:
        await self._images.search(call.text("term"))
        return reply_json([])

    async def commit(self, call: Call) -> Reply:
        body = decode_struct(await call.body(), ConfigBody, empty=True)
        repo, tag = _split(call.text("repo"), call.text("tag"))
        image = await self._engine.files.commit(
            call.text("container"),
            repo=repo,
            tag=tag,
            author=call.text("author"),
            comment=call.text("comment"),
            pause=call.flag("pause", default=True),
            config_changes=parse_commit_config(body),
            changes=_instructions(call),
        )
        return reply_json({"Id": image.id}, 201)

    async def auth(self, call: Call) -> Reply:
        auth = check_auth(decode_struct(await call.body(), AuthBody))
        status = await self._engine.auth(auth.username, auth.password, auth.serveraddress)
        return reply_json({"Status": status, "IdentityToken": ""})


def _base_layers(call: Call) -> int | None:
    """Silo's own: how many of the lowest layers of a Windows image are its base."""
    text = call.text("baseLayers")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > _MOST_BASE_LAYERS:
        raise InvalidRequest(f"baseLayers={text[:20]!r} is not a number of layers", hint=f"0 to {_MOST_BASE_LAYERS}")
    return int(text)


def _replaced(image: Image) -> list[dict[str, Any]]:
    """A word on what was substituted."""
    taken_for = image.config.labels.get(BASE_REFERENCE_LABEL, "")
    if image.base is None and taken_for and len(image.layers) == 1:
        return [{"status": f"Base: Silo's own runs in the place of {taken_for} (nothing was downloaded)"}]
    if image.base is None:
        return []
    what = f"{image.base.family} {image.base.os_version}".strip()
    return [{"status": f"Base: Silo's own runs in the place of {what} ({image.base.layers} layers, not downloaded)"}]


def _change(change: ImageChange) -> dict[str, str]:
    return {change.action.capitalize(): change.subject}


def _join(name: str, tag: str) -> str:
    """`name`, `tag` of a request → one reference; a digest comes as a tag, too."""
    if not tag:
        return name
    return f"{name}@{tag}" if tag.startswith("sha256:") else f"{name}:{tag}"


def _split(repo: str, tag: str) -> tuple[str, str]:
    """A tag may also be part of `repo`."""
    name, colon, inner = repo.rpartition(":")
    return (name, inner) if colon and not tag and "/" not in inner else (repo, tag)


def _instructions(call: Call) -> tuple[str, ...]:
    """`--change`: one Dockerfile instruction each."""
    return tuple(line for text in call.values("changes") for line in text.split("\n") if line.strip())


def _platform(call: Call) -> str:
    """`platform` of newer clients is a JSON object, of older ones `os/arch`."""
    text = call.text("platform")
    if not text.startswith("{"):
        return text
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"invalid platform: {error}") from None
    words = [str(found.get(key) or "") for key in ("os", "architecture", "variant")]
    return "/".join(word for word in words if word)
