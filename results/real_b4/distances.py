"""EfficientNet-B4's real tensors against timm's activations and against photographs: table.json and README's tables.

TRIFOLD_DATA=<folder of real data> python results/real_b4/distances.py
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trifold.baselines import find
from trifold.doctor.weights_given import Changes, at_resolution, fed, levels_of, open_given, with_numerics
from trifold.doctor.weights_statistics import distances as statistics_distances
from trifold.doctor.weights_statistics import draws, moments
from trifold.doctor.weights_trials import Trial, try_input, try_numerics, try_resolutions
from trifold.network import Network, Numerics, build
from trifold.preprocessing import STANDARD
from trifold.weights.loading import load_pretrained
from trifold.weights.readers import pretrained

HERE = Path(__file__).parent
RIGHT = Numerics(bn_eps=1e-3, padding="same")
IMAGENET, HALF = STANDARD["imagenet", "RGB"], STANDARD["half", "RGB"]
BYTES = ((0.0,) * 3, (1 / 255,) * 3)
UNIT = ((0.0,) * 3, (1.0,) * 3)
TWICE = tuple(zip(*((m + s * m, s * s) for m, s in zip(*IMAGENET, strict=True)), strict=True))

SETTINGS = {
    "right": (RIGHT, IMAGENET, "rgb"),
    "padding symmetric": (replace(RIGHT, padding="symmetric"), IMAGENET, "rgb"),
    "epsilon 1e-5": (replace(RIGHT, bn_eps=1e-5), IMAGENET, "rgb"),
    "padding symmetric, epsilon 1e-5": (replace(RIGHT, bn_eps=1e-5, padding="symmetric"), IMAGENET, "rgb"),
    "normalised to -1 to 1": (RIGHT, HALF, "rgb"),
    "normalised to 0 to 1": (RIGHT, UNIT, "rgb"),
    "0 to 255": (RIGHT, BYTES, "rgb"),
    "normalised twice": (RIGHT, TWICE, "rgb"),
    "red and blue swapped": (RIGHT, IMAGENET, "bgr"),
}
"""Numerics, mean and std, order of channels, by name."""


def network_of(data: Path, numerics: Numerics) -> Network:
    """efficientnet_b4 with the stored tensors, read by our reader; what the file lacks stays at its initialisation."""
    network = build(find("b4"), num_classes=0, numerics=numerics, seed=0)
    loaded = load_pretrained(network, pretrained(data / "weights" / "efficientnet_b4_stem_to_block21.npz"))
    if len(loaded.loaded) != 413 or loaded.unused:
        raise SystemExit(f"the file's 413 tensors must all be loaded: {loaded}")
    return network.eval()


def reference_of(data: Path) -> dict[str, Tensor]:
    """timm's arrays, by name."""
    with np.load(data / "weights" / "efficientnet_b4_reference_activations.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@torch.no_grad()
def distances(
    network: Network, reference: dict[str, Tensor], scale: tuple[tuple[float, ...], ...], channels: str
) -> dict[str, float]:
    """max|difference| / max|reference| of every stored array but the image, on that image."""
    image = reference["input_uint8_hwc"].permute(2, 0, 1)[None]
    image = image.flip(1) if channels == "bgr" else image
    mean, std = (torch.tensor(values)[:, None, None] for values in scale)
    x = network.stem((image / 255 - mean) / std)
    found = {"stem": x}
    blocks = [block for stage in network.stages.children() for block in stage.children()][:22]
    for number, block in enumerate(blocks):
        x = found[f"block{number}"] = block(x)
    made = {"block21_output": x[0]}
    for name, value in found.items():
        made |= {f"{name}_mean": value.mean((0, 2, 3)), f"{name}_std": value.std((0, 2, 3))}
    if made.keys() != reference.keys() - {"input_uint8_hwc"}:
        raise SystemExit(f"other arrays than expected: {sorted(made.keys() ^ reference.keys())}")
    return {name: float((made[name] - wanted).abs().max() / wanted.abs().max())
            for name, wanted in reference.items() if name in made}  # fmt: skip


def activation_table(data: Path) -> dict[str, dict[str, float]]:
    """For each setting the nearest, the middle and the farthest array, and the whole last output."""
    reference = reference_of(data)
    table = {}
    for name, (numerics, scale, channels) in SETTINGS.items():
        found = distances(network_of(data, numerics), reference, scale, channels)
        ordered = sorted(found.values())
        table[name] = {
            "arrays": len(found),
            "least": ordered[0],
            "median": ordered[len(ordered) // 2],
            "most": ordered[-1],
            "block21_output": found["block21_output"],
        }
    return table


def photographs(data: Path) -> list[Image.Image]:
    """Every fifth of 250, 48 in all."""
    with zipfile.ZipFile(data / "imagenet_photos_250_256px.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::5][:48]
        return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]


def trials_of(data: Path) -> list[Trial]:
    """What `trifold doctor weights` tries, with the published settings as given, and crops and interpolations."""
    given = open_given(
        data / "weights" / "efficientnet_b4_stem_to_block21.npz", architecture="b4", like="tf_aa", changes=Changes()
    )
    images = photographs(data)
    settings = given.settings
    trials = [*try_input(given, images), *try_numerics(given, images, settings)]
    trials += try_resolutions(given, images, settings)
    for name, changed in (
        ("bilinear", {"interpolation": "bilinear"}),
        ("nearest", {"interpolation": "nearest"}),
        ("squashed whole", {"crop": "whole", "resize": 0}),
        ("centre of 70 %", {"crop": "resize", "resize": round(settings.preprocessing.resolution / 0.7)}),
    ):
        other = replace(settings, preprocessing=replace(settings.preprocessing, **changed))
        own = next(trial for trial in try_numerics(given, images, other) if trial.given)
        trials.append(replace(own, part="crop", name=name, given=False))
    return trials


def ratios(data: Path) -> list[tuple[str, int, float, float]]:
    """Scale, pixels, and least and most over the first five norms of the channels' median variance ratio."""
    given = open_given(data / "weights" / "efficientnet_b4_stem_to_block21.npz", architecture="b4", like="tf_aa")
    images, found = photographs(data), []
    for side in (224, 380):
        preprocessing = at_resolution(given.settings.preprocessing, side)
        levels = levels_of(images, preprocessing)
        for name, (mean, std) in (("ImageNet", IMAGENET), ("-1 to 1", HALF)):
            settings = replace(given.settings, preprocessing=replace(preprocessing, mean=mean, std=std))
            seen = moments(
                given.network, given.norms[:5], (fed(part, settings) for part in levels.split(16)), own=False
            )
            each = [float(((of.square.mean(0) - of.mean.mean(0) ** 2) / of.running_var).median()) for of in seen]
            found.append((name, side, min(each), max(each)))
    return found


def by_stored(data: Path) -> list[tuple[str, float, float, float]]:
    """Paddings and epsilons where each norm normalises by the stored statistics: distance, behind, standard error."""
    given = open_given(data / "weights" / "efficientnet_b4_stem_to_block21.npz", architecture="b4", like="tf_aa")
    images = photographs(data)
    batch = fed(levels_of(images, at_resolution(given.settings.preprocessing, 224)), given.settings)
    found, shares = {}, draws(len(images))
    for padding in ("same", "symmetric"):
        for eps in (1e-3, 1e-5):
            network = with_numerics(given.network, Numerics(bn_eps=eps, padding=padding))
            found[f"{padding}, {eps:g}"] = moments(network, given.norms, batch.split(16), own=False)
    away = {name: statistics_distances(seen, shares) for name, seen in found.items()}
    right = away["same, 0.001"]
    return [
        (name, float(one[0]), float((one - right)[0]), float((one - right)[1:].std())) for name, one in away.items()
    ]


def main() -> None:
    """Writes table.json and prints both tables."""
    data = Path(os.environ["TRIFOLD_DATA"])
    torch.set_num_threads(1)
    table = activation_table(data)
    print("| setting | least | median | most | whole output of block 21 |\n|---|---:|---:|---:|---:|")
    for name, row in table.items():
        print(
            f"| {name} | "
            + " | ".join(f"{row[key]:.2g}" for key in ("least", "median", "most", "block21_output"))
            + " |"
        )
    rows = []
    print("\n| part | setting | distance | behind | standard error |\n|---|---|---:|---:|---:|")
    for trial in trials_of(data):
        rows.append({"part": trial.part, "name": trial.name, "distance": trial.distance, "behind": trial.behind,
                     "standard_error": trial.error})  # fmt: skip
        print(f"| {trial.part} | {trial.name} | {trial.distance:.4g} | {trial.behind:.4g} | {trial.error:.2g} |")
    print("\n| numerics, by stored statistics | distance | behind | standard error |\n|---|---:|---:|---:|")
    stored = by_stored(data)
    for name, distance, behind, error in stored:
        print(f"| {name} | {distance:.4f} | {behind:.4f} | {error:.4f} |")
    print("\n| scale | pixels | least ratio | most ratio |\n|---|---:|---:|---:|")
    variances = ratios(data)
    for name, side, least, most in variances:
        print(f"| {name} | {side} | {least:.2f} | {most:.2f} |")
    (HERE / "table.json").write_text(
        json.dumps({"activations": table, "photographs": rows, "stored": stored, "ratios": variances}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
