#!/usr/bin/env bash
# k-NN on several GPUs: tools/dist_knn.sh CONFIG CHECKPOINT GPUS [arguments of tools/knn.py]
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/knn.py]" >&2
    exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3
exec "$(dirname "$0")/torchrun.sh" "$gpus" "$(dirname "$0")/knn.py" "$config" "$checkpoint" "$@"
