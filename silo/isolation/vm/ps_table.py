"""`top` of a container in a VM: the columns of ps, from what the agent tells of the guest's processes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence

from silo.errors import InvalidRequest
from silo.isolation.vm.answers import GuestProcess
from silo.model.runtime import ProcessTable

_FULL = ("user:UID", "pid", "ppid", "c", "stime", "tty", "time", "args:CMD")
_AUX = ("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start", "time:TIME", "args:COMMAND")
_PLAIN = ("pid", "tty", "time", "comm:CMD")


def _user(process: GuestProcess) -> str:
    return "root" if process.uid == 0 else str(process.uid)


def _started(process: GuestProcess) -> str:
    return time.strftime("%H:%M", time.localtime(time.time() - process.age_ms / 1000))


def _cpu_time(process: GuestProcess) -> str:
    seconds = process.cpu_ms // 1000
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _share(process: GuestProcess) -> float:
    return 100 * process.cpu_ms / max(1, process.age_ms)


_COLUMNS: dict[str, tuple[str, Callable[[GuestProcess], str]]] = {
    "user": ("USER", _user),
    "uid": ("UID", lambda process: str(process.uid)),
    "group": ("GROUP", lambda process: "root" if process.gid == 0 else str(process.gid)),
    "gid": ("GID", lambda process: str(process.gid)),
    "pid": ("PID", lambda process: str(process.pid)),
    "ppid": ("PPID", lambda process: str(process.ppid)),
    "c": ("C", lambda process: str(int(_share(process)))),
    "pcpu": ("%CPU", lambda process: f"{_share(process):.1f}"),
    "pmem": ("%MEM", lambda _: "-"),
    "vsz": ("VSZ", lambda process: str(process.virtual_bytes >> 10)),
    "rss": ("RSS", lambda process: str(process.resident_bytes >> 10)),
    "tty": ("TTY", lambda process: "pts/0" if process.tty else "?"),
    "stat": ("STAT", lambda process: process.state),
    "s": ("S", lambda process: process.state),
    "ni": ("NI", lambda process: str(process.nice)),
    "nlwp": ("NLWP", lambda process: str(process.threads)),
    "stime": ("STIME", _started),
    "start": ("START", _started),
    "time": ("TIME", _cpu_time),
    "etimes": ("ELAPSED", lambda process: str(process.age_ms // 1000)),
    "comm": ("COMMAND", lambda process: process.name),
    "args": ("COMMAND", lambda process: process.command),
}
_ALIASES = {"cmd": "args:CMD", "command": "args", "%cpu": "pcpu", "%mem": "pmem", "tt": "tty", "state": "s"}
_ALIASES |= {"ucmd": "comm:CMD", "vsize": "vsz", "rssize": "rss", "nice": "ni", "thcount": "nlwp", "euser": "user"}
_SETS = {"": _FULL, "ef": _FULL, "f": _FULL, "eF": _FULL, "aux": _AUX, "u": _AUX, "e": _PLAIN, "A": _PLAIN, "a": _PLAIN}


def build_process_table(processes: Sequence[GuestProcess], ps_args: str) -> ProcessTable:
    """Raises InvalidRequest for arguments of ps that are not among the usual ones."""
    columns = _choose(ps_args)
    rows = tuple(tuple(show(process) or "-" for _, show in columns) for process in processes)
    return ProcessTable(titles=tuple(title for title, _ in columns), rows=rows)


def _choose(ps_args: str) -> list[tuple[str, Callable[[GuestProcess], str]]]:
    try:
        words = shlex.split(ps_args)
    except ValueError as error:
        raise InvalidRequest(f"ps arguments {ps_args!r} cannot be parsed: {error}") from error
    named: list[str] = []
    chosen: Sequence[str] = _FULL
    rest = iter(words)
    for word in rest:
        plain = word.lstrip("-")
        if plain in ("o", "eo", "Ao") or (plain.startswith(("o", "eo")) and "=" not in plain and len(plain) > 2):
            text = next(rest, "") if plain in ("o", "eo", "Ao") else plain.partition("o")[2]
            named += [name for name in text.replace(",", " ").split() if name]
        elif plain in _SETS:
            chosen = _SETS[plain]
        else:
            raise InvalidRequest(
                f"ps {word} is not supported for a container in a virtual machine",
                hint="-ef, aux, or -o with columns such as pid,user,args",
            )
    columns = [_column(name) for name in (named or chosen)]
    if "PID" not in [title for title, _ in columns]:
        raise InvalidRequest("couldn't find PID field in ps output", hint="do not use -o without pid")
    return columns


def _column(name: str) -> tuple[str, Callable[[GuestProcess], str]]:
    word, _, title = name.partition("=")
    key, _, own = _ALIASES.get(word, word).partition(":")
    if key not in _COLUMNS:
        raise InvalidRequest(f"ps column {word!r} is not known", hint=f"one of {', '.join(sorted(_COLUMNS))}")
    default, show = _COLUMNS[key]
    return title or own or default, show
