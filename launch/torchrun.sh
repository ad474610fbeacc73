#!/usr/bin/env bash
# One candidate under torchrun: on this host, or the same command on each host with MASTER_ADDR, NODES and NODE_RANK.
#   launch/torchrun.sh RANKS_PER_HOST CONFIG CYCLES [key=value ...]
set -euo pipefail

if [ $# -lt 3 ]; then
  sed -n '2,3s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
ranks=$1 config=$2 cycles=$3
shift 3
[ -r "$config" ] || { echo "torchrun.sh: cannot read $config" >&2; exit 2; }
[[ $ranks =~ ^[1-9][0-9]*$ && $cycles =~ ^[0-9]+$ ]] || { echo "torchrun.sh: RANKS_PER_HOST and CYCLES are numbers, got '$ranks' and '$cycles'" >&2; exit 2; }

if [ -n "${MASTER_ADDR:-}" ]; then
  where=(--nnodes "${NODES:?how many hosts}" --node-rank "${NODE_RANK:?which of them is this one, from 0}"
    --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}")
else
  where=(--standalone)
fi
exec torchrun "${where[@]}" --nproc-per-node "$ranks" --module grover_dist.pretrain "$config" --cycles "$cycles" "$@"
