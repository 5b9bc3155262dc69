"""Odd, broken and hostile files: each is decoded, or refused with an error of ours. Never anything else."""

from __future__ import annotations

import csv
import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irs.errors import Damaged, RequestError
from irs.imaging import Limits, Preprocess, decode, fit, read_header, thumbnail

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
MAKER = SHARED / "make_odd_images.py"
LIMITS = Limits(20 * 2**20, 100_000_000)

pytestmark = pytest.mark.skipif(not MAKER.exists(), reason="the maker of odd images is not beside this checkout")

NAMES = [
    *("cmyk.jpg", "grey.jpg", "progressive.jpg", "grey16.png", "rgb16.png", "palette_transparent.png", "rgba.png"),
    *("grey_alpha.png", "one_bit.png", "plain.bmp", "plain.webp", "float.tif", "plain.avif", "plain.jp2", "animated.gif"),
    *("animated.webp", "animated.png", "pages.tif", *(f"orientation_{n}.jpg" for n in range(1, 9))),
    *("orientation_invalid.jpg", "1x1.png", "1x1.jpg", "1x5000.png", "5000x1.jpg", "4000x3000.jpg", "truncated_half.jpg"),
    *("truncated_header.jpg", "truncated.png", "empty.jpg", "text.jpg", "html.jpg", "vector.svg", "script.svg"),
    *("garbage_tail.jpg", "noise.jpg", "damaged_scan.jpg", "bad_crc.png", "png_named.jpg", "header_only.png"),
    *("zero_width.png", "bomb_30000.png", "bomb_soft.png", "bomb_declared.png", "bomb_declared.jpg", "bomb_declared.gif"),
    "bomb_text_chunk.png",
]
CODES = {
    "truncated_header.jpg": "damaged",
    "empty.jpg": "empty",
    "text.jpg": "not_an_image",
    "html.jpg": "not_an_image",
    "vector.svg": "unsupported_format",
    "script.svg": "unsupported_format",
    "noise.jpg": "damaged",
    "bad_crc.png": "damaged",
    "header_only.png": "damaged",
    "zero_width.png": "damaged",
    "bomb_30000.png": "too_many_pixels",
    "bomb_soft.png": "too_many_pixels",
    "bomb_declared.png": "too_many_pixels",
    "bomb_declared.jpg": "too_many_pixels",
    "bomb_declared.gif": "too_many_pixels",
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, bytes]]:
    """Name to what is expected and the bytes."""
    spec: Any = importlib.util.spec_from_file_location("make_odd_images", MAKER)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    folder = tmp_path_factory.mktemp("odd")
    maker.main([str(folder)])
    rows = csv.DictReader((folder / "manifest.csv").read_text().splitlines())
    return {row["file"]: (row["expect"], (folder / row["file"]).read_bytes()) for row in rows}


def recognisable(body: bytes) -> np.ndarray:
    """Do all that a worker does to a picture before the model."""
    read_header(body, LIMITS)
    image = decode(body, LIMITS, side_px=256)
    assert thumbnail(image, 320)
    return fit(image, Preprocess())


def test_every_odd_file_has_a_test(odd: dict[str, tuple[str, bytes]]) -> None:
    assert set(NAMES) == set(odd)
    assert set(CODES) == {name for name, (expect, _) in odd.items() if expect == "reject"}


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_file_is_decoded_or_refused_in_one_sentence(name: str, odd: dict[str, tuple[str, bytes]]) -> None:
    expect, body = odd[name]

    if expect == "ok":
        assert (224, 224, 3) == recognisable(body).shape
    elif expect == "warn":
        with suppress(Damaged):
            assert (224, 224, 3) == recognisable(body).shape
    else:
        with pytest.raises(RequestError) as caught:
            recognisable(body)
        assert CODES[name] == caught.value.code
        assert "script" not in str(caught.value)


@pytest.mark.parametrize("number", range(2, 9))
def test_each_orientation_comes_out_upright(number: int, odd: dict[str, tuple[str, bytes]]) -> None:
    upright, turned = (np.asarray(decode(odd[f"orientation_{n}.jpg"][1], LIMITS), dtype=np.int16) for n in (1, number))

    assert upright.shape == turned.shape
    assert np.abs(upright - turned).mean() < 0.5


@pytest.mark.parametrize(("name", "apart"), [("grey16.png", 1), ("float.tif", 1), ("grey.jpg", 2)])
def test_samples_of_16_bits_or_float_are_scaled_and_not_clipped(
    name: str, apart: float, odd: dict[str, tuple[str, bytes]]
) -> None:
    plain = np.asarray(decode(odd["plain.bmp"][1], LIMITS).convert("L"), dtype=np.int16)

    told = np.asarray(decode(odd[name][1], LIMITS), dtype=np.int16)[..., 0]

    assert np.abs(plain - told).mean() < apart


def test_inverted_cmyk_keeps_its_colours(odd: dict[str, tuple[str, bytes]]) -> None:
    plain, cmyk = (np.asarray(decode(odd[name][1], LIMITS), dtype=np.int16) for name in ("plain.bmp", "cmyk.jpg"))

    assert np.abs(plain - cmyk).mean() < 5
