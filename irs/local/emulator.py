"""The emulator behind the embedded cloud: which version, and the environment it is imported in."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

from irs.errors import MissingExtra, SetupError
from irs.local.home import Endpoint, Home

#: The only version the patches of irs.local.s3 and irs.local.sqs are tested with.
TESTED_VERSION = "1.5.33"

_SERVICES = ("s3", "sqs", "sns", "iam", "sts", "cloudwatch", "ec2")
#: What would change the emulator's behaviour, or send its own calls elsewhere.
_FOREIGN_PREFIXES = ("AWS_", "LOCALSTACK_", "MINISTACK_", "S3_", "SQS_", "SFTP_", "IOT_")
_FOREIGN = frozenset(
    ("AUTH", "EDGE_PORT", "USE_SSL", "PERSIST_STATE", "STATE_DIR", "SERVICES", "BIND_HOST", "GATEWAY_PORT", "DOCKER_HOST")
)


def require_emulator() -> None:
    """Check that the emulator can be started as it is installed.

    Raises:
        MissingExtra: it is not installed.
        SetupError: it is another version.
    """
    try:
        found = version("ministack")
        version("uvicorn"), version("httptools")
    except PackageNotFoundError as error:
        raise MissingExtra(f"The embedded cloud needs {error.name}: pip install 'irs[local]'.") from None
    if found != TESTED_VERSION:
        raise SetupError(
            f"The embedded cloud is made for ministack {TESTED_VERSION} and {found} is installed:"
            f" pip install ministack=={TESTED_VERSION}."
        )


def enter_emulator_environment(home: Home, endpoint: Endpoint, *, checks_rights: bool = False) -> None:
    """Give this process the environment the emulator must be imported in; it reads all of it at import.

    With ``checks_rights`` every call needs an IAM policy that allows it, but those with the key of ``endpoint``.
    """
    for name in list(os.environ):
        is_proxy = name.lower().endswith("_proxy")
        if name in _FOREIGN or is_proxy or name.upper().startswith(_FOREIGN_PREFIXES):
            del os.environ[name]
    os.environ.update(
        GATEWAY_PORT=str(endpoint.port),
        MINISTACK_HOST="127.0.0.1",
        BIND_HOST="127.0.0.1",
        MINISTACK_REGION=endpoint.region,
        MINISTACK_ACCOUNT_ID="000000000000",
        # Lambda and Step Functions would run code for whoever asks.
        SERVICES=",".join(_SERVICES),
        SFTP_ENABLED="0",
        # Else it listens for MQTT on 0.0.0.0:8883 where `cryptography` is installed.
        IOT_MTLS_ENABLED="0",
        # Else it stops and removes all containers labelled `ministack` on this machine.
        DOCKER_HOST="unix:///nonexistent/docker.sock",
        LOG_LEVEL="WARNING",
        AUTH=str(checks_rights).lower(),
        AWS_ACCESS_KEY_ID=endpoint.access_key_id,
        AWS_SECRET_ACCESS_KEY=endpoint.secret_access_key,
        S3_PERSIST="1",
        S3_DATA_DIR=str(home.objects),
        PERSIST_STATE="1",
        STATE_DIR=str(home.state),
    )


def load_services() -> None:
    """Import what will be asked for: the first call to each would else wait up to 0.3 s."""
    from importlib import import_module

    for name in _SERVICES:
        import_module(f"ministack.services.{name}")
