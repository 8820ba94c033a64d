#!/usr/bin/env bash
# Measures on one GPU what docs/speed.md has targets for; about ten minutes on an H100.
#
#   tools/gpu_bench.sh OUT_DIR [IMAGES_DIR]      # text and JSON of every measurement; an existing OUT_DIR is refused
#
# A measurement that fails or runs over its time does not stop the others; the list at the end says which did.
# COCO=folder adds 200 steps of Mask R-CNN at 1024 px. PYTHON chooses the interpreter; BATCH_S, BATCH_B (MAE),
# BATCH_B4 (EMAE) and BATCH_L are the images a step.
set -uo pipefail
if [[ $# -lt 1 || $# -gt 2 ]]; then sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
out=$1 images=${2:-} root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -e $out ]]; then echo "error: $out exists; take a folder that does not, measurements are never overwritten" >&2; exit 2; fi
mkdir -p "$out" || exit 2
python=${PYTHON:-python3}
"$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { echo 'error: torch sees no CUDA device' >&2; exit 2; }
{ date -u; nvidia-smi; "$python" -m torch.utils.collect_env; } > "$out/machine.txt" 2>&1

failed=()
measure() {  # NAME SECONDS ARGUMENTS: one call of tools/benchmark.py
  local name=$1 limit=$2; shift 2
  echo "== $name: tools/benchmark.py $*"
  if ! timeout "$limit" "$python" "$root/tools/benchmark.py" "$@" --json "$out/$name.json" \
      > "$out/$name.md" 2> "$out/$name.log"; then
    failed+=("$name"); tail -n 3 "$out/$name.log" >&2
  fi
  cat "$out/$name.md"
}

gpu=(--device cuda --rounds 5 --steps 5 --warmup 3 --compile)
measure mae_vitb 150 step "${gpu[@]}" --arch B/16 --parts 1 --batch "${BATCH_B:-512}" --cuda-graphs
measure emae_vitb 150 step "${gpu[@]}" --arch B/16 --parts 4 --batch "${BATCH_B4:-192}" --cuda-graphs
measure emae_vitl 150 step "${gpu[@]}" --arch L/16 --parts 4 --batch "${BATCH_L:-128}"
measure mae_vits 100 step "${gpu[@]}" --arch S/16 --parts 1 --batch "${BATCH_S:-512}" --cuda-graphs
measure curve 120 curve --device cuda --compile --arch B/16 --parts 4 --batch 64 --steps 200 \
  --picture "$out/curve.png" ${images:+--images "$images"}
measure batch 60 batch --arch B/16 --parts 4 --compile
measure packed 60 packed --device cuda --step --width 768 --layers 12 --batch 256 --ratios 0.6 0.9
measure probe 90 probe --device cuda ${images:+--images "$images"}
measure coco 300 coco --device cuda ${COCO:+--train 200 --data "$COCO"}

if ((${#failed[@]})); then echo "failed: ${failed[*]} (logs in $out)" >&2; exit 1; fi
echo "all measured, in $out"
