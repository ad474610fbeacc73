#!/usr/bin/env bash
# One candidate on the hosts of HOSTFILE (lines "HOST slots=GPUS"), by the deepspeed launcher. Run it in a folder that all hosts share.
#   launch/deepspeed.sh HOSTFILE CONFIG CYCLES [key=value ...]
# NODE_RANK=0..N-1: no ssh; start this same command once on each host (what Slurm and other schedulers do).
# LAUNCHER=openmpi: the ranks are started by mpirun in place of pdsh; needs Open MPI on every host, and no mpi4py.
# GROVER_EXPORTS: names of further variables that must reach the other hosts, separated by spaces.
set -euo pipefail

if [ $# -lt 3 ]; then
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
hostfile=$1 config=$2 cycles=$3
shift 3
for file in "$hostfile" "$config"; do
  [ -r "$file" ] || { echo "deepspeed.sh: cannot read $file" >&2; exit 2; }
done
[[ $cycles =~ ^[0-9]+$ ]] || { echo "deepspeed.sh: CYCLES is the number of merges of a candidate, got '$cycles'" >&2; exit 2; }

mapfile -t hosts < <(awk '!/^[[:space:]]*(#|$)/ {print $1}' "$hostfile")
[ ${#hosts[@]} -gt 0 ] || { echo "deepspeed.sh: $hostfile names no host" >&2; exit 2; }
launcher=${LAUNCHER:-pdsh}
[[ $launcher =~ ^(pdsh|openmpi)$ ]] || { echo "deepspeed.sh: LAUNCHER is pdsh or openmpi, got '$launcher'" >&2; exit 2; }
GROVER_HOSTFILE=$(realpath "$hostfile") # a rank that waits for others in vain names their host

if [ -n "${NODE_RANK:-}" ]; then
  where=(--no_ssh --node_rank "$NODE_RANK" --master_addr "${MASTER_ADDR:-${hosts[0]}}" --master_port "${MASTER_PORT:-29500}")
  export GROVER_HOSTFILE
else
  # All hosts at once, within a bounded time: pdsh would start those that answer, and they would wait for the others.
  checks=()
  for host in "${hosts[@]}"; do
    timeout 20 ssh -o BatchMode=yes -o ConnectTimeout=10 "$host" true < /dev/null &
    checks+=($!)
  done
  unreachable=()
  for index in "${!hosts[@]}"; do
    wait "${checks[$index]}" || unreachable+=("${hosts[$index]}")
  done
  if [ ${#unreachable[@]} -gt 0 ]; then
    echo "deepspeed.sh: no ssh without a password to ${unreachable[*]} ($hostfile); nothing was started. Try: ssh ${unreachable[0]} true" >&2
    exit 2
  fi
  # Neither pdsh nor mpirun carries variables of its own; the launcher sets those of this file for the command on each host. The file
  # is unlinked at once and read through its descriptor, so that nothing stays behind whatever ends the launcher.
  exported=$(mktemp)
  for name in DS_ACCELERATOR OMP_NUM_THREADS TOKENIZERS_PARALLELISM NCCL_SOCKET_IFNAME GLOO_SOCKET_IFNAME GROVER_HOSTFILE ${GROVER_EXPORTS:-}; do
    if [ -n "${!name:-}" ]; then echo "$name=${!name}" >> "$exported"; fi
  done
  where=(--launcher "$launcher")
  if [ "$launcher" = openmpi ]; then
    # mpirun tells a rank its number and not where the ranks meet; and it would tie each rank to one core.
    printf '%s\n' "MASTER_ADDR=${MASTER_ADDR:-${hosts[0]}}" "MASTER_PORT=${MASTER_PORT:-29500}" >> "$exported"
    where+=(--launcher_args "--bind-to none")
  else
    where+=(--master_port "${MASTER_PORT:-29500}")
  fi
  exec 9< "$exported"
  rm "$exported"
  export DS_ENV_FILE=/proc/self/fd/9
fi

exec deepspeed --hostfile "$hostfile" "${where[@]}" --module grover_dist.pretrain "$config" --cycles "$cycles" "$@"
