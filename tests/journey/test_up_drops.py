"""The drop box of `irs up`: a file put there by another tool has its result, without anything else to start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

UP = [sys.executable, "-m", "irs.cli", "up", "--model", "shufflenet_v2_x0_5@random", "--workers", "1"]
PROGRAM = """
import io, json, time, boto3
from PIL import Image
stream = io.BytesIO()
Image.new("RGB", (64, 64), "navy").save(stream, "PNG")
s3 = boto3.client("s3")
s3.put_object(Bucket="irs-input", Key="drop/sub/blue.png", Body=stream.getvalue())
end = time.monotonic() + 60
while time.monotonic() < end:
    found = s3.list_objects_v2(Bucket="irs-output", Prefix="results/").get("Contents", [])
    if found:
        print(s3.get_object(Bucket="irs-output", Key=found[0]["Key"])["Body"].read().decode())
        break
    time.sleep(0.2)
"""


@pytest.mark.slow
def test_a_file_dropped_by_another_tool_has_its_result_under_irs_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [*UP, "--home", str(tmp_path), "--", sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    record = json.loads(done.stdout)
    assert ("ok", "sub/blue.png") == (record["status"], record["image"]["name"])
