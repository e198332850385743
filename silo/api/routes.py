"""The one table of routes: what Silo serves of the Docker Engine API, and what it knows and does not serve."""

from __future__ import annotations

from silo.api.handlers.archives import ArchiveHandlers
from silo.api.handlers.bases import BaseHandlers
from silo.api.handlers.builds import BuildHandlers
from silo.api.handlers.containers import ContainerHandlers
from silo.api.handlers.execs import ExecHandlers
from silo.api.handlers.images import ImageHandlers
from silo.api.handlers.networks import NetworkHandlers, VolumeHandlers
from silo.api.handlers.registries import RegistryHandlers
from silo.api.handlers.streams import StreamHandlers
from silo.api.handlers.system import SystemHandlers
from silo.api.routing import Handler, Route
from silo.engine.engine import Engine


def _row(method: str, pattern: str, title: str, handler: Handler) -> Route:
    return Route(method=method, pattern=pattern, title=title, handler=handler)


def _stream(method: str, pattern: str, title: str, handler: Handler) -> Route:
    return Route(method=method, pattern=pattern, title=title, handler=handler, streaming=True)


def build_routes(engine: Engine) -> tuple[Route, ...]:
    """Longer patterns come before the `{name*}` that would swallow them."""
    system = SystemHandlers(engine)
    bases = BaseHandlers(engine)
    builds = BuildHandlers(engine)
    containers = ContainerHandlers(engine)
    streams = StreamHandlers(engine)
    execs = ExecHandlers(engine)
    archives = ArchiveHandlers(engine)
    images = ImageHandlers(engine)
    networks = NetworkHandlers(engine)
    volumes = VolumeHandlers(engine)
    registries = RegistryHandlers(engine)
    return (
        _row("GET", "/_ping", "ping", system.ping),
        _row("GET", "/version", "version", system.version),
        _row("GET", "/info", "info", system.info),
        _stream("GET", "/events", "events", system.events),
        _row("GET", "/system/df", "system df", system.disk_usage),
        _stream("POST", "/build", "build", builds.build),
        _row("POST", "/build/prune", "builder prune", builds.prune),
        _row("POST", "/auth", "login", images.auth),
        _row("POST", "/containers/create", "create", containers.create),
        _row("GET", "/containers/json", "ps", containers.list),
        _row("POST", "/containers/prune", "container prune", containers.prune),
        _row("GET", "/containers/{name}/json", "inspect", containers.inspect),
        _stream("POST", "/containers/{name}/attach", "attach", streams.attach),
        _stream("POST", "/containers/{name}/wait", "wait", containers.wait),
        _row("POST", "/containers/{name}/start", "start", containers.start),
        _row("POST", "/containers/{name}/stop", "stop", containers.stop),
        _row("POST", "/containers/{name}/restart", "restart", containers.restart),
        _row("POST", "/containers/{name}/kill", "kill", containers.kill),
        _row("POST", "/containers/{name}/pause", "pause", containers.pause),
        _row("POST", "/containers/{name}/unpause", "unpause", containers.unpause),
        _row("POST", "/containers/{name}/rename", "rename", containers.rename),
        _row("POST", "/containers/{name}/update", "update", containers.update),
        _row("POST", "/containers/{name}/resize", "resize of a terminal", containers.resize),
        _row("DELETE", "/containers/{name}", "rm", containers.remove),
        _stream("GET", "/containers/{name}/logs", "logs", streams.logs),
        _stream("GET", "/containers/{name}/stats", "stats", streams.statistics),
        _row("GET", "/containers/{name}/top", "top", containers.processes),
        _row("GET", "/containers/{name}/changes", "diff", containers.changes),
        _stream("GET", "/containers/{name}/export", "export", archives.export),
        _row("HEAD", "/containers/{name}/archive", "stat of a path (cp)", archives.stat),
        _stream("GET", "/containers/{name}/archive", "cp from a container", archives.read),
        _stream("PUT", "/containers/{name}/archive", "cp to a container", archives.write),
        _row("POST", "/containers/{name}/exec", "exec: create", execs.create),
        _stream("POST", "/exec/{name}/start", "exec: start", execs.start),
        _row("POST", "/exec/{name}/resize", "exec: resize of a terminal", execs.resize),
        _row("GET", "/exec/{name}/json", "exec: inspect", execs.inspect),
        _row("POST", "/commit", "commit", images.commit),
        _row("GET", "/images/json", "images", images.list),
        _stream("POST", "/images/create", "pull, import", images.create),
        _stream("POST", "/images/load", "load", images.load),
        _stream("GET", "/images/get", "save", images.save),
        _row("GET", "/images/search", "search", images.search),
        _row("POST", "/images/prune", "image prune", images.prune),
        _row("GET", "/images/{name*}/json", "image inspect", images.inspect),
        _row("GET", "/images/{name*}/history", "history", images.history),
        _stream("GET", "/images/{name*}/get", "save of one image", images.save),
        _stream("POST", "/images/{name*}/push", "push", images.push),
        _row("POST", "/images/{name*}/tag", "tag", images.tag),
        _row("DELETE", "/images/{name*}", "rmi", images.remove),
        _row("GET", "/networks", "network ls", networks.list),
        _row("POST", "/networks/create", "network create", networks.create),
        _row("POST", "/networks/prune", "network prune", networks.prune),
        _row("GET", "/networks/{name}", "network inspect", networks.inspect),
        _row("DELETE", "/networks/{name}", "network rm", networks.remove),
        _row("POST", "/networks/{name}/connect", "network connect", networks.connect),
        _row("POST", "/networks/{name}/disconnect", "network disconnect", networks.disconnect),
        _row("GET", "/volumes", "volume ls", volumes.list),
        _row("POST", "/volumes/create", "volume create", volumes.create),
        _row("POST", "/volumes/prune", "volume prune", volumes.prune),
        _row("GET", "/volumes/{name}", "volume inspect", volumes.inspect),
        _row("DELETE", "/volumes/{name}", "volume rm", volumes.remove),
        _stream("POST", "/silo/v1/base/windows", "silo base build windows", bases.build_windows),
        _stream("POST", "/silo/v1/base/vm", "silo base build vm", bases.build_vm),
        _row("GET", "/silo/v1/base/vm", "silo base ls", bases.list_vms),
        _row("POST", "/silo/v1/base/vm/import", "silo base import vm", bases.import_vm),
        _row("DELETE", "/silo/v1/base/vm/{name}", "silo base rm vm", bases.remove_vm),
        _row("GET", "/silo/v1/registry/query", "silo registry query", registries.query),
        _row("POST", "/silo/v1/registry/query", "silo registry query of a hive", registries.query),
        _row("GET", "/silo/v1/registry/export", "silo registry export", registries.export),
        _row("POST", "/silo/v1/registry/export", "silo registry export of a hive", registries.export),
        _row("GET", "/silo/v1/registry/diff", "silo registry diff", registries.diff),
        _row("POST", "/silo/v1/registry/diff", "silo registry diff of hives", registries.diff),
        *UNSUPPORTED,
    )


def _lacks(title: str, *rows: str) -> tuple[Route, ...]:
    pairs = (row.split(" ", 1) for row in rows)
    return tuple(Route(method=method, pattern=pattern, title=title) for method, pattern in pairs)


UNSUPPORTED: tuple[Route, ...] = (
    *_lacks("cancelling a build by its id (hang up instead)", "POST /build/cancel"),
    *_lacks("BuildKit's session", "POST /session", "POST /grpc"),
    *_lacks("inspecting an image in a registry (distribution)", "GET /distribution/{name*}/json"),
    *_lacks("attaching by web socket", "GET /containers/{name}/attach/ws"),
    *_lacks(
        "docker checkpoint",
        "GET /containers/{name}/checkpoints",
        "POST /containers/{name}/checkpoints",
        "DELETE /containers/{name}/checkpoints/{checkpoint}",
    ),
    *_lacks("updating a volume (cluster volumes)", "PUT /volumes/{name}"),
    *_lacks(
        "docker swarm",
        "GET /swarm", "POST /swarm/init", "POST /swarm/join", "POST /swarm/leave", "POST /swarm/update",
        "GET /swarm/unlockkey", "POST /swarm/unlock",
    ),
    *_lacks("docker node", "GET /nodes", "GET /nodes/{name}", "DELETE /nodes/{name}", "POST /nodes/{name}/update"),
    *_lacks(
        "docker service",
        "GET /services", "POST /services/create", "GET /services/{name}", "DELETE /services/{name}",
        "POST /services/{name}/update", "GET /services/{name}/logs",
    ),
    *_lacks("docker service ps (tasks)", "GET /tasks", "GET /tasks/{name}", "GET /tasks/{name}/logs"),
    *_lacks(
        "docker secret",
        "GET /secrets", "POST /secrets/create", "GET /secrets/{name}", "DELETE /secrets/{name}",
        "POST /secrets/{name}/update",
    ),
    *_lacks(
        "docker config",
        "GET /configs", "POST /configs/create", "GET /configs/{name}", "DELETE /configs/{name}",
        "POST /configs/{name}/update",
    ),
    *_lacks(
        "docker plugin",
        "GET /plugins", "GET /plugins/privileges", "POST /plugins/pull", "POST /plugins/create",
        "GET /plugins/{name*}/json", "DELETE /plugins/{name*}", "POST /plugins/{name*}/enable",
        "POST /plugins/{name*}/disable", "POST /plugins/{name*}/upgrade", "POST /plugins/{name*}/push",
        "POST /plugins/{name*}/set",
    ),
)  # fmt: skip
"""Known to Docker's clients and answered by 501 with these words."""
