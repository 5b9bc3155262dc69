"""docs/aws.md tells the rights that the code grants, the parameters that the template has, and what its parts cost."""

from __future__ import annotations

import re
from pathlib import Path

from formation import read_template

from irs.monitoring.prices import DATE, LARGE_PER_HOUR, LIST, REGION
from irs.provision.rights import Place, table
from irs.settings import read_settings

HOURS = 730
MINUTES = HOURS * 60
#: Of AWS' list of the same date, and of nothing else here: a public address an hour, a GiB of gp3 and a secret a month.
ADDRESS, GIB, SECRET = 0.005, 0.08, 0.40
#: Requests a minute of a stack without work: the scaler's, counted at its /metrics; those of long polls and looks.
SCALER_S3, SCALER_SQS, OTHERS_SQS, OTHERS_S3 = 25, 12, 9, 0.4
PAGE = Path(__file__).resolve().parents[2] / "docs" / "aws.md"


def test_the_page_about_aws_tells_the_rights_of_each_role() -> None:
    place = Place(read_settings(), "123456789012", worker_role="irs-worker-role")

    told = PAGE.read_text().partition("<!-- rights -->\n")[2].partition("<!-- /rights -->")[0]

    assert table(place) + "\n" == told


def test_the_page_about_aws_adds_up_what_a_stack_costs_that_stands_still() -> None:
    """t3a.small is a quarter of t3a.large."""
    text = PAGE.read_text()
    rows = re.findall(
        r"^\| (.*) \| ([\d.]+) \|$", text.partition("<!-- cost of standing still -->")[2].partition("<!-- /")[0], re.MULTILINE
    )
    told = [float(dollars) for _, dollars in rows]

    parts = [
        LARGE_PER_HOUR["t3a"] / 4 * HOURS,
        ADDRESS * HOURS,
        GIB * 16,
        SECRET * 2,
        MINUTES * (SCALER_S3 * LIST.s3_write + SCALER_SQS * LIST.sqs_request),
        MINUTES * (OTHERS_S3 * LIST.s3_write + OTHERS_SQS * LIST.sqs_request),
    ]
    assert [*(round(part, 2) for part in parts), round(sum(round(part, 2) for part in parts), 2)] == told
    assert f"List prices of {REGION}, {DATE}," in text
    assert f"A worker is {LARGE_PER_HOUR['c7i']} an hour for c7i.large" in text


def test_the_page_about_aws_deploys_with_parameters_that_the_template_has() -> None:
    parameters = read_template()["Parameters"]
    (line,) = re.findall(r"^aws cloudformation deploy .*$", PAGE.read_text(), re.MULTILINE)
    given = dict(one.split("=", 1) for one in line.partition(" --parameter-overrides ")[2].split())

    assert given.keys() <= parameters.keys()
    assert {name for name, told in parameters.items() if "Default" not in told} <= given.keys()
    assert not [name for name, value in given.items() if not re.fullmatch(parameters[name].get("AllowedPattern", ".*"), value)]
