#!/usr/bin/env bash
# Measure Lite and T at 224 px (built-in weights) on this machine: every runtime and precision, 1 and
# 2 threads, into profiles/results/. It takes about half an hour; run nothing else meanwhile.
# Existing packages are reused, and combinations without a recipe are left out. Each package is
# measured by a separate command, so an interrupted run keeps what it has measured.
#
#   [PRECISIONS="fp32 int8"] scripts/measure-this-machine.sh [more options of sepvit_edge.profile]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}

for target in openvino onnxruntime executorch; do
    for precision in ${PRECISIONS:-fp32 fp16 int8}; do
        [ -e "export/$target-$precision.toml" ] || continue
        for variant in lite t; do
            package=packages/$variant-$target-$precision
            if [ ! -e "$package" ]; then
                "$python" -m sepvit_edge.export --target "$target" --precision "$precision" \
                    --variant "$variant" --image-size 224 --images 32 --output "$package" || continue
            fi
            "$python" -m sepvit_edge.profile "$package" --device local --threads 1,2 --save "$@"
        done
    done
done
"$python" -m sepvit_edge.profile --table
