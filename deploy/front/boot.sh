#!/bin/sh
# The end of the front instance's user data: its settings are exported, /run/irs-install.sh is machine/install.sh.
set -eu
# A prepared image has them.
test -x /opt/irs/bin/irs || sh /run/irs-install.sh web,scaler,flower caddy
sh /opt/irs/share/irs/front/start.sh
