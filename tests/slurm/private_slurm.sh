#!/usr/bin/env bash
# A Slurm of one's own on this machine: private_slurm.sh COMMAND [ARGUMENTS] runs COMMAND with SLURM_CONF pointing at it.
#
# One node with two CPUs (it may claim more than the machine has), one partition, no accounting, everything in a private
# temporary folder; munged, slurmctld and slurmd are stopped at the end, by their process ids. Needs root and Debian's
# slurm-wlm and munge:
#     apt-get install --no-install-recommends slurm-wlm munge
set -euo pipefail

[ $# -gt 0 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
PATH="$PATH:/usr/sbin:/sbin"
for program in munged slurmctld slurmd sbatch scontrol; do
    command -v "$program" >/dev/null || { echo "no $program; fix: apt-get install slurm-wlm munge" >&2; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo 'slurmd needs root; fix: run this as root, e.g. in a container' >&2; exit 77; }
getent passwd munge >/dev/null || { echo 'no user munge; fix: apt-get install munge' >&2; exit 77; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/private_slurm.XXXXXX")
chmod 755 "$dir"
pids=()
stop() { # children of slurmd first: slurmstepd outlives it
    [ -z "${child:-}" ] || kill "$child" 2>/dev/null || true
    # Only with a configuration of our own: this must never reach another cluster.
    [ "${SLURM_CONF:-}" != "$dir/slurm.conf" ] || scancel --user=root --quiet 2>/dev/null || true
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill "${pids[i]}" 2>/dev/null || true
        for _ in $(seq 50); do kill -0 "${pids[i]}" 2>/dev/null || break; sleep 0.1; done
        kill -9 "${pids[i]}" 2>/dev/null || true
    done
    if [ -n "${KEEP_SLURM_LOGS:-}" ]; then echo "logs: $dir" >&2; else rm -rf "$dir"; fi
}
trap stop EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

mkdir -m 700 "$dir/munge" "$dir/state" "$dir/spool"
head -c 128 /dev/urandom >"$dir/munge/key" && chmod 400 "$dir/munge/key"
mkdir -m 755 "$dir/socket"
chown -R munge "$dir/munge" "$dir/socket"
setpriv --reuid=munge --regid="$(id -g munge)" --clear-groups munged --foreground --force \
    --socket="$dir/socket/munge" --key-file="$dir/munge/key" --log-file="$dir/munge/log" \
    --pid-file="$dir/munge/pid" --seed-file="$dir/munge/seed" --num-threads=2 >"$dir/munged.out" 2>&1 &
pids+=($!)

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
host=$(hostname -s)
cat >"$dir/slurm.conf" <<CONF
ClusterName=private
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/munge
AuthInfo=socket=$dir/socket/munge
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,requeue_delay=1
KillWait=20
MinJobAge=7200
ReturnToService=2
JobRequeue=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=60 State=UP
CONF
export SLURM_CONF="$dir/slurm.conf"
slurmctld -D >"$dir/slurmctld.out" 2>&1 &
pids+=($!)
slurmd -D >"$dir/slurmd.out" 2>&1 &
pids+=($!)
for _ in $(seq 150); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && break
    sleep 0.2
done
if [ "$(sinfo --noheader --format=%T 2>/dev/null)" != idle ]; then
    echo 'the private Slurm did not come up:' >&2
    tail -n 15 "$dir"/slurm*.log "$dir"/slurm*.out >&2
    exit 1
fi
export MIM_MM_PRIVATE_SLURM=1
"$@" &
child=$!
wait "$child"
