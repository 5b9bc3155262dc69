"""The parts of a training: folder, batches, optimizer, figures, checkpoints."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shapes import make_shapes
from torch import nn

from irs.errors import ModelError, SetupError
from irs.models import architectures
from irs.models.train.augment import MEAN, STD, Augmenter, resampling
from irs.models.train.checkpoint import alone_in, load_checkpoint, save_checkpoint
from irs.models.train.features import find_head
from irs.models.train.folder import hold_back, read_folder
from irs.models.train.judge import calibration, fit_temperature, judge, recompute_batch_norm
from irs.models.train.muon import make_optimizers, orthogonal
from irs.models.train.options import Listener
from irs.models.train.plan import make_plan
from irs.models.train.tiles import open_tiles
from irs.models.train.write import store_weights

# Folder


def test_a_folder_counts_its_classes_as_torchvision_does(tmp_path):
    # Its operators that are missing beside a torch for CPU must be named first.
    architectures.torchvision_models()
    from torchvision.datasets import ImageFolder

    make_shapes(tmp_path, each=4)

    folder, theirs = read_folder(tmp_path), ImageFolder(tmp_path)

    assert theirs.classes == list(folder.folders)
    assert [(str(tmp_path / name), target) for name, target in zip(folder.names, folder.targets, strict=True)] == theirs.samples


def test_class_folders_named_by_wordnet_take_their_labels_from_classes_csv(tmp_path):
    root = make_shapes(tmp_path / "set", each=3)
    for number, name in enumerate(("blue", "green", "red")):
        (root / name).rename(root / f"n0000000{number}")
    (tmp_path / "classes.csv").write_text("wnid,label\nn00000000,sea\nn00000001,grass\nn00000002,fire\n")

    folder = read_folder(root)

    assert ("sea", "grass", "fire") == folder.labels
    assert ("n00000000", "n00000001", "n00000002") == folder.wnids


def test_a_labels_file_that_misses_a_class_is_refused(tmp_path):
    root = make_shapes(tmp_path / "set", each=3)
    (tmp_path / "given.csv").write_text("folder,label\nblue,sea\nred,fire\n")

    with pytest.raises(SetupError, match=r"has no label for the class folder 'green'"):
        read_folder(root, labels_file=tmp_path / "given.csv")


def test_a_labels_file_saved_by_a_spreadsheet_is_read(tmp_path):
    root = make_shapes(tmp_path / "set", each=3)
    (root / "classes.csv").write_text("folder,label\nblue,sea\n", encoding="utf-8-sig")

    assert ("sea", "green", "red") == read_folder(root).labels


@pytest.mark.parametrize("name", ["two\nlines", "two\u2028lines", " ", "\udcff", "b\x1b[2Jell", "l" * 201])
def test_a_class_whose_name_fits_in_no_line_of_labels_is_told_before_the_training(tmp_path, name):
    root = make_shapes(tmp_path / "set", each=3)
    (root / "red").rename(root / name)

    with pytest.raises(SetupError, match=r"cannot be a label: .* rename the class folder"):
        read_folder(root)


def test_what_is_no_file_is_no_picture(tmp_path):
    root = make_shapes(tmp_path / "set", each=3)
    (root / "red" / "gone.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "red" / "pipe.png")
    (root / "red" / "folder.png").mkdir()

    folder = read_folder(root)

    assert 9 == len(folder.names)
    assert 64 == len(folder.sha256())


def test_a_link_back_up_counts_no_picture_twice(tmp_path):
    root = make_shapes(tmp_path / "set", each=3)
    (root / "red" / "again").symlink_to(root / "red")

    assert 9 == len(read_folder(root).names)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SetupError, match=r"There is no folder .*nowhere: give a folder"):
        read_folder(tmp_path / "nowhere")


def test_a_folder_without_class_folders_is_told(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    with pytest.raises(SetupError, match="has no class folders: make one for each label"):
        read_folder(tmp_path)


def test_a_single_class_is_told(tmp_path):
    (tmp_path / "shoe").mkdir()

    with pytest.raises(SetupError, match=r"one class folder only \(shoe\): at least two"):
        read_folder(tmp_path)


def test_a_class_with_too_few_pictures_is_named_with_their_number(tmp_path):
    root = make_shapes(tmp_path, each=4)
    for path in sorted((root / "green").iterdir())[2:]:
        path.unlink()

    with pytest.raises(SetupError, match=r"1 of the 3 classes .* fewer than 3 readable pictures, green \(2\)"):
        read_folder(root)


def test_a_validation_folder_with_an_unknown_class_is_told(tmp_path):
    make_shapes(tmp_path, each=3)

    with pytest.raises(SetupError, match="has the class folder 'red', which is none of the classes"):
        read_folder(tmp_path, folders=("blue", "green"))


@given(st.lists(st.integers(3, 40), min_size=2, max_size=8))
def test_each_class_keeps_pictures_on_both_sides_of_the_split(counts):
    targets = np.repeat(np.arange(len(counts)), counts)

    held = hold_back(targets)

    assert set(range(len(counts))) == set(targets[held]) == set(targets[~held])


def test_of_a_large_set_every_fiftieth_picture_is_held_back():
    targets = np.repeat(np.arange(200), 500)

    assert 2000 == hold_back(targets).sum()


def test_the_array_of_pictures_is_made_once_and_again_when_the_folder_changes(tmp_path):
    root = make_shapes(tmp_path / "set", each=3)
    said: list[str] = []

    def open_it() -> int:
        return len(open_tiles(read_folder(root), 32, tmp_path / "pictures.npy", Listener(say=said.append)).targets)

    assert (9, 9) == (open_it(), open_it())
    assert 1 == len(said)
    (root / "red" / "more.png").write_bytes((root / "red" / "000.png").read_bytes())

    assert 10 == open_it()


def test_pictures_that_cannot_be_read_leave_no_gap_and_are_named(tmp_path):
    root = make_shapes(tmp_path / "set", each=3)
    (root / "green" / "000.png").write_bytes(b"no picture")

    tiles = open_tiles(read_folder(root), 32, tmp_path / "pictures.npy", Listener())

    assert ("green/000.png",) == tiles.unreadable
    assert [0, 0, 0, 1, 1, 2, 2, 2] == tiles.targets.tolist()
    with Image.open(root / "red" / "002.png") as last:
        assert np.array_equal(np.asarray(last).transpose(2, 0, 1), tiles.pixels[-1])


@pytest.mark.parametrize("spoilt", ["pictures.npy", "pictures.json"])
def test_an_array_that_was_cut_short_is_made_anew(tmp_path, spoilt):
    root = make_shapes(tmp_path / "set", each=3)
    whole = open_tiles(read_folder(root), 32, tmp_path / "pictures.npy", Listener()).pixels.copy()
    (tmp_path / spoilt).write_bytes((tmp_path / spoilt).read_bytes()[:20])

    again = open_tiles(read_folder(root), 32, tmp_path / "pictures.npy", Listener()).pixels

    assert np.array_equal(whole, again)


def test_a_folder_of_which_no_picture_can_be_read_is_told(tmp_path):
    root = make_shapes(tmp_path / "set", each=3)
    for path in root.glob("*/*.png"):
        path.write_bytes(b"no picture")

    with pytest.raises(SetupError, match=r"None of the 9 pictures of .*set can be read: give others"):
        open_tiles(read_folder(root), 32, tmp_path / "pictures.npy", Listener())


def test_a_disk_that_is_too_small_for_the_array_is_told_before_anything_is_read(tmp_path, monkeypatch):
    root = make_shapes(tmp_path / "set", each=3)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(SetupError, match=r"pictures\.npy cannot be written \(No space left on device\)"):
        open_tiles(read_folder(root), 32, tmp_path / "pictures.npy", Listener())


# Batches


@given(st.integers(4, 64), st.integers(8, 64), st.data())
def test_a_resampling_matrix_neither_adds_nor_takes_light(side_px, full_px, data):
    length = data.draw(st.floats(1, full_px))
    start = data.draw(st.floats(0, full_px - length))

    matrix = resampling(np.array([start]), np.array([length]), side_px, full_px)

    assert (1, side_px, full_px) == matrix.shape
    assert np.allclose(1, matrix.sum(2), atol=1e-5)


def test_resampling_a_whole_picture_gives_what_pillow_serves():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    matrix = resampling(np.array([0.0]), np.array([64.0]), 32, 64)[0]

    ours = matrix @ pixels @ matrix.T

    theirs = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR), np.float32)
    assert np.abs(ours - theirs).max() <= 1.5


def augmenter(epochs: float, seed: int = 0) -> Augmenter:
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8))
    plan = make_plan(asked={}, seed=seed, pictures=40, sides_px=(16, 24, 32), batch=8, epochs=epochs)
    return Augmenter(plan, pixels, np.arange(40), np.arange(40), torch.float32)


@pytest.mark.parametrize("epochs", [4.0, 40.0])
def test_a_batch_is_the_same_whenever_it_is_made(epochs):
    in_order = augmenter(epochs)
    batches = [in_order.batch(step) for step in range(6)]

    again = augmenter(epochs).batch(5)

    assert torch.equal(batches[5].pictures, again.pictures)
    assert torch.equal(batches[5].targets, again.targets)


def test_another_seed_makes_other_batches():
    assert not torch.equal(augmenter(4.0, 0).batch(0).pictures, augmenter(4.0, 1).batch(0).pictures)


def test_an_epoch_holds_every_picture_once():
    made = augmenter(4.0)
    seen: list[int] = []
    for step in range(5):
        seen += made.batch(step).targets.tolist()

    assert list(range(40)) == sorted(seen[:40])


def test_a_plain_picture_of_the_mean_colour_comes_out_as_nothing():
    pixels = torch.tensor(np.round(np.array(MEAN) * 255), dtype=torch.uint8).view(1, 3, 1, 1).expand(8, 3, 32, 32).contiguous()
    plan = make_plan(asked={}, seed=0, pictures=8, sides_px=(16, 24, 32), batch=8, epochs=4)

    batch = Augmenter(plan, pixels, np.arange(8), np.zeros(8, np.int64), torch.float32).batch(0)

    assert batch.pictures.abs().max() < 0.01 / min(STD)


def test_a_mixed_batch_shares_each_picture_with_its_neighbour():
    made = augmenter(40.0)

    batch = made.batch(1)

    assert 0 <= batch.share < 1
    assert torch.equal(batch.targets.roll(1), batch.others)


# Optimizer


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(1, 20), st.sampled_from([1, 3]), st.integers(0, 1000))
def test_an_orthogonal_step_has_a_norm_near_the_root_of_the_outputs(out, into, kernel, seed):
    gradient = torch.randn((out, into, kernel, kernel), generator=torch.Generator().manual_seed(seed))

    step = orthogonal(gradient, torch.float32)

    assert gradient.shape == step.shape
    assert 0.3 < step.norm().item() / out**0.5 < 1.4


def test_muon_changes_a_convolution_by_its_learning_rate():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16))
    optimizer = make_optimizers(net, lr=0.05, dtype=torch.float32)[0]
    net(torch.randn(2, 3, 12, 12)).square().mean().backward()

    optimizer.step()

    weight = net[1].weight
    assert 16**0.5 == pytest.approx(weight.norm().item(), rel=0.1)
    assert [weight] == optimizer.param_groups[0]["params"]


def test_a_net_without_batch_norms_is_left_to_adamw():
    optimizers = make_optimizers(architectures.build("squeezenet1_0", 3), lr=0.05, dtype=torch.float32)

    assert ["AdamW"] == [type(one).__name__ for one in optimizers]


# Figures


def test_the_temperature_undoes_the_one_that_the_logits_were_made_with():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 2, (20_000, 5)).astype(np.float32)
    shares = np.exp(truth) / np.exp(truth).sum(1, keepdims=True)
    targets = (shares.cumsum(1) > rng.random((20_000, 1))).argmax(1)

    assert 1.5 == pytest.approx(fit_temperature(truth * 1.5, targets), abs=0.05)


def test_confidence_that_promises_too_much_has_its_excess_as_error():
    probabilities = np.tile(np.array([0.9, 0.1], np.float32), (10, 1))
    targets = np.array([0] * 6 + [1] * 4)

    bins, error = calibration(probabilities, targets)

    assert 0.3 == pytest.approx(error, abs=1e-6)
    assert [(10, pytest.approx(0.6))] == [(one.count, one.accuracy) for one in bins]


def test_figures_count_first_labels_labels_within_five_and_what_is_taken_for_what():
    logits = np.eye(7, dtype=np.float32)[[0, 1, 2]] * 9 - np.arange(7, dtype=np.float32)

    seen = judge(logits, np.array([0, 1, 6]), 1.0)

    assert (2 / 3, 2 / 3) == (pytest.approx(seen.top1), pytest.approx(seen.top5))
    assert 1 == seen.confusion[6, 2]
    assert 3 == seen.confusion.sum()


def test_recomputed_batch_norms_hold_the_statistics_of_plain_pictures():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    nn.init.dirac_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), dtype=np.uint8))

    recompute_batch_norm(net, pixels, np.arange(50), torch.float32)

    expected = (pixels.float().mean((0, 2, 3)) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert torch.allclose(expected, net[1].running_mean, atol=1e-5)
    assert not net.training
    assert 0.1 == net[1].momentum


# Nets and weights


def test_the_net_m_has_the_size_it_is_known_for():
    net = architectures.build("irs:m", 200)

    assert 6_945_320 == sum(parameter.numel() for parameter in net.parameters())
    assert (2, 200) == net(torch.zeros(2, 3, 64, 64)).shape


def test_an_unknown_net_of_our_own_is_told_with_those_there_are():
    with pytest.raises(ModelError, match=r"no net 'irs:x' of irs: it has irs:m"):
        architectures.check_architecture("irs:x")


def test_stored_weights_are_half_as_large_and_are_what_the_net_then_holds():
    net = architectures.build("irs:m", 3)

    stored = store_weights(net)

    assert torch.float16 == stored["head.weight"].dtype
    assert torch.float32 == stored["stem.1.running_var"].dtype == net.state_dict()["head.weight"].dtype
    assert torch.equal(stored["head.weight"].float(), net.state_dict()["head.weight"])


def test_weights_beyond_half_precision_are_stored_in_full():
    net = nn.Linear(2, 2)
    nn.init.constant_(net.weight, 1e6)

    assert torch.float32 == store_weights(net)["weight"].dtype


@pytest.mark.parametrize(
    ("architecture", "head"),
    [("resnet18", "fc"), ("mobilenet_v3_small", "classifier.3"), ("squeezenet1_0", "classifier.1"), ("googlenet", "fc")],
)
def test_the_last_layer_is_found_in_nets_of_all_kinds(architecture, head):
    assert head == find_head(architectures.build(architecture, 1000), 1000, architecture)


def test_a_net_without_a_linear_last_layer_is_told():
    with pytest.raises(ModelError, match="ends in no linear layer that could be trained"):
        find_head(nn.Sequential(nn.Conv2d(3, 8, 3)), 5, "odd")


# Checkpoints


def test_the_last_two_checkpoints_are_kept_and_a_broken_one_is_passed_over(tmp_path):
    for step in (1, 2, 3):
        newest = save_checkpoint(tmp_path, step, {"weight": torch.full((2,), float(step))}, {"step": str(step)})
    newest.write_bytes(newest.read_bytes()[:20])

    tensors, facts = load_checkpoint(tmp_path)

    assert 2 == len(list(tmp_path.glob("checkpoint-*")))
    assert ([2.0, 2.0], {"step": "2"}) == (tensors["weight"].tolist(), facts)


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"weight": torch.zeros(2)}, {"step": "1"})
    # A process that was killed while it wrote.
    (tmp_path / ".checkpoint-00000001.safetensors.part").write_bytes(b"half")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(SetupError, match=r"No checkpoint can be written to .*No space left on device.*: make room"):
        save_checkpoint(tmp_path, 2, {"weight": torch.zeros(2)}, {"step": "2"})
    assert ["checkpoint-00000001.safetensors"] == [path.name for path in tmp_path.iterdir()]


def test_a_folder_whose_checkpoints_are_all_broken_is_told(tmp_path):
    save_checkpoint(tmp_path, 1, {"weight": torch.zeros(2)}, {}).write_bytes(b"")

    with pytest.raises(SetupError, match=r"No checkpoint in .* can be read: delete the folder"):
        load_checkpoint(tmp_path)


def test_two_trainings_do_not_share_a_work_folder(tmp_path):
    with alone_in(tmp_path), pytest.raises(SetupError, match="Another irs train works in"), alone_in(tmp_path):
        pass
