#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [WORK_DIR] [arguments of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (8) and SRUN_ARGS are taken from the environment.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: GPUS=8 $0 PARTITION JOB_NAME CONFIG [WORK_DIR] [arguments of tools/train.py]" >&2
    exit 2
fi
partition=$1 job=$2 config=$3
shift 3
# Slurm puts both into the environment, into patterns of file names, and into what it shows.
case $partition in
'' | -* | *[!A-Za-z0-9_.,+-]*) printf "PARTITION is %q: give a name of sinfo, or several with commas\n" "$partition" >&2; exit 2 ;;
esac
case $job in
'' | -* | */* | *%* | *[[:cntrl:]]*) printf "JOB_NAME is %q: give a name without / and %%\n" "$job" >&2; exit 2 ;;
esac
for number in "${GPUS:-8}" "${GPUS_PER_NODE:-8}" "${CPUS_PER_TASK:-8}"; do
    case $number in
    '' | *[!0-9]* | 0*) printf "GPUS, GPUS_PER_NODE and CPUS_PER_TASK are whole numbers, not %q\n" "$number" >&2; exit 2 ;;
    esac
done
work_dir=()
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    work_dir=(--work-dir "$1")
    shift
fi
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
[ "$gpus" -ge "$per_node" ] || per_node=$gpus
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# SRUN_ARGS is split into words on purpose.
# shellcheck disable=SC2086
exec srun --partition="$partition" --job-name="$job" --gres=gpu:"$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$root/tools/train.py" "$config" "${work_dir[@]}" --launcher=slurm "$@"
