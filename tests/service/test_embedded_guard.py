"""The door of the embedded cloud: who is let in."""

from __future__ import annotations

import pytest
from awsclients import Aws, clients
from botocore.exceptions import ClientError
from rawhttp import ask, authorization

from irs.local import EmbeddedCloud

CREATE = "/?Action=CreateQueue&QueueName=intruder"


@pytest.fixture
def port(embedded: EmbeddedCloud) -> str:
    return embedded.endpoint.rpartition(":")[2]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"])
def test_the_embedded_cloud_refuses_pages_of_other_origins(embedded: EmbeddedCloud, aws: Aws, origin: str) -> None:
    status, said = ask(embedded, "POST", CREATE, Origin=origin, Authorization=authorization(embedded))

    assert (403, True) == (status, "other origins" in said)
    assert [] == aws.sqs.list_queues(QueueNamePrefix="intruder").get("QueueUrls", [])


def test_the_embedded_cloud_refuses_a_cross_site_request_without_origin(embedded: EmbeddedCloud) -> None:
    status, _ = ask(embedded, "GET", "/", Sec_Fetch_Site="cross-site", Authorization=authorization(embedded, "s3"))

    assert 403 == status


@pytest.mark.parametrize("host", ["evil.example:{port}", "127.0.0.1", "localhost:1", "127.0.0.1.evil.example:{port}", ""])
def test_the_embedded_cloud_refuses_names_that_are_not_its_own(embedded: EmbeddedCloud, port: str, host: str) -> None:
    signed = authorization(embedded, "s3")

    status, said = ask(embedded, "GET", "/", Host=host.format(port=port), Authorization=signed)

    assert (403, True) == (status, "127.0.0.1 and localhost alone" in said)


def test_the_embedded_cloud_answers_to_its_two_names(embedded: EmbeddedCloud, port: str) -> None:
    signed = authorization(embedded, "s3")

    answers = [ask(embedded, "GET", "/", Host=f"{name}:{port}", Authorization=signed)[0] for name in ("localhost", "127.0.0.1")]

    assert [200, 200] == answers


@pytest.mark.parametrize(
    "path",
    ["/_ministack/reset", "/%5Fministack/reset", "/_ministack/config", "/_localstack/health", "/_aws/sqs/messages"],
)
def test_the_emulators_own_doors_are_closed_even_to_signed_requests(embedded: EmbeddedCloud, aws: Aws, path: str) -> None:
    bucket = aws.bucket()

    status, said = ask(embedded, "POST", path, Authorization=authorization(embedded))

    assert (403, True) == (status, "is closed" in said)
    assert 200 == aws.s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize(
    "header",
    ["", "AWS4-HMAC-SHA256 Credential=AKIAOTHER/20260101/us-east-1/sqs/aws4_request", "AWS4-HMAC-SHA256 Credential=/x"],
)
def test_the_embedded_cloud_refuses_requests_without_the_key_of_its_run(embedded: EmbeddedCloud, header: str) -> None:
    status, said = ask(embedded, "POST", CREATE, Authorization=header)

    assert (403, True) == (status, "access key of this run" in said)


def test_a_presigned_address_is_refused_for_its_expiry_would_not_be_checked(embedded: EmbeddedCloud, aws: Aws) -> None:
    bucket = aws.bucket()
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"secret")
    address = aws.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=60)

    status, said = ask(embedded, "GET", address.removeprefix(embedded.endpoint))

    assert (403, False) == (status, "secret" in said)


def test_health_is_told_to_anybody_on_this_machine(embedded: EmbeddedCloud) -> None:
    assert 200 == ask(embedded, "GET", "/_ministack/health")[0]


@pytest.mark.parametrize("service", ["s3", "sqs", "sns"])
def test_a_refusal_reaches_a_boto3_caller_as_one_sentence(
    embedded: EmbeddedCloud, aws: Aws, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    stranger = clients(embedded.endpoint)
    calls = {"s3": stranger.s3.list_buckets, "sqs": stranger.sqs.list_queues, "sns": stranger.sns.list_topics}

    with pytest.raises(ClientError, match="start the program by `irs up") as refused:
        calls[service]()

    assert "AccessDenied" == refused.value.response["Error"]["Code"]
