"""`POST /build`: the query and headers of the classic protocol → BuildRequest, or the reason why not."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from silo.api.decode.create import parse_isolation
from silo.api.decode.registry import check_auth
from silo.api.decode.resources import check_sizes
from silo.api.decode.wire import AuthBody
from silo.engine.building.request import BuildRequest, Credentials
from silo.errors import InvalidRequest, Unsupported
from silo.model.container import Resources, Ulimit
from silo.model.platform import Isolation

MAX_HEADER_CHARACTERS = 64 * 1024
_NO_BUILDKIT = "set DOCKER_BUILDKIT=0, or build with `silo build`"
_SEPARATORS = ("=", ":")


class _UlimitBody(msgspec.Struct):
    Name: str
    Soft: int
    Hard: int


class Query(Protocol):
    """What of silo.api.call.Call is needed."""

    headers: Mapping[str, str]

    def text(self, key: str, default: str = "") -> str: ...
    def values(self, key: str) -> list[str]: ...
    def flag(self, key: str, default: bool = False) -> bool: ...
    def number(self, key: str) -> int | None: ...


def parse_build(query: Query, *, default_isolation: Isolation) -> BuildRequest:
    """Raises InvalidRequest and Unsupported (naming the option as users write it)."""
    _refuse(query)
    arguments = _mapping(query, "buildargs")
    dockerfile = query.text("dockerfile") or "Dockerfile"
    if "\0" in dockerfile or ".." in dockerfile.replace("\\", "/").split("/"):
        raise InvalidRequest(f"the Dockerfile {dockerfile!r} lies outside of the build context")
    return BuildRequest(
        dockerfile=dockerfile.replace("\\", "/").lstrip("/"),
        remote=query.text("remote"),
        tags=tuple(dict.fromkeys(tag for tag in query.values("t") if tag)),
        target=query.text("target"),
        build_args={name: value for name, value in arguments.items() if value is not None},
        labels={name: value or "" for name, value in _mapping(query, "labels").items()},
        platform=query.text("platform").lower(),
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        remove=query.flag("rm", default=True),
        force_remove=query.flag("forcerm"),
        quiet=query.flag("q"),
        cache_from=_list(query, "cachefrom"),
        isolation=parse_isolation(query.text("isolation"), default_isolation),
        network_mode=query.text("networkmode") or "default",
        resources=_resources(query),
        extra_hosts=tuple(_host(word) for text in query.values("extrahosts") for word in text.split(",") if word),
        seccomp=_seccomp(query),
        credentials=_credentials(query.headers),
    )


def _refuse(query: Query) -> None:
    if query.text("version") not in ("", "1"):
        raise Unsupported("building by BuildKit's protocol is not supported", hint=_NO_BUILDKIT)
    if query.text("remote") == "client-session":
        raise Unsupported("a build context by session (--stream) is not supported", hint=_NO_BUILDKIT)
    if query.flag("squash"):
        raise Unsupported("--squash is not supported", hint="a stage of its own (COPY --from) has the same effect")
    if query.text("outputs") not in ("", "[]", "null"):
        raise Unsupported("--output is not supported by this protocol", hint="silo build -o, or docker export")
    if query.text("cgroupparent"):
        raise Unsupported("--cgroup-parent is not supported")


def _seccomp(query: Query) -> str:
    """`--security-opt`, which the client sends as JSON or as single values."""
    options = [word for text in query.values("securityopt") for word in _words(text, "securityopt")]
    chosen = "default"
    for option in options:
        name, _, value = option.replace(":", "=", 1).partition("=")
        if name != "seccomp" or value not in ("unconfined", "default"):
            raise Unsupported(f"--security-opt {option} is not supported", hint="seccomp=unconfined is")
        chosen = value
    return chosen


def _resources(query: Query) -> Resources:
    def number(key: str, option: str) -> int:
        value = query.number(key) or 0
        check_sizes(value, option)
        return value

    swap = query.number("memswap") or 0
    if swap < -1:
        raise InvalidRequest(f"invalid value for --memory-swap: {swap}")
    default = Resources()
    return Resources(
        memory_bytes=number("memory", "--memory"),
        memory_swap_bytes=swap,
        nano_cpus=number("nanocpus", "--cpus"),
        cpu_shares=number("cpushares", "--cpu-shares"),
        cpu_period_us=number("cpuperiod", "--cpu-period"),
        cpu_quota_us=number("cpuquota", "--cpu-quota"),
        cpuset_cpus=query.text("cpusetcpus"),
        cpuset_mems=query.text("cpusetmems"),
        shm_size_bytes=number("shmsize", "--shm-size") or default.shm_size_bytes,
        ulimits=tuple(
            Ulimit(name=limit.Name, soft=limit.Soft, hard=limit.Hard)
            for limit in _decode(query.text("ulimits") or "null", list[_UlimitBody] | None, "ulimits") or ()
        ),
    )


def _mapping(query: Query, key: str) -> dict[str, str | None]:
    found: dict[str, str | None] | None = _decode(query.text(key) or "null", dict[str, str | None] | None, key)
    return found or {}


def _list(query: Query, key: str) -> tuple[str, ...]:
    found: list[str] | None = _decode(query.text(key) or "null", list[str] | None, key)
    return tuple(found or ())


def _words(text: str, key: str) -> list[str]:
    if not text.startswith("["):
        return [text] if text else []
    found: list[str] = _decode(text, list[str], key)
    return found


def _decode(untrusted_text: str, kind: Any, key: str) -> Any:
    try:
        return msgspec.json.decode(untrusted_text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(f"invalid {key}: {error}") from None


def _host(word: str) -> str:
    """`name:address` or `name=address`; an IPv6 address holds colons itself."""
    positions = [word.index(mark) for mark in _SEPARATORS if mark in word]
    if not positions:
        raise InvalidRequest(f"bad format for add-host: {word!r}", hint="name:address")
    return f"{word[: min(positions)]}:{word[min(positions) + 1 :]}"


def _credentials(headers: Mapping[str, str]) -> dict[str, Credentials]:
    """X-Registry-Config: base64 of {registry: credentials}."""
    untrusted_text = headers.get("x-registry-config", "").strip()
    if not untrusted_text:
        return {}
    if len(untrusted_text) > MAX_HEADER_CHARACTERS:
        raise InvalidRequest("X-Registry-Config is too long")
    text = untrusted_text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        body = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("X-Registry-Config is not base64") from None
    untrusted_json = body.decode("utf-8", "replace") or "null"
    found: dict[str, AuthBody] | None = _decode(untrusted_json, dict[str, AuthBody] | None, "X-Registry-Config")
    logins = {}
    for registry, auth in (found or {}).items():
        if auth.identitytoken or auth.registrytoken:
            continue  # of a registry that this build may never ask
        checked = check_auth(auth)
        logins[registry] = Credentials(username=checked.username, password=checked.password)
    return logins
