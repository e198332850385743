"""Record what Docker's own client sends for the flags of `create`, `exec`, …: `python -m tests.golden.cli_record`.

Writes cli_bodies.json beside this file; tests/unit/cli/test_bodies.py holds silo to it. Paths are absolute and exist nowhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support.daemon import docker_program
from tests.unit.cli.fake_daemon import fake_daemon

GOLDEN = Path(__file__).with_name("cli_bodies.json")
CREATE_FLAGS = """
-t -i | -it | -a stdout -i | -a stdin -i | --interactive=false --tty=true
-e A=b -e PASSED_ON -e NOT_SET | -w /x -u 1000:1000 --hostname h --domainname d | -h box --entrypoint sh | --entrypoint=
-v /data:/data:ro -v named:/n -v /anonymous | -v /data:C:\\data | --tmpfs /t:size=1m --tmpfs /u
--mount type=bind,src=/a,dst=/b,ro,bind-propagation=rshared | --mount type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=700
--mount src=v,dst=/v,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=o=bind,readonly=true
--mount type=volume,target=/only | --mount type=bind,source=/a,target=/b,bind-recursive=disabled
-v \\\\\\\\.\\\\pipe\\\\x:\\\\\\\\.\\\\pipe\\\\y -v /run/a.sock:\\\\\\\\.\\\\pipe\\\\z
--mount type=npipe,source=\\\\\\\\.\\\\pipe\\\\x,target=\\\\\\\\.\\\\pipe\\\\y
-p 80 | -p 8080:80 | -p 127.0.0.1:8080:80/udp | -p 127.0.0.1::80 | -p 8000-8002:80-82 | -p 8000-8010:80 | -p [::1]:80:80
-p 80-81/udp -p 80:80/tcp -P --expose 100-101 --expose 7/udp | -p published=8080,target=80,protocol=udp
--init | --init=false | --read-only --privileged | --cap-add NET_ADMIN --cap-drop ALL
--security-opt no-new-privileges --security-opt seccomp=unconfined | --memory 512m --memory-swap 1g --memory-reservation 100m
--memory 1.5g --memory-swap -1 | --cpus 1.5 --cpu-shares 100 --cpuset-cpus 0-1 --cpuset-mems 0
--cpu-period 100000 --cpu-quota 50000
--pids-limit 100 | --pids-limit -1 | --ulimit nofile=10:20 --ulimit core=-1 | --restart on-failure:3 | --restart always
--stop-timeout 5 --stop-signal SIGINT
--stop-timeout 0 | --health-cmd a\\ b --health-interval 1m30s --health-timeout 500ms --health-retries 4
--health-start-period 2s --health-start-interval 1s --health-cmd x | --no-healthcheck
--label a=b --label c -l d=e=f | --isolation process | --platform linux/amd64 | --runtime r | --cgroupns host
--network none | --network host | --network lab --network-alias x --ip 10.9.0.5 --mac-address 02:42:ac:11:00:02
--network name=lab,alias=y,ip=10.9.0.6 --network other | --network container:web | --net lab --net-alias z
--dns 1.1.1.1 --dns-option ndots:1 --dns-search example.org --add-host a:1.2.3.4 --add-host b=::1 | --link a:b
--userns host --ipc host --pid host --uts host | --device /dev/null | --device /dev/null:/dev/x:r | --device /dev/null:rw
--shm-size 64m --sysctl net.core.somaxconn=10 | --group-add 5 --oom-score-adj 5 --oom-kill-disable | --log-driver none
--log-opt max-size=1m --log-driver local | --annotation a=b --storage-opt size=1g --volumes-from v:ro --volume-driver local
--device-cgroup-rule c\\ 1:3\\ rwm --blkio-weight 300 --blkio-weight-device /dev/sda:100 | --gpus all
--device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:100 | --rm | --cgroup-parent p --memory-swappiness 10
""".strip()
OTHERS = (
    "exec web sh -c ls", "exec -d -u app -w /x -e A=b --privileged web sh", "exec -i web cat",
    "update --cpus 2 --memory 1g --restart always web", "update --pids-limit 5 --cpu-shares 3 web",
    "network create lab", "network create --subnet 10.9.0.0/24 --gateway 10.9.0.1 --ip-range 10.9.0.128/25 --internal lab",
    "network create -o a=b --label l --aux-address h=10.9.0.7 --subnet 10.9.0.0/24 --subnet fd00::/64 --ipv6 lab",
    "network connect --ip 10.9.0.5 --alias x --link a:b lab web", "network disconnect -f lab web", "volume create",
    "volume create -d local -o type=tmpfs --label a=b data",
)  # fmt: skip


def cases() -> list[list[str]]:
    import shlex

    texts = [part.strip() for line in CREATE_FLAGS.splitlines() for part in line.split(" | ")]
    created = [
        ["create", *shlex.split(text.replace("C:\\", "C:\\\\")), "busybox", "sh", "-c", "ls -l"] for text in texts
    ]
    return created + [text.split() for text in OTHERS]


def prune(value: Any) -> Any:
    """Without what says nothing, for Docker's client spells out every member."""
    if isinstance(value, dict):
        pruned = {key: prune(item) for key, item in value.items() if key != "EndpointsConfig"}
        found = {
            key: item
            for key, item in pruned.items()
            if item not in (None, "", 0, False, [], {}, [0, 0]) and (key, item) != ("MemorySwappiness", -1)
        }
        endpoints = {name: prune(item) for name, item in value.get("EndpointsConfig", {}).items()}
        # One network without wishes is what NetworkMode says already.
        if len(endpoints) > 1 or any(endpoints.values()):
            found["EndpointsConfig"] = endpoints
        for key in ("Ulimits", "Config"):
            # Maps of Docker's client, in no order.
            if isinstance(found.get(key), list):
                found[key] = sorted(found[key], key=lambda item: json.dumps(item, sort_keys=True))
        # Said explicitly, these are not nothing.
        for key in ("StopTimeout", "Init", "EnableIPv6", "EnableIPv4"):
            if value.get(key) is not None:
                found[key] = value[key]
        return found
    if isinstance(value, list):
        return [prune(item) for item in value]
    return value


def record() -> list[dict[str, Any]]:
    program = docker_program()
    recorded = []
    with tempfile.TemporaryDirectory(prefix="silo-cli-") as directory, fake_daemon(Path(directory)) as daemon:
        for words in cases():
            daemon.asked.clear()
            environment = {**os.environ, "DOCKER_HOST": daemon.host, "DOCKER_CONFIG": directory, "PASSED_ON": "yes"}
            done = subprocess.run([program, *words], env=environment, capture_output=True, text=True, check=False)
            posts = [asked for asked in daemon.asked if asked.method == "POST"]
            assert posts, f"docker {words}: {done.stderr}"
            query = {key: value for key, value in posts[0].query.items() if value != [""]}
            recorded.append({"words": words, "path": posts[0].path, "query": query, "body": prune(posts[0].json())})
    return recorded


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(case, sort_keys=True) for case in record())
    GOLDEN.write_text(f"[\n{lines}\n]\n")
