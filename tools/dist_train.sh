#!/usr/bin/env bash
# Train on several GPUs of one or more nodes: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# On more nodes run it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
config=$1 gpus=$2
shift 2
exec "$(dirname "$0")/torchrun.sh" "$gpus" "$(dirname "$0")/train.py" "$config" "$@"
