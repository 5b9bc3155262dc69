"""Makes the buckets, queues and topics of a stack; repeatable, and the same on AWS as embedded.

Each is read, made if it is missing, corrected where it differs, and never deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version

from irs.cloud import NO_CREDENTIALS, Cloud
from irs.errors import SetupError, Unreachable
from irs.provision.buckets import Buckets
from irs.provision.ledger import Action, Change, Ledger
from irs.provision.queues import Queues
from irs.provision.topics import Topics
from irs.records import DROPS, TASKS

__all__ = ["Action", "Change", "provision"]

_BAD_CREDENTIALS = frozenset(
    ("InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "UnrecognizedClientException")
)


def provision(cloud: Cloud, *, dry_run: bool = False) -> list[Change]:
    """Bring all resources of the stack to what the settings say; one change for each, in the order of making.

    May run twice, also at the same time. With ``dry_run`` nothing is written.

    Raises:
        Unreachable: the endpoint does not answer, or refuses us.
        SetupError: a bucket's name belongs to somebody else.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    ledger = Ledger(dry_run=dry_run)
    place = cloud.settings.endpoint_url or f"AWS {cloud.settings.region}"
    doing = "account"
    try:
        for name, make in _steps(cloud, ledger):
            doing = name
            make()
    except NoCredentialsError:
        raise Unreachable(NO_CREDENTIALS) from None
    except ClientError as error:
        raise _sentence(error.response.get("Error", {}), error.operation_name, doing) from None
    except BotoCoreError as error:
        raise Unreachable(f"{place} cannot be reached (for {doing}): {error}") from None
    return ledger.changes


def _steps(cloud: Cloud, ledger: Ledger) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield what is made, so that each finds what it refers to."""
    settings = cloud.settings
    # Names that are known before the resources are there, so that a dry run knows them too.
    identity = cloud.client("sts").get_caller_identity()
    account = f"{settings.region}:{identity['Account']}"
    partition = identity["Arn"].split(":")[1]
    tags = {"irs:system": settings.stack, "irs:version": version("irs")}

    buckets = Buckets(cloud, ledger, tags, partition)
    for bucket in (settings.input_bucket, settings.output_bucket, settings.models_bucket):
        yield f"bucket {bucket}", partial(buckets.make, bucket)

    queues = Queues(cloud, ledger, tags, f"arn:{partition}:sqs:{account}")
    dead, requests = settings.requests_dead_queue, settings.requests_queue
    yield f"queue {dead}", queues.make_dead
    yield f"queue {requests}", queues.make_requests
    yield f"queue {dead}", queues.allow_redrive
    yield f"queue {settings.responses_queue}", queues.make_responses

    told = {settings.input_bucket: DROPS, settings.output_bucket: TASKS}
    yield f"queue {settings.drops_queue}", partial(queues.make_drops, [buckets.arn(bucket) for bucket in told])
    for bucket, prefix in told.items():
        yield f"bucket {bucket}", partial(buckets.tell, bucket, prefix, queues.drops_arn)

    topics = Topics(cloud, ledger, tags, f"arn:{partition}:sns:{account}")
    for topic in (f"{settings.stack}-control", f"{settings.stack}-events"):
        yield f"topic {topic}", partial(topics.make, topic)


def _sentence(fault: dict[str, str], operation: str, doing: str) -> SetupError:
    # What is no AWS may answer without either.
    code, said = fault.get("Code", "no code"), (fault.get("Message") or "no reason given").rstrip(".")
    if code == "BucketAlreadyExists":
        return SetupError(f"{doing} belongs to somebody else, and names are global: set another IRS_STACK or bucket name.")
    if code in _BAD_CREDENTIALS:
        return Unreachable(f"The AWS credentials are refused ({code}): renew them.")
    if code in ("403", "AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"):
        return Unreachable(f"{operation} on {doing} is forbidden: allow it, or check whose it is ({said}).")
    if code in ("301", "PermanentRedirect"):
        return SetupError(f"{doing} is in another region: set AWS_REGION to it, or choose another name.")
    return Unreachable(f"{operation} on {doing} is refused ({code}): {said}.")
