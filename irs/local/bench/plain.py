"""What Celery's manual leads to: the same work as a plain task. Run as ``celery -A irs.local.bench.plain worker``.

boto3 for objects and messages, torchvision's own transform, the model in eager fp32 at one image a call,
kombu's SQS transport as it comes, late acknowledgement. Only the comparison uses it.
"""

from __future__ import annotations

import io
import json
import os
from functools import cache
from typing import Any

from celery import Celery

_ENDPOINT = os.environ["AWS_ENDPOINT_URL"]

app = Celery("plain", set_as_current=False)
app.conf.update(
    broker_url="sqs://" + _ENDPOINT.removeprefix("http://"),
    broker_transport_options={
        "region": os.environ["AWS_REGION"],
        "is_secure": False,
        "wait_time_seconds": 5,
        # The one thing that is better than the manual: at the default of 1 s it would answer 8 images a second.
        "polling_interval": 0.05,
    },
    task_default_queue=os.environ["PLAIN_QUEUE"],
    task_acks_late=True,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


@cache
def _client(service: str) -> Any:
    import boto3

    return boto3.client(service, endpoint_url=_ENDPOINT)


@cache
def _model() -> Any:
    from irs.models import open_model

    model = open_model(os.environ["IRS_MODEL"])
    return model, model.build().eval()


@cache
def _transform() -> Any:
    from irs.local.bench.reference import reference_transform

    return reference_transform(_model()[0].preprocess)


@app.task(name="plain.recognize")  # type: ignore[untyped-decorator]
def recognize(bucket: str, key: str, out_bucket: str, out_key: str, responses: str) -> None:
    """Answer one image."""
    import torch
    from PIL import Image

    body = _client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    pixels = _transform()(Image.open(io.BytesIO(body)).convert("RGB"))
    model, network = _model()
    with torch.inference_mode():
        probabilities = network(pixels[None]).softmax(1)[0]
    top = probabilities.topk(5)
    labels = [(model.labels[i], float(p)) for p, i in zip(top.values, top.indices, strict=True)]
    text = json.dumps({"key": key, "labels": labels})
    _client("s3").put_object(Bucket=out_bucket, Key=out_key, Body=text.encode())
    _client("sqs").send_message(QueueUrl=responses, MessageBody=text)
