"""The table of public weight sets against its sources, where those are installed, and the command that prints it."""

from __future__ import annotations

import ast
import csv
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import timm
import torch
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import nn

from trifold import cli
from trifold._torchvision import torchvision
from trifold.baselines import find, list_models
from trifold.cost import cost
from trifold.errors import InvalidArchitecture, InvalidInput
from trifold.layers import Numerics
from trifold.preprocessing import Preprocessing
from trifold.published import ACCURACY_V5
from trifold.weight_sets import LAYOUTS, WEIGHT_SETS, WeightSet, find_weights, weight_sets

Run = Callable[..., tuple[int, str, str]]

TIMM = weight_sets(layout="timm")
TORCHVISION = weight_sets(layout="torchvision")
HALF, IMAGENET = (0.5, 0.5, 0.5), (0.485, 0.456, 0.406)


def hub(found: WeightSet) -> str:
    """timm's name of a set."""
    return found.source.removeprefix("hf:timm/")


def name(found: WeightSet) -> str:
    return found.name


def numerics_of(module: nn.Module) -> Numerics:
    """Epsilon and momentum that all batch norms of a foreign network share, and whether it pads as TensorFlow does."""
    ((eps, momentum),) = {(m.eps, m.momentum) for m in module.modules() if isinstance(m, nn.BatchNorm2d)}
    (padded,) = {
        "Same" in type(m).__name__ for m in module.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)
    }
    assert momentum is not None
    return Numerics(bn_eps=eps, bn_momentum=momentum, padding="same" if padded else "symmetric")


def numerics(found: WeightSet) -> Numerics:
    return Numerics(bn_eps=found.bn_eps, bn_momentum=found.bn_momentum, padding=found.padding)


def matches_timm(preprocessing: Preprocessing, cfg: PretrainedCfg, *, test: bool, note: str) -> None:
    """Asserts that preprocessing is what timm's own transforms for that configuration do."""
    config = resolve_data_config(pretrained_cfg=asdict(cfg), use_test_size=test)  # type: ignore[no-untyped-call]
    transform = create_transform(**config)
    assert isinstance(transform, torchvision.transforms.Compose)
    resize, crop, _, normalise = transform.transforms
    assert tuple(crop.size) == (preprocessing.resolution,) * 2
    assert resize.interpolation.value == preprocessing.interpolation
    assert normalise.mean.tolist() == pytest.approx(preprocessing.mean)
    assert normalise.std.tolist() == pytest.approx(preprocessing.std)
    if preprocessing.crop == "whole":
        assert tuple(resize.size) == (preprocessing.resolution,) * 2
        assert config["crop_mode"] == "squash"
    else:
        assert preprocessing.resize == math.floor(preprocessing.resolution / config["crop_pct"])
        assert resize.size in (preprocessing.resize, (preprocessing.resize,) * 2)
        assert ("squashes" in note) == (config["crop_mode"] == "squash")


@pytest.mark.parametrize("found", TIMM, ids=name)
def test_a_set_of_timm_is_timms_configuration(found: WeightSet) -> None:
    cfg = get_pretrained_cfg(hub(found))
    assert cfg is not None
    assert found.source == f"hf:{cfg.hf_hub_id}"
    assert found.licence.lower() == cfg.license
    assert found.num_classes == cfg.num_classes
    matches_timm(found.preprocessing, cfg, test=False, note=found.note)
    assert len(found.others) == int(found.top1 is not None and cfg.test_input_size is not None)
    for other in found.others:
        matches_timm(other.preprocessing, cfg, test=True, note=found.note)


def test_every_set_of_timm_whose_architecture_is_shipped_is_there() -> None:
    shipped = set(list_models())
    published = {
        full for full in timm.list_pretrained("*efficientnet*") if full.split(".")[0].removeprefix("tf_") in shipped
    }
    assert {hub(found) for found in TIMM} == published


@pytest.mark.parametrize("full", sorted({hub(found).split(".")[0] for found in TIMM}))
def test_timms_networks_have_the_sets_numerics(full: str) -> None:
    with torch.device("meta"):
        theirs = numerics_of(timm.create_model(full))
    assert {numerics(found) for found in TIMM if hub(found).split(".")[0] == full} == {theirs}


def test_timms_accuracies_are_those_of_its_table(data_dir: Path) -> None:
    published: dict[str, set[tuple[int, int, str, float, float]]] = {}
    millions = {}
    ours = {hub(found) for found in TIMM}
    with (data_dir / "tables" / "timm" / "results-imagenet.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["model"] not in ours:
                continue
            pixels = int(row["img_size"])
            resize = math.floor(pixels / float(row["crop_pct"]))
            line = (pixels, resize, row["interpolation"], float(row["top1"]), float(row["top5"]))
            published.setdefault(row["model"], set()).add(line)
            millions[row["model"]] = float(row["param_count"])
    for found in TIMM:
        lines = {
            (p.resolution, p.resize or p.resolution, p.interpolation, one.top1, one.top5)
            for one in found.evaluations
            for p in [one.preprocessing]
            if one.top1 is not None
        }
        assert lines == published.get(hub(found), set()), found.name
        assert bool(found.measured) == bool(lines)
        if lines:
            parameters = cost(find(found.architecture)).parameters
            assert millions[hub(found)] == pytest.approx(parameters / 1e6, abs=0.0051), found.name


def torchvisions_name(architecture: str) -> str:
    return architecture.replace("efficientnetv2", "efficientnet_v2")


@pytest.mark.parametrize("found", TORCHVISION, ids=name)
def test_a_set_of_torchvision_is_torchvisions_enum(found: WeightSet) -> None:
    enum = torchvision.models.get_model_weights(torchvisions_name(found.architecture))
    weights = enum["IMAGENET1K_V2" if found.tag.endswith("_v2") else "IMAGENET1K_V1"]
    assert found.source == weights.url
    assert found.source.endswith(f"-{found.sha256}.pth")
    assert weights.meta["_metrics"] == {"ImageNet-1K": {"acc@1": found.top1, "acc@5": found.top5}}
    transform = weights.transforms()
    assert transform.crop_size == [found.preprocessing.resolution]
    assert transform.resize_size == [found.preprocessing.resize]
    assert transform.interpolation.value == found.preprocessing.interpolation
    assert (tuple(transform.mean), tuple(transform.std)) == (found.preprocessing.mean, found.preprocessing.std)
    with torch.device("meta"):
        theirs = numerics_of(torchvision.models.get_model(torchvisions_name(found.architecture)))
    assert numerics(found) == theirs


def test_every_set_of_torchvision_is_there() -> None:
    models = [model for model in torchvision.models.list_models() if model.startswith("efficientnet_")]
    urls = {weights.url for model in models for weights in torchvision.models.get_model_weights(model)}
    assert {found.source for found in TORCHVISION} == urls


def keras_constants(module: str) -> tuple[str, dict[str, tuple[str, str]]]:
    """Address and digests in the source of one of keras.applications' modules, which is read and not imported."""
    spec = importlib.util.find_spec("keras")
    if spec is None or spec.origin is None:
        pytest.skip("keras is not installed")
    path = Path(spec.origin).parent / "src" / "applications" / f"{module}.py"
    constants = {
        target.id: ast.literal_eval(node.value)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in ("BASE_WEIGHTS_PATH", "WEIGHTS_HASHES")
    }
    return constants["BASE_WEIGHTS_PATH"], constants["WEIGHTS_HASHES"]


@pytest.mark.parametrize(
    ("module", "prefix", "start"),
    [("efficientnet", "efficientnet_", "efficientnet"), ("efficientnet_v2", "efficientnetv2_", "efficientnetv2-")],
)
def test_the_sets_of_keras_are_those_that_its_code_downloads(module: str, prefix: str, start: str) -> None:
    address, digests = keras_constants(module)
    expected = {
        (prefix + size.strip("-"), f"{address}{start}{size.strip('-')}.h5", pair[0]) for size, pair in digests.items()
    }
    found = weight_sets(f"{prefix}*", layout="keras")
    assert {(one.architecture, one.source, one.md5) for one in found} == expected


def test_accuracies_that_copy_the_papers_last_version_are_the_papers() -> None:
    for accuracy in ACCURACY_V5:
        keras, original = (find_weights(accuracy.name, tag) for tag in ("keras", "original_aa"))
        assert (keras.top1, keras.top5) == (accuracy.top1, accuracy.top5)
        assert original.top1 == accuracy.top1


@pytest.mark.parametrize("found", weight_sets("*_ap"), ids=name)
def test_advprop_is_normalised_by_halves(found: WeightSet) -> None:
    assert (found.preprocessing.mean, found.preprocessing.std) == (HALF, HALF)


@pytest.mark.parametrize("found", weight_sets("efficientnet_b*"), ids=name)
def test_all_of_b0_to_b8_but_advprop_and_ra4_is_normalised_by_imagenet(found: WeightSet) -> None:
    assert (found.preprocessing.mean == IMAGENET) != (found.tag.endswith("_ap") or found.tag == "timm_ra4")


def test_keras_v2_s_to_l_scale_bytes_by_128() -> None:
    for size in "sml":
        for low, high in find_weights(f"v2_{size}", "keras").preprocessing.range:
            assert low == -1
            assert high == pytest.approx(127 / 128)


@pytest.mark.parametrize(
    ("architecture", "tag", "source"),
    [
        ("efficientnet_b5", "original_ra", "randaug/efficientnet-b5-randaug.tar.gz"),
        ("efficientnet_b4", "original", "ckpts/efficientnet-b4.tar.gz"),
        ("efficientnet_b8", "original_ap", "advprop/efficientnet-b8.tar.gz"),
        ("efficientnet_l2", "original_ns", "noisystudent/noisy_student_efficientnet-l2.tar.gz"),
        ("efficientnet_l2", "original_ns_475", "noisystudent/noisy_student_efficientnet-l2_475.tar.gz"),
    ],
)
def test_an_original_checkpoints_address(architecture: str, tag: str, source: str) -> None:
    found = find_weights(architecture, tag)
    assert found.source == f"https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet/{source}"
    assert found.preprocessing.crop == "tensorflow"
    assert found.preprocessing.resolution == (475 if tag.endswith("475") else find(architecture).resolution)


@pytest.mark.parametrize("found", weight_sets(layout="lukemelas"), ids=name)
def test_a_file_of_lukemelas_is_named_after_its_network_and_digest(found: WeightSet) -> None:
    size = found.architecture.removeprefix("efficientnet_")
    start = "adv-" if found.tag == "lukemelas_ap" else ""
    assert found.source.rpartition("/")[2] == f"{start}efficientnet-{size}-{found.sha256}.pth"
    assert (len(found.sha256), found.padding, found.top1) == (8, "same_static", None)


def test_the_digest_names_its_kind() -> None:
    assert find_weights("b0", "torchvision").digest == "sha256:7f5810bc"
    assert find_weights("b0", "keras").digest == "md5:902e53a9f72be733fc0bcb005b3ebbac"
    assert find_weights("b0", "tf_aa").digest == ""


def test_names_are_unique_and_every_set_is_of_a_shipped_architecture() -> None:
    assert len({found.name for found in WEIGHT_SETS}) == len({found.source for found in WEIGHT_SETS}) == 154
    assert {found.architecture for found in WEIGHT_SETS} <= set(list_models("efficientnet*"))
    assert {found.layout for found in WEIGHT_SETS} == set(LAYOUTS)
    for found in WEIGHT_SETS:
        assert numerics(found).padding == found.padding
        assert (found.top1 is None) == (found.measured == "")


@pytest.mark.parametrize(
    ("architecture", "tag"),
    [
        *((f"b{i}", "tf_aa") for i in range(8)),
        ("b8", "tf_ra"),
        ("l2", "tf_ns"),
        ("lite0", "tf"),
        ("efficientnet_es", "tf"),
        ("v2_b0", "tf"),
        ("v2_b3", "tf"),
        ("v2_m", "tf"),
        ("v2_xl", "tf_in21k_ft"),
    ],
)
def test_the_default_is_the_papers_own_training(architecture: str, tag: str) -> None:
    assert find_weights(architecture).tag == tag


def test_patterns_match_architectures_their_short_names_tags_and_full_names() -> None:
    assert weight_sets("b0") == weight_sets("efficientnet_b0") == weight_sets("efficientnet_b0.*")
    assert [found.name for found in weight_sets("efficientnet_b0.tf_aa")] == ["efficientnet_b0.tf_aa"]
    assert {found.tag for found in weight_sets("*_ns*")} == {
        "tf_ns", "tf_ns_475", "original_ns", "original_ns_475"
    }  # fmt: skip
    assert weight_sets("nothing") == ()


def test_min_top1_asks_every_published_accuracy() -> None:
    assert [found.name for found in weight_sets("*.timm_ra4", min_top1=79.3)] == [
        "efficientnet_b0.timm_ra4",
        "efficientnet_b1.timm_ra4",
    ]
    assert weight_sets("efficientnet_b0.timm_ra4", min_top1=79.4) == ()
    assert weight_sets(layout="lukemelas", min_top1=1) == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_weights("b0", "tf_a"), r"weights of efficientnet_b0 .* got 'tf_a'; nearest are .*tf_aa"),
        (lambda: find_weights("l2", "zzz"), r"got 'zzz'; known are tf_ns, tf_ns_475, original_ns, original_ns_475$"),
        (lambda: find_weights("resnet18"), r"'resnet18' has no public weights"),
        (lambda: weight_sets(layout="jax"), r"layout must be timm or .*, got 'jax'"),
    ],
)
def test_errors_name_the_value_and_what_is_allowed(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidArchitecture, match="'efficientnet_b10' is not known; did you mean"):
        find_weights("efficientnet_b10")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `trifold weights list`; returns status, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trifold", "weights", "list", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


def test_the_list_is_a_table(run: Run) -> None:
    status, out, err = run("b0", "--source", "timm", "--min-top1", "78.6")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "2 public weight sets"
    assert [line.split() for line in lines[3:5]] == [
        ["efficientnet_b0", "tf_ns", "224", "78.68", "94.37", "5,288,548", "Apache-2.0",
         "hf:timm/tf_efficientnet_b0.ns_jft_in1k"],
        ["efficientnet_b0", "timm_ra4", "224", "78.57", "94.34", "79.36", "at", "256", "5,288,548", "Apache-2.0",
         "hf:timm/efficientnet_b0.ra4_e3600_r224_in1k"],
    ]  # fmt: skip


def test_the_list_as_json_holds_every_field(run: Run) -> None:
    status, out, _ = run("efficientnet_b5.timm_in12k", "--json")
    (answer,) = json.loads(out)
    assert status == 0
    assert answer["num_classes"] == 11821
    assert answer["parameters"] == cost(find("b5"), num_classes=11821).parameters
    assert answer["top1"] is None
    assert Preprocessing(**answer["preprocessing"]).resize == 437
    assert len(json.loads(run("--json")[1])) == len(WEIGHT_SETS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["b0x"], "trifold: no weight set matches 'b0x'; `trifold weights list` prints them all\n"),
        (["--min-top1", "99"], "trifold: no weight set matches '*' within these limits; `trifold weights list` prints"
                               " them all\n"),
        (["--source", "jax"], "trifold: --source must be timm or torchvision or keras or tensorflow or lukemelas, got"
                              " 'jax'\n"),
    ],
)  # fmt: skip
def test_what_matches_nothing_is_one_line_and_status_2(run: Run, arguments: list[str], message: str) -> None:
    assert run(*arguments) == (2, "", message)


def test_listing_loads_no_torch() -> None:
    code = (
        "import sys; from trifold import cli; sys.argv[:] = ['trifold', 'weights', 'list']\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print([m for m in ('torch', 'numpy', 'timm', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
