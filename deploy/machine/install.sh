#!/bin/sh
# Puts irs on a machine with Debian 12, under /opt/irs: install.sh EXTRAS [DEBIAN-PACKAGE...]; may run twice.
#   IRS_WHEEL        address of irs' wheel, https:// or file://
#   IRS_TORCH_INDEX  where a worker's torch comes from: that without CUDA, unless another is named
set -eu
extras=$1
shift
if test -z "${IRS_WHEEL:-}"; then
    echo "irs: this image holds no irs and no wheel is named: set the parameter Wheel, or Image to a prepared one." >&2
    exit 2
fi

export DEBIAN_FRONTEND=noninteractive
# Debian's own upgrades may hold the lock at the first boot.
apt-get --quiet --option DPkg::Lock::Timeout=300 update
apt-get --quiet --option DPkg::Lock::Timeout=300 install --yes --no-install-recommends ca-certificates curl python3-venv "$@"

python3 -m venv /opt/irs
case ",$extras," in
    *,worker,*)
        /opt/irs/bin/pip install --no-cache-dir --index-url "${IRS_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" torch torchvision
        ;;
esac
/opt/irs/bin/pip install --no-cache-dir "irs[$extras] @ $IRS_WHEEL"
