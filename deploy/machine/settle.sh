#!/bin/sh
# What each machine has: settle.sh FILE writes the IRS_* variables to FILE for units to read, and settles their confinement
# and their logs.
set -eu
here=$(dirname "$0")

install --directory --mode 700 "$(dirname "$1")"
env | grep '^IRS_' > "$1"
install -D --mode 644 "$here/hardening.conf" /etc/systemd/system/irs-.service.d/hardening.conf
install -D --mode 644 "$here/journald.conf" /etc/systemd/journald.conf.d/irs.conf
systemctl restart systemd-journald.service
