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
nodes=${NNODES:-1}
case $nodes in
'' | *[!0-9]* | 0) echo "NNODES is '$nodes': give the number of nodes, e.g. 2" >&2; exit 2 ;;
1) port=0 ;; # a port that the system chooses: two trainings on a machine do not meet
*)
    port=29500
    if [ -z "${MASTER_ADDR:-}" ]; then
        echo "NNODES=$nodes without MASTER_ADDR: set it to a name or address of node 0 that the others reach" >&2
        exit 2
    fi
    ;;
esac
exec "${PYTHON:-python}" -m mim_mm.compat.torchrun \
    --nnodes="$nodes" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-$port}" \
    --nproc_per_node="$gpus" \
    "$@" --launcher pytorch
