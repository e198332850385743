"""Images on Silo's base and on a true one: the documents, each made of the other."""

from __future__ import annotations

import json

import msgspec
import pytest

from silo.errors import InvalidRequest
from silo.images.compose import build_image_config
from silo.images.documents import Descriptor, Manifest, image_config, image_history, parse_image, platform_of
from silo.images.records import BaseRecord, ImageRecord, LayerRecord, PackedLayer, build_image
from silo.images.references import parse_reference
from silo.images.windows_push import (
    build_silo_config,
    build_true_config,
    is_on_silo_base,
    reference_base_layers,
    reference_layers,
    true_base_reference,
)
from silo.model.image import BASE_REFERENCE_LABEL, HistoryEntry, ImageConfig
from silo.model.platform import Platform

NAME = "mcr.microsoft.com/windows/nanoserver:ltsc2022"
OURS = Platform(os="windows", architecture="amd64", os_version="10.0.20348.2700")
SILO = "sha256:" + "5" * 64
APP = "sha256:" + "a" * 64
TRUE = ("sha256:" + "1" * 64, "sha256:" + "2" * 64)
BASE_STEPS = (
    HistoryEntry(created_by="Apply image 10.0.20348.1"),
    HistoryEntry(created_by="Install update 10.0.20348.9"),
)
SILO_STEP = HistoryEntry(created_by="silo base build windows (0123456789ab)", created="2026-01-01T00:00:00Z")
STEPS = (HistoryEntry(created_by="setx /M A b"), HistoryEntry(created_by="CMD", empty_layer=True))
CONFIG = ImageConfig(env=("A=1",), labels={"mine": "1"}, cmd=("app.exe",), user="ContainerUser")


def true_config() -> bytes:
    return build_image_config(
        platform=Platform(os="windows", architecture="amd64", os_version="10.0.20348.9"),
        os_features=(),
        config=ImageConfig(env=("a=0", "Path=C:\\Windows"), user="ContainerUser"),
        diff_ids=TRUE,
        history=BASE_STEPS,
        created="2025-01-01T00:00:00Z",
        author="",
        comment="",
    )


def record_of(document: bytes, *, base: BaseRecord | None = None) -> ImageRecord:
    raw, diff_ids = parse_image(document)
    above = diff_ids[len(base.diff_ids) if base else 0 :]
    return ImageRecord(
        id="sha256:" + "f" * 64,
        config_size=len(document),
        platform=platform_of(raw),
        config=image_config(raw),
        layers=tuple(LayerRecord(diff_id=diff_id, size_bytes=1) for diff_id in above),
        manifests=(),
        created=raw.created or "",
        history=image_history(raw),
        base=base,
    )


def on_silo(config: ImageConfig = CONFIG) -> ImageRecord:
    """What a build FROM a base's name makes."""
    labels = config.labels | {"dev.silo.base.key": "0123", BASE_REFERENCE_LABEL: NAME}
    taken_for = HistoryEntry(created_by=f"silo base in the place of {NAME}", empty_layer=True)
    document = build_image_config(
        platform=OURS,
        os_features=(),
        config=msgspec.structs.replace(config, labels=labels),
        diff_ids=(SILO, APP),
        history=(SILO_STEP, taken_for, *STEPS),
        created="2026-02-01T00:00:00Z",
        author="me",
        comment="",
    )
    return record_of(document)


def substitute() -> ImageRecord:
    document = build_image_config(
        platform=OURS,
        os_features=(),
        config=ImageConfig(labels={"dev.silo.base.key": "0123"}),
        diff_ids=(SILO,),
        history=(SILO_STEP,),
        created="2026-01-01T00:00:00Z",
        author="",
        comment="",
    )
    return record_of(document)


def test_an_image_on_silos_base_gets_the_true_one() -> None:
    document = build_true_config(on_silo(), true_config())
    raw, diff_ids = parse_image(document)
    assert diff_ids == (*TRUE, APP) and platform_of(raw).os_version == "10.0.20348.9"
    assert [entry.created_by for entry in image_history(raw)] == [
        "Apply image 10.0.20348.1",
        "Install update 10.0.20348.9",
        "setx /M A b",
        "CMD",
    ]
    config = image_config(raw)
    assert config.env == ("Path=C:\\Windows", "A=1") and config.labels == {"mine": "1"}
    assert config.cmd == ("app.exe",) and config.user == "ContainerUser"
    assert b"silo" not in document.lower()
    assert document == build_true_config(on_silo(), true_config())


def test_and_back_again() -> None:
    document = build_true_config(on_silo(), true_config())
    base = BaseRecord(
        family="nanoserver",
        os_version="10.0.20348.9",
        diff_ids=TRUE,
        substitute=substitute().id,
        layers=substitute().layers,
    )
    pulled = record_of(document, base=base)
    assert not is_on_silo_base(pulled) and pulled.diff_ids == (*TRUE, APP)
    again = build_silo_config(pulled, substitute())
    raw, diff_ids = parse_image(again)
    assert diff_ids == (SILO, APP) and platform_of(raw) == OURS
    assert [entry.created_by for entry in image_history(raw)] == [SILO_STEP.created_by, "setx /M A b", "CMD"]
    assert is_on_silo_base(record_of(again))
    with pytest.raises(InvalidRequest, match="made on Silo's own base"):
        true_base_reference(record_of(again))


def test_which_images_are_on_silos_base() -> None:
    assert is_on_silo_base(on_silo()) and is_on_silo_base(substitute())
    linux = msgspec.structs.replace(on_silo(), platform=Platform(os="linux", architecture="amd64"))
    assert not is_on_silo_base(linux)
    assert not is_on_silo_base(msgspec.structs.replace(on_silo(), history=()))
    assert true_base_reference(on_silo()).familiar == NAME
    with pytest.raises(InvalidRequest, match=r"Silo's own base.*--with-silo-base"):
        true_base_reference(substitute())


def test_the_bases_layers_are_referenced() -> None:
    elsewhere = "https://elsewhere.example/blob"
    base = Manifest(
        config=Descriptor(digest=APP, size=1),
        layers=[
            Descriptor(digest=TRUE[0], size=7, media_type="application/vnd.docker.image.rootfs.diff.tar.gzip"),
            Descriptor(
                digest=TRUE[1],
                size=8,
                media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                urls=[elsewhere],
            ),
        ],
    )
    first, second = reference_base_layers(base, parse_reference(NAME))
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    assert (first.media_type, second.media_type) == (kind, kind) and (first.size, second.size) == (7, 8)
    assert first.urls == [f"https://mcr.microsoft.com/v2/windows/nanoserver/blobs/{TRUE[0]}"]
    assert second.urls == [elsewhere]


def test_layers_above_a_base_stay_what_they_are() -> None:
    kind = "application/vnd.oci.image.layer.v1.tar+zstd"
    layers = [PackedLayer(digest=digest, size=1, media_type=kind) for digest in (*TRUE, APP)]
    found = reference_layers(layers, 2, parse_reference("a/b"))
    assert [layer.media_type for layer in found[:2]] == [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
    ] * 2
    assert found[0].urls == [f"https://registry-1.docker.io/v2/a/b/blobs/{TRUE[0]}"]
    assert found[2].media_type == kind and not found[2].urls


def test_an_image_shows_its_own_diff_ids_and_silos_directories() -> None:
    class Places:
        def layer_path(self, diff_id: str) -> object:
            return diff_id

    base = BaseRecord(
        family="nanoserver",
        os_version="10.0.20348.9",
        diff_ids=TRUE,
        substitute="sha256:" + "9" * 64,
        layers=(LayerRecord(diff_id=SILO, size_bytes=100),),
    )
    record = record_of(build_true_config(on_silo(), true_config()), base=base)
    image = build_image(record, Places())  # type: ignore[arg-type]
    assert image.layers == (*TRUE, APP) and image.layer_paths == (SILO, APP)
    assert image.size_bytes == 101 and image.base is not None and image.base.layers == 2
    assert record.content() == {record.id, SILO, APP}
    assert json.loads(msgspec.json.encode(record.base))["family"] == "nanoserver"
