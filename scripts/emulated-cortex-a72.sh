#!/usr/bin/env bash
# Set up the board of profiles/emulated-cortex-a72.toml: QEMU 10, a small arm64 system, the runtimes.
#
#   scripts/emulated-cortex-a72.sh [FOLDER]     default: ~/.cache/sepvit-edge/cortex-a72
#
# On Debian or Ubuntu with apt and pip; needs no root, about 600 MB, and network once. QEMU is taken
# from Debian 13: with 7.2, as in Debian 12, ONNX Runtime crashes when it is loaded.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$HOME/.cache/sepvit-edge/cortex-a72}
python=$(command -v "${PYTHON:-python3}")
[[ $python == /* ]] || python=$PWD/$python  # another folder is entered below
[ -e "$folder/.complete" ] && { echo "$folder is set up"; exit 0; }

rm -rf "$folder"
mkdir -p "$folder/board" "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$folder/debs"
cd "$folder/debs"
mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 -v security)}

# apt with a state of its own, so that the system's is left alone.
fetch() { # release, architecture, packages
    local release=$1 architecture=$2
    shift 2
    echo "deb [arch=$architecture signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" \
        >"$folder/apt/sources.list"
    : >"$folder/apt/status"
    local options=(
        -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture"
        -o "Dir::Etc::sourcelist=$folder/apt/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$folder/apt/lists" -o "Dir::State::status=$folder/apt/status"
        -o "Dir::Cache=$folder/apt" -o APT::Sandbox::User=root -o Acquire::Languages=none
    )
    apt-get -qq "${options[@]}" update
    apt-get -qq "${options[@]}" download "$@"
}

echo "QEMU"
fetch trixie amd64 qemu-user
dpkg -x qemu-user_*.deb qemu
mv qemu/usr/bin/qemu-aarch64 "$folder/qemu-aarch64"

echo "arm64 system"
fetch bookworm arm64 libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 \
    liblzma5 libuuid1 libpython3.11-minimal libpython3.11-stdlib python3.11-minimal
for deb in *_arm64.deb; do dpkg -x "$deb" "$folder/board"; done

echo "runtimes"
requirements=$(cd "$repository" && "$python" -m sepvit_edge.backends.registry onnxruntime openvino)
platforms=()
for glibc in 2_17 2_26 2_27 2_28 2_31 2_34 2_35; do platforms+=(--platform "manylinux_${glibc}_aarch64"); done
# shellcheck disable=SC2086  (a word each)
"$python" -m pip install --quiet --no-deps --only-binary=:all: --python-version 3.11 \
    "${platforms[@]}" --platform manylinux2014_aarch64 \
    --target "$folder/board/usr/lib/python3/dist-packages" $requirements numpy pillow packaging
rm -rf "$folder/debs" "$folder/apt"

"$folder/qemu-aarch64" -cpu cortex-a72 -L "$folder/board" "$folder/board/usr/bin/python3.11" \
    -c 'import platform, numpy; print(platform.machine(), "numpy", numpy.__version__)'
touch "$folder/.complete"
