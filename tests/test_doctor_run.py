"""What the doctor finds in finished runs: nothing wrong in a good one, each fault in one made to have it."""

from __future__ import annotations

import copy
import io
import json
import shutil
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from tests.tiny import QUICK, TINY, digits, finished
from trifold import architecture, weights
from trifold.cli.doctor import doctor
from trifold.data.dataset import Dataset, Sample
from trifold.data.images import normalise, to_pixels
from trifold.data.sources import open_data
from trifold.doctor import history, images, norms
from trifold.doctor.case import Case, open_case
from trifold.doctor.findings import Check, Finding
from trifold.doctor.norms import statistics_ratio
from trifold.doctor.rate import learning_rate
from trifold.doctor.run import check_run, run_checks
from trifold.doctor.start import start_of
from trifold.errors import InvalidData, InvalidInput
from trifold.layers import PAPER_NUMERICS
from trifold.network import build
from trifold.preprocessing import STANDARD, plain
from trifold.train.folder import RECORD
from trifold.train.record import Plan, Record, read_record, write_record
from trifold.train.run import train
from trifold.weights.loading import load_pretrained, pretrained

__all__ = ["digits", "finished"]  # fixtures

CUT = Path(__file__).parent.parent / "results" / "trashnet" / "stem_to_block21.toml"


@pytest.fixture(scope="module")
def plan() -> Plan:
    """42 steps, after which running statistics of momentum 0.3 hold nothing of their start."""
    recipe = replace(QUICK, epochs=6, lr=0.05, bn_momentum=0.3, drop_rate=0.0, drop_path_rate=0.0)
    return Plan(architecture=TINY, recipe=recipe)


@pytest.fixture(scope="module")
def case(finished: tuple[Path, Record], digits: Dataset) -> Case:
    return open_case(finished[0], digits)


def with_recipe(case: Case, **changes: Any) -> Case:
    return replace(case, plan=replace(case.plan, recipe=replace(case.plan.recipe, **changes)))


def with_result(case: Case, **changes: Any) -> Case:
    return replace(case, record=replace(case.record, result=replace(case.record.result, **changes)))


def only(check: Check) -> Finding:
    (found,) = check.findings
    assert found.what == check.what
    assert "\n" not in found.text + found.advice
    assert any(character.isdigit() for character in found.text)
    return found


def test_a_good_run_has_neither_errors_nor_warnings(finished: tuple[Path, Record], digits: Dataset) -> None:
    checks = run_checks(finished[0], digits, range_steps=20)
    assert [check.what for check in checks] == [
        "normalisation",
        "frozen_bn",
        "mode_gap",
        "learning_rate",
        "tiny_batches",
        "ema",
        "not_finished",
        "overfitting",
        "waiting",
        "resolution",
        "label_order",
        "leakage",
    ]
    for check in checks:
        assert check.state in ("fine", "note", "not checked"), check.number
        assert any(character.isdigit() for character in check.number) or not check.looked or check.what == "ema"
    assert [check.what for check in checks if not check.looked] == ["frozen_bn"]


def test_the_data_are_found_by_the_record_and_findings_come_gravest_first(finished: tuple[Path, Record]) -> None:
    # The fixture's 300 digits are named after the whole set, so that is opened: 240 of its 1,797 were used.
    found = check_run(finished[0], range_steps=0)
    leaked = next(finding for finding in found if finding.what == "leakage")
    assert leaked.severity == "warning"
    assert leaked.text.startswith("240 of 1,797 test images were used in training, such as ")
    order = ["error", "warning", "note"]
    assert sorted(found, key=lambda finding: order.index(finding.severity)) == list(found)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"has no weights\.safetensors"):
        check_run(tmp_path)
    with pytest.raises(InvalidData, match=r"must be the folder of a finished run$"):
        check_run(tmp_path / "absent")


@pytest.mark.parametrize("steps", [-1, 9])
def test_a_range_test_of_few_steps_is_refused_before_anything_is_opened(tmp_path: Path, steps: int) -> None:
    with pytest.raises(InvalidInput, match=f"^range_steps must be 0 or a whole number from 10, got {steps}$"):
        check_run(tmp_path / "absent", range_steps=steps)


def test_a_record_without_what_was_asked_is_refused(
    finished: tuple[Path, Record], digits: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    record = read_record(tmp_path / "run" / RECORD)
    asked = {name: value for name, value in record.asked.items() if name != "weights"}
    write_record(tmp_path / "run" / RECORD, replace(record, asked=asked))
    with pytest.raises(InvalidData, match=r"what was asked must have the field 'weights'; the run is too old$"):
        check_run(tmp_path / "run", digits)


def test_the_plan_has_what_was_decided_at_the_start_and_older_records_will_do(
    finished: tuple[Path, Record], digits: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    record = read_record(tmp_path / "run" / RECORD)
    asked = {name: value for name, value in record.asked.items() if name != "find_lr"}
    result = replace(record.result, computed={"epochs": 9, "lr": 0.5})
    write_record(tmp_path / "run" / RECORD, replace(record, asked=asked, result=result))
    recipe = open_case(tmp_path / "run", digits).plan.recipe
    assert (recipe.epochs, recipe.highest_lr) == (9, 0.5)


# Batch norm


def test_the_ratio_is_that_of_variances(case: Case) -> None:
    network = copy.deepcopy(case.trained.network).train()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 1, 8, 8, generator=generator)
    with torch.no_grad():
        variance = network.stem.conv(inputs).var((0, 2, 3))
        network.stem.norm.running_var = 4 * variance
    network.stem.norm.eps = 0.0
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = statistics_ratio(network, inputs)
    assert len(found) == 5
    assert found["stem.norm"] == pytest.approx(0.25)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_images_that_are_not_normalised_or_twice_are_an_error(case: Case) -> None:
    assert norms.normalisation(case).state == "fine"
    own = case.trained.preprocessing
    (mean,), (std,) = own.mean, own.std
    for wrong in (plain(8, "L"), replace(own, mean=(mean + mean * std,), std=(std**2,))):
        found = only(norms.normalisation(replace(case, trained=replace(case.trained, preprocessing=wrong))))
        assert found.severity == "error"
        assert found.text.endswith("0.4 to 2.5 times are expected")


def test_statistics_that_have_not_settled_are_named_as_such(case: Case) -> None:
    wrong = replace(case.trained, preprocessing=plain(8, "L"))
    early = replace(with_recipe(case, bn_momentum=0.01), trained=wrong, kept_steps=10)
    found = only(norms.normalisation(early))
    assert found.severity == "warning"
    assert found.text.endswith("after 10 steps the statistics still hold 90% of their start")


def photos(data_dir: Path) -> Tensor:
    """48 photographs as bytes, 128 pixels a side."""
    with zipfile.ZipFile(data_dir / "imagenet_photos_250_256px.zip") as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg"))][::5][:48]
        opened = [Image.open(io.BytesIO(archive.read(name))) for name in names]
        return torch.stack([to_pixels(image, plain(128, "RGB")) for image in opened])


def test_real_weights_tell_right_from_wrong_normalisation(data_dir: Path) -> None:
    network = build(architecture.read(CUT), num_classes=6, numerics=PAPER_NUMERICS, seed=0)
    load_pretrained(network, pretrained(data_dir / "weights" / "efficientnet_b4_stem_to_block21.npz"))
    pixels = photos(data_dir)
    ratios = {}
    for kind in ("imagenet", "half"):
        mean, std = STANDARD[kind, "RGB"]
        given = normalise(pixels, replace(plain(128, "RGB"), mean=mean, std=std))
        ratios[kind] = list(statistics_ratio(network, given).values())
    ratios["none"] = list(statistics_ratio(network, normalise(pixels, plain(128, "RGB"))).values())
    assert 0.69 < min(ratios["imagenet"]) <= max(ratios["imagenet"]) < 1.19
    assert 0.15 < min(ratios["half"]) <= max(ratios["half"]) < 0.35
    assert max(ratios["none"]) < 0.2


def test_statistics_that_do_not_fit_the_weights_are_a_gap_between_the_modes(case: Case) -> None:
    assert norms.mode_gap(case).state == "fine"
    broken = copy.deepcopy(case.trained.network)
    for module in broken.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean += 5
    more = replace(case, minival=case.train, trained=replace(case.trained, network=broken))
    before = {name: tensor.clone() for name, tensor in broken.state_dict().items()}
    found = only(norms.mode_gap(more))
    assert found.severity == "warning"
    assert "the running statistics do not fit the weights" in found.text
    assert all(torch.equal(tensor, before[name]) for name, tensor in broken.state_dict().items())


def test_the_modes_are_not_compared_where_batch_norm_is_frozen_or_the_images_are_others(case: Case) -> None:
    assert not norms.mode_gap(with_recipe(case, freeze_bn=True)).looked
    assert not norms.mode_gap(replace(case, own=False)).looked


def test_frozen_statistics_are_those_of_the_weights_it_began_with(case: Case, digits: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "begun.safetensors"
    weights.save(file, case.trained.network)
    begun = pretrained(file)
    recipe = replace(case.plan.recipe, freeze_bn=True, epochs=1)
    train(
        digits,
        Plan(architecture=TINY, recipe=recipe, weights=begun.digest),
        run_folder=tmp_path / "run",
        pretrained=begun,
    )
    tuned = open_case(tmp_path / "run", digits)
    start = start_of(tuned, file)
    assert norms.frozen_bn(tuned, start) == Check(what="frozen_bn", number="0 of 5 pretrained batch norms moved")

    norm = tuned.trained.network.stem.norm
    assert norm.running_var is not None
    norm.running_var *= 1.01
    found = only(norms.frozen_bn(tuned, start))
    assert found.severity == "error"
    assert found.text == "1 of 5 pretrained batch norms moved though the recipe froze them, such as stem.norm"

    unknown = start_of(tuned, None)
    assert isinstance(unknown, str)
    assert norms.frozen_bn(tuned, unknown).state == learning_rate(tuned, unknown, 20).state == "not checked"
    with pytest.raises(InvalidInput, match="must be the weights that the run began with"):
        start_of(tuned, tmp_path / "run")
    with pytest.raises(InvalidInput, match="the run began at random"):
        start_of(case, file)


# The learning rate


@pytest.mark.parametrize(
    ("changes", "severity"),
    [({}, ""), ({"lr": 5.0}, "warning"), ({"lr": 1e-5}, "note"), ({"lr": 0.2, "lr_batch": 1}, "warning")],
)
def test_rates_near_divergence_are_a_warning_and_tiny_ones_a_note(
    case: Case, changes: dict[str, Any], severity: str
) -> None:
    changed = with_recipe(case, **changes)
    check = learning_rate(changed, start_of(changed, None), 20)
    assert "in a range test of" in check.number
    assert [finding.severity for finding in check.findings] == ([severity] if severity else [])


def test_no_range_test_is_taken_where_none_is_asked_for(case: Case) -> None:
    assert learning_rate(case, start_of(case, None), 0).state == "not checked"
    assert learning_rate(case, start_of(replace(case, own=False), None), 20).state == "not checked"


# The record and the log


@pytest.mark.parametrize(
    ("changes", "processes", "part", "fires"),
    [
        ({}, 1, 30, False),
        ({"accumulate": 2}, 1, 15, True),
        ({}, 2, 15, True),
        ({"sync_bn": True}, 2, 30, False),
        ({"accumulate": 2, "freeze_bn": True}, 1, 15, False),
    ],
)
def test_parts_under_16_images_are_a_warning(
    case: Case, changes: dict[str, Any], processes: int, part: int, fires: bool
) -> None:
    check = history.tiny_batches(with_result(with_recipe(case, **changes), computed={"processes": processes}))
    assert check.number.startswith(f"{part} images a part (batch_size 32")
    assert check.state == ("warning" if fires else "fine")


def test_an_average_of_more_than_a_fifth_of_the_run_is_named(case: Case) -> None:
    assert history.ema(case).state == "fine"
    long = replace(with_recipe(case, ema_decay=0.9), steps=51)
    assert history.ema(long).state == "fine"
    found = only(history.ema(replace(with_recipe(case, ema_decay=0.9999), steps=1000)))
    assert found.severity == "note"
    assert found.text == (
        "a decay of 0.9999 looks 10,000 steps back, 1000% of the run's 1,000; after its warm-up 112 steps, 11%"
    )
    assert "ema_decay=0.99," in found.advice
    assert only(history.ema(replace(with_recipe(case, ema_decay=0.99), steps=10))).severity == "warning"


@pytest.mark.parametrize(("share", "state"), [(0.05, "fine"), (0.051, "note")])
def test_waiting_above_5_percent_is_a_note(case: Case, share: float, state: str) -> None:
    assert history.waiting(with_result(case, waiting=share)).state == state


@pytest.mark.parametrize(
    ("best", "losses", "state"),
    [
        (3, [2.0, 1.0, 1.0, 0.95], "fine"),
        (4, [2.0, 1.0, 1.0, 0.95], "note"),
        (3, [2.0, 1.0, 1.0, 0.85], "note"),
    ],
)
def test_a_best_last_epoch_or_a_steep_end_is_a_note(case: Case, best: int, losses: list[float], state: str) -> None:
    epochs = tuple(
        replace(case.epochs[0], epoch=number, train_loss=loss) for number, loss in enumerate(losses, start=1)
    )
    check = history.not_finished(with_result(replace(case, epochs=epochs), epoch=best))
    assert check.state == state
    assert check.number.startswith(f"epoch {best} of 4 is best on minival; the train loss fell by ")


def test_the_least_smoothed_loss_is_the_entropy_of_its_targets() -> None:
    targets = torch.tensor([0.91] + [0.01] * 9, dtype=torch.float64)
    assert history.smoothing_floor(0.1, 10) == pytest.approx(float(-(targets * targets.log()).sum()))
    assert history.smoothing_floor(0.0, 10) == 0.0


@pytest.mark.parametrize(
    ("train_loss", "minival_loss", "fires"),
    [(0.6, 0.3, False), (0.6, 0.55, False), (0.6, 0.65, True), (1.5, 1.7, False), (1.5, 2.1, True)],
)
def test_a_train_loss_far_below_that_of_minival_is_a_warning(
    case: Case, train_loss: float, minival_loss: float, fires: bool
) -> None:
    # Label smoothing of 0.1 over ten classes adds 0.50.
    last = replace(case.epochs[-1], train_loss=train_loss, minival_loss=minival_loss)
    check = history.overfitting(replace(case, epochs=(*case.epochs, last)))
    assert check.state == ("warning" if fires else "fine")
    assert f"less {0.50:.2f} that label smoothing adds at least" in check.number


# The images


def test_images_much_smaller_than_the_resolution_and_tiny_last_maps_are_warnings(
    case: Case, finished: tuple[Path, Record], digits: Dataset
) -> None:
    assert images.resolution(case).number == "8 pixels for images of 8; a total stride of 2 leaves a map of 4x4"
    assert images.resolution(case).state == "fine"
    small = replace(digits, samples=tuple(replace(sample, width=3, height=3) for sample in digits.samples))
    assert only(images.resolution(open_case(finished[0], small))).text.startswith(
        "the median image's shorter side is 3"
    )
    large = replace(digits, samples=tuple(replace(sample, width=99, height=99) for sample in digits.samples))
    assert only(images.resolution(open_case(finished[0], large))).severity == "note"
    coarse = replace(case.trained, preprocessing=replace(case.trained.preprocessing, resolution=6))
    found = only(images.resolution(replace(case, trained=coarse)))
    assert (found.severity, "3x3, under 4x4" in found.text) == ("warning", True)


def classes(case: Case, names: tuple[str, ...]) -> Check:
    return images.label_order(replace(case, dataset=replace(case.dataset, classes=names)))


def test_classes_in_another_order_unknown_or_missing_are_named(case: Case) -> None:
    own = case.trained.classes
    assert classes(case, own).state == "fine"
    swapped = classes(case, (own[0], own[2], own[1], *own[3:]))
    assert only(swapped).severity == "warning"
    assert "place 2 has '2' in the data and '1' in the network" in swapped.number
    unknown = only(classes(case, (*own[:9], "ten")))
    assert (unknown.severity, unknown.text) == (
        "error",
        "1 of the data's 10 classes are not known to the network, such as 'ten'",
    )
    few = replace(case.trained, classes=(*own, "ten"))
    missing = only(images.label_order(replace(case, trained=few)))
    assert (missing.severity, missing.text) == ("note", "1 of the network's 11 classes have no images, such as 'ten'")


def test_test_images_that_were_used_are_an_error(case: Case, finished: tuple[Path, Record], digits: Dataset) -> None:
    assert images.leakage(case).number == "0 of 60 test images were used in training"
    found = only(images.leakage(replace(case, test=(*case.test[:9], case.train[0]))))
    assert found.severity == "error"
    assert found.text == f"1 of 10 test images were used in training, such as {case.train[0].name}"
    assert images.leakage(replace(case, record=replace(case.record, used=()))).state == "not checked"
    # The same image in two of the splits that the source gives, neither of them used.
    given = tuple(replace(s, split="test" if i % 5 == 0 else "train") for i, s in enumerate(digits.samples))
    copied = (*given[:1], replace(given[1], digest=given[0].digest), *given[2:])
    both = images.leakage(open_case(finished[0], replace(digits, samples=copied)))
    assert any("stand in more than one split" in finding.text for finding in both.findings)


# The command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(doctor, ["run", *arguments])


def written(samples: Sequence[Sample], tested: Collection[Sample], folder: Path) -> str:
    """The samples as files, some of them in a given test split."""
    for sample in samples:
        path = folder / ("test" if sample in tested else "train") / sample.name
        path.parent.mkdir(exist_ok=True, parents=True)
        assert isinstance(sample.content, bytes)
        path.write_bytes(sample.content)
    return str(folder)


def with_used(run_folder: Path, used: Sequence[Sample], copied: Path) -> str:
    """A copy of a run whose record says that these samples were used."""
    shutil.copytree(run_folder, copied)
    record = read_record(copied / RECORD)
    write_record(copied / RECORD, replace(record, used=tuple(sample.digest for sample in used)))
    return str(copied)


def test_the_command_prints_every_check_and_the_findings(
    finished: tuple[Path, Record], digits: Dataset, tmp_path: Path
) -> None:
    data = written(digits.samples, digits.samples[::5], tmp_path / "data")
    copied = with_used(finished[0], open_data(data).samples, tmp_path / "run")
    result = run(copied, data, "--range-steps", "0")
    assert result.exit_code == 1, result.output
    assert "resolution     fine         8 pixels for images of 8; a total stride of 2" in result.stdout
    assert "learning_rate  not checked" in result.stdout
    assert "error: leakage: 60 of 60 test images were used in training, such as test/" in result.stdout


def test_the_command_prints_one_json_object_and_fails_on_errors_alone(
    finished: tuple[Path, Record], digits: Dataset, tmp_path: Path
) -> None:
    data = written(digits.samples, digits.samples[::5], tmp_path / "data")
    trained = [sample for sample in open_data(data).samples if sample.split == "train"]
    copied = with_used(finished[0], trained, tmp_path / "run")
    result = run(copied, data, "--range-steps", "0", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0, result.output
    states = {check["what"]: check["state"] for check in found["checks"]}
    assert (states["leakage"], states["normalisation"], states["mode_gap"]) == ("fine", "fine", "not checked")
    assert {finding["severity"] for finding in found["findings"]} <= {"warning", "note"}
