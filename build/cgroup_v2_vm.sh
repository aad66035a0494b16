#!/bin/bash
# Run the tests of delegated control groups on a machine that has them: Debian with systemd
# in QEMU without KVM, which not every builder has, and an ordinary user's service with Delegate=yes.
#   build/cgroup_v2_vm.sh DIRECTORY PYTHON        (root: the disk holds files of root's)
# The disk is made once and kept in DIRECTORY; every run gets a fresh copy of it.
set -euo pipefail

directory=$(mkdir -p "$1" && cd "$1" && pwd)
packages=$("$2" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
version=$("$2" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
limit=1200 # seconds; everything takes some ten times as long as outside

# The guest's own Python runs our environment's packages, so it has to be the same version.
case $version in
    3.11) suite=bookworm ;;
    3.13) suite=trixie ;;
    *) echo "no Debian has Python $version; use 3.11 or 3.13" >&2 && exit 1 ;;
esac

make_disk() {
    local root="$directory/root"
    rm -rf "$root" && mkdir "$root"
    mmdebstrap --quiet --variant=minbase \
        --include=systemd-sysv,dbus,udev,initramfs-tools,linux-image-cloud-amd64,bubblewrap,python3,procps \
        "$suite" "$directory/vm.tar"
    tar -C "$root" -xf "$directory/vm.tar"
    cp "$root"/boot/vmlinuz-* "$directory/vmlinuz"
    cp "$root"/boot/initrd.img-* "$directory/initrd"
    chroot "$root" useradd --create-home --shell /bin/sh gateway
    cat >"$root/etc/systemd/system/tests.service" <<'END'
[Unit]
After=basic.target

[Service]
Type=oneshot
User=gateway
Delegate=yes
Environment=OPENCLAWMU_DELEGATED=1 OPENCLAWMU_TEST_PATIENCE=600 PYTHONPATH=/srv/packages PYTHONDONTWRITEBYTECODE=1
StandardOutput=file:/srv/output
StandardError=inherit
WorkingDirectory=-/srv/repository
ExecStartPre=+/bin/tar -C /srv -xf /dev/vdb
ExecStart=/usr/bin/python3 -m pytest -q -rs -p no:cacheprovider \
    tests/sandboxes/test_cgroup_v2_delegated.py
ExecStopPost=+/bin/sh -c 'echo "status $$EXIT_STATUS" >>/srv/output; cat /srv/output >/dev/ttyS1; systemctl status --no-pager --lines=20 tests >/dev/ttyS0; systemctl --no-block poweroff'
END
    ln -sf /etc/systemd/system/tests.service "$root/etc/systemd/system/multi-user.target.wants/"
    rm -f "$directory/disk.img"
    truncate --size=2G "$directory/disk.img"
    mkfs.ext4 -q -d "$root" "$directory/disk.img"
    rm -rf "$root" "$directory/vm.tar"
}

# What the tests import, and nothing of the size of the models' runtime.
pack() {
    local staged="$directory/staged" name
    rm -rf "$staged" && mkdir -p "$staged/repository" "$staged/packages"
    cp -r appliance tests pyproject.toml "$staged/repository/"
    for name in _pytest attr attrs cffi idna iniconfig msgspec outcome packaging pluggy pygments \
        pytest pytest_trio sniffio sortedcontainers trio; do
        cp -r "$packages/$name" "$packages/$name"-*.dist-info "$staged/packages/" 2>/dev/null || true
    done
    cp "$packages/py.py" "$packages/typing_extensions.py" "$staged/packages/" 2>/dev/null || true
    tar -C "$staged" -cf "$directory/tests.tar" repository packages
    rm -rf "$staged"
}

[ -s "$directory/disk.img" ] || make_disk
pack
rm -f "$directory/output.txt"
timeout "$limit" qemu-system-x86_64 -M q35,accel=tcg -cpu max -smp 2 -m 1536 \
    -kernel "$directory/vmlinuz" -initrd "$directory/initrd" \
    -append "root=/dev/vda rw console=ttyS0 systemd.unified_cgroup_hierarchy=1" \
    -drive "file=$directory/disk.img,format=raw,if=virtio,snapshot=on" \
    -drive "file=$directory/tests.tar,format=raw,if=virtio,readonly=on" \
    -nic none -display none \
    -serial "file:$directory/console.txt" -serial "file:$directory/output.txt" || true
tr -d '\r' <"$directory/output.txt"
tr -d '\r' <"$directory/output.txt" | grep -q '^status 0$'
