"""docs/aws.md tells the rights that the code grants."""

from __future__ import annotations

from pathlib import Path

from irs.provision.rights import Place, table
from irs.settings import read_settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "aws.md"


def test_the_page_about_aws_tells_the_rights_of_each_role() -> None:
    place = Place(read_settings(), "123456789012", worker_role="irs-worker-role")

    told = PAGE.read_text().partition("<!-- rights -->\n")[2].partition("<!-- /rights -->")[0]

    assert table(place) + "\n" == told
