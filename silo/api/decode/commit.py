"""The optional configuration in the body of `POST /commit`."""

from __future__ import annotations

from silo.api.decode.create import parse_healthcheck
from silo.api.decode.ports import parse_exposed
from silo.api.decode.wire import ConfigBody, Words
from silo.model.image import ImageConfig


def parse_commit_config(body: ConfigBody) -> ImageConfig | None:
    """None when the body says nothing: the container's own configuration is committed."""
    config = ImageConfig(
        user=body.User,
        env=body.Env,
        entrypoint=_words(body.Entrypoint),
        cmd=_words(body.Cmd),
        working_dir=body.WorkingDir,
        exposed_ports=parse_exposed(body.ExposedPorts),
        volumes=tuple(body.Volumes),
        labels=body.Labels,
        stop_signal=body.StopSignal,
        stop_timeout_s=body.StopTimeout,
        healthcheck=parse_healthcheck(body.Healthcheck),
        shell=body.Shell,
        args_escaped=bool(body.ArgsEscaped),
    )
    return None if config == ImageConfig() else config


def _words(value: Words) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) and value else tuple(value)
