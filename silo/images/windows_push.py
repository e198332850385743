"""Windows images as Windows hosts can run them: the true base is named again, its layers referenced and never copied. Pure.

An image that was pulled keeps its config and names its base's layers. One that was made here on Silo's base (`FROM` a base's name)
gets the config and the layers of the true one, which its registry has told.

    true base     config: os.version, diff ids, history     manifest: descriptors of its layers
    image         everything above Silo's base

A layer that the image's registry lacks is of a nondistributable type and says by `urls` where it is; whoever pushes or pulls leaves
it out, and a Windows host fetches it there.

Source: OCI image-spec layer.md ("Non-distributable layers"), descriptor.md (urls).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from silo.errors import InvalidRequest
from silo.images.compose import NONDISTRIBUTABLE, build_image_config, oci_layer_type
from silo.images.documents import OCI_LAYER, Descriptor, Manifest, RawImage, image_config, image_history, parse_image
from silo.images.records import ImageRecord, PackedLayer
from silo.images.references import Reference, parse_reference
from silo.model.image import BASE_REFERENCE_LABEL, ImageConfig
from silo.model.platform import Platform

SILO_STEP = "silo base build windows"
"""How the step that made Silo's base begins."""

SUBSTITUTE_STEP = "silo base in the place of"
"""How the step begins that gave it another's name."""

_HOSTS = {"docker.io": "registry-1.docker.io"}
_OUR_LABELS = ("com.silo.base.", "dev.silo.base.")


def is_on_silo_base(record: ImageRecord) -> bool:
    """Whether the image's own lowest layer is Silo's base, which only Silo can run."""
    return (
        record.platform.os == "windows" and bool(record.history) and record.history[0].created_by.startswith(SILO_STEP)
    )


def true_base_reference(record: ImageRecord) -> Reference:
    """The base that an image on Silo's was made for. Raises InvalidRequest where it names none."""
    text = record.config.labels.get(BASE_REFERENCE_LABEL, "")
    if not text:
        raise InvalidRequest(
            "the image is made on Silo's own base, which Windows hosts do not have",
            hint="build it FROM a base such as mcr.microsoft.com/windows/servercore:ltsc2022, or push it for Silo only: "
            "silo push --with-silo-base",
        )
    return parse_reference(text)


def build_true_config(record: ImageRecord, base: bytes) -> bytes:
    """The config of an image made on Silo's base, on the true one whose config is given. Raises InvalidRequest."""
    raw, diff_ids = parse_image(base)
    steps = [entry for entry in record.history if not entry.created_by.startswith((SILO_STEP, SUBSTITUTE_STEP))]
    return build_image_config(
        platform=Platform(
            os="windows",
            architecture=record.platform.architecture,
            os_version=raw.os_version or record.platform.os_version,
        ),
        os_features=raw.os_features or (),
        config=_true_settings(record.config, raw),
        diff_ids=[*diff_ids, *record.diff_ids[1:]],
        history=[*image_history(raw), *steps],
        created=record.created,
        author=record.author,
        comment=record.comment,
    )


def _true_settings(config: ImageConfig, base: RawImage) -> ImageConfig:
    """The image's own, without what is Silo's; variables that the base sets and the image does not are the base's."""
    names = {pair.partition("=")[0].upper() for pair in config.env}
    inherited = (pair for pair in image_config(base).env if pair.partition("=")[0].upper() not in names)
    labels = {name: value for name, value in config.labels.items() if not name.startswith(_OUR_LABELS)}
    return msgspec.structs.replace(config, labels=labels, env=(*inherited, *config.env))


def build_silo_config(record: ImageRecord, substitute: ImageRecord) -> bytes:
    """The config of an image that has a true base, on Silo's instead, whose packed layers can be given away.

    Which true base it was is lost: its name is known of images that were made on one by name only.
    """
    absent = len(record.base.diff_ids) if record.base else 0
    made = [number for number, entry in enumerate(record.history) if not entry.empty_layer]
    above = made[absent - 1] + 1 if absent and len(made) >= absent else 0
    return build_image_config(
        platform=msgspec.structs.replace(record.platform, os_version=substitute.platform.os_version),
        os_features=record.os_features,
        config=record.config,
        diff_ids=[*substitute.diff_ids, *(layer.diff_id for layer in record.layers)],
        history=[*substitute.history, *record.history[above:]],
        created=record.created,
        author=record.author,
        comment=record.comment,
    )


def reference_base_layers(manifest: Manifest, blobs_at: Reference) -> list[Descriptor]:
    """The layers of a true base as another image names them; `blobs_at`: the repository that has them."""
    return [_referenced(PackedLayer.of(layer), blobs_at) for layer in manifest.layers]


def reference_layers(layers: Sequence[PackedLayer], absent: int, blobs_at: Reference) -> list[Descriptor]:
    """All layers of an image, the lowest `absent` ones referenced."""
    kept = [layer.descriptor(media_type=oci_layer_type(layer.media_type)) for layer in layers[absent:]]
    return [*(_referenced(layer, blobs_at) for layer in layers[:absent]), *kept]


def _referenced(layer: PackedLayer, blobs_at: Reference) -> Descriptor:
    media_type = oci_layer_type(layer.media_type)
    if media_type.startswith(OCI_LAYER):
        media_type = NONDISTRIBUTABLE + media_type.removeprefix(OCI_LAYER)
    host = _HOSTS.get(blobs_at.domain, blobs_at.domain)
    urls = layer.urls or (f"https://{host}/v2/{blobs_at.path}/blobs/{layer.digest}",)
    return Descriptor(digest=layer.digest, size=layer.size, media_type=media_type, urls=list(urls))
