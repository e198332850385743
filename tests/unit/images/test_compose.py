"""Image documents that Silo writes say, read again, the same; and the same input gives the same bytes."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from silo.images.compose import build_image_config, oci_layer_type
from silo.images.documents import image_config, image_history, parse_image, platform_of
from silo.model.image import Healthcheck, HistoryEntry, ImageConfig
from silo.model.platform import Platform

WORD = st.text(min_size=1, max_size=8)
WORDS = st.lists(WORD, max_size=3).map(tuple)
NAMES = st.sets(WORD, max_size=3).map(sorted).map(tuple)
SECONDS = st.floats(0.001, 1000).map(lambda value: round(value, 3))
CONFIGS = st.builds(
    ImageConfig,
    user=WORD,
    env=WORDS,
    entrypoint=WORDS,
    cmd=WORDS,
    working_dir=WORD,
    exposed_ports=NAMES,
    volumes=NAMES,
    labels=st.dictionaries(WORD, WORD, max_size=3),
    stop_signal=WORD,
    stop_timeout_s=st.none() | st.integers(0, 100),
    healthcheck=st.none()
    | st.builds(
        Healthcheck,
        test=WORDS,
        interval_s=SECONDS,
        timeout_s=SECONDS,
        start_interval_s=SECONDS,
        retries=st.integers(1, 9),
    ),
    shell=WORDS,
    args_escaped=st.booleans(),
    on_build=WORDS,
)
DIFF_ID = "sha256:" + "a" * 64
HISTORY = (
    HistoryEntry(created="2024-01-01T00:00:00Z", created_by="x", author="a", comment="c"),
    HistoryEntry(empty_layer=True),
)


def build(config: ImageConfig, platform: Platform) -> bytes:
    return build_image_config(
        platform=platform,
        os_features=("win32k",),
        config=config,
        diff_ids=[DIFF_ID],
        history=HISTORY,
        created="2024-01-01T00:00:00Z",
        author="me",
        comment="why",
    )


@given(CONFIGS)
def test_a_config_survives_writing_and_reading(config: ImageConfig) -> None:
    platform = Platform(os="windows", architecture="amd64", os_version="10.0.1.2")
    data = build(config, platform)
    raw, diff_ids = parse_image(data)
    assert image_config(raw) == config and platform_of(raw) == platform and diff_ids == (DIFF_ID,)
    assert image_history(raw) == HISTORY and (raw.author, raw.comment, raw.os_features) == ("me", "why", ["win32k"])
    assert build(msgspec.structs.replace(config), platform) == data


def test_nothing_is_written_for_what_has_no_value() -> None:
    document = json.loads(build(ImageConfig(), Platform(os="linux", architecture="amd64")))
    assert document["config"] == {} and "variant" not in document and "os.version" not in document
    assert document["history"][1] == {"empty_layer": True}


def test_layer_types_become_those_of_oci() -> None:
    docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    assert oci_layer_type(docker) == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert oci_layer_type("application/vnd.oci.image.layer.v1.tar+zstd").endswith("+zstd")
