#!/usr/bin/env bash
# Everything that waits for a GPU, one after the other, figures to files:
#
#     benchmarks/gpu.sh [FOLDER]
#
# FOLDER (default: gpu-figures) gets one text file for each part and environment.json. A part that fails is noted
# in failed.txt and does not stop the others. GPU_QUICK=1 takes little data: whether everything runs, in minutes.
# GPU_DEVICE=cpu does so without a GPU.
set -u
cd "$(dirname "$0")/.."
out=${1:-gpu-figures}
device=${GPU_DEVICE:-cuda}
python=${PYTHON:-python}
mkdir -p "$out"
: > "$out/failed.txt"

part() { # part NAME COMMAND...: its output to FOLDER/NAME.txt
    local name=$1
    shift
    echo "== $name: $*"
    if ! { echo "$ $*"; time "$@"; } > "$out/$name.txt" 2>&1; then
        echo "$name" >> "$out/failed.txt"
        echo "   failed, see $out/$name.txt"
    fi
}

"$python" -m icsr_cli doctor --json > "$out/environment.json"
if [ -n "${GPU_QUICK:-}" ]; then
    small=(--epochs 1 --iters 2 --images 300 --arch resnet_small --height 32 --width 16 --batch-size 16 --icsr-only --measure 1)
    part plan "$python" -m icsr_cli doctor --plan -d market1501 --gpus 1 -a resnet_small
    part labels "$python" benchmarks/labels.py --n 300 --d 16 --engine-only --device "$device"
    part epoch "$python" benchmarks/training.py "${small[@]}" --device "$device" --out "$out/epoch.json"
else
    part tests "$python" -m pytest -q tests/gpu tests/distances tests/metrics tests/memories tests/models
    for gpus in 1 8; do
        part "plan-$gpus" "$python" -m icsr_cli doctor --plan -d msmt17 --gpus "$gpus"
    done
    part labels "$python" benchmarks/labels.py --engine-only --device "$device"
    part labels-msmt17 "$python" benchmarks/labels.py --n 32621 --cameras 15 --engine-only --device "$device"
    part labels-growth "$python" benchmarks/labels.py --sizes 50000 100000 200000 --d 512 --device "$device"
    part retrieval "$python" benchmarks/retrieval.py
    part epoch "$python" benchmarks/training.py --preset market1501 --device "$device" --out "$out/epoch.json"
    part epoch-compiled "$python" benchmarks/training.py --preset market1501 --device "$device" \
        --set compile=true --out "$out/epoch-compiled.json"
    part schedule "$python" benchmarks/training.py --schedule --device "$device" --out "$out/schedule.json"
fi
if [ -s "$out/failed.txt" ]; then
    echo "failed: $(tr '\n' ' ' < "$out/failed.txt")"
    exit 1
fi
echo "figures in $out"
