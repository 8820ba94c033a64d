#!/usr/bin/env bash
# What dist_train.sh and dist_test.sh share: torchrun.sh GPUS SCRIPT [arguments], with the usual environment variables.
set -euo pipefail
gpus=$1
shift
case $gpus in
'' | *[!0-9]* | 0) echo "GPUS is '$gpus': give the number of processes on this node, e.g. 8" >&2; exit 2 ;;
esac
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m mim_mm.compat.torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$@" --launcher pytorch
