"""What a network is worth on images it was not trained on, beside a yardstick that needs no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from trifold.data.images import Images, normalise
from trifold.data.loader import Files, Held
from trifold.preprocessing import Preprocessing
from trifold.train.processes import gathered
from trifold.train.task import CPU, Task

BATCH = 256
NEAREST_IMAGES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Counts over some images, and what follows from them.

    classes: names. confusion: row = true class, column = predicted class, in the order of the names.
    """

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]

    @property
    def total(self) -> int:
        """Images looked at."""
        return sum(map(sum, self.confusion))

    @property
    def correct(self) -> int:
        """Images whose most probable class is their own."""
        return sum(row[i] for i, row in enumerate(self.confusion))

    @property
    def accuracy(self) -> float:
        """Share of correct images, in [0, 1]."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy, from the number of images alone (Wilson 1927)."""
        return wilson(self.correct, self.total)

    @property
    def per_class(self) -> dict[str, float | None]:
        """Share of each class's own images that are correct (recall); None where it has no images."""
        return {
            name: row[i] / sum(row) if sum(row) else None
            for i, (name, row) in enumerate(zip(self.classes, self.confusion, strict=True))
        }


def wilson(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The interval of a share that z standard errors allow (Wilson 1927); 1.96 gives 95 %."""
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def predictions(
    network: nn.Module, source: Held | Files, task: Task, between: Callable[[], None] | None = None
) -> Float[Tensor, "images classes"]:
    """The probability of each class for each image of a source, in its order, on every process.

    Each image is looked at by one process, once, in float32 as those who use the weights will. The network is left in
    evaluation mode.
    between: called before each batch.
    """
    processes = task.processes
    if processes.count > 1:  # batch-norm statistics are each process's own
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
    own = torch.arange(len(source))[processes.rank :: processes.count]
    chances = []
    for pixels in source.batches(own.split(BATCH)):
        if between is not None:
            between()
        chances.append(probabilities(network, pixels, task.preprocessing, device=task.device).cpu())
    empty = torch.empty(0, task.num_classes)
    return gathered(processes, torch.cat(chances) if chances else empty)


@torch.inference_mode()
def probabilities(
    network: nn.Module,
    levels: UInt8[Tensor, "images channels height width"] | Float[Tensor, "images channels height width"],
    preprocessing: Preprocessing,
    *,
    device: torch.device = CPU,
) -> Float[Tensor, "images classes"]:
    """The probability of each class for each image; the network, on the device, is left in evaluation mode.

    levels: what `to_pixels` gives, or, of TensorFlow's resize, the exact values of `to_levels`.
    """
    network.eval()
    outputs = [
        network(normalise(batch.to(device), preprocessing)).float().softmax(1) for batch in torch.split(levels, BATCH)
    ]
    return torch.cat(outputs)


def evaluation(classes: Sequence[str], predicted: Int[Tensor, " images"], labels: Int[Tensor, " images"]) -> Evaluation:
    """The counts of predicted against true labels."""
    num = len(classes)
    counts = torch.bincount(labels * num + predicted, minlength=num * num).view(num, num)
    return Evaluation(classes=tuple(classes), confusion=tuple(tuple(row) for row in counts.tolist()))


def nearest_neighbours(train: Images, test: Images, classes: Sequence[str], *, neighbours: int = 3) -> Evaluation:
    """What the nearest training images by pixel distance say of the test images (scikit-learn).

    Of more than 10,000 training images as many, evenly spaced, are looked at.
    """
    step = -(-len(train) // NEAREST_IMAGES)
    known = train[torch.arange(0, len(train), step)]
    from sklearn.neighbors import KNeighborsClassifier  # takes a second that predicting need not wait

    model = KNeighborsClassifier(n_neighbors=min(neighbours, len(known)))
    model.fit(_flat(known), known.labels.numpy())
    predicted = torch.as_tensor(model.predict(_flat(test)), dtype=torch.long)
    return evaluation(classes, predicted, test.labels)


def _flat(images: Images) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return images.pixels.flatten(1).float().numpy()
