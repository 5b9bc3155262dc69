"""What a worker refuses, and what it does only once: each has a record, and no message stays. One worker for all."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from waiting import eventually
from workers import Workers, news_of, picture, workers_on_a_stack

from irs import records
from irs.local import EmbeddedCloud
from irs.records import Options

#: A caller that sends the tasks given as JSON and prints what get() raises or returns of each.
CALLER = """
import json, sys
from irs.errors import RecognitionFailed
from irs.tasks import recognize

def outcome(result):
    try:
        return [result.id, "ok", result.get(timeout=60)["status"]]
    except RecognitionFailed as error:
        return [result.id, error.error_code, str(error)]

results = [recognize.delay(image, **options) for image, options in json.loads(sys.argv[1])]
print(json.dumps([outcome(result) for result in results]))
"""


@pytest.fixture(scope="module")
def workers(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with workers_on_a_stack(embedded, tmp_path_factory.mktemp("refusals")) as made:
        # What comes together is one batch: filled within a long wait, by one thread.
        made.start(IRS_VISIBILITY_SECONDS="3", IRS_BATCH_WAIT_SECONDS="0.5", IRS_COMPUTE_THREADS="1")
        yield made


def test_a_permanent_fault_is_recorded_raised_by_get_and_its_message_gone(workers: Workers) -> None:
    workers.cloud.input.put("good", picture(1), content_type="image/jpeg")
    workers.cloud.input.put("text", b"no picture", content_type="image/jpeg")
    workers.cloud.input.put("empty", b"", content_type="image/jpeg")
    workers.cloud.input.put("half", picture(1)[:400], content_type="image/jpeg")
    asked = {
        "ok": ["good", {}],
        "not_an_image": ["text", {}],
        "empty": ["empty", {}],
        "damaged": ["half", {}],
        "not_found": ["nowhere", {}],
        "forbidden": ["s3://somebody-elses/good", {}],
        "bad_options": ["good", {"top_k": 0}],
    }

    outcomes = workers.ran(CALLER, json.dumps(list(asked.values())))

    assert list(asked) == [code for _, code, _ in outcomes]
    eventually(workers.is_empty)
    assert (0, 0) == workers.depth(is_dead=True)
    for id, code, said in outcomes[1:]:
        record = workers.store.get(id)
        assert ("failed", 1, ()) == (record.status, record.receives, record.labels)
        assert record.error is not None
        assert (code, said) == (record.error.code, f"{record.error.code}: {record.error.message}")


def test_whatever_a_caller_names_gets_a_record_that_can_be_read(workers: Workers) -> None:
    workers.cloud.input.put("good", picture(1), content_type="image/jpeg")
    workers.cloud.client("s3").put_object(Bucket=workers.cloud.settings.input_bucket, Key="a//b", Body=picture(2))
    own = workers.cloud.settings.input_bucket
    odd_keys = ["k" * 1025, "ü" * 600, "a\0b", "\ud800", " ", "../up", ".", f"s3://{own}", f"s3://{own}/"]
    asked = [
        *[("not_found", [key, {}]) for key in odd_keys],
        *[("forbidden", [key, {}]) for key in ("s3://", "s3:///key")],
        # obstore cannot spell it.
        ("ok", ["a//b", {}]),
        *[("bad_options", [no_key, {}]) for no_key in ("", None, 5, ["good"])],
        ("bad_options", ["good", {"\ud800": 1}]),
        # As Python names a file whose name is no UTF-8.
        ("ok", ["good", {"name": "b\udcff.jpg"}]),
        ("ok", ["good", {"name": 5}]),
    ]

    outcomes = workers.ran(CALLER, json.dumps([call for _, call in asked]))

    assert [code for code, _ in asked] == [code for _, code, _ in outcomes]
    assert ["b?.jpg", "5"] == [workers.store.get(id).image.name for id, _, _ in outcomes[-2:]]
    eventually(workers.is_empty)
    ids = [id for id, _, _ in outcomes]
    assert sorted(ids) == sorted(news_of(workers.cloud, ids))


def test_an_image_is_answered_whatever_id_its_caller_chose(workers: Workers) -> None:
    workers.cloud.input.put("good", picture(1), content_type="image/jpeg")
    program = (
        "import json, sys; from irs.tasks import recognize\n"
        "sent = [recognize.apply_async(['good'], task_id=id) for id in json.loads(sys.argv[1])]\n"
        "print(json.dumps([one.get(timeout=30)['status'] for one in sent]))"
    )
    odd_ids = [f"\ud800 {records.new_job_id()}", f"{records.new_job_id()}.{'9' * 5000}", "ü" * 2000]

    assert ["ok"] * len(odd_ids) == workers.ran(program, json.dumps(odd_ids))
    eventually(workers.is_empty)


def test_a_call_that_is_none_is_told_so_at_once(workers: Workers) -> None:
    program = (
        "import json, sys; from irs.app import app\n"
        "calls = json.loads(sys.argv[1])\n"
        "queue = sys.argv[2]\n"
        "sent = [app.send_task('irs.recognize', *call, queue=queue) for call in calls]\n"
        "print(json.dumps([str(one.get(timeout=30, propagate=False)) for one in sent]))"
    )
    calls = [[[], {}], [["good", "cat.jpg"], {}], [["good"], {"image": "good"}], [["good"], {"self": 1}]]

    said = workers.ran(program, json.dumps(calls), workers.cloud.settings.requests_queue)

    assert all(one.startswith("bad_options: ") for one in said), said
    assert "missing 1 required positional argument: 'image'" in said[0]
    assert "multiple values for argument 'self'" in said[3]
    eventually(workers.is_empty)
    assert (0, 0) == workers.depth(is_dead=True)


def test_a_damaged_picture_spoils_none_of_its_batch(workers: Workers) -> None:
    whole = [picture(seed) for seed in range(20, 27)]

    found = workers.answer(*whole[:4], picture(27)[:400], *whole[4:])

    assert ["ok"] * 4 + ["failed"] + ["ok"] * 3 == [record.status for record in found]
    assert found[4].error is not None
    assert "damaged" == found[4].error.code
    eventually(workers.is_empty)


def test_a_second_delivery_of_an_answered_image_leaves_its_record_and_tells_nobody(workers: Workers) -> None:
    job = records.new_job_id()
    task = workers.client.upload(job, 0, "a.jpg", picture(1))
    workers.send([task])
    (first,) = workers.answered([f"{job}.000000"])
    stored = workers.cloud.output.get(f"jobs/{job}/000000.json")
    eventually(workers.is_empty)

    workers.client.send([task], Options(top_k=1))
    # Behind it, so that its news would come before.
    (other,) = workers.answer(picture(2))

    eventually(workers.is_empty)
    assert stored == workers.cloud.output.get(f"jobs/{job}/000000.json")
    assert 5 == len(first.labels)
    ids = [first.task_id, other.task_id]
    assert ids == news_of(workers.cloud, ids)
