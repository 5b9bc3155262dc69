"""What we rely on of S3: one truth table for the embedded cloud and for moto.

moto is the second opinion: where the two differ, one of them differs from AWS, and an ``xfail`` says so. It is
strict, so that an upstream fix is noticed.
"""

from __future__ import annotations

import base64
import hashlib

import pytest
from awsclients import Aws
from contract import both, on, refusal


@both
def test_s3_refuses_the_second_write_of_a_key_that_must_be_new(aws: Aws) -> None:
    bucket = aws.bucket()
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"first", IfNoneMatch="*")

    refused = refusal(lambda: aws.s3.put_object(Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*"))

    assert "PreconditionFailed" == refused
    assert b"first" == aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read()


@both
def test_s3_lets_only_the_holder_of_the_last_etag_replace_an_object(aws: Aws) -> None:
    bucket = aws.bucket()
    old = aws.s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=old)

    refused = refusal(lambda: aws.s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=old))

    assert "PreconditionFailed" == refused
    assert b"2" == aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read()


@both
def test_s3_lists_by_key_after_an_offset_and_under_a_prefix(aws: Aws) -> None:
    bucket = aws.bucket()
    for key in ("a/3", "a/1", "b/1", "a/2", "a/10"):
        aws.s3.put_object(Bucket=bucket, Key=key, Body=b"")

    page = aws.s3.list_objects_v2(Bucket=bucket, Prefix="a/", StartAfter="a/1")

    assert ["a/10", "a/2", "a/3"] == [item["Key"] for item in page["Contents"]]


@both
def test_s3_lists_page_by_page_without_gap_or_repeat(aws: Aws) -> None:
    bucket = aws.bucket()
    keys = [f"k{number:02}" for number in range(7)]
    for key in keys:
        aws.s3.put_object(Bucket=bucket, Key=key, Body=b"")

    pages = list(aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 3}))

    assert 3 == len(pages)
    assert keys == [item["Key"] for page in pages for item in page["Contents"]]


@both
def test_s3_says_no_such_key_for_an_absent_object_and_nothing_when_it_is_deleted(aws: Aws) -> None:
    bucket = aws.bucket()
    aws.s3.delete_object(Bucket=bucket, Key="none")

    assert "NoSuchKey" == refusal(lambda: aws.s3.get_object(Bucket=bucket, Key="none"))


@both
@pytest.mark.parametrize("key", ["jobs/ä ö+%41/Bär & Søn?.jpg", "a#b=c;d,e", "x" * 1000])
def test_s3_keeps_odd_keys_type_and_checksum(aws: Aws, key: str) -> None:
    bucket, body = aws.bucket(), b"picture"
    aws.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="image/jpeg")

    head = aws.s3.head_object(Bucket=bucket, Key=key)

    assert ("image/jpeg", len(body)) == (head["ContentType"], head["ContentLength"])
    assert hashlib.md5(body, usedforsecurity=False).hexdigest() == head["ETag"].strip('"')
    assert key == aws.s3.list_objects_v2(Bucket=bucket)["Contents"][0]["Key"]


@on(moto="takes any checksum")
def test_s3_refuses_bytes_that_do_not_fit_their_checksum(aws: Aws) -> None:
    bucket = aws.bucket()
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()

    refused = refusal(lambda: aws.s3.put_object(Bucket=bucket, Key="k", Body=b"body", ChecksumSHA256=wrong))

    assert refused in ("BadDigest", "InvalidRequest")
