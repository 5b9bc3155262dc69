#!/bin/sh
# The end of the front instance's user data: its settings are exported, /run/irs-install.sh is machine/install.sh.
set -eu
# Packages, rights or secrets may be away for a while, and nobody else tries again.
again() {
    until "$@"; do sleep 10; done
}
# With neither a prepared image nor a wheel the script says so, and another try is of no use.
test -x /opt/irs/bin/irs || test -n "${IRS_WHEEL:-}" || exec sh /run/irs-install.sh web
# A prepared image has them.
test -x /opt/irs/bin/irs || again sh /run/irs-install.sh web,scaler,flower caddy
again sh /opt/irs/share/irs/front/start.sh
