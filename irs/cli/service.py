"""Which service a command speaks to: the one the environment names, else the ``irs up`` of this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from irs.cli.outcome import note

if TYPE_CHECKING:
    from irs.cloud import Cloud


def join_running_up() -> None:
    """Turn this process towards a running ``irs up`` of the same ``IRS_HOME``, unless an endpoint is named.

    An ``IRS_ENDPOINT_URL`` that is set and empty means AWS in any case.
    """
    if "IRS_ENDPOINT_URL" in os.environ or "AWS_ENDPOINT_URL" in os.environ:
        return
    from irs.local.join import enter_running
    from irs.settings import read_settings

    if endpoint := enter_running(read_settings().home):
        # As `irs up` itself does: its workers listen.
        os.environ.setdefault("IRS_MONITORING", "true")
        note(f"irs: speaking to the `irs up` of this machine at {endpoint}")


def find_cloud() -> Cloud:
    """Return the cloud of this command's service: what the environment names, else a running ``irs up``, else AWS.

    Raises:
        SetupError: a setting is wrong.
    """
    join_running_up()
    from irs.cloud import get_cloud

    return get_cloud()
