"""`-p` and `--expose` words. Pure.

[[ip:]hostPort:]containerPort[/protocol]      each port may be a range, 8000-8010; an IPv6 address stands in [ ]
"""

from __future__ import annotations

from silo.cli.failure import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Bindings = dict[str, list[dict[str, str]]]


def parse_range(text: str, flag: str) -> tuple[int, int]:
    """`80` or `80-90`, ends included. Raises UsageError."""
    first, dash, last = text.partition("-")
    if not dash:
        last = first
    valid = all(part.isascii() and part.isdigit() and int(part) <= 65535 for part in (first, last))
    if not valid or int(first) > int(last):
        raise UsageError(f"invalid port range in {flag}: {text!r} (1-65535, or first-last)")
    return int(first), int(last)


def parse_expose(words: Iterable[str]) -> list[str]:
    """`80/tcp` names of all exposed ports."""
    names: list[str] = []
    for word in words:
        ports, _, protocol = word.partition("/")
        first, last = parse_range(ports, f"--expose {word}")
        names.extend(f"{port}/{_protocol(protocol, word)}" for port in range(first, last + 1))
    return names


def _protocol(text: str, word: str) -> str:
    protocol = text.lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise UsageError(f"invalid protocol in {word!r}: tcp or udp")
    return protocol


def parse_publish(words: Iterable[str]) -> Bindings:
    """Bindings by `80/tcp`."""
    bindings: Bindings = {}
    for word in words:
        for name, binding in _parse_one(_from_long(word)):
            bindings.setdefault(name, []).append(binding)
    return bindings


def _from_long(word: str) -> str:
    """`published=8080,target=80,protocol=udp,mode=host` → the short form."""
    if "=" not in word:
        return word
    fields = dict(field.partition("=")[::2] for field in word.split(","))
    unknown = set(fields) - {"published", "target", "protocol", "mode"}
    if unknown or "target" not in fields:
        raise UsageError(f"invalid -p {word!r}: target=…[,published=…][,protocol=tcp|udp]")
    suffix = f"/{fields['protocol']}" if "protocol" in fields else ""
    return (
        f"{fields['published']}:{fields['target']}{suffix}" if "published" in fields else f"{fields['target']}{suffix}"
    )


def _parse_one(word: str) -> list[tuple[str, dict[str, str]]]:
    flag = f"-p {word}"
    rest, _, protocol = word.partition("/")
    rest, _, container = rest.rpartition(":")
    address, colon, host = rest.rpartition(":")
    if rest.endswith("]") or (rest and not colon and ("." in rest)):
        raise UsageError(f"invalid {flag}: the host port is missing; ip::containerPort takes any free one")
    address = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if address and not _is_address(address):
        raise UsageError(f"invalid IP address in {flag}: {address!r}")
    if not container:
        raise UsageError(f"no port specified in {flag}: [[ip:]hostPort:]containerPort[/protocol]")
    first, last = parse_range(container, flag)
    names = [f"{port}/{_protocol(protocol, word)}" for port in range(first, last + 1)]
    if not host:
        return [(name, {"HostIp": address, "HostPort": ""}) for name in names]
    host_first, host_last = parse_range(host, flag)
    if host_last - host_first == last - first:
        return [(name, {"HostIp": address, "HostPort": str(host_first + offset)}) for offset, name in enumerate(names)]
    if first == last:
        return [(names[0], {"HostIp": address, "HostPort": f"{host_first}-{host_last}"})]
    raise UsageError(f"invalid ranges in {flag}: {container} and {host} are not of the same length")


def _is_address(text: str) -> bool:
    from _socket import AF_INET, AF_INET6, inet_pton

    try:
        inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except OSError:
        return False
    return True
