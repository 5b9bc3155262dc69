#!/bin/sh
# Starts the worker of an instance; settings are the exported IRS_* variables. Lies beside what it installs.
set -eu
here=$(dirname "$0")

IRS_INSTANCE_ID=$(sh "$here/../machine/instance-id.sh")
export IRS_INSTANCE_ID
sh "$here/../machine/settle.sh" /etc/irs/worker.env
install -D --mode 644 "$here/irs-worker.service" /etc/systemd/system/irs-worker.service
systemctl daemon-reload
systemctl enable --now irs-worker.service
