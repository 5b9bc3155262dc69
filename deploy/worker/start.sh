#!/bin/bash
# Starts the worker of an instance. Settings come as exported IRS_* variables, the unit is written before this runs.
# On a prepared image irs is there; on a plain one it is installed from IRS_PACKAGE.
set -euo pipefail
# An instance that cannot start its worker only costs.
trap 'systemctl poweroff' ERR

if ! test -x /opt/irs/bin/irs; then
    dnf install --assumeyes python3.11
    python3.11 -m venv /opt/irs
    /opt/irs/bin/pip install --no-cache-dir "$IRS_PACKAGE"
fi

metadata=http://169.254.169.254/latest
token=$(curl --fail --silent --retry 5 --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/api/token")
IRS_INSTANCE_ID=$(curl --fail --silent --retry 5 --header "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/instance-id")
export IRS_INSTANCE_ID

install --directory --mode 700 /etc/irs
env | grep '^IRS_' > /etc/irs/worker.env
systemctl daemon-reload
systemctl enable --now irs-worker.service
