"""What the Windows base is made of: packages, what is left out, and what is changed in the registry, each with its reason.

Pure data and one hash. The hash names a base: the same recipe, package versions and extra files give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from silo.debian.packages import Package
from silo.windows.base.environment import OS_VERSION, USER_REGISTRY_DIRECTORY
from silo.windows.base.registry_text import dword, quoted

BUILDER_VERSION = 2
"""Raise it with every change of this package that changes the image."""

CLOSED_PACKAGES = (
    "base-files",
    "busybox",
    "fonts-liberation",
    "libc6",
    "libfontconfig1",
    "libfreetype6",
    "libgnutls30t64",
    "libgssapi-krb5-2",
    "libunwind8",
    "libx11-6",
    "libxcomposite1",
    "libxcursor1",
    "libxext6",
    "libxfixes3",
    "libxi6",
    "libxinerama1",
    "libxrandr2",
    "libxrender1",
    "libxxf86vm1",
)
"""Unpacked with everything that they depend on: what Wine needs for programs, TLS and an X display."""

WINE_PACKAGES = ("fonts-wine", "libc-bin", "libwine", "libz-mingw-w64", "wine64")
"""Unpacked without their dependencies, most of which (GStreamer, FFmpeg, cameras, scanners) no container uses.
libc-bin is here for the locale C.UTF-8."""

UNWANTED_PACKAGES = (
    "debconf",
    "fonts-dejavu-core",
    "fonts-dejavu-mono",
    "libssl3t64",
    "mawk",
    "openssl-provider-legacy",
)
"""In the closure only through maintainer scripts, or (libssl) through a Kerberos plugin that is not there."""

EXCLUDED_FILES = (
    "./usr/games",
    "./usr/i686-w64-mingw32",
    "./usr/include",
    "./usr/lib/wine/wineapploader",
    "./usr/lib/wine/wineserver",
    "./usr/lib/x86_64-linux-gnu/gconv",
    "./usr/share/base-files",
    "./usr/share/bash-completion",
    "./usr/share/bug",
    "./usr/share/common-licenses",
    "./usr/share/dict",
    "./usr/share/doc",
    "./usr/share/doc-base",
    "./usr/share/icons",
    "./usr/share/info",
    "./usr/share/initramfs-tools",
    "./usr/share/lintian",
    "./usr/share/locale",
    "./usr/share/man",
    "./usr/share/metainfo",
    "./usr/share/misc",
    "./usr/src",
    "./usr/x86_64-w64-mingw32ucrt",
)
"""tar patterns: documentation, translations, character-set converters, and what belongs to development."""

REMOVED_AFTER_BUILD = (
    "boot",
    "etc/update-motd.d",
    "home",
    "media",
    "mnt",
    "opt",
    "root",
    "srv",
    "usr/local",
    "usr/share/fontconfig",
    "usr/share/fonts",
    "usr/share/wine/fonts",
    "usr/share/xml",
    *(f"usr/bin/{name}" for name in ("catchsegv", "getconf", "getent", "iconv", "ldd", "locale", "localedef")),
    *(f"usr/bin/{name}" for name in ("pldd", "tzselect", "zdump")),
    *(f"usr/sbin/{name}" for name in ("iconvconfig", "ldconfig", "zic")),
    "usr/x86_64-w64-mingw32",
    "var/backups",
    "var/cache/fontconfig",
    "var/mail",
    "var/opt",
    "var/spool",
)
"""Used by the build alone, or empty; `\\\\?\\unix` shows programs this root, so it holds nothing that they do not need."""

UNLOADABLE_UNIX_MODULES = (
    "capi2032.so",
    "gphoto2.so",
    "opencl.so",
    "winealsa.so",
    "winebus.so",
    "winedmo.so",
    "winegstreamer.so",
    "winepulse.so",
    "wineusb.so",
    "winewayland.so",
    "winscard.so",
    "wpcap.so",
)
"""Unix halves of Wine DLLs whose libraries are not in the image: they could not be loaded anyway."""


KEPT_WINE_FONTS = frozenset(
    (
        "coure.fon",
        "marlett.ttf",
        "smalle.fon",
        "sserife.fon",
        "symbol.ttf",
        "tahoma.ttf",
        "tahomabd.ttf",
        "vgafix.fon",
        "vgasys.fon",
        "webdings.ttf",
        "wingding.ttf",
    )
)
"""Every process that loads user32 opens every font: each one costs all of them time."""

LIBERATION_FONTS = ("LiberationMono-Regular.ttf", "LiberationSans-Regular.ttf", "LiberationSerif-Regular.ttf")
"""Wine's fallback for Courier New, Arial and Times New Roman; bold and italic are drawn from these."""

FONTCONFIG = (
    '<?xml version="1.0"?>\n<!DOCTYPE fontconfig SYSTEM "fonts.dtd">\n'
    "<fontconfig><cachedir>/tmp/fontconfig</cachedir></fontconfig>\n"
)
"""No directories: all fonts are in `C:\\windows\\Fonts`. Without libfontconfig Wine crashes where it looks for a fallback
font (and explorer.exe then starts itself without end); with Debian's configuration every process reads 40 files."""


ABSENT_PROGRAMS = (
    "powershell.exe",
    "dism.exe",
    "certutil.exe",
    "pnputil.exe",
    "secedit.exe",
    "wevtutil.exe",
    "subst.exe",
    "netsh.exe",
    "icacls.exe",
    "cacls.exe",
)
"""Wine's do nothing and say that all went well; in their place stands one that tells (programs/absent.c)."""

REPLACED_WINE_PROGRAMS = ("setx.exe", *ABSENT_PROGRAMS)
"""Removed from Wine, which would take its own before the one in system32 (programs/)."""


@dataclass(frozen=True, slots=True)
class SetValue:
    """A registry value to set; `data` is in file syntax."""

    file: str
    key: str
    name: str
    data: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteValue:
    """A registry value to delete."""

    file: str
    key: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteTree:
    """A registry key to delete with all below."""

    file: str
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteInterfaces:
    """The COM interfaces (keys below `Software\\Classes\\Interface`) of one type library, to delete."""

    file: str
    typelib: str
    reason: str


RegistryEdit = SetValue | DeleteValue | DeleteTree | DeleteInterfaces

_SERVICES = "System\\ControlSet001\\Services"
_WINDOWS_NT = "Software\\Microsoft\\Windows NT\\CurrentVersion"
_ON_DEMAND = dword(3)


_PROCESSOR_VALUES = (
    "NUMBER_OF_PROCESSORS",
    "PROCESSOR_ARCHITECTURE",
    "PROCESSOR_IDENTIFIER",
    "PROCESSOR_LEVEL",
    "PROCESSOR_REVISION",
)


def _same_on_every_host() -> tuple[RegistryEdit, ...]:
    """What Wine writes of the machine or the moment of the build, and writes again in every container."""
    control = "System\\ControlSet001\\Control"
    environment = f"{control}\\Session Manager\\Environment"
    adapter = f"{control}\\Class\\{{4D36E968-E325-11CE-BFC1-08002BE10318}}\\0000"
    device = "System\\ControlSet001\\Enum\\PCI\\VEN_0000&DEV_0000&SUBSYS_00000000&REV_00\\00000000"
    facts = "reproducible: a fact of the machine that built it; each container finds its own"
    moment = "reproducible: random or the time of the build"
    return (
        *(DeleteValue("system.reg", environment, name, facts) for name in _PROCESSOR_VALUES),
        DeleteTree("user.reg", "Volatile Environment", "made anew for the user of each container"),
        SetValue("system.reg", adapter, "DriverDateData", "hex:00,00,00,00,00,00,00,00", moment),
        SetValue(
            "system.reg",
            f"{device}\\Device Parameters",
            "VideoID",
            quoted("{5d1ec0de-0000-4000-8000-000000000000}"),
            moment,
        ),
    )


def _server_2022() -> tuple[SetValue, ...]:
    """The values by which programs and `ver` learn the Windows version."""
    major, minor, build, revision = OS_VERSION.split(".")
    reason = f"programs see the version that the image declares ({OS_VERSION}, Windows Server 2022)"
    values = {
        "CurrentBuild": quoted(build),
        "CurrentBuildNumber": quoted(build),
        "CurrentMajorVersionNumber": dword(int(major)),
        "CurrentMinorVersionNumber": dword(int(minor)),
        "DisplayVersion": quoted("21H2"),
        "EditionID": quoted("ServerDatacenter"),
        "InstallationType": quoted("Server Core"),
        "ProductName": quoted("Windows Server 2022 Datacenter"),
        "ReleaseId": quoted("2009"),
        "UBR": dword(int(revision)),
    }
    rows = [SetValue("system.reg", _WINDOWS_NT, name, data, reason) for name, data in values.items()]
    product = "System\\ControlSet001\\Control\\ProductOptions"
    return (*rows, SetValue("system.reg", product, "ProductType", quoted("ServerNT"), reason))


REGISTRY_EDITS: tuple[RegistryEdit, ...] = (
    SetValue("system.reg", f"{_SERVICES}\\Eventlog", "Start", _ON_DEMAND, "cold start: 200 ms of serial start-up"),
    SetValue("system.reg", f"{_SERVICES}\\PlugPlay", "Start", _ON_DEMAND, "cold start: 140 ms of serial start-up"),
    SetValue(
        "system.reg",
        f"{_SERVICES}\\NDIS",
        "DelayedAutoStart",
        dword(1),
        "cold start: network cards can appear a moment later",
    ),
    SetValue(
        "system.reg",
        "System\\ControlSet001\\Control",
        "AutoStartDelay",
        dword(2000),
        "delayed services start after 2 s, when a short command is over, instead of 120 s",
    ),
    DeleteTree("system.reg", "System\\ControlSet001\\Enum\\ROOT\\WINE", "cold start: no USB, HID, Bluetooth in a silo"),
    DeleteValue(
        "system.reg",
        "Software\\Microsoft\\Windows\\CurrentVersion\\RunServices",
        "winemenubuilder",
        "cold start: a silo has no host menus to write to",
    ),
    SetValue(
        "user.reg",
        "Software\\Wine\\Drivers",
        "Graphics",
        quoted("x11,null"),
        "without a display windows exist unseen, as in a Windows container, instead of failing to be created",
    ),
    DeleteInterfaces(
        "system.reg",
        "{3050F1C5-98B5-11CF-BB82-00AA00BDCE0B}",
        "cold start: MSHTML cannot run without Gecko; a tenth of the registry that every start parses",
    ),
    SetValue(
        "system.reg",
        f"{_WINDOWS_NT}\\AeDebug",
        "Debugger",
        quoted(""),
        "a program that crashes ends with its exit code; nobody could answer a debugger's dialogue",
    ),
    DeleteValue(
        "system.reg",
        "System\\ControlSet001\\Control\\Session Manager\\Environment",
        "winsysdir",
        "programs see Windows' environment only",
    ),
    *_same_on_every_host(),
    *_server_2022(),
)

UPDATE_TIMESTAMP = b"disable\n"
"""Content of PREFIX/.update-timestamp: Wine never updates the prefix, its contents being those of this image."""


def recipe_hash(packages: Iterable[Package], extra_files: Mapping[str, str]) -> str:
    """The name of a base: SHA-256 of the recipe, of the packages, and of extra files (path → their own SHA-256)."""
    inputs = {
        "builder": BUILDER_VERSION,
        "packages": sorted([row.name, row.version, row.architecture, row.sha256] for row in packages),
        "extra_files": dict(sorted(extra_files.items())),
        "excluded": EXCLUDED_FILES,
        "removed": REMOVED_AFTER_BUILD,
        "unloadable": UNLOADABLE_UNIX_MODULES,
        "replaced": REPLACED_WINE_PROGRAMS,
        "fonts": sorted(KEPT_WINE_FONTS),
        "liberation": LIBERATION_FONTS,
        "fontconfig": FONTCONFIG,
        "registry": [[type(edit).__name__, *asdict(edit).values()] for edit in REGISTRY_EDITS],
        "os_version": OS_VERSION,
        "users": USER_REGISTRY_DIRECTORY,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
