#!/bin/sh
# PID 1 of a machine until its root stands, then tini. It runs in new mount, UTS, IPC and PID
# namespaces, so nothing here is seen outside.
#
# Arguments: host name; lower layers, top first, ':' between; the machine's folder; the devices
# it has, as names under /dev; then SOURCE TARGET ro|rw for each folder or file to bind.
set -eu

hostname "$1"
lower=$2 folder=$3 devices=$4
shift 4
root=$folder/root

mount -t overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" overlay "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o nosuid,mode=755 run "$root/run"
mkdir -p "$root/run/lock" "$root/run/sshd" "$root/run/old"

# The machine's own /dev: what is not in the list, /dev/kvm for one, does not exist inside.
mount -t tmpfs -o nosuid,mode=755 dev "$root/dev"
mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm"
for device in $devices; do
    cp --archive "/dev/$device" "$root/dev/$device"
    chmod 666 "$root/dev/$device"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o nosuid,nodev,mode=1777 shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"

while [ $# -gt 0 ]; do
    if [ -d "$1" ]; then
        mkdir -p "$root$2"
    else
        mkdir -p "$(dirname "$root$2")"
        : >>"$root$2"
    fi
    mount --bind "$1" "$root$2"
    mount -o "remount,bind,$3" "$root$2"
    shift 3
done

# pivot_root and not chroot: bubblewrap, and whoever else unshares, refuses inside a chroot.
cd "$root"
pivot_root . run/old
cd /
umount --lazy /run/old
rmdir /run/old
exec tini -- sleep infinity
