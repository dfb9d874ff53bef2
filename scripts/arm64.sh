# Sourced by the scripts that set up emulated boards: Debian's packages, and the runtimes' wheels.
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$(command -v "${PYTHON:-python3}")
[[ $python == /* ]] || python=$PWD/$python  # another folder is entered later

# apt-get with a state of its own, so that the system's is left alone.
debian() { # folder of the state, release, architecture, apt-get's words
    local state=$1 release=$2 architecture=$3 mirror
    shift 3
    mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 -v security)}
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    echo "deb [arch=$architecture signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" \
        >"$state/sources.list"
    : >"$state/status"
    local options=(
        -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture"
        -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$state/lists" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state"
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o Debug::NoLocking=1
    )
    apt-get -qq "${options[@]}" update
    apt-get -qq "${options[@]}" "$@"
}

# What ONNX Runtime and OpenVINO need in Python 3.11 on arm64.
wheels() { # folder
    local requirements platforms=() glibc
    requirements=$(cd "$repository" && "$python" -m sepvit_edge.backends.registry onnxruntime openvino)
    for glibc in 2_17 2_26 2_27 2_28 2_31 2_34 2_35; do platforms+=(--platform "manylinux_${glibc}_aarch64"); done
    # shellcheck disable=SC2086  (a word each)
    "$python" -m pip install --quiet --no-deps --only-binary=:all: --python-version 3.11 \
        "${platforms[@]}" --platform manylinux2014_aarch64 --target "$1" $requirements numpy pillow packaging
}
