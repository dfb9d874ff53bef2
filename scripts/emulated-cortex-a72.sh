#!/usr/bin/env bash
# Set up the board of profiles/emulated-cortex-a72.toml: QEMU 10, a small arm64 system, the runtimes.
#
#   scripts/emulated-cortex-a72.sh [FOLDER]     default: ~/.cache/sepvit-edge/cortex-a72
#
# On Debian or Ubuntu with apt and pip; needs no root, about 600 MB, and network once. QEMU is taken
# from Debian 13: with 7.2, as in Debian 12, ONNX Runtime crashes when it is loaded.
set -euo pipefail
source "$(dirname "$0")/arm64.sh"
folder=${1:-$HOME/.cache/sepvit-edge/cortex-a72}
[ -e "$folder/.complete" ] && { echo "$folder is set up"; exit 0; }

rm -rf "$folder"
mkdir -p "$folder/board" "$folder/debs"
cd "$folder/debs"

echo "QEMU"
debian "$folder/apt" trixie amd64 download qemu-user
dpkg -x qemu-user_*.deb qemu
mv qemu/usr/bin/qemu-aarch64 "$folder/qemu-aarch64"

echo "arm64 system"
debian "$folder/apt" bookworm arm64 download libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g \
    libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libuuid1 libpython3.11-minimal libpython3.11-stdlib python3.11-minimal
for deb in *_arm64.deb; do dpkg -x "$deb" "$folder/board"; done

echo "runtimes"
wheels "$folder/board/usr/lib/python3/dist-packages"
rm -rf "$folder/debs" "$folder/apt"

"$folder/qemu-aarch64" -cpu cortex-a72 -L "$folder/board" "$folder/board/usr/bin/python3.11" \
    -c 'import platform, numpy; print(platform.machine(), "numpy", numpy.__version__)'
touch "$folder/.complete"
