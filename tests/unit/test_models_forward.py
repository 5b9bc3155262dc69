"""The forward pass: its form, its precision, and what it knows of real photos."""

from __future__ import annotations

import csv
import logging
import re
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from irs.errors import ModelError, SetupError
from irs.imaging import Limits, Preprocess, decode, fit
from irs.models import Forward, Model, open_model
from irs.models import precision as module
from irs.models.form import Whole, frozen, fused, packed
from irs.models.forward import quickest_batch
from irs.models.precision import find_disagreement
from irs.models.remembered import Form, find_form, form_key, remember

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
LIMITS = Limits(20 * 2**20, 100_000_000)
SMALL = Preprocess(resize=36, crop=32)

with_photos = pytest.mark.skipif(not (SHARED / "photos").exists(), reason="the photos and weights are not beside this checkout")


@pytest.fixture(autouse=True)
def _one_thread_a_call() -> Iterator[None]:
    """As in a worker; OpenMP's own threads spin for one another where other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Net(nn.Module):
    """Four classes, with all that is fused: convolution, batch norm, pooling, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def seeded(kind: type[nn.Module] = Net) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = kind()
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.running_mean)
                nn.init.uniform_(part.running_var, 0.5, 2)
        return net.eval()


def model(kind: type[nn.Module] = Net, **changes: object) -> Model:
    facts: dict[str, object] = {"preprocess": SMALL, "labels": tuple("abcd"), "build": lambda: seeded(kind)}
    return Model(name="n", architecture="n", digest="sha256:0", **{**facts, **changes})  # type: ignore[arg-type]


def noise(count: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def expected(pixels: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """What the definition says: (rgb / 255 - mean) / std, the net, softmax of logits over temperature."""
    mean, std = torch.tensor(SMALL.mean), torch.tensor(SMALL.std)
    pictures = ((torch.from_numpy(pixels).float() / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return torch.softmax(seeded()(pictures) / temperature, dim=1).numpy()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_probabilities_are_the_calibrated_softmax_of_the_net(count: int, temperature: float) -> None:
    forward = Forward(model(temperature=temperature), device="cpu", precision="fp32")

    probabilities = forward.probabilities(noise(count))

    assert (np.float32, (count, 4)) == (probabilities.dtype, probabilities.shape)
    np.testing.assert_allclose(expected(noise(count), temperature), probabilities, atol=1e-5)


def test_the_net_runs_as_one_frozen_graph_without_batch_norms() -> None:
    forward = Forward(model(), device="cpu", precision="fp32")

    assert isinstance(forward._run, torch.jit.ScriptModule)
    assert not [part for part in fused(seeded()).modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(1, (1,)), (2, (2, 1)), (6, (6, 4, 2, 1)), (8, (8, 4, 2, 1)), (9, (9, 8, 4, 2, 1))]
)
def test_batch_sizes_fall_by_halves_to_one(batch_size: int, sizes: tuple[int, ...]) -> None:
    forward = Forward(model(), device="cpu", precision="fp32", batch_size=batch_size)
    forward.warm()

    assert sizes == forward.sizes


def test_pixels_that_may_not_be_written_to_are_taken() -> None:
    pixels = noise(2)
    pixels.setflags(write=False)

    assert (2, 4) == Forward(model(), device="cpu", precision="fp32").probabilities(pixels).shape


def test_several_threads_get_the_answers_that_one_gets() -> None:
    forward = Forward(model(), device="cpu", precision="fp32")
    batches = [noise(size) for size in (8, 4, 2, 1)] * 5
    alone = [forward.probabilities(batch) for batch in batches]
    together: dict[int, list[np.ndarray]] = {}

    threads = [
        threading.Thread(target=lambda n=n: together.update({n: [forward.probabilities(batch) for batch in batches]}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    for n in range(4):
        for one, other in zip(alone, together[n], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


class Stubborn(Net):
    """Its way depends on its input: it cannot be read by torch.fx."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) if x.sum() > -1e9 else x


class Forgetful(Net):
    """Answers otherwise when the batch is smaller: a trace takes the size for a constant."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * float(len(x))


def test_a_net_that_cannot_be_read_runs_unfused_with_the_same_answers() -> None:
    forward = Forward(model(Stubborn), device="cpu", precision="fp32")

    np.testing.assert_allclose(expected(noise(4)), forward.probabilities(noise(4)), atol=1e-5)


def test_a_graph_that_answers_differently_at_another_size_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    whole = Whole(seeded(Forgetful), SMALL, 1.0, torch.float32)

    assert whole is frozen(whole, torch.from_numpy(noise(8)))
    assert "not_frozen" in caplog.messages


class Varied(nn.Module):
    """Convolutions of many kinds; two that no layout is made for, one that is called twice and one that never is."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16)
        self.again = nn.Conv2d(16, 16, 1)
        self.same = nn.Conv2d(16, 16, 3, padding="same")
        self.mirrored = nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect")
        self.aside = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(self.again(self.depthwise(self.first(x)).relu()))
        head: torch.Tensor = self.head(self.mirrored(self.same(x)).mean((2, 3)))
        return head


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_weights_answer_as_those_of_the_net(dtype: torch.dtype) -> None:
    whole = Whole(seeded(Varied), SMALL, 1.0, dtype).eval()
    pixels = torch.from_numpy(noise(8))
    with torch.inference_mode():
        made = packed(whole, pixels[:2])

        kinds = {name: type(net) is nn.Conv2d for name, net in made.named_modules() if "conv" in type(net).__name__.lower()}
        assert {"net.same", "net.mirrored", "net.aside"} == {name for name, is_plain in kinds.items() if is_plain}
        assert isinstance(whole.net.first, nn.Conv2d)
        for count in (1, 2, 8):
            torch.testing.assert_close(made(pixels[:count]), whole(pixels[:count]), atol=1e-3, rtol=0)
        # The graph is of the packed net, and answers as the plain one.
        graph = frozen(whole, pixels)
        torch.testing.assert_close(graph(pixels), whole(pixels), atol=1e-3, rtol=0)
    assert "mkldnn::_convolution_pointwise" in str(graph.graph)


class Curious(Varied):
    """Reads of a convolution what a packed one does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.first.stride[0]


def test_a_net_that_cannot_run_packed_is_one_graph_all_the_same() -> None:
    whole = Whole(seeded(Curious), SMALL, 1.0, torch.float32).eval()
    pixels = torch.from_numpy(noise(4))

    with torch.inference_mode():
        graph = frozen(whole, pixels)
        torch.testing.assert_close(graph(pixels), whole(pixels), atol=1e-3, rtol=0)
    assert isinstance(graph, torch.jit.ScriptModule)
    assert "mkldnn::_convolution_pointwise" not in str(graph.graph)


def test_where_torch_cannot_pack_the_net_runs_as_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*_: object) -> None:
        raise AttributeError("no such operator")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr("irs.models.form._Packed", refuse)
    whole = Whole(seeded(Varied), SMALL, 1.0, torch.float32).eval()
    pixels = torch.from_numpy(noise(4))

    with torch.inference_mode():
        graph = frozen(whole, pixels)
        torch.testing.assert_close(graph(pixels), whole(pixels), atol=1e-3, rtol=0)
    assert "not_packed" in caplog.messages
    assert "mkldnn::_convolution_pointwise" not in str(graph.graph)


class Brittle(Net):
    """Right in float32 alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lead = 6.0 if x.dtype == torch.float32 else -6.0
        return self.layers(x) * 0 + torch.tensor([lead, 0.0, 0.0, 0.0], dtype=x.dtype)


def test_bf16_is_taken_where_the_cpu_has_it_and_labels_stay_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_bf16", lambda: True)

    assert "bf16" == Forward(model(), device="cpu").precision


def test_float32_is_kept_where_bf16_changes_a_label(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "has_bf16", lambda: True)

    with caplog.at_level(logging.WARNING):
        forward = Forward(model(Brittle), device="cpu")

    assert "fp32" == forward.precision
    assert 0 == forward.probabilities(noise(1)).argmax()
    assert "precision_kept" in caplog.messages


def test_float32_is_taken_where_the_cpu_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_bf16", lambda: False)

    assert "fp32" == Forward(model(), device="cpu").precision
    assert "bf16" == Forward(model(), device="cpu", precision="bf16").precision


@pytest.mark.parametrize(
    ("quick", "reason"),
    [
        ([[0.55, 0.45]], None),
        ([[0.45, 0.55]], None),
        ([[0.9, 0.1], [0.6, 0.4]], "led by 0.80"),
        ([[0.70, 0.30]], "a probability moves by 0.16"),
        ([[np.nan, 0.5]], "not finite"),
    ],
)
def test_two_forms_disagree_when_a_clear_first_label_changes(quick: list[list[float]], reason: str | None) -> None:
    exact = np.float32([[0.54, 0.46], [0.1, 0.9]][: len(quick)])

    found = find_disagreement(exact, np.float32(quick))

    assert reason is None if found is None else str(reason) in found


def test_a_device_that_is_none_is_told_in_one_sentence() -> None:
    with pytest.raises(SetupError, match="There is no device 'cdua': set IRS_DEVICE or --device to auto, cpu or cuda"):
        Forward(model(), device="cdua")  # type: ignore[arg-type]


class Large(Net):
    """Takes no picture below 64 px."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] >= 64, "Wrong image height!"
        return super().forward(x)


class Lost(Net):
    """Its numbers run away."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * torch.inf


@pytest.mark.parametrize(("kind", "why"), [(Large, "Wrong image height!"), (Lost, "its answer is no number")])
def test_a_net_that_cannot_answer_its_pictures_is_told_in_one_sentence(kind: type[nn.Module], why: str) -> None:
    with pytest.raises(ModelError, match=re.escape(f"n does not answer pictures of 32 px ({why}): mend `preprocess`")):
        Forward(model(kind), device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_asked_for_where_there_is_none_is_told_in_one_sentence() -> None:
    with pytest.raises(SetupError, match="torch finds no CUDA device: set IRS_DEVICE or --device"):
        Forward(model(), device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
def test_cuda_answers_in_half_precision_as_the_cpu_does() -> None:
    forward = Forward(model())

    assert ("cuda", "fp16") == (forward.device, forward.precision)
    assert forward.sizes[0] >= 8
    np.testing.assert_allclose(expected(noise(8)), forward.probabilities(noise(8)), atol=0.01)


@cache
def photos() -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of 100 photos as a worker fits them, and the right outputs."""
    rows = list(csv.DictReader((SHARED / "photos" / "labels.csv").read_text().splitlines()))
    bodies = [(SHARED / "photos" / row["file"]).read_bytes() for row in rows]
    pixels = [fit(decode(body, LIMITS, side_px=256), Preprocess()) for body in bodies]
    return np.stack(pixels), np.array([int(row["index"]) for row in rows])


@with_photos
@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize(("name", "first", "in_five"), [("mobilenet_v2-imagenet", 79, 94), ("squeezenet1_0-imagenet", 61, 79)])
def test_photos_are_recognised_as_often_as_with_the_reference(name: str, first: int, in_five: int, precision: str) -> None:
    pixels, right = photos()
    forward = Forward(open_model(str(SHARED / "weights" / name)), device="cpu", precision=precision)  # type: ignore[arg-type]

    ranked = np.concatenate([forward.probabilities(part) for part in np.split(pixels, 25)]).argsort(1)[:, ::-1]

    assert first <= (ranked[:, 0] == right).sum()
    assert in_five <= (ranked[:, :5] == right[:, None]).any(1).sum()


@with_photos
@pytest.mark.parametrize("name", ["mobilenet_v2-imagenet", "squeezenet1_0-imagenet"])
def test_the_form_that_is_chosen_labels_photos_as_float32_does(name: str) -> None:
    pixels, _ = photos()
    opened = open_model(str(SHARED / "weights" / name))
    with torch.inference_mode():
        whole = Whole(opened.build(), opened.preprocess, opened.temperature, torch.float32)
        exact = np.concatenate([whole(torch.from_numpy(part)).numpy() for part in np.split(pixels, 25)])
    forward = Forward(opened, device="cpu")

    answers = np.concatenate([forward.probabilities(part) for part in np.split(pixels, 25)])

    rows = np.arange(len(exact))
    led_by = exact.max(1) - exact[rows, answers.argmax(1)]
    # Of labels in doubt some change places by any rounding: a hair's breadth, and few.
    assert led_by.max() <= 0.1
    assert (led_by == 0).mean() >= 0.96
    assert np.abs(answers - exact).max() <= 0.15


class Sluggish(Net):
    """Works ten times as long in bf16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounds = 20 if x.dtype == torch.float32 else 200
        for _ in range(rounds):
            answer = self.layers(x)
        return answer


def test_float32_is_kept_where_bf16_takes_longer(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "has_bf16", lambda: True)

    with caplog.at_level(logging.WARNING):
        forward = Forward(model(Sluggish), device="cpu")

    assert "fp32" == forward.precision
    assert "times as long" in caplog.records[-1].reason  # type: ignore[attr-defined]


def counted(kind: type[nn.Module]) -> tuple[Model, list[str]]:
    """Return a model, and a list that grows by a dtype at each call of its net outside a graph."""
    calls: list[str] = []

    class Counted(kind):  # type: ignore[misc, valid-type]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(str(x.dtype))
            answer: torch.Tensor = super().forward(x)
            return answer

    return model(Counted), calls


def test_the_second_start_takes_the_form_that_the_first_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "has_bf16", lambda: True)
    first = Forward(model(), device="cpu", home=tmp_path)
    built, calls = counted(Stubborn)
    monkeypatch.setattr(module, "find_disagreement", lambda *_: pytest.fail("compared again"))

    second = Forward(built, device="cpu", home=tmp_path)

    assert ("bf16", "bf16") == (first.precision, second.precision)
    # One call packs it, one traces it.
    assert 2 * ["torch.bfloat16"] == [dtype for dtype in calls if dtype.startswith("torch")]
    np.testing.assert_allclose(first.probabilities(noise(4)), second.probabilities(noise(4)), atol=0.02)


def test_a_kept_float32_is_remembered_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "has_bf16", lambda: True)
    Forward(model(Brittle), device="cpu", home=tmp_path)
    caplog.clear()

    second = Forward(model(Brittle), device="cpu", home=tmp_path)

    assert "fp32" == second.precision
    assert [] == caplog.messages


def test_a_graph_that_answered_differently_is_not_made_again(tmp_path: Path) -> None:
    first = Forward(model(Forgetful), device="cpu", precision="fp32", home=tmp_path)
    second = Forward(model(Forgetful), device="cpu", precision="fp32", home=tmp_path)

    assert (Whole, Whole) == (type(first._run), type(second._run))
    np.testing.assert_allclose(first.probabilities(noise(5)), second.probabilities(noise(5)), atol=1e-5)


@pytest.mark.parametrize("change", [{"digest": "sha256:1"}, {"asked": "fp32"}, {"batch_size": 4}])
def test_what_was_found_for_another_model_or_wish_is_not_taken(tmp_path: Path, change: dict[str, object]) -> None:
    facts: dict[str, object] = {"digest": "sha256:0", "device": "cpu", "asked": "auto", "batch_size": 8}
    form = Form(precision="bf16", is_frozen=True, batch=8)
    remember(tmp_path, form_key(**facts), form)  # type: ignore[arg-type]

    assert form == find_form(tmp_path, form_key(**facts))  # type: ignore[arg-type]
    assert find_form(tmp_path, form_key(**{**facts, **change})) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"k": {"precision": "int3", "is_frozen": true, "batch": 8}}'])
def test_a_broken_file_of_forms_is_written_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "forms.json").write_text(text)
    form = Form(precision="fp32", is_frozen=False, batch=1)

    assert find_form(tmp_path, "k") is None
    remember(tmp_path, "k", form)
    assert form == find_form(tmp_path, "k")


def test_a_folder_that_may_not_be_written_costs_nothing_but_the_memory(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("no folder")

    assert "fp32" == Forward(model(), device="cpu", precision="fp32", home=home).precision


def test_the_forms_of_the_last_hundred_models_are_kept(tmp_path: Path) -> None:
    for n in range(103):
        remember(tmp_path, str(n), Form(precision="fp32", is_frozen=True, batch=8))

    assert [False] * 3 + [True] * 100 == [find_form(tmp_path, str(n)) is not None for n in range(103)]


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({8: 1.0, 16: 2.0, 32: 4.0}, 8),
        ({8: 1.0, 16: 1.0, 32: 1.0}, 32),
        ({8: 1.0, 16: 1.0, 32: 1.9}, 16),
        ({8: 1.0, 16: 1.0, 32: 9.0, 64: 0.001}, 16),
        ({8: 1.0, 16: float("inf"), 32: 0.001}, 8),
    ],
)
def test_the_smallest_batch_that_is_nearly_the_quickest_is_taken(seconds: dict[int, float], best: int) -> None:
    assert best == quickest_batch(seconds.__getitem__, list(seconds))
