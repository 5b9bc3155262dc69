"""Instances of the embedded cloud: what they get, how they end, who may end them, and what outlives a restart."""

from __future__ import annotations

import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.utils import InstanceMetadataRegionFetcher
from contract import refusal
from ec2bench import IMAGE, Bench, make_clients, on_embedded
from leftovers import processes_of
from rawhttp import ask, authorization
from waiting import eventually
from workers import picture, workers_on_a_stack

from irs.errors import SetupError
from irs.local import EmbeddedCloud
from irs.local.ec2.control import Control
from irs.local.ec2.ledger import Ledger
from irs.local.ec2.worker import make_template

WITHIN_S = 30.0
SLEEPS = "#!/bin/sh\nexec sleep 300\n"
Start = Callable[..., EmbeddedCloud]


@pytest.fixture
def bench(embedded: EmbeddedCloud, ec2: Control, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for variable, value in embedded.environment.items():
        monkeypatch.setenv(variable, value)
    made = on_embedded(ec2, embedded.endpoint)
    yield made
    made.faults()
    made.end_all()


def bench_of(running: EmbeddedCloud) -> Bench:
    """A bench on an embedded cloud of the test's own."""
    made = on_embedded(Control(running.endpoint, running.environment["AWS_ACCESS_KEY_ID"]), running.endpoint)
    # Nothing goes wrong, and there is room for more than on this machine.
    made.faults()
    return made


def up(bench: Bench, script: str = SLEEPS, **asked: Any) -> str:
    """Run an instance; return its id once its process is there."""
    (id,) = bench.ids(UserData=script, **asked)
    eventually(lambda: processes_of(id), within_s=WITHIN_S)
    return id


def said(bench: Bench, id: str) -> str:
    return str(bench.client.get_console_output(InstanceId=id)["Output"])


# What an instance gets


def test_an_instance_has_what_leads_it_to_its_cloud_and_nothing_of_another(bench: Bench, embedded: EmbeddedCloud) -> None:
    (id,) = bench.ids(UserData="#!/bin/sh\nenv\ncommand -v irs\necho all said\nexec sleep 300\n")

    lines = eventually(lambda: "all said" in said(bench, id) and said(bench, id), within_s=WITHIN_S).splitlines()

    told = dict(line.split("=", 1) for line in lines if "=" in line)
    wanted = {name: embedded.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")}
    wanted |= {"AWS_ENDPOINT_URL": embedded.endpoint, "IRS_ENDPOINT_URL": embedded.endpoint, "IRS_INSTANCE_ID": id}
    wanted |= {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{embedded.endpoint}/_irs/imds/{id}/", "OMP_NUM_THREADS": "1"}
    assert wanted.items() <= told.items()
    assert not {"AWS_EC2_METADATA_DISABLED", "AWS_PROFILE", "MINISTACK_HOST", "STATE_DIR", "SERVICES"} & told.keys()
    assert lines[-2].endswith("/irs")


def metadata(embedded: EmbeddedCloud, id: str, path: str, *, token_of: str | None = None) -> tuple[int, str]:
    """Ask the metadata of an instance, with the token of one."""
    base = f"{embedded.endpoint}/_irs/imds/"
    headers = {}
    if token_of is not None:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        asked = urllib.request.Request(f"{base}{token_of}/latest/api/token", headers=ttl, method="PUT")
        with urllib.request.urlopen(asked, timeout=10) as answer:
            headers["X-aws-ec2-metadata-token"] = answer.read().decode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{base}{id}/{path}", headers=headers), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_botocore_finds_the_region_of_an_instance_by_its_metadata(bench: Bench, embedded: EmbeddedCloud) -> None:
    (id,) = bench.ids()
    endpoints = [f"{embedded.endpoint}/_irs/imds/{id}{end}" for end in ("", "/")]

    # Tests have metadata switched off in their own environment.
    found = [
        InstanceMetadataRegionFetcher(config={"ec2_metadata_service_endpoint": endpoint}, env={}).retrieve_region()
        for endpoint in endpoints
    ]

    assert ["us-east-1", "us-east-1"] == found


def test_metadata_are_told_with_a_token_of_the_instance_itself_alone(bench: Bench, embedded: EmbeddedCloud) -> None:
    id, other = bench.ids()[0], bench.ids()[0]
    path = "latest/meta-data/instance-id"

    answers = [metadata(embedded, id, path, token_of=token_of) for token_of in (id, other, None)]

    assert [(200, id), (401, ""), (401, "")] == answers
    assert (200, bench.fleet) == metadata(embedded, id, "latest/meta-data/tags/instance/irs:fleet", token_of=id)
    assert (404, "") == metadata(embedded, id, "latest/meta-data/spot/instance-action", token_of=id)
    document = json.loads(metadata(embedded, id, "latest/dynamic/instance-identity/document", token_of=id)[1])
    assert (id, "us-east-1") == (document["instanceId"], document["region"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"X_aws_ec2_metadata_token_ttl_seconds": "21601"}, 400),
        ({}, 400),
        ({"X_aws_ec2_metadata_token_ttl_seconds": "60", "X_Forwarded_For": "10.0.0.1"}, 403),
    ],
)
def test_a_token_is_refused_to_pages_proxies_and_for_too_long(
    bench: Bench, embedded: EmbeddedCloud, headers: dict[str, str], status: int
) -> None:
    (id,) = bench.ids()

    assert status == ask(embedded, "PUT", f"/_irs/imds/{id}/latest/api/token", **headers)[0]


# How an instance ends


def test_a_terminated_instance_leaves_nothing_behind(bench: Bench) -> None:
    id = up(bench)

    bench.client.terminate_instances(InstanceIds=[id])

    bench.until_state(id, "terminated")
    assert [] == processes_of(id)


def test_an_instance_whose_process_ends_is_terminated_as_its_shutdown_behaviour_says(bench: Bench) -> None:
    (id,) = bench.ids(UserData="#!/bin/sh\nexit 7\n", InstanceInitiatedShutdownBehavior="terminate")

    ended = bench.until_state(id, "terminated")

    assert "Client.InstanceInitiatedShutdown" == ended["StateReason"]["Code"]


def test_a_stopped_instance_starts_with_the_same_user_data_under_the_same_id(bench: Bench) -> None:
    id = up(bench, "#!/bin/sh\necho up\nexec sleep 300\n")
    eventually(lambda: said(bench, id) == "up\n", within_s=WITHIN_S)
    bench.client.stop_instances(InstanceIds=[id])
    bench.until_state(id, "stopped")
    assert [] == processes_of(id)

    bench.client.start_instances(InstanceIds=[id])

    eventually(lambda: said(bench, id) == "up\nup\n", within_s=WITHIN_S)


def test_a_spot_instance_reads_its_notice_and_is_taken_away(bench: Bench, embedded: EmbeddedCloud, ec2: Control) -> None:
    id = up(bench, InstanceMarketOptions={"MarketType": "spot"})

    ec2.interrupt(id, after_s=1.5)
    status, notice = metadata(embedded, id, "latest/meta-data/spot/instance-action", token_of=id)
    ended = bench.until_state(id, "terminated")

    assert (200, "terminate") == (status, json.loads(notice)["action"])
    assert "Server.SpotInstanceTermination" == ended["StateReason"]["Code"]
    assert [] == processes_of(id)


def test_twenty_calls_at_once_with_one_token_launch_once(bench: Bench) -> None:
    found: list[str] = []
    asked = {"UserData": SLEEPS, "ClientToken": bench.fleet}
    threads = [threading.Thread(target=lambda: found.extend(bench.ids(**asked))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert (20, 1) == (len(found), len(set(found)))
    assert 1 == len(bench.mine())


# Over the end of the cloud


def test_a_killed_cloud_takes_its_instances_along_and_the_next_says_so(start: Start, tmp_path: Path) -> None:
    first = start()
    bench = bench_of(first)
    running, stopped = up(bench), up(bench, "#!/bin/sh\necho up\nexec sleep 300\n")
    eventually(lambda: said(bench, stopped) == "up\n", within_s=WITHIN_S)
    bench.client.stop_instances(InstanceIds=[stopped])
    bench.until_state(stopped, "stopped")
    eventually(lambda: '"stopped"' in (tmp_path / "home" / "ec2.json").read_text(), within_s=WITHIN_S)

    os.kill(first.pid, signal.SIGKILL)

    eventually(lambda: not processes_of(running), within_s=WITHIN_S)
    first.stop()
    again = bench_of(start())
    ended = again.one(running)
    assert ("terminated", "Server.InternalError") == (ended["State"]["Name"], ended["StateReason"]["Code"])
    assert "stopped" == again.state(stopped)
    again.client.start_instances(InstanceIds=[stopped])
    eventually(lambda: said(again, stopped) == "up\nup\n", within_s=WITHIN_S)


def test_a_cloud_that_is_stopped_lets_its_instances_finish(start: Start, tmp_path: Path) -> None:
    running = start()
    id = up(bench_of(running), "#!/bin/sh\ntrap 'echo drained; exit' TERM\necho up\nwhile :; do sleep 0.05; done\n")
    log = tmp_path / "home" / "instances" / f"{id}.log"
    eventually(lambda: log.read_text() == "up\n", within_s=WITHIN_S)

    running.stop()

    assert 0 == running.poll()
    assert "drained" in log.read_text()
    assert [] == processes_of(id)


def test_a_launch_of_before_a_restart_keeps_its_token(start: Start) -> None:
    first = start()
    bench = bench_of(first)
    (id,) = bench.ids(ClientToken="once")
    first.stop()

    again = bench_of(start())
    again.fleet = bench.fleet

    assert "terminated" == again.state(id)
    assert "IdempotentInstanceTerminated" == refusal(lambda: again.run(ClientToken="once"))


def test_a_cloud_is_good_for_as_many_instances_as_its_machine(start: Start) -> None:
    running = start()
    one, _ = make_clients(running.endpoint)
    most = max(1, (os.cpu_count() or 1) // 2)

    got = one.run_instances(ImageId=IMAGE, InstanceType="c7i.large", MinCount=1, MaxCount=most + 5)["Instances"]

    assert most == len(got)
    assert "VcpuLimitExceeded" == refusal(lambda: one.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1))


# Who may


def test_what_goes_wrong_is_for_who_has_the_key_of_the_run(embedded: EmbeddedCloud, ec2: Control) -> None:
    refused = [ask(embedded, "PUT", "/_irs/ec2/faults")[0], ask(embedded, "GET", "/_irs/ec2/faults", Origin="http://a.b")[0]]

    assert [403, 403] == refused
    assert 200 == ask(embedded, "GET", "/_irs/ec2/faults", Authorization=authorization(embedded))[0]
    assert 1000 == ec2.faults()["quota"]


@pytest.mark.parametrize("after_s", [-1.0, 1e9, float("nan"), float("inf")])
def test_a_notice_of_no_sensible_time_is_refused_in_one_sentence(bench: Bench, ec2: Control, after_s: float) -> None:
    (id,) = bench.ids(InstanceMarketOptions={"MarketType": "spot"})

    with pytest.raises(SetupError, match="cannot be given: say 0 to 86400 seconds"):
        ec2.interrupt(id, after_s=after_s)


POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["ec2:RunInstances", "ec2:CreateTags", "ec2:DescribeInstances"], "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": ["ec2:TerminateInstances", "ec2:StartInstances"],
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:ResourceTag/irs:fleet": "ours"}},
        },
    ],
}


def test_a_role_may_end_the_instances_of_its_own_fleet_alone(start: Start) -> None:
    running = start(checks_rights=True)
    root = bench_of(running)
    iam = boto3.Session().client("iam", endpoint_url=running.endpoint)
    iam.create_user(UserName="scaler")
    key = iam.create_access_key(UserName="scaler")["AccessKey"]
    scaler = boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name="us-east-1").client(
        "ec2", endpoint_url=running.endpoint, config=Config(retries={"total_max_attempts": 1})
    )
    launch = {"ImageId": IMAGE, "MinCount": 1, "MaxCount": 1}
    before = refusal(lambda: scaler.run_instances(**launch))
    iam.put_user_policy(UserName="scaler", PolicyName="fleet", PolicyDocument=json.dumps(POLICY))
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "irs:fleet", "Value": "ours"}]}]

    ours = scaler.run_instances(**launch, TagSpecifications=tags)["Instances"][0]["InstanceId"]
    (foreign,) = root.ids()

    assert "UnauthorizedOperation" == before
    assert "UnauthorizedOperation" == refusal(lambda: scaler.stop_instances(InstanceIds=[ours]))
    assert "UnauthorizedOperation" == refusal(lambda: scaler.terminate_instances(InstanceIds=[foreign]))
    assert scaler.terminate_instances(InstanceIds=[ours])["TerminatingInstances"]
    assert 403 == ask(running, "PUT", "/_irs/ec2/faults", Authorization=f"X Credential={key['AccessKeyId']}/")[0]


# A worker


def test_an_instance_is_a_worker_that_answers_images_and_is_gone_when_terminated(
    embedded: EmbeddedCloud, ec2: Control, tmp_path: Path
) -> None:
    with workers_on_a_stack(embedded, tmp_path) as stack:
        client = stack.cloud.client("ec2")
        template = make_template(stack.cloud, {**stack.environment, "IRS_MODEL": stack.model, "IRS_WAIT_SECONDS": "2"})
        assert template == make_template(stack.cloud, {**stack.environment, "IRS_MODEL": stack.model, "IRS_WAIT_SECONDS": "2"})

        asked = {"LaunchTemplate": {"LaunchTemplateName": template}, "MinCount": 1, "MaxCount": 1, "ClientToken": "first"}
        id = client.run_instances(**asked)["Instances"][0]["InstanceId"]
        try:
            (record,) = stack.answered(stack.sent(picture(1)), within_s=90)

            assert ("ok", f"irs@{id}") == (record.status, record.worker)
            shown = client.describe_instances(Filters=[{"Name": "tag:irs:fleet", "Values": [stack.cloud.settings.stack]}])
            assert [id] == [one["InstanceId"] for group in shown["Reservations"] for one in group["Instances"]]
        finally:
            client.terminate_instances(InstanceIds=[id])
        eventually(lambda: not processes_of(id), within_s=60)
        eventually(stack.is_empty, within_s=WITHIN_S)


@pytest.mark.slow
def test_what_an_interrupted_spot_worker_holds_is_done_by_another(embedded: EmbeddedCloud, ec2: Control, tmp_path: Path) -> None:
    with workers_on_a_stack(embedded, tmp_path) as stack:
        client, settings = stack.cloud.client("ec2"), {"IRS_MODEL": stack.model, "IRS_WAIT_SECONDS": "2", "IRS_SLOTS": "8"}
        template = {"LaunchTemplateName": make_template(stack.cloud, {**stack.environment, **settings})}

        def run(market: dict[str, Any]) -> str:
            answer = client.run_instances(LaunchTemplate=template, MinCount=1, MaxCount=1, **market)
            return str(answer["Instances"][0]["InstanceId"])

        spot = run({"InstanceMarketOptions": {"MarketType": "spot"}})
        other = ""
        try:
            stack.answered(stack.sent(picture(0)), within_s=90)
            ids = stack.sent(*(picture(seed, size=(640, 480)) for seed in range(1, 501)))
            ec2.interrupt(spot, after_s=0)
            other = run({})
            records = stack.answered(ids, within_s=120)
            (ended,) = client.describe_instances(InstanceIds=[spot])["Reservations"][0]["Instances"]
        finally:
            client.terminate_instances(InstanceIds=[id for id in (spot, other) if id])

        assert {"ok"} == {record.status for record in records}
        assert f"irs@{other}" in {record.worker for record in records}
        assert max(record.receives for record in records) <= 2
        assert "Server.SpotInstanceTermination" == ended["StateReason"]["Code"]
        eventually(lambda: not processes_of(spot) and not processes_of(other), within_s=60)


# Faults by the command line


def irs_chaos(home: Path, *arguments: str) -> tuple[int, str]:
    from typer.testing import CliRunner

    from irs.cli import app

    done = CliRunner().invoke(app, ["chaos", arguments[0], *arguments[1:], "--home", str(home)])
    return done.exit_code, str(done.exception) if done.exception else done.output


def test_irs_chaos_kills_freezes_interrupts_and_makes_capacity_scarce(start: Start, tmp_path: Path) -> None:
    bench, home = bench_of(start()), tmp_path / "home"
    killed, frozen, spot = up(bench), up(bench), up(bench, InstanceMarketOptions={"MarketType": "spot"})
    eventually(lambda: {killed, frozen, spot} == set(Ledger(home).read()), within_s=WITHIN_S)

    done = [
        irs_chaos(home, "kill", killed),
        irs_chaos(home, "freeze", frozen),
        irs_chaos(home, "spot", spot, "--after", "0"),
        irs_chaos(home, "slow-boot", "60"),
        irs_chaos(home, "capacity", "m7i.large/*/*=0"),
    ]

    assert [0] * 5 == [code for code, _ in done], done
    bench.until_state(killed, "stopped")
    bench.until_state(spot, "terminated")
    (pid,) = processes_of(frozen)
    assert "T" == Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert "InsufficientInstanceCapacity" == refusal(lambda: bench.run(InstanceType="m7i.large"))
    (slow,) = bench.ids()
    assert "pending" == bench.state(slow)
    assert (0, 0) == (irs_chaos(home, "off")[0], irs_chaos(home, "thaw", frozen)[0])
    bench.until_state(slow, "running")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("kill", "i-0"), "i-0 does not run as an instance of"),
        (("spot", "i-0"), "No embedded cloud runs on"),
        (("capacity", "c7i.large=3"), "c7i.large=3 is no capacity"),
    ],
)
def test_irs_chaos_says_in_one_sentence_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    code, told = irs_chaos(tmp_path, *arguments)

    assert (True, True) == (code != 0, told.startswith(sentence)), told
