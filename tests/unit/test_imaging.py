"""Header, decoding, fitting and thumbnails."""

from __future__ import annotations

import base64
import io
import random
import struct
import threading

import numpy as np
import pillow_heif
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from irs.errors import (
    Damaged,
    EmptyImage,
    IrsError,
    NotAnImage,
    RequestError,
    TooLarge,
    TooManyPixels,
    UnsupportedFormat,
)
from irs.imaging import Limits, Preprocess, decode, fit, read_header, thumbnail

LIMITS = Limits(20 * 2**20, 100_000_000)


def scene(width: int = 320, height: int = 240, *, noise: int = 0) -> Image.Image:
    bands = [Image.linear_gradient("L").rotate(90), Image.linear_gradient("L"), Image.radial_gradient("L")]
    image = Image.merge("RGB", [band.resize((width, height)) for band in bands])
    if noise:
        rough = np.random.default_rng(5).integers(-noise, noise + 1, (height, width, 3))
        image = Image.fromarray((np.asarray(image) + rough).clip(0, 255).astype(np.uint8))
    return image


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF"])
def test_the_header_names_format_and_size_by_content(format: str) -> None:
    header = read_header(encoded(scene(), format), LIMITS)

    assert (format, 320, 240, False) == (header.format, header.width, header.height, header.is_large)


def test_heic_is_read_where_its_reader_is_installed() -> None:
    stream = io.BytesIO()
    pillow_heif.from_pillow(scene()).save(stream, quality=90)

    assert "HEIF" == read_header(stream.getvalue(), LIMITS).format
    assert np.abs(pixels(decode(stream.getvalue(), LIMITS)) - pixels(scene())).mean() < 3


def test_heic_is_refused_with_advice_where_its_reader_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)

    with pytest.raises(UnsupportedFormat, match=r"irs\[heic\].*save the picture as JPEG"):
        read_header(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", LIMITS)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\xff\x0a\xfa", "JPEG XL"),
        (b"P6 4 4 255 ", "Netpbm"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "Video"),
        (b"RIFF\0\0\0\0AVI LIST", "Video"),
        (b"II*\0\x10\0\0\0CR\2\0", "Canon raw"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ],
)
def test_a_known_format_that_is_not_read_is_named(body: bytes, named: str) -> None:
    with pytest.raises(UnsupportedFormat, match=f"^{named} files are not read here"):
        read_header(body, LIMITS)


@pytest.mark.parametrize("body", [b"BMW is a car", b"P-value", b"\0" * 100, b"<?xml version='1.0'?><html><svg/></html>", b"\xff"])
def test_what_only_looks_like_a_picture_is_none(body: bytes) -> None:
    with pytest.raises(NotAnImage):
        read_header(body, LIMITS)


def test_limits_are_told_before_anything_is_decoded() -> None:
    body = encoded(scene(), "PNG")

    with pytest.raises(EmptyImage):
        read_header(b"", LIMITS)
    with pytest.raises(TooLarge):
        read_header(body, Limits(len(body) - 1, 100_000_000))
    with pytest.raises(TooManyPixels, match="320 x 240"):
        decode(body[:100], Limits(len(body), 320 * 240 - 1))
    assert read_header(body, Limits(len(body), 320 * 240))


def test_a_jpeg_of_thousands_of_scans_is_refused_unread() -> None:
    body = encoded(scene(), progressive=True)
    at = body.rindex(b"\xff\xda")

    with pytest.raises(Damaged, match="scans"):
        read_header(body[:at] + b"\xff\xda\0\x08\1\1\0\1\x3f\0" * 2000 + body[at:], LIMITS)


def test_only_what_decodes_at_full_size_counts_as_large() -> None:
    wide = Image.new("L", (5000, 4000))

    assert not read_header(encoded(wide), LIMITS).is_large
    assert read_header(encoded(wide, progressive=True), LIMITS).is_large
    assert read_header(encoded(wide, "PNG"), LIMITS).is_large


def test_a_jpeg_is_decoded_at_reduced_size_only_far_above_the_wanted_side() -> None:
    body = encoded(scene(4000, 3000))

    assert (1000, 750) == decode(body, LIMITS, side_px=256).size
    assert (2000, 1500) == decode(body, LIMITS, side_px=320).size
    assert (4000, 3000) == decode(body, LIMITS).size
    assert (640, 480) == decode(encoded(scene(640, 480)), LIMITS, side_px=256).size


@pytest.mark.parametrize(
    ("mode", "format"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "TIFF"), ("RGBA", "WEBP"), ("RGBA", "GIF")]
)
def test_what_is_transparent_becomes_white(mode: str, format: str) -> None:
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 0)).convert(mode)

    assert (255, 255, 255) == decode(encoded(image, format), LIMITS).getpixel((0, 0))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.float32([[0.0, 0.5, 1.0]]), [0, 128, 255]),
        (np.float32([[0.0, 100.0, 255.0]]), [0, 100, 255]),
        (np.float32([[0.0, 32767.5, 65535.0]]), [0, 128, 255]),
        (np.float32([[-1.0, 0.0, 1.0]]), [0, 128, 255]),
        (np.float32([[np.nan, np.inf, 1.0]]), [0, 0, 255]),
        (np.float32([[7e5, 0.0, 7e5]]), [255, 0, 255]),
        (np.uint16([[0, 257 * 9, 65535]]), [0, 9, 255]),
    ],
)
def test_wide_samples_fill_eight_bits_without_clipping(samples: np.ndarray, expected: list[int]) -> None:
    decoded = decode(encoded(Image.fromarray(samples), "TIFF"), LIMITS)

    assert expected == list(np.asarray(decoded)[0, :, 0])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_once_in_every_format_that_has_it(format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = scene(300, 200)

    decoded = decode(encoded(image, format, exif=exif), LIMITS)

    assert (200, 300) == decoded.size
    assert np.abs(pixels(decoded) - pixels(image.transpose(Image.Transpose.ROTATE_270))).mean() < 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 20]
)
def test_broken_exif_breaks_no_picture(exif: bytes) -> None:
    assert (320, 240) == decode(encoded(scene(), exif=exif), LIMITS).size


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(
    format=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF"]),
    seed=st.integers(0, 2**32),
    share=st.floats(0, 1),
)
def test_a_broken_file_raises_only_errors_of_ours(format: str, seed: int, share: float) -> None:
    chance = random.Random(seed)
    body = bytearray(encoded(scene(40, 30, noise=20), format))
    for _ in range(chance.randrange(8)):
        body[chance.randrange(len(body))] = chance.randrange(256)
    cut = bytes(body[: round(len(body) * (0.5 + share / 2))])

    told = None
    try:
        read_header(cut, Limits(2**20, 10_000_000))
        told = decode(cut, Limits(2**20, 10_000_000), side_px=16).mode
    except RequestError as error:
        told = error.code

    assert told in {"RGB", "damaged", "not_an_image", "unsupported_format", "too_many_pixels"}


def test_pictures_are_decoded_in_several_threads_at_once() -> None:
    bodies = [encoded(scene(300 + n, 200), format) for n in range(4) for format in ("JPEG", "PNG", "WEBP")]
    alone = [pixels(decode(body, LIMITS, side_px=64)) for body in bodies]
    together: dict[int, list[np.ndarray]] = {}

    def work(n: int) -> None:
        together[n] = [pixels(decode(body, LIMITS, side_px=64)) for body in bodies]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [True] * 4 == [all(map(np.array_equal, alone, together[n])) for n in range(4)]


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    noise=st.sampled_from([0, 80]),
    sizes=st.sampled_from([(256, 224), (232, 224), (64, 64), (342, 299)]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
@example(width=500, height=375, noise=80, sizes=(256, 224), interpolation="bilinear")
@example(width=375, height=500, noise=80, sizes=(256, 224), interpolation="bicubic")
@example(width=2, height=300, noise=80, sizes=(64, 64), interpolation="bilinear")
def test_fit_gives_the_pixels_of_resize_and_centre_crop(
    width: int, height: int, noise: int, sizes: tuple[int, int], interpolation: str
) -> None:
    from irs.models.architectures import torchvision_models

    torchvision_models()
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    if max(width, height) / min(width, height) > 150:
        height = width  # the reference would make a picture of 100 megapixels
    image = scene(width, height, noise=noise)
    resize, crop = sizes
    reference = Compose([Resize(resize, InterpolationMode(interpolation), antialias=True), CenterCrop(crop)])

    ours = fit(image, Preprocess(resize=resize, crop=crop, interpolation=interpolation))

    assert (crop, crop, 3) == ours.shape
    assert np.uint8 == ours.dtype
    # Pillow resizes rows or columns first, whichever is less work for the size at hand, and rounds between: the
    # part alone may go the other way round than the whole. It does not for a photo of the usual shape.
    apart = np.abs(pixels(reference(image)) - ours)
    usual = (width, height) in {(500, 375), (375, 500)}
    assert apart.mean() < (0.05 if usual else 0.3 if interpolation == "bilinear" else 1.5)
    assert apart.max() <= (1 if usual else 2 if interpolation == "bilinear" else 40)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (1, 65535)])
def test_fit_takes_the_most_extreme_shapes(size: tuple[int, int]) -> None:
    colour = (10, 20, 30)

    assert (np.zeros((224, 224, 3)) + colour == fit(Image.new("RGB", size, colour), Preprocess())).all()


@pytest.mark.parametrize(
    "wrong",
    [{"resize": 200, "crop": 224}, {"crop": 0}, {"interpolation": "cubic"}, {"mean": (0.5,)}, {"std": (0.2, 0.0, 0.2)}],
)
def test_a_preprocess_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Preprocess(**wrong)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 900), height=st.integers(1, 900), side=st.integers(16, 320))
@example(width=900, height=900, side=320)
def test_a_thumbnail_is_a_small_webp_whatever_the_picture(width: int, height: int, side: int) -> None:
    text = thumbnail(scene(width, height, noise=255), side)

    small = Image.open(io.BytesIO(base64.b64decode(text)))
    assert len(text) <= 24 * 1024
    assert "WEBP" == small.format
    assert max(small.size) <= min(side, max(width, height))


def test_every_error_of_a_picture_says_what_to_do() -> None:
    for body in (b"", b"text", b"%PDF-1", encoded(scene())[:300], struct.pack(">I", 0)):
        with pytest.raises(IrsError) as caught:
            decode(body, LIMITS)
        assert any(advice in str(caught.value) for advice in ("hand in", "save the picture"))
