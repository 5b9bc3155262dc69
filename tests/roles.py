"""The work of each role of a stack, call by call as the product makes it, for tests of what it may do.

Where the product swallows a refusal, its call is made here by itself.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from irs.broker.ephemeral import EphemeralQueues
from irs.cloud import Cloud
from irs.drops import Bridge
from irs.drops.objects import Objects
from irs.monitoring.beats import read_beats
from irs.monitoring.dead_letters import record_poisoned
from irs.monitoring.janitor import Janitor
from irs.monitoring.status import count_queue, see_workers
from irs.records import (
    DROPS,
    RESULTS,
    ImageFacts,
    JobOpen,
    Manifest,
    Options,
    Record,
    beat_key,
    drop_task_id,
    image_key,
    new_job_id,
    order_key,
    result_key,
    task_id,
)
from irs.results import RecordStore
from scaler.book import Book, Intent
from scaler.ec2 import connect
from scaler.orders import S3Orders
from scaler.store import S3Store


@dataclass
class Scene:
    """A stack with one job in it: ``root`` may do all, ``mine`` what its role may; ``job`` has one image handed in."""

    root: Cloud
    mine: Cloud
    job: str

    @property
    def image(self) -> str:
        return image_key(self.job, 0, "cat.jpg")

    def record(self, number: int = 0) -> Record:
        name = task_id(self.job, number)
        return Record(task_id=name, job=self.job, number=number, status="ok", image=ImageFacts(name="cat.jpg", key=self.image))

    def letters(self) -> None:
        """Put a task into the request queue, and one whose worker died into the dead-letter queue, as Celery writes them."""
        for number, queue in enumerate((self.root.settings.requests_queue, self.root.settings.requests_dead_queue)):
            headers = {"task": "irs.recognize", "id": task_id(self.job, number)}
            payload = base64.b64encode(json.dumps([[self.image], {}, {}]).encode()).decode()
            body = {"headers": headers, "body": payload, "properties": {"body_encoding": "base64"}}
            self.root.sqs().send_message(QueueUrl=self.root.queue_url(queue), MessageBody=json.dumps(body))


def take(cloud: Cloud, queue: str) -> None:
    """Receive from a queue and delete what came, each by itself and by tens."""
    url = cloud.queue_url(queue)
    messages = cloud.sqs().receive_message(QueueUrl=url, MaxNumberOfMessages=1)["Messages"]
    for message in messages:
        entry = {"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}
        assert not cloud.sqs().delete_message_batch(QueueUrl=url, Entries=[entry]).get("Failed")


def send(cloud: Cloud, queue: str) -> None:
    entries = [{"Id": "0", "MessageBody": "news"}]
    assert not cloud.sqs().send_message_batch(QueueUrl=cloud.queue_url(queue), Entries=entries).get("Failed")


def be_watched(cloud: Cloud) -> None:
    """Make a queue that listens, say that it lives, hear and answer, speak, and clear all away."""
    queues = EphemeralQueues(cloud)
    for kind in ("pidbox", "events", "reply"):
        queue = queues.make(kind)
        try:
            cloud.sqs().tag_queue(QueueUrl=queue.url, Tags={"irs:seen": "1"})
            cloud.sqs().send_message(QueueUrl=queue.url, MessageBody="pong")
            message = cloud.sqs().receive_message(QueueUrl=queue.url)["Messages"][0]
            cloud.sqs().delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])
            if queue.subscription:
                queues.sns().unsubscribe(SubscriptionArn=queue.subscription)
            cloud.sqs().delete_queue(QueueUrl=queue.url)
        finally:
            queues.remove(queue)
    for topic in ("control", "events"):
        queues.sns().publish(TopicArn=queues.places.topic_arn(topic), Message="ping")


def be_client(scene: Scene) -> None:
    cloud, store, job = scene.mine, RecordStore(scene.mine), new_job_id()
    send(cloud, cloud.settings.requests_queue)
    assert store.open_job(JobOpen(job=job, options=Options(), expected=1, created=1.0))
    cloud.input.put(image_key(job, 0, "cat.jpg"), b"image", content_type="application/octet-stream")
    store.close_job(Manifest(job=job, count=1, options=Options(), closed=2.0))
    assert {0} == set(store.list_images(job))
    assert 1 == store.find_manifest(job).count  # type: ignore[union-attr]
    assert store.cancel_task(task_id(job, 0))
    assert (0,) == store.list_job(job).numbers
    store.cancel_job(job)


def be_web(scene: Scene) -> None:
    cloud = scene.mine
    be_client(scene)
    assert b"image" == cloud.input.get(scene.image)
    cloud.input.put("single/1", b"image", content_type="application/octet-stream")
    cloud.input.delete("single/1")
    see_workers(cloud)
    assert cloud.output.get(beat_key("i-1"))
    assert count_queue(cloud, cloud.settings.requests_queue)
    assert count_queue(cloud, cloud.settings.responses_queue)
    queues = EphemeralQueues(cloud)
    queues.sns().publish(TopicArn=queues.places.topic_arn("control"), Message="cancelled")
    send(scene.root, cloud.settings.responses_queue)
    take(cloud, cloud.settings.responses_queue)


def be_worker(scene: Scene) -> None:
    cloud, url = scene.mine, scene.mine.queue_url(scene.mine.settings.requests_queue)
    held = {"VisibilityTimeout": 30, "ReceiptHandle": cloud.sqs().receive_message(QueueUrl=url)["Messages"][0]["ReceiptHandle"]}
    assert not cloud.sqs().change_message_visibility_batch(QueueUrl=url, Entries=[{"Id": "0", **held}]).get("Failed")
    assert b"image" == cloud.input.get(scene.image)
    assert list(cloud.input.list("jobs/"))
    assert RecordStore(cloud).put(scene.record())
    assert RecordStore(cloud).find(scene.record().task_id)
    list(cloud.output.list("cancelled/"))
    cloud.output.put(beat_key("i-2"), b"{}", content_type="application/json")
    assert cloud.output.get(order_key("i-1"))
    assert b"weights" == cloud.bucket(cloud.settings.models_bucket).get("model/weights")
    assert list(cloud.bucket(cloud.settings.models_bucket).list("model/"))
    send(cloud, cloud.settings.responses_queue)
    entry = {"Id": "0", "ReceiptHandle": held["ReceiptHandle"]}
    assert not cloud.sqs().delete_message_batch(QueueUrl=url, Entries=[entry]).get("Failed")
    be_watched(cloud)


def be_flower(scene: Scene) -> None:
    cloud, names = scene.mine, scene.mine.settings
    for queue in (names.requests_queue, names.requests_dead_queue, names.responses_queue, names.drops_queue):
        assert count_queue(cloud, queue)
    see_workers(cloud)
    assert cloud.output.get(beat_key("i-1"))
    topic = EphemeralQueues(cloud).places.topic_arn("control")
    cloud.client("sns").list_subscriptions_by_topic(TopicArn=topic)
    assert RecordStore(cloud).cancel_task(task_id(scene.job, 1))
    be_watched(cloud)


def be_janitor(scene: Scene) -> None:
    queues = EphemeralQueues(scene.root)
    queue = queues.make("events")
    scene.root.sqs().tag_queue(QueueUrl=queue.url, Tags={"irs:seen": "1"})
    try:
        assert queue.name in Janitor(scene.mine).sweep().queues
    finally:
        queues.remove(queue)
    assert [task_id(scene.job, 1)] == [letter.task_id for letter in record_poisoned(scene.mine)]
    for name in (scene.mine.settings.requests_dead_queue, scene.mine.settings.requests_queue):
        count_queue(scene.mine, name)
    send(scene.mine, scene.mine.settings.responses_queue)


def be_scaler(scene: Scene) -> None:
    root = scene.root.client("ec2")
    # One that the emulator lists: a root disk is asked for.
    image, subnet = root.describe_images()["Images"][0]["ImageId"], root.describe_subnets()["Subnets"][0]["SubnetId"]
    told = {"scaler_image": image, "scaler_types": ("t3.micro",), "scaler_subnets": (subnet,)}
    cloud = Cloud(scene.mine.settings.model_copy(update=told))
    store, orders = S3Store(cloud), S3Orders(cloud, wall=lambda: 1.0)
    store.probe()
    store.read(0.0)
    store.write(Book(), None, 0.0) if store.read(0.0) is None else None
    count_queue(cloud, cloud.settings.requests_queue)
    read_beats(cloud)
    assert cloud.output.get(beat_key("i-1"))
    orders.retire("i-9", launch="", why="surplus")
    assert "i-9" in orders.standing()
    orders.forget("i-9")
    models = scene.root.settings.models_bucket
    scene.root.bucket(models).put("shoes/current.json", b'{"digest": "4f1c"}', content_type="application/json")
    assert cloud.bucket(models).get("shoes/current.json")
    ec2 = connect(cloud)
    ec2.check()
    (id,) = ec2.run(Intent(launch=f"{cloud.settings.stack}-1-{secrets.token_hex(4)}", pair=ec2.candidates[0], count=1, at=0.0))
    try:
        assert id in [one.id for one in ec2.describe()]
        ec2.console(id)
        steer(cloud, id)
    finally:
        # The account holds only so many at once.
        root.terminate_instances(InstanceIds=[id])


def be_drops(scene: Scene) -> None:
    """A file is dropped, its task sent, its record copied; the bridge logs refusals and goes on, so call by call."""
    root, cloud, names = scene.root, scene.mine, scene.mine.settings
    key = f"{DROPS}cat-{secrets.token_hex(4)}.jpg"
    root.input.put(key, b"image", content_type="image/jpeg")
    take(cloud, names.drops_queue)
    objects = Objects(cloud)
    standing = objects.find(names.input_bucket, key)
    assert standing is not None
    send(cloud, names.requests_queue)
    id, image = drop_task_id(key, standing.etag), ImageFacts(name="cat.jpg", key=key)
    assert RecordStore(root).put(Record(task_id=id, job=None, number=None, status="ok", image=image))
    assert id == RecordStore(cloud).get(id).task_id
    result = result_key(key.removeprefix(DROPS))
    assert objects.replace(names.output_bucket, result, b"{}", None, content_type="application/json")
    assert objects.find(names.output_bucket, result)
    Bridge(cloud).look()
    assert list(objects.list(names.input_bucket, DROPS))
    assert list(objects.list(names.output_bucket, RESULTS))


def be_boot(scene: Scene) -> None:
    """The front instance takes the stack's address; both carry its tag. Secrets Manager is no part of the emulator."""
    stack, root = scene.root.settings.stack, scene.root.client("ec2")
    tags = [{"Key": "irs:system", "Value": stack}]
    machine = {"ResourceType": "instance", "Tags": tags}
    # One that the emulator lists; it runs nothing.
    asked = {
        "ImageId": root.describe_images()["Images"][0]["ImageId"],
        "InstanceType": "t3a.small",
        "TagSpecifications": [machine],
    }
    address = root.allocate_address(Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": tags}])
    (one,) = root.run_instances(MinCount=1, MaxCount=1, **asked)["Instances"]
    try:
        scene.mine.client("ec2").associate_address(AllocationId=address["AllocationId"], InstanceId=one["InstanceId"])
    finally:
        # The account holds only so many at once.
        root.terminate_instances(InstanceIds=[one["InstanceId"]])
        root.release_address(AllocationId=address["AllocationId"])


def steer(cloud: Cloud, id: str) -> None:
    client = cloud.client("ec2")
    client.stop_instances(InstanceIds=[id])
    client.get_waiter("instance_stopped").wait(InstanceIds=[id], WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    client.start_instances(InstanceIds=[id])
    client.terminate_instances(InstanceIds=[id])


WORK: dict[str, Callable[[Scene], None]] = {
    "client": be_client,
    "web": be_web,
    "worker": be_worker,
    "flower": be_flower,
    "janitor": be_janitor,
    "scaler": be_scaler,
    "drops": be_drops,
    "boot": be_boot,
}
