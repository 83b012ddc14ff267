"""The peer: timm's model and optimiser in a plain PyTorch loop, torchvision's transforms, a DataLoader.

Usage: peer.py DATA MINIVAL SEED SECONDS LOG. DATA has train/ and test/, one folder a class; MINIVAL names the training
files, one a line, that are held back to choose the epoch by. The epochs are planned from the time of 30 steps.
"""

# ruff: noqa: I001  the first import must precede timm's and torchvision's
import trifold._torchvision  # noqa: F401  lets torchvision import beside a CPU build of torch; nothing else here is ours

import functools
import itertools
import json
import math
import statistics
import sys
import time
from pathlib import Path

import torch
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.optim import create_optimizer_v2
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets
from torchvision import transforms as T

BATCH, LR, DECAY, WARM_UP, SMOOTHING, WORKERS = 128, 4e-3, 0.05, 1.0, 0.1, 2
MEAN, STD = (0.4913, 0.4821, 0.4465), (0.247, 0.2435, 0.2616)
ARCHITECTURE = [["er_r1_k3_s2_e2_c16"], ["ir_r2_k3_s2_e4_c32_se0.25"], ["ir_r4_k3_s2_e4_c64_se0.25"]]


def make_model() -> nn.Module:
    """timm's EfficientNet of the shape in shape.toml."""
    model = EfficientNet(
        decode_arch_def(ARCHITECTURE),
        num_classes=10,
        num_features=320,
        stem_size=16,
        fix_stem=True,
        act_layer=nn.SiLU,
        norm_layer=functools.partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1),
    )
    model.conv_stem.stride = (1, 1)
    return model


def rate(step: int, steps: int, warm_up: int) -> float:
    """A line up, then half a cosine."""
    if step < warm_up:
        return (step + 0.5) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step + 0.5 - warm_up) / (steps - warm_up)))


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """The share of correct images."""
    model.eval()
    right = total = 0
    for images, labels in loader:
        right += int((model(images).argmax(1) == labels).sum())
        total += len(labels)
    return right / total


def main() -> None:
    """Trains, logging one line an epoch, and tests the epoch that was best on minival."""
    began = time.perf_counter()
    data, minival_list, seed, seconds, log = (
        Path(sys.argv[1]),
        sys.argv[2],
        int(sys.argv[3]),
        float(sys.argv[4]),
        sys.argv[5],
    )
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    normalise = [T.ToTensor(), T.Normalize(MEAN, STD)]
    augmented = T.Compose([T.RandomCrop(32, padding=4), T.RandomHorizontalFlip(), *normalise])
    train = datasets.ImageFolder(str(data / "train"), augmented)
    plain = datasets.ImageFolder(str(data / "train"), T.Compose(normalise))
    held = set(Path(minival_list).read_text().split())
    names = [str(Path(path).relative_to(data)) for path, _ in train.samples]
    own = [i for i, name in enumerate(names) if name not in held]
    others = [i for i, name in enumerate(names) if name in held]
    loader = DataLoader(
        Subset(train, own), BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True
    )
    minival = DataLoader(Subset(plain, others), 256, num_workers=WORKERS)
    test = DataLoader(datasets.ImageFolder(str(data / "test"), T.Compose(normalise)), 256, num_workers=WORKERS)

    model = make_model()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=LR, weight_decay=DECAY)
    criterion = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    steps_per_epoch, epochs, step, best = len(loader), 0, 0, (0.0, 0, {})
    times: list[float] = []
    with Path(log).open("w", encoding="utf-8") as file:
        epoch = 0
        while epochs == 0 or epoch < epochs:
            model.train()
            for images, labels in loader:
                # Until the epochs are planned the rate is on its line up, which needs only the warm-up's length.
                total = (epochs or 10**6) * steps_per_epoch
                for group in optimizer.param_groups:
                    group["lr"] = LR * rate(step, total, int(WARM_UP * steps_per_epoch))
                loss = criterion(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                times.append(time.perf_counter())
                if step == 34:
                    spans = [later - earlier for earlier, later in itertools.pairwise(times[3:])]
                    span = statistics.quantiles(spans, n=3)[0] * (steps_per_epoch + len(others) / BATCH / 3)
                    epochs = max(2, int((0.97 * seconds - (times[0] - began)) // span))
            epoch += 1
            right = accuracy(model, minival)
            if right > best[0]:
                best = (right, epoch, {name: tensor.clone() for name, tensor in model.state_dict().items()})
            file.write(json.dumps({"epoch": epoch, "of": epochs, "minival": right}) + "\n")
            file.flush()
        model.load_state_dict(best[2])
        file.write(
            json.dumps(
                {
                    "test": accuracy(model, test),
                    "best_epoch": best[1],
                    "parameters": sum(p.numel() for p in model.parameters()),
                }
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
