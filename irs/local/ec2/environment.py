"""The environment of an instance: what `irs up` was started with, turned towards the embedded cloud."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from irs.local.embedded import client_environment
from irs.local.guard import IMDS_PATH
from irs.local.home import Endpoint

#: Cores one worker is good for; more of them make it quicker, fewer make two of them fight.
CORES_EACH = 2
_FOREIGN = ("AWS_", "IRS_PARENT_PID", "IRS_INSTANCE_ID", "IRS_ENDPOINT_URL", "IRS_HEALTH_PORT")


def machine_quota() -> int:
    """Return how many instances this machine is good for."""
    return max(1, (os.cpu_count() or 1) // CORES_EACH)


class MachineEnvironment:
    """Makes the environment of each instance from ``inherited``, without the AWS variables of that.

    What else a worker needs, its user data sets, as on AWS.
    """

    def __init__(self, inherited: Mapping[str, str], endpoint: Endpoint, *, quota: int) -> None:
        kept = {name: value for name, value in inherited.items() if not name.startswith(_FOREIGN)}
        cloud = client_environment(endpoint, inherited)
        # An instance asks for its metadata; keys it has, so nobody looks for more there.
        del cloud["AWS_EC2_METADATA_DISABLED"]
        cores = os.cpu_count() or 1
        # `irs` is found as it was by who started this.
        path = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", os.defpath)))
        threads = {"IRS_COMPUTE_THREADS": str(max(1, cores // quota)), "OMP_NUM_THREADS": "1"}
        self._shared = threads | kept | cloud | {"PATH": path, "IRS_ENDPOINT_URL": endpoint.url}
        self._metadata = endpoint.url + IMDS_PATH

    def __call__(self, id: str) -> dict[str, str]:
        """Return the environment of the instance ``id``; its id itself is added by the host."""
        return {**self._shared, "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{self._metadata}{id}/"}
