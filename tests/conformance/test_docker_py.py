"""docker-py against a real daemon."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.conftest import Docker, Silod

docker_py = pytest.importorskip("docker", reason="needs docker-py: not in this environment")
pytestmark = pytest.mark.system


@pytest.fixture
def client(silod: Silod, docker: Docker) -> Iterator[Any]:
    made = docker_py.DockerClient(base_url=f"unix://{silod.socket}", version="auto", timeout=30)
    yield made
    made.close()


def test_negotiation_ping_and_info(client: Any) -> None:
    assert client.ping() is True
    assert client.version()["ApiVersion"] == "1.50"
    assert client.info()["OSType"] == "linux"
    assert client.df()["Images"]


def test_run_returns_output_and_raises_on_failure(client: Any) -> None:
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    with pytest.raises(docker_py.errors.ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert caught.value.exit_status == 3 and b"bad" in caught.value.stderr


def test_the_life_of_a_container(client: Any) -> None:
    made = client.containers.run("busybox", "sleep 100", detach=True, name="py-life", labels={"a": "b"})
    made.reload()
    assert made.status == "running" and made.labels == {"a": "b"}
    assert made in client.containers.list(filters={"label": "a=b"})
    assert "sleep 100" in str(made.top())
    statistics = made.stats(stream=False)
    assert statistics["memory_stats"]["usage"] > 0 and "precpu_stats" in statistics
    streamed = made.stats(stream=True, decode=True)
    assert next(streamed)["id"] == made.id and next(streamed)["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    streamed.close()
    made.pause()
    made.unpause()
    made.rename("py-renamed")
    made.stop(timeout=0)
    assert made.wait()["StatusCode"] == 137
    made.start()
    made.kill()
    made.remove(v=True, force=True)
    with pytest.raises(docker_py.errors.NotFound):
        client.containers.get("py-renamed")


def test_exec_run(client: Any) -> None:
    made = client.containers.run("busybox", "sleep 100", detach=True)
    code, output = made.exec_run(["sh", "-c", "echo out; echo err >&2; exit 2"], demux=True)
    assert (code, output) == (2, (b"out\n", b"err\n"))
    _, stream = made.exec_run("cat /etc/passwd", stream=True)
    assert b"root" in b"".join(stream)
    _, sock = made.exec_run("cat", stdin=True, socket=True, tty=True)
    sock._sock.sendall(b"typed\n")
    assert b"typed" in sock._sock.recv(100)
    sock.close()


def test_attach_socket_and_logs(client: Any) -> None:
    made = client.containers.create("busybox", "cat", stdin_open=True, name="py-cat")
    sock = made.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    made.start()
    sock._sock.sendall(b"to the program\n")
    frame = sock._sock.recv(100)
    assert frame[:4] == b"\x01\0\0\0" and frame[8:] == b"to the program\n"
    sock.close()
    made.kill()
    assert made.logs() == b"to the program\n"
    stamped = made.logs(timestamps=True, tail=1)
    assert stamped.endswith(b"Z to the program\n")


def test_archives(client: Any) -> None:
    made = client.containers.create("busybox", "true")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        info = tarfile.TarInfo("hello")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"world"))
    assert made.put_archive("/tmp", data.getvalue())
    chunks, stat = made.get_archive("/tmp/hello")
    assert stat["name"] == "hello" and stat["size"] == 5
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as found:
        assert found.extractfile("hello").read() == b"world"  # type: ignore[union-attr]
    assert {"Path": "/tmp/hello", "Kind": 1} in made.diff()
    assert b"".join(made.export())[:1]


def test_images_networks_and_volumes(client: Any) -> None:
    image = client.images.get("busybox")
    assert "busybox:latest" in image.tags
    assert image.history()[0]["Id"]
    image.tag("py-tag", "1")
    saved = b"".join(client.images.get("py-tag:1").save(named="py-tag:1"))
    client.images.remove("py-tag:1")
    assert client.images.load(saved)[0].tags
    client.images.remove("py-tag:1")
    with pytest.raises(docker_py.errors.ImageNotFound):
        client.images.get("py-tag:1")
    made = client.containers.create("busybox", "true")
    committed = made.commit("py-commit", "1", message="m", conf={"Labels": {"x": "y"}})
    assert committed.labels == {"x": "y"}
    client.images.remove("py-commit:1")
    network = client.networks.create("py-net", driver="bridge", labels={"a": "b"})
    network.connect(made)
    network.disconnect(made)
    assert network in client.networks.list(names=["py-net"])
    network.remove()
    volume = client.volumes.create("py-volume", labels={"a": "b"})
    assert volume in client.volumes.list(filters={"label": "a"})
    volume.remove()


def test_events(client: Any) -> None:
    events = client.events(decode=True, filters={"type": "container", "event": ["create", "destroy"]})
    client.containers.run("busybox", "true", remove=True)
    assert [next(events)["Action"] for _ in range(2)] == ["create", "destroy"]
    events.close()


def test_errors_have_dockers_classes(client: Any) -> None:
    with pytest.raises(docker_py.errors.ImageNotFound):
        client.containers.create("no-such-image")
    with pytest.raises(docker_py.errors.NotFound):
        client.containers.get("no-such-container")
    with pytest.raises(docker_py.errors.APIError) as caught:
        client.containers.create("busybox", cgroup_parent="/x")
    assert caught.value.status_code == 501 and "--cgroup-parent" in str(caught.value.explanation)


def test_update_and_ports(client: Any, level: str) -> None:
    made = client.containers.run("busybox", "sleep 100", detach=True, ports={"80/tcp": None})
    # a machine has no swap
    made.update(mem_limit="32m", memswap_limit="64m" if level == "process" else "32m")
    made.reload()
    assert made.attrs["HostConfig"]["Memory"] == 32 << 20
    assert int(made.ports["80/tcp"][0]["HostPort"]) > 0
