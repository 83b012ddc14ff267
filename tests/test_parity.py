"""Our networks beside timm's and torchvision's: equal tensors give equal outputs, whichever side they come from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.peers import error, images, randomise
from trifold import baselines
from trifold._torchvision import torchvision
from trifold.layers import TORCH_NUMERICS, Numerics
from trifold.network import Network, build
from trifold.weights import exported, imported, names

TF = Numerics(bn_eps=1e-3, bn_momentum=0.1, padding="same")
TORCHVISION_TF = Numerics(bn_eps=1e-3, bn_momentum=0.01, padding="symmetric")
TORCHVISION_V2 = Numerics(bn_eps=1e-3, bn_momentum=0.1, padding="symmetric")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """torch's float64 depthwise convolution waits for all threads once a channel: slow where another process runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A network of another library, the architecture and numerics of ours that must equal it, and the sizes tried.

    sizes: of the images. Even and odd sides take different SAME padding: 64 stays even down to 4 pixels, 65 and 49 stay
    odd, 76 goes even, even, odd, even, odd; 95 is odd once, then even.
    """

    name: str
    net: str
    numerics: Numerics
    sizes: tuple[tuple[int, int], ...] = ((48, 64),)
    library: str = "timm"

    def make(self, device: str = "cpu") -> nn.Module:
        """The other library's network, its tensors not yet given values."""
        with torch.device("meta"):
            network = (
                timm.create_model(self.name) if self.library == "timm" else getattr(torchvision.models, self.name)()
            )
        assert isinstance(network, nn.Module)
        return network.to_empty(device=device).eval()

    def from_peer(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return imported(state_dict, baselines.find(self.net), self.library)

    def to_peer(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return exported(state_dict, baselines.find(self.net), self.library)

    def ours(self) -> Network:
        """Our network, its tensors not yet given values."""
        with torch.device("meta"):
            network = build(baselines.find(self.net), numerics=self.numerics)
        return network.to_empty(device="cpu").eval()


Boundary = tuple[nn.Module, nn.Module, nn.Module]
"""A peer's module whose input it is, one whose output it is, and the module of ours between the two."""

EVEN_ODD = ((48, 64), (65, 49))
MIXED = (*EVEN_ODD, (76, 95))

SMALL = [
    *(Peer(name=f"efficientnet_b{i}", net=f"b{i}", numerics=TORCH_NUMERICS) for i in range(5)),
    *(
        Peer(name=f"tf_efficientnet_b{i}", net=f"b{i}", numerics=TF, sizes=MIXED if i < 2 else EVEN_ODD)
        for i in range(5)
    ),
    *(Peer(name=f"efficientnet_b{i}", net=f"b{i}", numerics=TORCH_NUMERICS, library="torchvision") for i in range(5)),
]
LARGE = [
    *(Peer(name=f"efficientnet_b{i}", net=f"b{i}", numerics=TORCH_NUMERICS) for i in (5, 6, 7)),
    *(Peer(name=f"tf_efficientnet_b{i}", net=f"b{i}", numerics=TF, sizes=EVEN_ODD[1:]) for i in (5, 6, 7)),
    *(Peer(name=f"efficientnet_b{i}", net=f"b{i}", numerics=TORCHVISION_TF, library="torchvision") for i in (5, 6, 7)),
]
OTHERS = [
    Peer(name="tf_efficientnetv2_s", net="v2_s", numerics=TF, sizes=EVEN_ODD),
    Peer(name="efficientnet_v2_s", net="v2_s", numerics=TORCHVISION_V2, library="torchvision"),
    Peer(name="mobilenetv2_100", net="mobilenet_v2", numerics=TORCH_NUMERICS),
    Peer(name="mobilenet_v2", net="mobilenet_v2", numerics=TORCH_NUMERICS, library="torchvision"),
    Peer(name="tf_efficientnet_lite0", net="lite0", numerics=TF, sizes=MIXED),
    Peer(name="tf_efficientnet_es", net="efficientnet_es", numerics=TF, sizes=MIXED),
    Peer(name="tf_efficientnetv2_b3", net="v2_b3", numerics=TF),
    Peer(name="mobilenetv1_100", net="mobilenet_v1", numerics=TORCH_NUMERICS),
    Peer(name="semnasnet_100", net="mnasnet_a1", numerics=TORCH_NUMERICS),
    *(
        Peer(name=f"resnet{depth}", net=f"resnet{depth}", numerics=TORCH_NUMERICS, library=library)
        for depth in (18, 50)
        for library in ("timm", "torchvision")
    ),
]


def named(peer: Peer) -> str:
    return f"{peer.library}-{peer.name}"


def check_outputs(ours: nn.Module, theirs: nn.Module, batch: Tensor, limit: float) -> float:
    """The error of the logits, after a look that they tell the images apart and are finite."""
    with torch.no_grad():
        expected = theirs(batch)
        found = error(ours(batch), expected)
    assert torch.isfinite(expected).all()
    assert (expected[0] - expected[1]).abs().max() > 0.05 * expected.abs().max()
    assert found <= limit
    return found


def pair_from_peer(peer: Peer) -> tuple[Network, nn.Module]:
    """Ours and theirs, evaluating, with the random tensors of theirs."""
    theirs, ours = peer.make(), peer.ours()
    norms = {(module.eps, module.momentum) for module in theirs.modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms == {(peer.numerics.bn_eps, peer.numerics.bn_momentum)}
    randomise(theirs, seed=1)
    ours.load_state_dict(peer.from_peer(theirs.state_dict()))
    return ours, theirs


def both_directions(peer: Peer) -> tuple[Network, nn.Module]:
    """Asserts equal logits in float64, from theirs to ours and from ours to theirs; gives the pair."""
    ours, theirs = pair_from_peer(peer)
    for size in peer.sizes:
        check_outputs(ours.double(), theirs.double(), images(size, seed=5).double(), 1e-6)
    randomise(ours.float(), seed=2)
    theirs.load_state_dict(peer.to_peer(ours.double().state_dict()))
    check_outputs(ours, theirs, images((33, 48), seed=6).double(), 1e-6)
    return ours, theirs


def boundaries(peer: Peer, theirs: nn.Module, ours: Network) -> list[Boundary]:
    """Stem, head and every block."""
    if peer.library == "timm":
        stages = list(theirs.get_submodule("blocks").children())
        ends: list[tuple[str, str, nn.Module]] = [("conv_stem", "bn1", ours.stem), ("conv_head", "bn2", ours.head)]
        found: list[Boundary] = [(theirs.get_submodule(a), theirs.get_submodule(b), module) for a, b, module in ends]
    else:
        first, *stages, last = theirs.get_submodule("features").children()
        found = [(first, first, ours.stem), (last, last, ours.head)]
    for stage, our_stage in zip(stages, ours.stages.children(), strict=True):
        found += [(a, a, b) for a, b in zip(stage.children(), our_stage.children(), strict=True)]
    return found


def block_errors(peer: Peer, ours: Network, theirs: nn.Module, batch: Tensor) -> list[float]:
    """The error of each of our blocks when it is fed what the peer's block was fed."""
    kept: dict[tuple[str, int], Tensor] = {}
    found = boundaries(peer, theirs, ours)
    for number, (first, last, _) in enumerate(found):
        first.register_forward_pre_hook(lambda _, given, n=number: kept.update({("in", n): given[0].clone()}))
        last.register_forward_hook(lambda _, __, made, n=number: kept.update({("out", n): made.clone()}))
    with torch.no_grad():
        theirs(batch)
        return [error(module(kept["in", i]), kept["out", i]) for i, (_, _, module) in enumerate(found)]


@pytest.mark.parametrize("peer", SMALL, ids=named)
def test_b0_to_b4_equal_peer_in_float64_and_float32(peer: Peer) -> None:
    ours, theirs = both_directions(peer)
    check_outputs(ours.float(), theirs.float(), images(peer.sizes[0], seed=7), 1e-4)


@pytest.mark.parametrize("peer", [*LARGE, *OTHERS[:2]], ids=named)
def test_large_networks_equal_peer_in_float64_and_block_by_block_in_float32(peer: Peer) -> None:
    ours, theirs = both_directions(peer)
    errors = block_errors(peer, ours.float(), theirs.float(), images(peer.sizes[-1], seed=7))
    assert len(errors) == baselines.find(peer.net).num_blocks + 2
    assert max(errors) <= 1e-5


@pytest.mark.parametrize("peer", OTHERS[2:], ids=named)
def test_other_families_equal_peer_in_float64_and_float32(peer: Peer) -> None:
    ours, theirs = both_directions(peer)
    check_outputs(ours.float(), theirs.float(), images(peer.sizes[0], seed=7), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("peer", [*SMALL, *LARGE, *OTHERS], ids=named)
def test_networks_equal_peer_at_their_own_resolution(peer: Peer) -> None:
    ours, theirs = pair_from_peer(peer)
    resolution = baselines.find(peer.net).resolution
    check_outputs(ours.double(), theirs.double(), images((resolution, resolution), seed=8).double(), 1e-6)


def test_wrong_padding_and_wrong_epsilon_would_be_seen() -> None:
    peer = SMALL[5]
    assert peer.name == "tf_efficientnet_b0"
    _, theirs = pair_from_peer(peer)
    batch = images((64, 64), seed=5)
    for numerics in (TORCHVISION_V2, Numerics(bn_eps=1e-5, padding="same")):
        ours = build(baselines.find("b0"), numerics=numerics).eval()
        ours.load_state_dict(peer.from_peer(theirs.state_dict()))
        with torch.no_grad():
            assert error(ours(batch), theirs(batch)) > 1e-3


def test_one_training_step_has_timms_gradients_and_running_statistics() -> None:
    peer = Peer(name="tf_efficientnet_b0", net="b0", numerics=TF)
    ours, theirs = pair_from_peer(peer)
    ours.double().train()
    theirs.double().train()
    batch, labels = images((64, 64), seed=9, batch=4).double(), torch.tensor([1, 20, 300, 999])
    outputs = [network(batch) for network in (ours, theirs)]
    assert error(*outputs) <= 1e-6
    for logits in outputs:
        nn.functional.cross_entropy(logits, labels).backward()
    renamed = names(ours.architecture, "timm")
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = gradients[renamed[name]].grad
        assert parameter.grad is not None
        assert expected is not None
        assert parameter.grad.abs().max() > 0
        assert (parameter.grad - expected).abs().max() <= 1e-9 + 1e-6 * expected.abs().max(), name
    statistics = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        if "running" in name:
            assert error(tensor, statistics[renamed[name]]) <= 1e-6, name
