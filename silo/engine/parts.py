"""The implementations that the engine was given, by the ports they fill. Assembled in `silo.wiring` only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from silo.engine.ports import ImageStore, Networks, Personality, Runtime, Storage
from silo.errors import Unsupported
from silo.model.container import ContainerRecord
from silo.model.disk_guest import DISK_IMAGE
from silo.model.image import Image
from silo.model.platform import Isolation, PersonalityName
from silo.model.vm_image import DEFAULT_VM_IMAGE


@dataclass(frozen=True)
class Parts:
    """Every port, filled."""

    images: ImageStore
    networks: Networks
    storage: Storage
    runtimes: Mapping[Isolation, Runtime]
    personalities: Mapping[PersonalityName, Personality]
    data_root: Path
    run_root: Path
    default_isolation: Isolation = Isolation.PROCESS
    vm_image: str = DEFAULT_VM_IMAGE
    """The utility VM of containers that do not name one."""

    def runtime(self, isolation: Isolation) -> Runtime:
        """Raises Unsupported for a level that this host or build does not have."""
        try:
            return self.runtimes[isolation]
        except KeyError:
            raise Unsupported(
                f"--isolation {isolation} is not supported", hint=f"this engine offers: {', '.join(self.runtimes)}"
            ) from None

    def find_image_of(self, record: ContainerRecord) -> Image | None:
        """The image of a container; a constant one for those that boot a disk, None for one that has been removed."""
        return DISK_IMAGE if record.config.disk is not None else self.images.find(record.image_id)

    def image_of(self, record: ContainerRecord) -> Image:
        """Raises ImageNotFound."""
        return DISK_IMAGE if record.config.disk is not None else self.images.get(record.image_id)

    def personality(self, name: PersonalityName) -> Personality:
        return self.personalities[name]
