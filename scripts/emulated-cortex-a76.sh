#!/usr/bin/env bash
# Start the board of profiles/emulated-cortex-a76.toml: an arm64 system under QEMU 10, whose clock
# counts instructions.
#
#   scripts/emulated-cortex-a76.sh          start it; the first time, set it up
#   scripts/emulated-cortex-a76.sh stop     end it
#
# On Debian or Ubuntu with apt, pip, mke2fs and ssh-keygen; needs no root, about 1 GB, and network
# once. Everything lies in ~/.cache/sepvit-edge/cortex-a76; remove that folder to set it up again.
set -euo pipefail
source "$(dirname "$0")/arm64.sh"
board=$HOME/.cache/sepvit-edge/cortex-a76
port=20076  # of sshd, on this machine

fetch() { # release, architecture, packages, which come with all that they depend on
    local release=$1 architecture=$2
    shift 2
    debian "$scratch/$release" "$release" "$architecture" \
        --yes --no-install-recommends --download-only install "$@" >/dev/null
}

unpack() { # release, folder
    local deb
    for deb in "$scratch/$1"/archives/*.deb; do dpkg -x "$deb" "$2"; done
}

# Debian's programs with their own libraries: the host's may be older.
hosted() { # program, arguments
    local program=$1 libraries=$board/host/usr/lib
    shift
    "${libraries}64/ld-linux-x86-64.so.2" --library-path "$libraries/x86_64-linux-gnu" \
        "$board/host/usr/bin/$program" "$@"
}

set_up() {
    rm -rf "$board"
    mkdir -p "$board"
    scratch=$board/scratch root=$board/scratch/system

    echo "QEMU"
    fetch trixie amd64 qemu-system-arm cpio
    unpack trixie "$board/host"

    echo "arm64 system"
    fetch bookworm arm64 linux-image-arm64 busybox-static openssh-server python3-venv libstdc++6 libgomp1
    unpack bookworm "$root"
    mv "$root"/boot/vmlinuz-* "$board/vmlinuz"
    make_initrd
    rm -rf "$root"/boot "$root"/lib/modules
    configure

    echo "runtimes"
    # Not ExecuTorch: its Python runtime imports torch, whose wheel for arm64 wants CUDA's libraries.
    wheels "$root/usr/lib/python3/dist-packages"
    mke2fs -q -t ext4 -d "$root" -E root_owner=0:0 "$board/disk.img" 4G
    rm -rf "$scratch"
    touch "$board/.complete"
}

# Debian's kernel has its disk and network drivers as modules: a first system loads them.
make_initrd() {
    local first=$scratch/initrd module
    mkdir -p "$first"/{dev,proc,system}
    cp "$root/bin/busybox" "$first/"
    cat >"$first/init" <<'END'
#!/busybox sh
/busybox mount -t devtmpfs dev /dev
/busybox mount -t proc proc /proc
END
    for module in virtio_mmio virtio_blk crc32c_generic crc16 mbcache jbd2 ext4 \
        failover net_failover virtio_net virtio-rng; do
        find "$root/lib/modules" -name "$module.ko" -exec cp {} "$first/" \;
        echo "/busybox insmod /$module.ko" >>"$first/init"
    done
    cat >>"$first/init" <<'END'
/busybox mount -t ext4 /dev/vda /system
/busybox mount --move /dev /system/dev
/busybox umount /proc
exec /busybox switch_root /system /sbin/init
END
    chmod +x "$first/init"
    (cd "$first" && find . | hosted cpio --create --format newc --quiet) | gzip >"$board/initrd.gz"
}

# What Debian's installer would have done, as far as sshd and Python need it.
configure() {
    mkdir -p "$root"/{dev,etc/ssh,proc,root,run,sys,tmp}
    ln -s busybox "$root/bin/sh"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'sshd:x:100:65534::/run/sshd:/bin/false' >>"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    echo 'root:*:20000:0:99999:7:::' >"$root/etc/shadow"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
    echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
    mkdir -p "$root/etc/ssl/certs"
    cp --dereference /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    ssh-keygen -q -t ed25519 -N '' -C board -f "$board/key"
    ssh-keygen -q -t ed25519 -N '' -C board -f "$root/etc/ssh/ssh_host_ed25519_key"
    cp "$board/key.pub" "$root/etc/ssh/authorized_keys"
    echo "[127.0.0.1]:$port $(cut -d ' ' -f 1,2 "$root/etc/ssh/ssh_host_ed25519_key.pub")" >"$board/known_hosts"
    cat >"$root/etc/ssh/sshd_config" <<'END'
AuthorizedKeysFile /etc/ssh/authorized_keys
PasswordAuthentication no
StrictModes no
UseDNS no
UsePAM no
Subsystem sftp internal-sftp
END
    cat >"$root/sbin/init" <<'END'
#!/bin/busybox sh
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mkdir /run/sshd
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
exec /usr/sbin/sshd -D
END
    chmod +x "$root/sbin/init"
}

running() { [ -e "$board/pid" ] && kill -0 "$(cat "$board/pid")" 2>/dev/null; }

# With `-icount shift=0` an instruction takes one nanosecond of the board's time, on one core only.
# While the board waits, its clock follows this machine's: with `sleep=off` it would run ahead, and
# connections would time out before anybody could answer.
start() {
    hosted qemu-system-aarch64 -M virt -cpu cortex-a76 -smp 1 -m 4096 -icount shift=0,sleep=on \
        -kernel "$board/vmlinuz" -initrd "$board/initrd.gz" \
        -append "console=ttyAMA0 quiet panic=-1 mitigations=off" \
        -drive "file=$board/disk.img,format=raw,if=none,id=disk" -device virtio-blk-device,drive=disk \
        -netdev "user,id=net,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-device,netdev=net \
        -device virtio-rng-device -no-reboot -display none -monitor none \
        -serial "file:$board/console.txt" -daemonize -pidfile "$board/pid"
}

answers() {
    ssh -F none -p "$port" -i "$board/key" -o "UserKnownHostsFile=$board/known_hosts" \
        -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=10 root@127.0.0.1 "$@"
}

if [ "${1:-}" = stop ]; then
    if running; then answers "/bin/busybox sync; /bin/busybox poweroff -f" || true; fi
    exit
fi
[ -e "$board/.complete" ] || set_up
running || start
for _ in {1..60}; do
    if answers true 2>/dev/null; then
        echo "the board runs; try: sepvit-edge profile PACKAGE --device emulated-cortex-a76"
        exit
    fi
    sleep 1
done
echo "the board does not answer; see $board/console.txt" >&2
exit 1
