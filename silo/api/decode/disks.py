"""A whole disk as a guest, in a request's labels (see silo.model.disk_guest)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from silo.errors import InvalidRequest
from silo.model.disk_guest import DISK_LABEL, DiskBus, DiskFormat, DiskGuest, Firmware, NetworkCard

_PREFIX = f"{DISK_LABEL}."
_ENDINGS = {".img": DiskFormat.RAW, **{f".{kind}": kind for kind in DiskFormat}}
_FLAGS = {"format": "--disk-format", "bus": "--disk-bus", "firmware": "--firmware", "nic": "--nic", "tpm": "--tpm"}
_FLAGS["persist"] = "--persist"
_TRUTH = {"": True, "1": True, "true": True, "0": False, "false": False}
W = TypeVar("W", bound=enum.StrEnum)


def parse_disk(untrusted_labels: Mapping[str, str]) -> DiskGuest | None:
    """None where no label asks for one. Raises InvalidRequest, naming label and flag."""
    options = {
        label.removeprefix(_PREFIX): text for label, text in untrusted_labels.items() if label.startswith(_PREFIX)
    }
    for name in options:
        if name not in _FLAGS:
            raise InvalidRequest(f"unknown label {_PREFIX}{name}", hint=f"one of {', '.join(_FLAGS)}")
    text = untrusted_labels.get(DISK_LABEL)
    if text is None:
        if options:
            name = next(iter(options))
            raise InvalidRequest(f"{_FLAGS[name]} (the label {_PREFIX}{name}) needs --disk (the label {DISK_LABEL})")
        return None
    if not text.startswith("/") or "\0" in text:
        raise InvalidRequest(f"--disk {text!r} is not an absolute path")
    return DiskGuest(
        path=Path(text),
        format=_format(text, options.get("format", "")),
        firmware=_word(options, "firmware", Firmware.UEFI),
        bus=_word(options, "bus", DiskBus.VIRTIO),
        nic=_word(options, "nic", NetworkCard.VIRTIO),
        tpm=_truth(options, "tpm"),
        persist=_truth(options, "persist"),
    )


def _format(path: str, word: str) -> DiskFormat:
    """As named, or as the file's ending says. What is in the file does not count: a guest can write any magic into its disk."""
    if word:
        return _word({"format": word}, "format", DiskFormat.RAW)
    found = _ENDINGS.get(Path(path).suffix.lower())
    if found is None:
        raise InvalidRequest(
            f"the format of {path} is not told by its ending", hint=f"--disk-format {'|'.join(DiskFormat)}"
        )
    return found


def _word(options: Mapping[str, str], name: str, default: W) -> W:
    text = options.get(name, "").lower() or default
    try:
        return type(default)(text)
    except ValueError:
        raise InvalidRequest(f"{_FLAGS[name]} {text}: one of {', '.join(type(default))}") from None


def _truth(options: Mapping[str, str], name: str) -> bool:
    if name not in options:
        return False
    found = _TRUTH.get(options[name].lower())
    if found is None:
        raise InvalidRequest(f"the label {_PREFIX}{name} is true or false, not {options[name]!r}")
    return found
