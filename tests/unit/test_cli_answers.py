"""Records as lines: JSON, CSV, tables."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irs.cli import answers
from irs.cli.tables import aligned, printable
from irs.records import Fault, ImageFacts, Label, ModelFacts, Record

DOG = Label(label="dog", wnid="n02084071", confidence=0.97)
LABELS = (
    Label(label="golden retriever", wnid="n02099601", confidence=0.41234),
    Label(label="tennis ball", wnid=None, confidence=0.38),
)


def record(name: str | None = "Bär.jpg", **values: object) -> Record:
    facts = ImageFacts(name=name, key="jobs/a/000000/B_r.jpg", sha256="ab" * 32)
    return Record(**{"task_id": "a", "status": "ok", "image": facts, "model": ModelFacts(name="m", digest="d"), **values})


def failed(code: str, message: str) -> Record:
    return record(status="failed", error=Fault(code=code, message=message))


def parsed(one: Record, top_k: int) -> dict[str, str]:
    lines = "\n".join((answers.csv_titles(top_k), answers.csv_line(one, top_k)))
    return next(csv.DictReader(io.StringIO(lines)))


def test_csv_has_the_columns_of_the_page() -> None:
    expected = "file,label,confidence,sure,hedged,label_2,confidence_2,label_3,confidence_3,status,error,model,sha256"

    assert expected == answers.csv_titles(3)


def test_csv_holds_what_the_record_says() -> None:
    row = parsed(record(labels=LABELS, hedged=DOG), 3)

    assert {
        "file": "Bär.jpg",
        "label": "golden retriever",
        "confidence": "0.4123",
        "sure": "false",
        "hedged": "dog",
        "label_2": "tennis ball",
        "confidence_2": "0.3800",
        "label_3": "",
        "confidence_3": "",
        "status": "ok",
        "error": "",
        "model": "m",
        "sha256": "ab" * 32,
    } == row


def test_csv_of_a_failed_image_tells_the_code_and_no_label() -> None:
    row = parsed(failed("empty", "no bytes"), 1)

    assert ("failed", "empty", "", "", "") == (row["status"], row["error"], row["label"], row["confidence"], row["sure"])


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_csv_gives_a_spreadsheet_no_formula(start: str) -> None:
    assert f"'{start}cmd|' /C calc'!A0" == parsed(record(name=f"{start}cmd|' /C calc'!A0"), 1)["file"]


@given(name=st.text(min_size=1), labels=st.lists(st.text(), max_size=4), top_k=st.integers(1, 6))
def test_csv_keeps_any_name_and_label_in_its_cell(name: str, labels: list[str], top_k: int) -> None:
    one = record(name=name, labels=tuple(Label(label=text, wnid=None, confidence=0.2) for text in labels))

    titles = next(csv.reader([answers.csv_titles(top_k)]))
    cells = next(csv.reader(io.StringIO(answers.csv_line(one, top_k), newline="")))

    assert len(titles) == len(cells)
    assert name == cells[0] or f"'{name}" == cells[0]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in cells)


def test_a_json_line_is_the_record() -> None:
    one = record(labels=LABELS)

    assert one.to_json() | {"labels": [label.to_json() for label in LABELS]} == json.loads(answers.json_line(one))
    assert "\n" not in answers.json_line(one)


@pytest.mark.parametrize(
    ("one", "row"),
    [
        (record(labels=LABELS, sure=True), ("Bär.jpg", "golden retriever", "41 %", "")),
        (record(labels=LABELS), ("Bär.jpg", "golden retriever", "41 %", "not sure")),
        (record(labels=LABELS, hedged=LABELS[0]), ("Bär.jpg", "golden retriever", "41 %", "not sure")),
        (record(labels=LABELS, hedged=DOG), ("Bär.jpg", "golden retriever", "41 %", "not sure, surely dog 97 %")),
        (record(), ("Bär.jpg", "", "", "no label is wanted and likely enough")),
        (record(name=None, labels=LABELS, sure=True), ("jobs/a/000000/B_r.jpg", "golden retriever", "41 %", "")),
        (failed("empty", "The file is empty."), ("Bär.jpg", "", "", "empty: The file is empty.")),
    ],
    ids=["sure", "unsure", "hedged to itself", "hedged", "no label", "no name", "failed"],
)
def test_a_table_row_tells_a_person_what_to_think_of_the_answer(one: Record, row: tuple[str, ...]) -> None:
    assert row == answers.table_row(one)


@pytest.mark.parametrize(
    ("confidence", "text"), [(1.0, ">99 %"), (0.9951, ">99 %"), (0.995, "100 %"), (0.5, "50 %"), (0.01, "1 %"), (0.0, "<1 %")]
)
def test_a_percentage_is_rounded_and_never_certain(confidence: float, text: str) -> None:
    assert text == answers.percent(confidence)


@given(st.lists(st.tuples(st.text("ab c"), st.text("ab c")), max_size=5))
def test_aligned_columns_begin_at_one_place(rows: list[tuple[str, str]]) -> None:
    lines = aligned(("one", "two"), rows)

    start = lines[0].index("two")
    assert [second.rstrip() for _, second in rows] == [line[start:] for line in lines[1:]]


@given(st.text())
def test_nothing_printable_steers_a_terminal(text: str) -> None:
    assert printable(text).isprintable()


def test_a_name_that_is_no_utf_8_can_be_printed() -> None:
    assert "a\\udcff.jpg" == printable(b"a\xff.jpg".decode(errors="surrogateescape"))
