#!/bin/sh
# The first process of a utility VM, in the initrd: modules, root, then the agent. What fails here ends process 1, so the kernel
# panics; with panic=-1 and QEMU's -no-reboot the VM ends, and the console says why.
#
#   silo.root=DEVICE    block device with root.erofs (default /dev/vda)
#   silo.dax=1          it is memory (/dev/pmem0): programs are mapped from the host's page cache, not copied
#   silo.init=PATH      program to run if the image has no /silo/agent (for tests)
set -eu
die() { echo "silo: $*"; exit 1; }

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o mode=755,nosuid devtmpfs /dev

device=/dev/vda options=ro init=
read -r words </proc/cmdline
for word in $words; do
    case $word in
        silo.root=*) device=${word#*=} ;;
        silo.dax=1) options=ro,dax=always ;;
        silo.init=*) init=${word#*=} ;;
    esac
done

# One that does not load (hardware that this VM lacks) is told; if it was needed, a later step fails and names what it wanted.
while read -r module; do
    insmod "/modules/$module" || echo "silo: $module does not load"
done </modules/order

tries=0
until [ -b "$device" ]; do
    tries=$((tries + 1))
    [ $tries -le 500 ] || die "there is no root device $device, only:" /dev/vd* /dev/pmem*
    usleep 10000
done

# The image stays as it is; what is written lies in memory and goes with the VM.
mount -t erofs -o "$options" "$device" /base
mount -t tmpfs -o mode=755 scratch /scratch
mkdir /scratch/upper /scratch/work
mount -t overlay -o lowerdir=/base,upperdir=/scratch/upper,workdir=/scratch/work root /root

mount -t tmpfs -o mode=755,nosuid,nodev run /root/run
mount -t tmpfs -o mode=1777,nosuid,nodev tmp /root/tmp
mkdir -p /root/run/silo/base
mount -o move /base /root/run/silo/base
mkdir /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666,nosuid,noexec devpts /dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
read -r controllers </sys/fs/cgroup/cgroup.controllers
for controller in $controllers; do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || echo "silo: no cgroup controller $controller"
done
ip link set lo up
for directory in dev sys proc; do mount -o move /$directory /root/$directory; done

export PATH=/usr/sbin:/usr/bin HOME=/
if [ -e /root/silo/agent ]; then
    exec /bin/switch_root /root /usr/bin/python3 -I -S /silo/agent
fi
[ -n "$init" ] || die "the image has no /silo/agent, and silo.init= names no other program"
exec /bin/switch_root /root "$init"
