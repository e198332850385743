"""What a Linux container sees and may do, with every boundary that the plan names."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path

import msgspec
import pytest

from silo.errors import Conflict, HostError, InvalidRequest, ToolMissing
from silo.host import mounts
from silo.isolation.slots import FIRST_ID
from silo.model.container import Device, Namespaces, Resources, Ulimit
from silo.model.mount import MountKind, PlannedMount
from tests.contract.subjects import LinuxSubject, close_streams, collect
from tests.system.process.conftest import Shell


def namespace(pid: int | str, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


async def test_every_namespace_is_its_own(subject: LinuxSubject, shell: Shell) -> None:
    plan = shell("sleep 100")
    await subject.runtime.prepare(plan)
    started = await subject.runtime.start(plan.id)
    for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user"):
        assert namespace(started.pid, kind) != namespace("thread-self", kind), kind
    status = Path(f"/proc/{started.pid}/status").read_text()
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    uid = int(status.split("Uid:\t")[1].split("\t")[0])
    assert uid >= FIRST_ID
    await subject.runtime.release(plan.id)


async def test_two_containers_have_different_ids(subject: LinuxSubject, shell: Shell) -> None:
    plans = [shell("sleep 100") for _ in range(2)]
    sandboxes = [await subject.runtime.prepare(plan) for plan in plans]
    assert all(sandbox.user_namespace for sandbox in sandboxes)
    assert abs(sandboxes[0].first_host_uid - sandboxes[1].first_host_uid) >= 65536
    for plan in plans:
        await subject.runtime.release(plan.id)


async def test_exec_is_as_confined_as_the_main_program(subject: LinuxSubject, shell: Shell) -> None:
    async with subject.started(shell("sleep 100")) as container_id:
        words = ("/bin/sh", "-c", "grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status; cat /proc/self/cgroup")
        program = msgspec.structs.replace(shell("").process, args=words)
        running = await subject.runtime.exec(container_id, program, stdin=False, stdout=True, stderr=True)
        out = (await collect(running.streams))[0].decode()
        close_streams(running.streams)
        assert "Seccomp:\t2" in out and "NoNewPrivs:\t1" in out and "CapEff:\t00000000000020e3" in out
        # its own group is the root of what it sees
        assert all(line.endswith(":/") for line in out.splitlines() if line[0].isdigit())


async def test_an_exec_has_the_limits_of_its_container(subject: LinuxSubject, shell: Shell) -> None:
    limits = Resources(ulimits=(Ulimit(name="nofile", soft=77, hard=99),))
    async with subject.started(shell("sleep 100", resources=limits)) as container_id:
        program = msgspec.structs.replace(shell("").process, args=("/bin/sh", "-c", "ulimit -n; ulimit -Hn"))
        running = await subject.runtime.exec(container_id, program, stdin=False, stdout=True, stderr=True)
        assert (await collect(running.streams))[0] == b"77\n99\n"
        close_streams(running.streams)


async def test_an_exec_that_the_kernel_refuses(subject: LinuxSubject, shell: Shell) -> None:
    plan = shell("sleep 100")
    (plan.directory / "upper" / "bad").write_text("no program")
    (plan.directory / "upper" / "bad").chmod(0o755)
    async with subject.started(plan) as container_id:
        program = msgspec.structs.replace(plan.process, args=("/bad",))
        with pytest.raises(InvalidRequest) as raised:
            await subject.runtime.exec(container_id, program, stdin=False, stdout=True, stderr=True)
        assert getattr(raised.value, "kind", "") == "not_executable"


async def test_the_host_is_out_of_reach(subject: LinuxSubject, shell: Shell) -> None:
    script = """
    for file in /proc/sysrq-trigger /proc/sys/kernel/core_pattern; do echo x 2>&- > $file && echo "wrote $file"; done
    cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; ls /sys/class/net
    mount -t tmpfs none /tmp && echo mounted
    unshare -U true && echo unshared
    touch /sys/x && echo sys
    """
    _, out, _ = await subject.run(shell(script))
    assert out.split() == ["0", "0", "lo"]


async def test_seccomp_can_be_off_and_own(subject: LinuxSubject, shell: Shell) -> None:
    script = "unshare -n true && echo unshared; mkdir /tmp/x && echo made"
    full = {"capabilities": ("CAP_SYS_ADMIN",)}
    _, out, _ = await subject.run(shell(script, process=full, seccomp="unconfined"))
    assert out.split() == ["unshared", "made"]
    own = (
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    _, out, _ = await subject.run(shell(script, process=full, seccomp=own))
    assert out.split() == ["unshared"]
    plan = shell("true", seccomp='{"defaultAction": 3}')
    with pytest.raises(InvalidRequest, match="seccomp"):
        await subject.runtime.prepare(plan)
    await subject.runtime.release(plan.id)


async def test_users_by_name(subject: LinuxSubject, shell: Shell) -> None:
    for user, groups, expected in (
        ("app", (), "uid=1000(app) gid=1000(app) groups=1000(app),1001(extra) /home/app"),
        ("1000:extra", (), "uid=1000(app) gid=1001(extra) groups=1001(extra) /home/app"),
        ("4321", ("extra",), "uid=4321 gid=0(root) groups=0(root),1001(extra) /"),
        ("", (), "uid=0(root) gid=0(root) groups=0(root) /root"),
    ):
        _, out, _ = await subject.run(shell("echo $(id) $HOME", process={"user": user, "groups": groups}))
        words = out.replace(" groups=1001(extra)", " groups=1000(app),1001(extra)") if user == "app" else out
        assert words.split()[:2] == expected.split()[:2] and words.split()[-1] == expected.split()[-1], out
        assert ("extra" in out) == ("extra" in expected)
    for user, message in (
        ("nobody-here", "unable to find user"),
        ("0:nogroup", "unable to find group"),
        ("70000", "outside"),
    ):
        plan = shell("true", process={"user": user})
        with pytest.raises(InvalidRequest, match=message):
            await subject.runtime.prepare(plan)


async def test_another_user_writes_to_its_streams_by_name(subject: LinuxSubject, shell: Shell) -> None:
    _, out, err = await subject.run(shell("echo a > /dev/stdout; echo b > /dev/stderr", process={"user": "app"}))
    assert (out, err) == ("a\n", "b\n")


async def test_the_hosts_null_device_keeps_its_owner(subject: LinuxSubject, shell: Shell) -> None:
    async with subject.started(shell("sleep 100")) as container_id:
        program = msgspec.structs.replace(shell("").process, args=("/program", "say", "x"), user="app")
        running = await subject.runtime.exec(container_id, program, stdin=False, stdout=False, stderr=False)
        assert await running.wait() == 0
    assert (Path("/dev/null").stat().st_uid, Path("/dev/null").stat().st_gid) == (0, 0)


async def test_host_user_namespace_and_privileged(subject: LinuxSubject, shell: Shell) -> None:
    _, out, _ = await subject.run(shell("cat /proc/self/uid_map", namespaces=Namespaces(user="host")))
    assert out.split() == ["0", "0", "4294967295"]
    plan = shell(
        "ls /dev/zero /dev/kmsg; touch /sys/x 2>&1; grep Seccomp: /proc/self/status", privileged=True, masked_paths=()
    )
    _, out, _ = await subject.run(plan)
    assert "/dev/kmsg" in out and "Seccomp:\t0" in out and "Read-only" not in out


async def test_limits_of_processes_and_files(subject: LinuxSubject, shell: Shell) -> None:
    limits = Resources(
        pids_limit=5, ulimits=(Ulimit(name="nofile", soft=77, hard=99),), cpu_shares=2, nano_cpus=500_000_000
    )
    plan = shell("ulimit -n; ulimit -Hn; for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo end", resources=limits)
    async with subject.started(plan) as container_id:
        record = await subject.end(container_id)
        assert subject.output(plan).startswith("77\n99\n")
        assert "can't fork" in subject.output(plan, stream=2) and record.exit_code != 0
    with pytest.raises(HostError, match="cpuset"):
        await subject.runtime.prepare(shell("true", resources=Resources(cpuset_cpus="4000")))


async def test_mounts(subject: LinuxSubject, shell: Shell, places: Path) -> None:
    folder = places / "mounts"
    folder.mkdir()
    (folder / "file").write_text("text")
    mounts = (
        PlannedMount(target="/mnt/a/deep", source=folder, kind=MountKind.BIND),
        PlannedMount(target="/mnt/a", kind=MountKind.TMPFS, options=("size=1m", "mode=0700")),
        PlannedMount(target="/etc/one", source=folder / "file", kind=MountKind.BIND, read_only=True),
    )
    script = "cat /mnt/a/deep/file /etc/one; stat -c %a /mnt/a; echo x > /etc/one; echo y > /mnt/a/deep/file"
    record, out, err = await subject.run(shell(script, mounts=mounts))
    assert out == "texttext700\n" and "Read-only" in err and record.exit_code == 0
    assert (folder / "file").read_text() == "y\n"


@pytest.mark.parametrize("user", ["", "host"])
async def test_a_read_only_bind_is_so_to_its_depths(
    subject: LinuxSubject, shell: Shell, places: Path, user: str
) -> None:
    outer = places / f"outer-{user}"
    (outer / "inner").mkdir(parents=True)
    mounts.mount("tmpfs", outer / "inner", "tmpfs", 0, "mode=0777,size=1m")
    try:
        bind = PlannedMount(target="/bound", source=outer, kind=MountKind.BIND, read_only=True)
        plan = shell("touch /bound/inner/file || echo refused", mounts=(bind,), namespaces=Namespaces(user=user))
        assert (await subject.run(plan))[1] == "refused\n"
        assert list((outer / "inner").iterdir()) == []
    finally:
        mounts.unmount(outer / "inner")


async def test_a_mount_cannot_leave_the_root(subject: LinuxSubject, shell: Shell, places: Path) -> None:
    outside = places / "outside"
    outside.mkdir()
    plan = shell("touch /link/made", mounts=(PlannedMount(target="/link", source=outside, kind=MountKind.BIND),))
    (plan.directory / "upper" / "link").symlink_to("../../../../../../../../../etc")
    (places / "linux" / "etc").mkdir(exist_ok=True)
    await subject.run(plan)
    assert list(outside.iterdir()) == [outside / "made"] and not Path("/etc/made").exists()


async def test_a_read_only_root(subject: LinuxSubject, shell: Shell) -> None:
    plan = shell("touch /x || echo refused; touch /dev/shm/x && echo shm")
    plan = msgspec.structs.replace(plan, rootfs=msgspec.structs.replace(plan.rootfs, read_only=True))
    _, out, _ = await subject.run(plan)
    assert out.split() == ["refused", "shm"]


async def test_working_directory_is_made(subject: LinuxSubject, shell: Shell) -> None:
    _, out, _ = await subject.run(shell("pwd; stat -c %u .", process={"cwd": "/work/here"}))
    assert out.split() == ["/work/here", "0"]


async def test_hostname_sysctl_shm_and_init(subject: LinuxSubject, shell: Shell) -> None:
    script = "cat /proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_unprivileged_port_start; mount | grep shm; echo $$"
    plan = shell(
        script,
        sysctls={"net.ipv4.ip_unprivileged_port_start": "0"},
        resources=Resources(shm_size_bytes=1 << 20),
        init=True,
    )
    _, out, err = await subject.run(plan)
    lines = out.splitlines()
    assert lines[:2] == ["contract", "0"] and "size=1024k" in lines[2] and lines[3] != "1", out + err


async def test_devices(subject: LinuxSubject, shell: Shell) -> None:
    device = Device(host_path="/dev/cpu_dma_latency", container_path="/dev/given", permissions="r")
    before = Path("/dev/cpu_dma_latency").stat()
    script = (
        "stat -c '%F %u' /dev/given; dd if=/dev/given of=/dev/null bs=1 count=0 && echo opened; echo x > /dev/given"
    )
    for namespace_ in (Namespaces(), Namespaces(user="host")):
        plan = shell(script, resources=Resources(devices=(device,)), namespaces=namespace_)
        _, out, err = await subject.run(plan)
        assert out == "character special file 0\nopened\n" and "not permitted" in err, err
    after = Path("/dev/cpu_dma_latency").stat()
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)
    with pytest.raises(InvalidRequest, match="not a device"):
        await subject.runtime.prepare(
            shell("true", resources=Resources(devices=(Device(host_path="/etc", container_path="/x"),)))
        )


async def test_a_device_that_was_not_given_cannot_be_opened(subject: LinuxSubject, shell: Shell) -> None:
    # with the host's user namespace and CAP_MKNOD only the control group stands in the way
    process = {"capabilities": ("CAP_MKNOD",)}
    number = Path("/dev/cpu_dma_latency").stat().st_rdev
    major, minor = os.major(number), os.minor(number)
    script = f"mknod /dev/given c {major} {minor}; dd if=/dev/given of=/dev/null bs=1 count=0 && echo opened"
    host = Namespaces(user="host")
    _, out, err = await subject.run(shell(script, process=process, namespaces=host))
    assert "opened" not in out and "not permitted" in err
    allowed = Resources(device_cgroup_rules=(f"c {major}:{minor} r",))
    _, out, err = await subject.run(shell(script, process=process, namespaces=host, resources=allowed))
    assert out == "opened\n", err


async def test_processes_show_the_containers_own_users(subject: LinuxSubject, shell: Shell) -> None:
    async with subject.started(shell("sleep 100", process={"user": "app"})) as container_id:
        for arguments in ("", "aux"):
            table = await subject.runtime.processes(container_id, arguments)
            assert {row[0] for row in table.rows} == {"1000"}


async def test_joining_another_container(subject: LinuxSubject, shell: Shell) -> None:
    owner = shell("echo shared > /dev/shm/x; sleep 100", namespaces=Namespaces(ipc="shareable"))
    async with subject.started(owner) as owner_id:
        await asyncio.sleep(0.3)
        mode = f"container:{owner_id}"
        pid = subject.runtime._lives[owner_id].record.pid
        for fields, kind in (
            ({"network": mode}, "net"),
            ({"namespaces": Namespaces(pid=mode)}, "pid"),
            ({"namespaces": Namespaces(ipc=mode)}, "ipc"),
        ):
            plan = shell("sleep 100", **fields)
            sandbox = await subject.runtime.prepare(plan)
            started = await subject.runtime.start(plan.id)
            assert namespace(started.pid, kind) == namespace(pid, kind)
            assert namespace(started.pid, "user") == namespace(pid, "user")
            assert (sandbox.netns is None) == (kind == "net")
            if kind != "net":
                links = Path(f"/proc/{started.pid}/root/sys/class/net").iterdir()
                assert [link.name for link in links] == ["lo"]
            await subject.runtime.release(plan.id)
        _, out, _ = await subject.run(shell("cat /dev/shm/x", namespaces=Namespaces(ipc=mode)))
        assert out == "shared\n"
        with pytest.raises(InvalidRequest, match="user namespace"):
            await subject.runtime.prepare(shell("true", network=mode, namespaces=Namespaces(user="host")))
    with pytest.raises(Conflict):
        await subject.runtime.prepare(shell("true", network=mode))


async def test_host_modes(subject: LinuxSubject, shell: Shell) -> None:
    modes = Namespaces(pid="host", ipc="host", uts="host", cgroup="host")
    for user in ("", "host"):
        plan = shell("sleep 100", network="host", namespaces=msgspec.structs.replace(modes, user=user))
        sandbox = await subject.runtime.prepare(plan)
        assert sandbox.netns is None
        started = await subject.runtime.start(plan.id)
        for kind in ("pid", "net", "ipc", "uts", "cgroup"):
            assert namespace(started.pid, kind) == namespace("thread-self", kind), kind
        await subject.runtime.release(plan.id)


async def test_nothing_is_left_behind(subject: LinuxSubject, shell: Shell, places: Path) -> None:
    plans = [shell("true"), shell("sleep 100"), shell("/nothing")]
    for plan in plans:
        await subject.runtime.prepare(plan)
    for plan in plans[:2]:
        await subject.runtime.start(plan.id)
    for plan in plans:
        await subject.runtime.release(plan.id)
    await asyncio.sleep(0.5)
    mounted = Path("/proc/thread-self/mountinfo").read_text()
    for plan in plans:
        assert plan.id not in mounted
        assert not (places / "run/containers" / plan.id).exists() and not (places / "run/crun" / plan.id).exists()
        assert not list(Path("/sys/fs/cgroup").glob(f"*/silo*/{plan.id}"))


async def test_layers_on_kernels_that_want_them_attached(subject: LinuxSubject, shell: Shell, places: Path) -> None:
    """What is done before Linux 6.15, carried out here, with many layers and with the host's user namespace as well."""
    layers = []
    for number in range(60):
        layer = places / f"layer-with-a-rather-long-name-{number:03d}"
        layer.mkdir(exist_ok=True)
        (layer / f"from-{number}").write_text(str(number))
        layers.append(layer)
    maker = subject.runtime._maker
    for attach, user in ((True, ""), (False, ""), (False, "host")):
        maker._facts = dataclasses.replace(maker._facts, attach_layers=attach)
        plan = shell("cat /from-0 /from-59; stat -c %u /from-7; touch /made", namespaces=Namespaces(user=user))
        rootfs = msgspec.structs.replace(plan.rootfs, layers=(*layers, *plan.rootfs.layers))
        _, out, err = await subject.run(msgspec.structs.replace(plan, rootfs=rootfs))
        assert out == "0590\n", err
        assert "/layers/" not in Path("/proc/thread-self/mountinfo").read_text()


async def test_a_crun_that_ignores_the_filter_is_found_out(subject: LinuxSubject, shell: Shell) -> None:
    source = subject.runtime._maker._seccomp
    right = source.select(shell("true"))
    assert right["seccomp_filter"]
    # what such a crun would do: the container runs without
    key = next(iter(source._ready))
    source._ready[key] = {"seccomp_filter": "", "seccomp_section": None}
    plan = shell("sleep 100")
    await subject.runtime.prepare(plan)
    with pytest.raises(HostError, match="seccomp"):
        await subject.runtime.start(plan.id)
    await subject.runtime.release(plan.id)
    _, out, _ = await subject.run(shell("grep Seccomp: /proc/self/status"))
    assert "2" in out and source.select(shell("true"))["seccomp_section"]


async def test_a_missing_crun_is_said(subject: LinuxSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silo.isolation.process.probe.shutil.which", lambda *_args, **_options: None)
    runtime = subject._make_runtime()
    with pytest.raises(ToolMissing, match="crun is not installed"):
        await runtime.open(subject.listener)
    await runtime.close()
