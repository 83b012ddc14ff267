"""What the doctor finds in data made to have it, and that it finds nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trifold.cli.doctor import doctor
from trifold.data.dataset import BadFile, Dataset, Sample
from trifold.data.sources import open_data
from trifold.doctor.data import check_data
from trifold.doctor.findings import Finding
from trifold.errors import InvalidInput


def made(counts: dict[str, int], size: tuple[int, int] = (32, 32)) -> Dataset:
    """Different images, one size, no files."""
    names = [name for name, count in counts.items() for _ in range(count)]
    samples = tuple(
        Sample(
            name=f"{name}/{i}",
            label=list(counts).index(name),
            split="",
            width=size[0],
            height=size[1],
            mode="RGB",
            digest=str(i),
            content=b"",
        )
        for i, name in enumerate(names)
    )
    return Dataset(name="made", classes=tuple(counts), samples=samples)


def change(dataset: Dataset, changes: dict[int, dict[str, object]]) -> Dataset:
    """Some samples with other fields."""
    samples = tuple(replace(s, **changes.get(i, {})) for i, s in enumerate(dataset.samples))  # type: ignore[arg-type]
    return replace(dataset, samples=samples)


def only(dataset: Dataset, what: str, *, resolution: int | None = None) -> Finding:
    (found,) = [finding for finding in check_data(dataset, resolution=resolution) if finding.what == what]
    return found


GOOD = made({"cat": 1000, "dog": 1100})


def test_good_data_get_two_notes() -> None:
    found = check_data(GOOD, resolution=32)
    assert [(finding.severity, finding.what) for finding in found] == [("note", "split shares"), ("note", "one size")]
    assert found[0].text.startswith("1,470 train (70%), 210 minival (10%), 420 test (20%); test accuracy")
    assert "within 4.8 points" in found[0].text
    assert found[1].text == "all 2,100 images have 32x32 pixels"


def test_images_in_two_splits_are_an_error() -> None:
    given = change(GOOD, {i: {"split": "test" if i % 5 == 0 else "train"} for i in range(2100)})
    assert "leakage" not in [finding.what for finding in check_data(given)]
    found = only(change(given, {1: {"digest": "0"}}), "leakage")
    assert found.severity == "error"
    assert found.text == "1 images stand in more than one split, such as cat/0 (test) and cat/1 (train)"


def test_an_image_with_two_labels_is_a_warning() -> None:
    found = only(change(GOOD, {7: {"digest": "1500"}}), "two labels")
    assert found.severity == "warning"
    assert found.text == "1 images stand in more than one class, such as cat/7 (cat) and dog/1500 (dog)"


def test_copies_within_a_class_are_a_note() -> None:
    found = only(change(GOOD, {7: {"digest": "1"}, 8: {"digest": "1"}}), "equal images")
    assert found.severity == "note"
    assert found.text.startswith("2 images are copies of 1 others of their class and split, such as cat/1 (cat) and")


@pytest.mark.parametrize(("smallest", "found"), [(400, False), (399, True)])
def test_imbalance_above_3_to_1_is_a_warning(smallest: int, found: bool) -> None:
    dataset = made({"cat": 1200, "dog": smallest})
    assert ("imbalance" in [finding.what for finding in check_data(dataset)]) == found
    if found:
        finding = only(dataset, "imbalance")
        assert finding.text.startswith("the largest class, 'cat', has 1,200 images, 3.0 times the 399 of the smallest")
        assert "--set balance=weights" in finding.advice


@pytest.mark.parametrize(("images", "trained"), [(28, 19), (29, 20)])
def test_classes_under_20_training_images_are_a_warning(images: int, trained: int) -> None:
    dataset = made({"cat": images, "dog": 80})
    assert ("few images" in [finding.what for finding in check_data(dataset)]) == (trained < 20)
    if trained < 20:
        assert only(dataset, "few images").text == "1 of 2 classes have under 20 training images; 'cat' has 19"


def test_a_class_that_cannot_be_split_is_an_error() -> None:
    found = only(made({"cat": 100, "dog": 2}), "split")
    assert found.severity == "error"
    assert "class 'dog' has 2 images" in found.text


def test_few_test_images_are_a_warning() -> None:
    found = only(made({"cat": 50, "dog": 50}), "split shares")
    assert found.severity == "warning"
    assert "20 test (20%); test accuracy will be known to within 21.9 points" in found.text


def test_images_smaller_than_half_the_resolution_are_a_warning() -> None:
    assert "upsampling" not in [finding.what for finding in check_data(GOOD, resolution=64)]
    found = only(GOOD, "upsampling", resolution=65)
    assert found.severity == "warning"
    assert found.text == (
        "the median image's shorter side is 32 pixels, enlarged 2.0 times to 65; 2,100 of 2,100 images are enlarged "
        "more than 2 times"
    )


def test_images_over_four_times_the_resolution_are_a_note() -> None:
    assert "downsampling" not in [finding.what for finding in check_data(GOOD, resolution=8)]
    assert only(GOOD, "downsampling", resolution=7).text == (
        "the median image's shorter side is 32 pixels, shrunk 4.6 times to 7"
    )


def test_a_mixture_of_modes_is_a_warning_with_its_share_of_each_class() -> None:
    found = only(change(GOOD, {i: {"mode": "L"} for i in range(500)}), "mixed modes")
    assert found.text == "500 of 2,100 images are grey, the others RGB; of a class, 0% to 50% are grey"


def test_long_images_lose_their_share_of_pixels() -> None:
    found = only(made({"cat": 1000, "dog": 1000}, size=(96, 32)), "aspect ratio")
    assert found.severity == "warning"
    assert found.text == (
        "the centre squares leave out 67% of the pixels; 2,000 of 2,000 images lose more than half "
        "(the longest is 3.0:1)"
    )
    assert only(change(GOOD, {0: {"width": 100}}), "aspect ratio").severity == "note"


def test_numbers_that_sort_differently_as_names_are_a_note() -> None:
    counts = dict.fromkeys(("1", "10", "2"), 700)
    assert only(made(counts), "label order").text == (
        "the classes are numbers and stand in the order of their name: 1, 10, 2"
    )
    by_value = made(dict.fromkeys(("1", "2", "10"), 700))
    assert only(by_value, "label order").text.endswith("order of their value: 1, 2, 10")
    for names in (("1", "2", "3"), ("a", "b", "10")):
        found = check_data(made(dict.fromkeys(names, 700)))
        assert "label order" not in [finding.what for finding in found]


def test_bad_files_come_first_and_all_of_them() -> None:
    bad = tuple(BadFile(str(i), f"{i}.png: not an image") for i in range(30))
    found = check_data(replace(change(GOOD, {7: {"digest": "1500"}}), skipped=bad, ignored=3))
    assert [finding.text for finding in found[:30]] == [file.reason for file in bad]
    assert {finding.severity for finding in found[:30]} == {"error"}
    assert [finding.severity for finding in found[30:]] == ["warning", "note", "note", "note"]
    assert [finding.text for finding in found if finding.what == "ignored files"] == [
        "3 files are no images by their suffix and were passed over"
    ]


@pytest.mark.parametrize("resolution", [0, -1])
def test_a_resolution_under_1_is_refused(resolution: int) -> None:
    with pytest.raises(InvalidInput, match=f"resolution must be a whole number from 1, got {resolution}"):
        check_data(GOOD, resolution=resolution)


def test_a_severity_of_another_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match="severity must be error, warning, note, got 'fatal'"):
        Finding(severity="fatal", what="x", text="", advice="")


def test_every_finding_is_lines_without_a_break() -> None:
    everything = change(made({"1": 9, "10": 50, "2": 10}, size=(200, 50)), {0: {"mode": "L"}, 1: {"digest": "40"}})
    for finding in check_data(replace(everything, ignored=1), resolution=224):
        assert "\n" not in finding.text + finding.advice
        assert any(character.isdigit() for character in finding.text)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(doctor, ["data", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty digits of two classes as files."""
    for sample in [sample for sample in open_data("digits").samples if sample.label < 2][:60]:
        path = tmp_path / sample.name
        path.parent.mkdir(exist_ok=True)
        assert isinstance(sample.content, bytes)
        path.write_bytes(sample.content)
    return tmp_path


def test_the_command_prints_the_counts_and_the_findings(folder: Path) -> None:
    result = run(str(folder), "--resolution", "32")
    assert result.exit_code == 0
    assert f"{folder}: 60 images" in result.stdout
    assert "modes: 60 L" in result.stdout
    assert "warning: upsampling: the median image's shorter side is 8 pixels, enlarged 4.0 times to 32" in result.stdout


def test_the_command_lists_every_bad_file_and_fails_unless_they_are_skipped(folder: Path) -> None:
    for i in range(12):
        (folder / "0" / f"bad{i:02d}.png").write_text("no picture")
    result = run(str(folder))
    assert result.exit_code == 1
    assert all(f"error: bad file: {folder}/0/bad{i:02d}.png: not an image" in result.stdout for i in range(12))
    skipped = run(str(folder), "--skip-bad")
    assert skipped.exit_code == 0
    assert skipped.stdout.count("warning: bad file: ") == 12


def test_the_command_prints_one_json_object(folder: Path) -> None:
    (folder / "0" / "bad.png").write_text("no picture")
    result = run(str(folder), "--json")
    found = json.loads(result.stdout)
    assert found["scan"]["counts"] == {"": open_data(folder, skip_bad=True).class_counts}
    assert found["scan"]["widths"] == {"smallest": 8, "median": 8, "largest": 8}
    assert found["scan"]["bad"][0]["path"] == f"{folder}/0/bad.png"
    assert found["findings"][0]["what"] == "bad file"
    assert result.exit_code == 1
