"""Training and inference of the networks of DEEP's own benchmark, and a transformer's training, on made-up data."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple, override

from pipelines.benchmark.model import Device, Parameters
from pipelines.benchmark.pytorch import Torch, by_device

CLASSES = 1000
# Of stochastic gradient descent: the loss of the same batch falls with it from the first steps on.
RATE, MOMENTUM, DECAY = 0.001, 0.9, 1e-4
# A fixed scale of the loss, as the published figures of mixed precision have it.
SCALE, NEVER = 256.0, 1 << 30
# Steps whose losses are averaged before they are compared with the first one: dropout makes each differ.
LAST = 3
# Shares of the largest output: the same input gives the same within the first, another input differs by the second.
SAME, OTHER = 0.01, 0.03


class Precision(NamedTuple):
    """How numbers are computed: ``mixed`` is float16 on a GPU and bfloat16 on a processor, by torch's autocast."""

    name: str
    mixed: bool = False
    capability: tuple[int, int] | None = None


class Network(NamedTuple):
    """One of torchvision's: what it is made by there, images of a batch on a GPU, pixels of a side.

    Not ``plain``: torchvision would add outputs that only help training, and warns where it is not told how to begin.
    The batches are DEEP's for a GPU of 16 GB (four times those of 4 GB), on any GPU, so that figures compare.
    """

    name: str
    builder: str
    batch: int
    image: int = 224
    plain: bool = True


NETWORKS = (
    Network("googlenet", "googlenet", 384, plain=False),
    Network("inception3", "inception_v3", 96, 299, plain=False),
    Network("resnet50", "resnet50", 96),
    Network("vgg16", "vgg16", 64),
)
PRECISIONS = (Precision("amp", mixed=True), Precision("tf32", capability=(8, 0)), Precision("fp32"))
# Images of a batch on processors: DEEP's.
CPU_BATCH = 16
# With which the figures that ResNet-50's training is held against were made on a GPU of 16 GB (lambdal/
# deeplearning-benchmark, pytorch-train-bs-fp16.csv and -fp32.csv): larger GPUs had more.
PUBLISHED_BATCH = {"resnet50-train-amp": 256, "resnet50-train-tf32": 128}


class Step(Torch):
    """Something that is done with a batch of examples, ``work`` of them."""

    precision: ClassVar[Precision]
    batches: ClassVar[dict[Device, int]]
    batch: int = 0

    @property
    def arithmetic(self) -> str:
        """The type of the products."""
        if not self.precision.mixed:
            return self.precision.name
        return "float16" if self.resources.device == "gpu" else "bfloat16"

    def cast(self) -> AbstractContextManager[None]:
        """Mixed precision where it is asked for."""
        import torch

        mixed = self.precision.mixed
        kind = getattr(torch, self.arithmetic) if mixed else None
        context: AbstractContextManager[None] = torch.autocast(self.device, dtype=kind, enabled=mixed)
        return context

    def sized(self, asked: int | None) -> None:
        """Take a batch of this size, else the device's."""
        self.batch = by_device(asked, self.batches, self.resources.device)
        self.work = float(self.batch)

    @abstractmethod
    def model(self) -> Any:
        """The network."""

    @abstractmethod
    def examples(self) -> Any:
        """A batch of inputs."""


class Vision(Step):  # pylint: disable=abstract-method  # what is done with it is for others
    """A network of torchvision and normal random images, in torch's usual order (channels, rows, columns)."""

    libraries = ("torch", "torchvision")
    unit = "img/s"
    network: ClassVar[Network]

    def __init__(self, batch: int | None = None, image: int | None = None) -> None:
        self.asked = batch
        self.image = image or self.network.image

    @property
    def parameters(self) -> Parameters:
        """Images of a batch, pixels of a side, the type of products."""
        return {"batch": self.batch, "image": self.image, "arithmetic": self.arithmetic}

    @override
    def model(self) -> Any:
        from torchvision import models

        options = {} if self.network.plain else {"aux_logits": False, "init_weights": True}
        return getattr(models, self.network.builder)(weights=None, num_classes=CLASSES, **options)

    @override
    def examples(self) -> Any:
        import torch

        return torch.randn(self.batch, 3, self.image, self.image, device=self.device)


class Training(Step):
    """Steps of stochastic gradient descent with momentum, always on the same batch."""

    asked: int | None
    trained: Any
    optimizer: Any
    scaler: Any
    inputs: Any
    wanted: Any
    losses: list[Any]
    before: list[tuple[float, float]]
    latest: list[tuple[float, float]]

    @abstractmethod
    def labels(self) -> Any:
        """What the network should say of its inputs."""

    @override
    def prepare(self) -> None:
        import torch

        self.sized(self.asked)
        self.trained = self.model().to(self.device).train()
        self.inputs, self.wanted = self.examples(), self.labels()
        self.optimizer = torch.optim.SGD(self.trained.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
        scaled = self.arithmetic == "float16"
        self.scaler = torch.amp.GradScaler(self.device, init_scale=SCALE, growth_interval=NEVER, enabled=scaled)
        self.losses, self.before, self.latest = [], self.sums(), []

    def run(self) -> None:
        """One step."""
        import torch

        self.optimizer.zero_grad(set_to_none=True)
        with self.cast():
            said = self.trained(self.inputs)
            loss = torch.nn.functional.cross_entropy(said.flatten(0, -2), self.wanted.flatten())
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.losses.append(loss.detach())
        self.finish()

    @override
    def spoil(self) -> None:
        """Remember the parameters, so that a step that changes none of them is seen."""
        self.latest = self.sums()

    def check(self) -> str | None:
        """Losses are numbers and have fallen, every parameter has changed, and some with the last step."""
        import torch

        if len(self.losses) <= LAST:
            return f"the training is wrong: {len(self.losses)} steps, too few to learn"
        losses = torch.stack(self.losses).double()
        if not bool(losses.isfinite().all()):
            return f"the training is wrong: {int((~losses.isfinite()).sum())} losses are no numbers"
        now = self.sums()
        if now == self.latest:
            return "the training is wrong: the last step has changed nothing"
        same = sum(one == other for one, other in zip(self.before, now, strict=True))
        if same:
            return f"the training is wrong: {same} of {len(self.before)} parameters have not changed"
        first, last = float(losses[0]), float(losses[-LAST:].mean())
        return None if last < first else f"the training is wrong: the loss was {first:.4g}, is {last:.4g}"

    def sums(self) -> list[tuple[float, float]]:
        """Of each parameter, so that a change is seen without a copy of them."""
        import torch

        wide = ((one.sum(dtype=torch.float64), one.abs().sum(dtype=torch.float64)) for one in self.trained.parameters())
        return [(float(one), float(other)) for one, other in wide]

    def teardown(self) -> None:
        """Drop the network and its data."""
        del self.trained, self.optimizer, self.scaler, self.inputs, self.wanted, self.losses


class VisionTraining(Vision, Training):
    """Of a network of torchvision."""

    verb = "train"

    @override
    def labels(self) -> Any:
        import torch

        return torch.randint(CLASSES, (self.batch,), device=self.device)


class VisionInference(Vision):
    """What a network of torchvision says of images, without anything that only training needs."""

    verb = "inference"
    evaluated: Any
    inputs: Any
    others: Any
    output: Any = None

    @override
    def prepare(self) -> None:
        self.sized(self.asked)
        self.evaluated = self.model().to(self.device)
        self.inputs, self.others = self.examples(), self.examples().abs()
        self._settle()

    def _settle(self) -> None:
        """Let the network see data once: its layers pass on ever larger numbers while they know no means of theirs."""
        import torch

        for module in self.evaluated.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # what it has seen counts wholly
        with torch.no_grad(), self.cast():
            self.evaluated.train()(self.inputs)
        self.evaluated.eval()

    def run(self) -> None:
        """One batch."""
        self.output = self.said(self.inputs)
        self.finish()

    @override
    def spoil(self) -> None:
        self.output = None

    def said(self, inputs: Any) -> Any:
        """The network's output."""
        import torch

        with torch.inference_mode(), self.cast():
            return self.evaluated(inputs)

    def check(self) -> str | None:
        """Outputs are numbers, the same for the same images, and others for others."""
        if self.output is None or not bool(self.output.isfinite().all()):
            return "the output is wrong: it is no numbers"
        again, others = (self.said(inputs).double() for inputs in (self.inputs, self.others))
        output = self.output.double()
        largest = float(output.abs().max())
        off, apart = (float((output - one).abs().max()) for one in (again, others))
        if not off <= SAME * largest:
            return f"the output is wrong: for the same images it is off by {off:.3g} of {largest:.3g}"
        if not apart >= OTHER * largest:
            return f"the output is wrong: for other images it differs by {apart:.3g} of {largest:.3g}"
        return None

    def teardown(self) -> None:
        """Drop the network and its data."""
        del self.evaluated, self.inputs, self.others, self.output


class Transformer(Training):
    """An encoder as in the base model of Vaswani and others (2017), which says a token for each token."""

    unit = "sequences/s"
    batches: ClassVar[dict[Device, int]] = {"gpu": 64, "cpu": 8}
    vocabulary = 32000

    def __init__(self, batch: int | None = None, length: int = 128, layers: int = 6, width: int = 512) -> None:
        self.asked, self.length, self.layers, self.width = batch, length, layers, width

    @property
    def parameters(self) -> Parameters:
        """Sequences of a batch, tokens of each, the size of the network, the type of products."""
        return {
            "batch": self.batch, "length": self.length, "layers": self.layers, "width": self.width,
            "arithmetic": self.arithmetic,
        }  # fmt: skip

    @override
    def model(self) -> Any:
        from torch import nn

        layer = nn.TransformerEncoderLayer(self.width, nhead=8, dim_feedforward=4 * self.width, batch_first=True)
        encoder = nn.TransformerEncoder(layer, self.layers, enable_nested_tensor=False)
        words = nn.Embedding(self.vocabulary, self.width)
        return nn.Sequential(words, encoder, nn.Linear(self.width, self.vocabulary))

    @override
    def examples(self) -> Any:
        import torch

        return torch.randint(self.vocabulary, (self.batch, self.length), device=self.device)

    @override
    def labels(self) -> Any:
        return self.examples()


def _named(kind: type[Step], name: str, precision: Precision, **more: Any) -> type[Step]:
    name = f"{name}-{precision.name}"
    facts = {
        "name": name, "precision": precision, "capability": precision.capability, "tf32": precision.name != "fp32",
        "__module__": __name__, "__doc__": kind.__doc__,
    }  # fmt: skip
    return type(name, (kind,), facts | more)


def _all() -> dict[str, type[Step]]:
    """Each network in each way and precision, by its name."""
    found = [_named(Transformer, "transformer-train", precision) for precision in PRECISIONS]
    for network in NETWORKS:
        for kind in (VisionTraining, VisionInference):
            for precision in PRECISIONS:
                name = f"{network.name}-{kind.verb}"
                gpu = PUBLISHED_BATCH.get(f"{name}-{precision.name}", network.batch)
                batches = {"gpu": gpu, "cpu": CPU_BATCH}
                found.append(_named(kind, name, precision, network=network, batches=batches))
    return {one.name: one for one in found}


# ``workload.load`` finds them here as any other class.
globals().update(_all())
