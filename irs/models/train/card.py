"""The model card: what a model is, how it was made, and what not to expect of it."""

from __future__ import annotations

from collections.abc import Sequence

from irs.models.hedging import Hedging, hedging_table
from irs.models.train.charts import CONFUSION, RELIABILITY
from irs.models.train.folder import PictureFolder
from irs.models.train.options import TrainingOptions
from irs.models.train.write import CHARTS, Speed, Trained

_LISTED_LABELS = 250
_CONFUSED = 10


def write_card(
    options: TrainingOptions,
    folder: PictureFolder,
    trained: Trained,
    speed: Speed,
    hedging: Sequence[Hedging],
    weights_bytes: int,
) -> str:
    """Return the card as Markdown."""
    seen, preprocess = trained.figures, trained.preprocess
    on = "pictures of a folder of their own, never trained on" if trained.validation else "pictures held back from training"
    parameters = sum(parameter.numel() for parameter in trained.net.parameters())
    lines = [
        f"# {options.model_name}",
        "",
        f"Tells {len(folder.labels)} kinds of pictures apart. `{trained.architecture}`, {parameters / 1e6:.2f} M parameters, "
        f"{weights_bytes / 1e6:.1f} MB. It sees the centre square of a picture at {preprocess.crop} px"
        + ("." if preprocess.crop == preprocess.resize else f", after its short side came to {preprocess.resize} px."),
        "",
        "## Data",
        "",
        f"{trained.counts[0]:,} pictures trained on and {trained.counts[1]:,} of the same folder held back, in "
        f"{len(folder.labels)} class folders"
        + (f"; {trained.unreadable} could not be read and were left out." if trained.unreadable else "."),
        "",
        "## Recipe",
        "",
        f"    {options.command}",
        "",
        *(f"- {what}: {how}" for what, how in trained.recipe),
        "",
        "## Figures",
        "",
        f"Of {seen.pictures:,} {on}:",
        "",
        "| figure | value |",
        "| --- | --- |",
        f"| first label right | {seen.top1:.1%} |",
        *([f"| right within five | {seen.top5:.1%} |"] if len(folder.labels) > 5 else []),
        f"| calibration error (15 bins), temperature {trained.temperature:g} | {seen.ece:.3f} |",
        f"| calibration error without the temperature | {seen.ece_before:.3f} |",
        f"| negative log likelihood | {seen.nll:.3f} |",
        "",
        f"The temperature was fitted on the {trained.held.pictures:,} pictures held back"
        + (f" ({trained.held.top1:.1%} of them are right)." if trained.validation else ", the same as above."),
        f"{speed.images_per_s:.0f} images a second by the forward pass alone, where it was made "
        f"({speed.device}, {speed.precision}, batches, {speed.threads} threads).",
        "",
        f"![what is taken for what]({CHARTS}/{CONFUSION})",
        f"![whether confidence can be believed]({CHARTS}/{RELIABILITY})",
        "",
        *_hedged(hedging),
        *_confused(folder, trained),
        "## Limits",
        "",
        f"- It knows these {len(folder.labels)} kinds and no other: a picture of anything else gets one of their names, "
        "often with a confidence that is too high.",
        "- The figures hold for pictures like those it was trained on.",
        *([f"- License: {license}" for license in [options.license or trained.license] if license]),
        *([f"- Source: {source}" for source in [options.source or trained.source] if source]),
        "",
        "## Kinds",
        "",
        ", ".join(folder.labels[:_LISTED_LABELS])
        + ("." if len(folder.labels) <= _LISTED_LABELS else ", and more: `labels.txt`."),
        "",
    ]
    return "\n".join(lines)


def _hedged(report: Sequence[Hedging]) -> list[str]:
    """Return what the labels and their parents are worth at some thresholds; nothing where no parent is known."""
    if not report:
        return []
    intro = (
        "What `hedged` answers for the same pictures: the most specific label, or parent of labels, that is at least as "
        "likely as the number under hedge. The probability of a parent is the sum of those of all labels below it."
    )
    return [intro, "", *hedging_table(report), ""]


def _confused(folder: PictureFolder, trained: Trained) -> list[str]:
    """Return the pairs of kinds that are most often taken for each other."""
    confusion = trained.figures.confusion
    pairs = sorted(
        (
            (-int(confusion[one, other] + confusion[other, one]), one, other)
            for one in range(len(confusion))
            for other in range(one)
            if confusion[one, other] + confusion[other, one]
        ),
    )[:_CONFUSED]
    if not pairs:
        return []
    told = "; ".join(f"{folder.labels[other]} and {folder.labels[one]} ({-count})" for count, one, other in pairs)
    return [f"Most often mistaken for each other: {told}.", ""]
