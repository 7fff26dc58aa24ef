#!/usr/bin/env bash
# Everything that waits for a GPU, one after the other, figures to files:
#
#     benchmarks/gpu.sh [quick] [FOLDER]
#
# FOLDER (default: gpu-figures) gets one text file for each part and environment.json. A part that fails is noted
# in failed.txt and does not stop the others. `quick` has the same parts with less in each.
# With GPU_DEVICE=cpu there is next to nothing in them: whether everything runs, without a GPU.
set -u
cd "$(dirname "$0")/.."
mode=full
if [ "${1:-}" = quick ]; then
    mode=quick
    shift
fi
out=${1:-gpu-figures}
device=${GPU_DEVICE:-cuda}
python=${PYTHON:-python}
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
mkdir -p "$out"
: > "$out/failed.txt"

case $mode-$device in
    full-cuda*)
        tests=(tests/gpu tests/distances tests/metrics tests/memories tests/models tests/test_features.py)
        labels=() growth=(--sizes 50000 100000 200000 --d 512) retrieval=()
        epoch=(--preset market1501) schedule=() paper=()
        ;;
    quick-cuda*)
        tests=(-m gpu tests/distances tests/metrics tests/test_features.py)
        labels=(--d 512) growth=(--sizes 20000 50000 --d 512) retrieval=(--queries 1000 --gallery 5000)
        few=(--preset market1501 --people 200 --iters 50)
        epoch=("${few[@]}" --measure 1) schedule=("${few[@]}" --epochs 1)
        paper=(--images 512 --iters 10)
        ;;
    *)
        few=(--preset default --people 8 --arch resnet_small --height 32 --width 16 --batch-size 16 --iters 2)
        tests=(tests/test_features.py)
        labels=(--n 300 --d 16) growth=(--sizes 300 --d 16)
        retrieval=(--queries 40 --gallery 200 --dimensions 8)
        epoch=("${few[@]}" --measure 1 --icsr-only) schedule=("${few[@]}" --epochs 1)
        paper=(--sizes 1 --images 64 --iters 1)
        ;;
esac

part() { # part NAME COMMAND...: its output to FOLDER/NAME.txt
    local name=$1
    shift
    echo "== $name: $*"
    if ! { echo "$ $*"; time "$@"; } > "$out/$name.txt" 2>&1; then
        echo "$name" >> "$out/failed.txt"
        echo "   failed, see $out/$name.txt"
    fi
}

epoch() { # epoch NAME OPTION...: with what has been rendered once
    local name=$1
    shift
    part "$name" "$python" benchmarks/training.py "$@" --device "$device" --keep "$rendered" --out "$out/$name.json"
}

"$python" -m icsr_cli doctor --json > "$out/environment.json"
part tests "$python" -m pytest -q "${tests[@]}"
for gpus in 1 8; do
    part "plan-$gpus" "$python" -m icsr_cli doctor --plan -d msmt17 --gpus "$gpus"
done
part plan-measured "$python" benchmarks/plan.py --device "$device" "${paper[@]}"
part labels "$python" benchmarks/labels.py --engine-only --device "$device" "${labels[@]}"
part labels-msmt17 "$python" benchmarks/labels.py --n 32621 --cameras 15 --engine-only --device "$device" "${labels[@]}"
part labels-growth "$python" benchmarks/labels.py --device "$device" "${growth[@]}"
part retrieval "$python" benchmarks/retrieval.py --device "$device" "${retrieval[@]}"
epoch epoch "${epoch[@]}"
epoch epoch-compiled "${epoch[@]}" --set compile=true
epoch schedule --schedule "${schedule[@]}"
if [ -s "$out/failed.txt" ]; then
    echo "failed: $(tr '\n' ' ' < "$out/failed.txt")"
    exit 1
fi
echo "figures in $out"
