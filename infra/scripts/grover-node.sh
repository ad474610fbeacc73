#!/usr/bin/env bash
# What a node does, from its first boot to its end. Static: every value comes from /etc/grover/node.env.
#   grover-node bootstrap   packages, shared folder, product, token, services        (once, by cloud-init)
#   grover-node ray         Ray in the foreground                                     (grover-ray.service)
#   grover-node watch       idle head, spot notice, end of an autoscaled worker       (grover-watch.service)
set -Eeuo pipefail

set -a
# shellcheck source=/dev/null
. "${GROVER_NODE_ENV:-/etc/grover/node.env}"
set +a
TOKEN=/etc/grover/ray-token
LOGS=/var/log/grover
STATE=${GROVER_STATE:-/run/grover}
VENV=${GROVER_VENV:-/opt/grover/venv}
HEAD_PORT=${GROVER_HEAD_PORT:-6379}
IMDS=${GROVER_IMDS:-http://169.254.169.254}
export AWS_DEFAULT_REGION=$GROVER_REGION AWS_PAGER="" PATH=${GROVER_PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}

say() { printf '%s %s %s\n' "$(date -u +%FT%TZ)" "$GROVER_ROLE" "$*" >&2; }

# IMDSv2 alone; prints the value, fails where there is none.
metadata() {
  local session
  session=$(curl -sf -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$IMDS/latest/api/token") || return 1
  curl -sf -m 2 -H "X-aws-ec2-metadata-token: $session" "$IMDS/latest/meta-data/$1"
}

metric() {
  aws cloudwatch put-metric-data --namespace "$GROVER_METRIC_NAMESPACE" --metric-name "$1" --value "$2" \
    --dimensions "Cluster=$GROVER_CLUSTER" || say "metric $1 was not taken"
}

retry() {
  local attempt
  for attempt in 1 2 3 4 5; do
    "$@" && return 0
    say "attempt $attempt failed: $1 $2"
    sleep "$((attempt * ${GROVER_RETRY_SECONDS:-5}))"
  done
  return 1
}

# ------------------------------------------------------------------ bootstrap

# A node that failed says why, in one file, and is replaced; it never joins half made.
failed() {
  local code=$1 line=$2 step=$3 instance
  trap - ERR
  set +e
  say "FAILED in step '$step' at line $line with exit code $code" 2>&1 | tee "$LOGS/FAILED"
  say "read $LOGS/bootstrap.log, here or in the log group /$GROVER_CLUSTER/nodes"
  metric BootstrapFailed 1
  if [ "$GROVER_ROLE" = worker ]; then
    instance=$(metadata instance-id) &&
      aws autoscaling set-instance-health --instance-id "$instance" --health-status Unhealthy --no-should-respect-grace-period
    say "marked unhealthy: ${instance:-unknown instance}"
  fi
  exit "$code"
}

system_packages() {
  command -v dnf > /dev/null || return 0
  local wanted=("$GROVER_PYTHON" "$GROVER_PYTHON-pip" amazon-cloudwatch-agent)
  case $GROVER_SHARED in
    efs:*) wanted+=(nfs-utils) ;;
    lustre:*) wanted+=(lustre-client) ;;
  esac
  retry dnf install -y -q "${wanted[@]}"
}

ship_logs() {
  local agent=/opt/aws/amazon-cloudwatch-agent
  [ -x $agent/bin/amazon-cloudwatch-agent-ctl ] || return 0
  cat > $agent/etc/grover.json << JSON
{"logs": {"logs_collected": {"files": {"collect_list": [
  {"file_path": "$LOGS/*.log", "log_group_name": "/$GROVER_CLUSTER/nodes", "log_stream_name": "$GROVER_ROLE-{instance_id}"}
]}}}}
JSON
  $agent/bin/amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s -c "file:$agent/etc/grover.json" || say "logs stay on the node"
}

# One user with one number on every node, so that files on the shared folder have one owner.
node_user() {
  id grover > /dev/null 2>&1 || useradd --system --uid 2000 --create-home --home-dir /var/lib/grover --shell /bin/bash grover
  install -d -o grover -g grover /shared "$STATE" "$LOGS"
}

shared_folder() {
  local kind=${GROVER_SHARED%%:*} source=${GROVER_SHARED#*:}
  mountpoint -q /shared && return 0
  case $kind in
    none) return 0 ;;
    efs) retry mount -t nfs4 -o nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport "$source:/" /shared ;;
    lustre) retry mount -t lustre -o relatime,flock "$source" /shared ;;
    *)
      say "GROVER_SHARED '$GROVER_SHARED' is neither none, efs:HOST nor lustre:SOURCE"
      return 1
      ;;
  esac
  chown grover:grover /shared
}

installed_version() {
  "$VENV/bin/python" -c 'from importlib.metadata import version; print(version("grover_dist"))' 2> /dev/null
}

# The pinned wheel, checked by its digest. An image that already holds this version is taken as it is.
product() {
  [ "$(installed_version)" = "$GROVER_VERSION" ] && return 0
  local cache=/var/cache/grover wheel
  local options=(--quiet --disable-pip-version-check --constraint "$cache/constraints.txt")
  install -d "$cache"
  wheel=$cache/$(basename "$GROVER_WHEEL_KEY")
  retry aws s3 cp --only-show-errors "s3://$GROVER_BUCKET/$GROVER_WHEEL_KEY" "$wheel"
  retry aws s3 cp --only-show-errors "s3://$GROVER_BUCKET/$GROVER_CONSTRAINTS_KEY" "$cache/constraints.txt"
  echo "$GROVER_WHEEL_SHA256  $wheel" | sha256sum --check --quiet
  if [ "$GROVER_PACKAGES" = bucket ]; then
    retry aws s3 sync --only-show-errors "s3://$GROVER_BUCKET/boot/wheels" "$cache/wheels"
    options+=(--no-index --find-links "$cache/wheels")
  fi
  "$GROVER_PYTHON" -m venv "$VENV"
  retry "$VENV/bin/python" -m pip install "${options[@]}" "$wheel"
  [ "$(installed_version)" = "$GROVER_VERSION" ]
}

token() {
  local fresh
  fresh=$(mktemp)
  retry aws secretsmanager get-secret-value --secret-id "$GROVER_TOKEN_SECRET" --query SecretString --output text > "$fresh"
  [ -s "$fresh" ]
  install -o grover -g grover -m 0400 "$fresh" "$TOKEN"
  rm -f "$fresh"
}

services() {
  systemctl daemon-reload
  systemctl enable --now grover-ray.service grover-watch.service
}

bootstrap() {
  install -d "$LOGS" "$STATE"
  rm -f "$LOGS/FAILED"
  exec > >(tee -a "$LOGS/bootstrap.log") 2>&1
  local step=start
  trap 'failed $? $LINENO "$step"' ERR
  for step in system_packages node_user ship_logs shared_folder product token services; do
    say "$step"
    $step
  done
  [ "$GROVER_ROLE" = head ] && metric BootstrapFailed 0
  say "ready: grover_dist $GROVER_VERSION"
}

# ------------------------------------------------------------------ ray

head_answers() { timeout 2 bash -c "exec 3<> /dev/tcp/$GROVER_HEAD_ADDRESS/$HEAD_PORT" 2> /dev/null; }

# A worker without a head earns nothing and costs as much as one at work: it goes, and is not replaced.
give_up() {
  local instance
  say "$1"
  instance=$(metadata instance-id) || return 0
  aws autoscaling terminate-instance-in-auto-scaling-group --instance-id "$instance" --should-decrement-desired-capacity ||
    say "the group did not let $instance go"
}

run_ray() {
  [ -e "$STATE/leaving" ] && exit 0
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$TOKEN RAY_USAGE_STATS_ENABLED=0 GROVER_STOP_FILE=$STATE/leaving
  cd /var/lib/grover
  local common=(--block --disable-usage-stats)
  if [ "$GROVER_ROLE" = head ]; then
    # Jobs need a seat on the head, gangs do not: it offers no GPU, and the dashboard listens on this machine alone.
    exec "$VENV/bin/ray" start --head "${common[@]}" --node-ip-address "$GROVER_HEAD_ADDRESS" --port "$HEAD_PORT" \
      --dashboard-host 127.0.0.1 --dashboard-port 8265 --num-gpus 0
  fi
  local waited=0
  until head_answers; do
    if [ "$waited" -ge "${GROVER_JOIN_SECONDS:-1800}" ]; then
      give_up "the head $GROVER_HEAD_ADDRESS:$HEAD_PORT did not answer in $waited seconds"
      exit 1
    fi
    sleep 5
    waited=$((waited + 5))
  done
  exec "$VENV/bin/ray" start "${common[@]}" --address "$GROVER_HEAD_ADDRESS:$HEAD_PORT"
}

# ------------------------------------------------------------------ watch

# Busy: a job or a connected driver that has not ended. A dashboard that does not answer is not idle.
busy() {
  local jobs
  jobs=$(curl -sf -m 10 -H "Authorization: Bearer $(cat "$TOKEN")" http://127.0.0.1:8265/api/jobs/) || return 0
  grep -qE '"status": *"(PENDING|RUNNING)"' <<< "$jobs"
}

watch_head() {
  local idle_since now
  idle_since=$(date +%s)
  while true; do
    now=$(date +%s)
    if busy; then
      idle_since=$now
      metric Idle 0
    else
      metric Idle 1
    fi
    if [ "$GROVER_HEAD_IDLE_MINUTES" -gt 0 ] && [ $((now - idle_since)) -ge $((GROVER_HEAD_IDLE_MINUTES * 60)) ]; then
      say "idle for $GROVER_HEAD_IDLE_MINUTES minutes: workers to zero, then the head stops"
      retry aws autoscaling set-desired-capacity --auto-scaling-group-name "$GROVER_WORKERS_GROUP" --desired-capacity 0 ||
        say "the workers could not be sent away"
      systemctl poweroff
      return 0
    fi
    sleep "${GROVER_WATCH_SECONDS:-60}"
  done
}

# The ranks look for this file between steps and write a checkpoint; they run in threads that no signal reaches. The drain keeps
# their gang from starting again on this node. Then TERM ends the raylet. Together well within a spot notice's two minutes.
leave() {
  local waited=0
  say "leaving: $1"
  touch "$STATE/leaving"
  drain || say "no drain: work may still be given to this node"
  while [ "$waited" -lt "${GROVER_LEAVE_SECONDS:-75}" ] && ranks_at_work; do
    sleep 1
    waited=$((waited + 1))
  done
  say "after $waited s: Ray ends here"
  systemctl stop grover-ray.service
}

# Each rank keeps a file with its process number beside the stop file until it has ended (training/notice.py).
ranks_at_work() {
  local mark
  for mark in "$STATE"/leaving.rank-*; do
    if [ -e "$mark" ] && kill -0 "${mark##*-}" 2> /dev/null; then return 0; fi
  done
  return 1
}

drain() {
  RAY_AUTH_MODE=${RAY_AUTH_MODE:-token} RAY_AUTH_TOKEN_PATH=$TOKEN timeout --kill-after=5 25 "$VENV/bin/ray" drain-node \
    --address "$GROVER_HEAD_ADDRESS:$HEAD_PORT" --deadline-remaining-seconds 100 \
    --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the machine goes"
}

watch_worker() {
  local notice target instance
  while true; do
    if notice=$(metadata spot/instance-action); then
      leave "spot notice $notice"
      return 0
    fi
    if target=$(metadata autoscaling/target-lifecycle-state) && [ "$target" = Terminated ]; then
      leave "the group ends this node"
      instance=$(metadata instance-id)
      aws autoscaling complete-lifecycle-action --lifecycle-hook-name drain --lifecycle-action-result CONTINUE \
        --auto-scaling-group-name "$GROVER_WORKERS_GROUP" --instance-id "$instance" || say "the hook ends by its own timeout"
      return 0
    fi
    sleep "${GROVER_WATCH_SECONDS:-5}"
  done
}

case ${1:-} in
  bootstrap) bootstrap ;;
  ray) run_ray ;;
  watch) "watch_$GROVER_ROLE" ;;
  *)
    echo "usage: grover-node bootstrap|ray|watch" >&2
    exit 2
    ;;
esac
