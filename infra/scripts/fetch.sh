#!/usr/bin/env bash
# Runs once, from cloud-init: fetches the node script by its digest and hands over to it.
set -euo pipefail
set -a
# shellcheck source=/dev/null
. /etc/grover/node.env
set +a
export AWS_DEFAULT_REGION=$GROVER_REGION
mkdir -p /var/log/grover
fetched=$(mktemp)
for attempt in 1 2 3 4 5 6; do
  if aws s3 cp --only-show-errors "s3://$GROVER_BUCKET/$GROVER_SCRIPT_KEY" "$fetched" &&
    echo "$GROVER_SCRIPT_SHA256  $fetched" | sha256sum --check --quiet; then
    install -m 0755 "$fetched" /usr/local/sbin/grover-node
    exec /usr/local/sbin/grover-node bootstrap
  fi
  echo "attempt $attempt: s3://$GROVER_BUCKET/$GROVER_SCRIPT_KEY was not fetched, or has another digest" | tee -a /var/log/grover/bootstrap.log
  sleep "$((attempt * 5))"
done
echo "FAILED: no node script; check the role, the bucket and the way to S3" | tee -a /var/log/grover/bootstrap.log /var/log/grover/FAILED
exit 1
