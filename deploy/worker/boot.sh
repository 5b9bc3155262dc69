#!/bin/sh
# The end of a worker's user data: its settings are exported, /run/irs-install.sh is machine/install.sh.
set -eu
# An instance that cannot start its worker only costs.
trap 'test $? -eq 0 || systemctl poweroff' EXIT
# A prepared image has it.
test -x /opt/irs/bin/irs || sh /run/irs-install.sh worker
sh /opt/irs/share/irs/worker/start.sh
