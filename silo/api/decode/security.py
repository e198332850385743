"""Privileges, security options and namespaces of a request."""

from __future__ import annotations

from silo.api.decode.wire import HostConfigBody
from silo.errors import InvalidRequest, Unsupported
from silo.model.container import Namespaces, Security

_TRUE = frozenset(("", "true", "1", "t"))
_FALSE = frozenset(("false", "0", "f"))


def parse_security(host: HostConfigBody) -> Security:
    """Raises InvalidRequest, Unsupported."""
    no_new_privileges, seccomp = True, "default"
    for option in host.SecurityOpt:
        separator = "=" if "=" in option.partition(":")[0] or ":" not in option else ":"
        name, _, value = option.partition(separator)
        match name:
            case "no-new-privileges":
                if value.lower() not in _TRUE | _FALSE:
                    raise InvalidRequest(f"invalid --security-opt {option}", hint="no-new-privileges=true or =false")
                no_new_privileges = value.lower() in _TRUE
            case "seccomp":
                seccomp = "default" if value == "builtin" else value
            case "apparmor" if value in ("unconfined", "docker-default"):
                # No AppArmor profile is ever applied, so `unconfined` is what happens; docker-default asks for the default.
                continue
            case "label" if value == "disable":
                continue
            case "systempaths" if value == "unconfined":
                continue
            case "apparmor" | "label" | "credentialspec" | "writable-cgroups" | "systempaths":
                raise Unsupported(f"--security-opt {option} is not supported")
            case _:
                raise InvalidRequest(f"invalid --security-opt: {option!r}")
    unconfined = "systempaths=unconfined" in host.SecurityOpt
    return Security(
        privileged=host.Privileged,
        cap_add=_capabilities(host.CapAdd),
        cap_drop=_capabilities(host.CapDrop),
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        masked_paths=() if unconfined else host.MaskedPaths,
        readonly_paths=() if unconfined else host.ReadonlyPaths,
        options=host.SecurityOpt,
    )


def _capabilities(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.upper().removeprefix("CAP_") for word in words))


def parse_namespaces(host: HostConfigBody) -> Namespaces:
    """Raises InvalidRequest for an unknown mode."""
    return Namespaces(
        user=_mode("--userns", host.UsernsMode, ("", "host")),
        ipc=_mode("--ipc", host.IpcMode, ("", "private", "shareable", "host", "none"), joins=True),
        pid=_mode("--pid", host.PidMode, ("", "private", "host"), joins=True),
        uts=_mode("--uts", host.UTSMode, ("", "private", "host")),
        cgroup=_mode("--cgroupns", host.CgroupnsMode, ("", "private", "host")),
    )


def _mode(option: str, value: str, words: tuple[str, ...], *, joins: bool = False) -> str:
    if value in words:
        return "" if value == "private" else value
    if joins and value.startswith("container:") and value != "container:":
        return value
    raise InvalidRequest(f"{option} {value}: invalid mode", hint=f"one of {', '.join(word for word in words if word)}")
