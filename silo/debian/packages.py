"""Debian packages: resolve, download into a cache, unpack. apt does the first two, verified by its keyring.

    <cache>/apt/         private apt state: index of the suite, never the host's
    <cache>/debs/        downloaded packages, kept for the next build

The host's apt state is never read or changed: everything goes through a configuration file of its own with an empty list of
installed packages, so the closure of dependencies is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from silo.debian.mirror import KEYRING, SUITE, find_mirror
from silo.errors import CommandFailed, HostError, ToolMissing, Unavailable
from silo.host.run import run

_UPDATE_LIMIT_S = 300
_DOWNLOAD_LIMIT_S = 1800
_AR_MEMBER_HEADER_BYTES = 60


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One package that goes into an image. `file` is its name in the cache."""

    name: str
    version: str
    architecture: str
    sha256: str
    size_bytes: int
    file: str


@dataclass(frozen=True, slots=True)
class PrivateApt:
    """apt with its own state below `directory`; make it by `open_apt`."""

    directory: Path
    debs: Path

    @property
    def environment(self) -> dict[str, str]:
        """What apt-get needs to use this state."""
        return {"APT_CONFIG": str(self.directory / "apt.conf")}


def open_apt(cache: Path) -> PrivateApt:
    """Prepare private apt state below `cache`. Raises HostError, ToolMissing."""
    if not KEYRING.exists():
        raise ToolMissing("the keyring of the Debian archive", "debian-archive-keyring")
    apt = PrivateApt(cache / "apt", cache / "debs")
    for name in ("lists/partial", "archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (apt.directory / name).mkdir(parents=True, exist_ok=True)
    (apt.debs / "partial").mkdir(parents=True, exist_ok=True)
    (apt.directory / "status").write_bytes(b"")
    source = f"deb [arch=amd64 signed-by={KEYRING}] {find_mirror()} {SUITE} main\n"
    (apt.directory / "etc/sources.list").write_text(source, encoding="utf-8")
    rows = {
        "Dir::State": apt.directory,
        "Dir::State::status": apt.directory / "status",
        "Dir::Cache": apt.directory,
        "Dir::Etc": apt.directory / "etc",
        "APT::Architecture": "amd64",
        "APT::Install-Recommends": "false",
        # Downloads as the user _apt would need the cache, below a directory of root alone, to be open to it.
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    text = "".join(f'{name} "{value}";\n' for name, value in rows.items()) + 'APT::Architectures { "amd64"; };\n'
    (apt.directory / "apt.conf").write_text(text, encoding="utf-8")
    return apt


def update_index(apt: PrivateApt) -> None:
    """Fetch the suite's index. Raises Unavailable without a network or with a broken mirror."""
    words = ["apt-get", "update", "--quiet", "--error-on=any"]
    try:
        run(words, env=apt.environment, timeout_s=_UPDATE_LIMIT_S)
    except CommandFailed as error:
        raise Unavailable(
            f"the package index of Debian {SUITE} cannot be fetched",
            details=error.details[-600:],
            hint="check the network, http_proxy, and the mirror in /etc/apt; then run it again",
        ) from error


def parse_uris(text: str) -> set[str]:
    """The names of the packages that `apt-get install --print-uris` would fetch (`'uri' file size hash` a line)."""
    rows = [line.split() for line in text.splitlines() if line.startswith("'")]
    return {words[1].split("_")[0] for words in rows if len(words) >= 3}


def parse_show(text: str) -> list[Package]:
    """Packages from the stanzas that `apt-cache show` prints."""
    packages = []
    for stanza in text.split("\n\n"):
        lines = [line.partition(": ") for line in stanza.splitlines() if line and not line[0].isspace()]
        fields = {name: value for name, _, value in lines}
        if "Package" not in fields:
            continue
        version = fields["Version"]
        file = f"{fields['Package']}_{version.replace(':', '%3a')}_{fields['Architecture']}.deb"
        packages.append(
            Package(
                name=fields["Package"],
                version=version,
                architecture=fields["Architecture"],
                sha256=fields["SHA256"],
                size_bytes=int(fields["Size"]),
                file=file,
            )
        )
    return packages


def show_field(apt: PrivateApt, name: str, field: str) -> str:
    """One field of a package's description, such as `Depends`. Raises HostError if there is no such package or field."""
    try:
        shown = run(["apt-cache", "show", "--no-all-versions", name], env=apt.environment).stdout.decode()
    except CommandFailed as error:
        raise HostError(f"Debian {SUITE} lacks the package {name}", details=error.details[-600:]) from error
    for line in shown.splitlines():
        if line.startswith(f"{field}: "):
            return line.removeprefix(f"{field}: ")
    raise HostError(f"Debian {SUITE} says no {field} of the package {name}")


def resolve(apt: PrivateApt, *, closed: Sequence[str], alone: Sequence[str], without: Iterable[str]) -> list[Package]:
    """The packages `closed` with all they depend on, `alone` without, less `without`; sorted by name.

    Raises HostError if the suite lacks one.
    """
    try:
        simulated = run(["apt-get", "install", "--print-uris", "--yes", "-qq", *closed], env=apt.environment)
        names = parse_uris(simulated.stdout.decode())
        wanted = sorted((names | set(alone)) - set(without))
        shown = run(["apt-cache", "show", "--no-all-versions", *wanted], env=apt.environment)
    except CommandFailed as error:
        raise HostError(f"Debian {SUITE} lacks a package that is needed", details=error.details[-600:]) from error
    packages = sorted(parse_show(shown.stdout.decode()))
    missing = set(wanted) - {package.name for package in packages}
    if missing:
        raise HostError(f"Debian {SUITE} lacks packages that are needed", details=", ".join(sorted(missing)))
    return packages


def _has_right_hash(path: Path, package: Package) -> bool:
    if not path.is_file() or path.stat().st_size != package.size_bytes:
        return False
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == package.sha256


def download(apt: PrivateApt, packages: Sequence[Package]) -> None:
    """Bring every package into the cache, those there already excepted. Raises Unavailable."""
    missing = [package for package in packages if not _has_right_hash(apt.debs / package.file, package)]
    if not missing:
        return
    words = [f"{package.name}={package.version}" for package in missing]
    try:
        run(
            ["apt-get", "download", "-qq", *words],
            env=apt.environment,
            cwd=apt.debs / "partial",
            timeout_s=_DOWNLOAD_LIMIT_S,
        )
    except CommandFailed as error:
        raise Unavailable(
            "packages cannot be downloaded from Debian's archive",
            details=error.details[-600:],
            hint="check the network and free space, then run it again; what was downloaded is kept",
        ) from error
    for package in missing:
        arrived = apt.debs / "partial" / package.file
        if not _has_right_hash(arrived, package):
            raise HostError(f"the package {package.file} did not arrive as announced")
        arrived.replace(apt.debs / package.file)


def unpack(apt: PrivateApt, package: Package, target: Path, *, exclude: Sequence[str] = ()) -> None:
    """Unpack a package's files below `target`, without those that match tar patterns in `exclude`."""
    listing = target.parent / f"{target.name}.exclude"
    listing.write_text("".join(f"{pattern}\n" for pattern in exclude), encoding="utf-8")
    try:
        pipe = (
            'dpkg-deb --fsys-tarfile "$1" | tar --extract --directory="$2" --exclude-from="$3" --keep-directory-symlink'
        )
        run(["bash", "-o", "pipefail", "-c", pipe, "unpack", apt.debs / package.file, target, listing])
    finally:
        listing.unlink()


def build_time_s(apt: PrivateApt, package: Package) -> int:
    """When a package was built (Unix seconds): the time in the archive's first member, which Debian's builds fix."""
    with open(apt.debs / package.file, "rb") as stream:
        header = stream.read(8 + _AR_MEMBER_HEADER_BYTES)
    if not header.startswith(b"!<arch>\n"):
        raise HostError(f"{package.file} is not a Debian package")
    return int(header[8 + 16 : 8 + 28])
