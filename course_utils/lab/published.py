"""What others have published: the two sources' own results, and the references that ours stand beside."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """An accuracy (%), published or our own, on "cifar10" or "cifar100"; `cost` is what it took in words.

    `minutes` and `PFLOP`, the operations of training, are there where they are known.
    """

    name: str
    data: str
    percent: float
    weights: int | None = None
    cost: str = ""
    minutes: float | None = None
    PFLOP: float | None = None


# Session 2's source: test accuracy (%) after each of the 24 epochs.
RESNET_CURVE = (
    *(49.03, 59.79, 66.03, 72.67, 73.36, 79.01, 78.97, 81.30, 83.26, 85.41, 84.96, 83.67),
    *(83.46, 86.99, 86.01, 85.37, 88.60, 89.02, 89.62, 88.59, 90.47, 90.41, 91.59, 91.70),
)

SOURCES = [
    Result("Session 1's source project", "cifar100", 50.48, 996_376, "planned for 330 epochs, RTX 4060"),
    Result("Session 2's source project", "cifar10", RESNET_CURVE[-1], 6_575_370, "24 epochs"),
]

# Keys in book/references.bib, in this order: huang2017, tian2020, and two each of chen2021, page2018, airbench.
REFERENCES = [
    Result("DenseNet-BC 100, k = 12", "cifar100", 77.73, 800_000, "300 epochs, hours on a GPU"),
    Result("WRN-16-2", "cifar100", 73.3, 700_000, "not stated"),
    Result("ResNet-56", "cifar100", 72.6, 860_000, "not stated"),
    Result("ResNet-20", "cifar100", 69.0, 280_000, "not stated"),
    Result("Page: this ResNet's layout", "cifar10", 94.08, 6_573_120, "24 epochs, 79 s on a V100", 79 / 60),
    Result("Page: 10 epochs, test-time flips", "cifar10", 94.1, 6_573_120, "10 epochs, V100"),
    Result("airbench94", "cifar10", 94.01, None, "2.59 s on an A100", 2.59 / 60, 0.29),
    Result("airbench96", "cifar10", 96.0, None, "27.3 s on an A100", 27.3 / 60, 3.1),
]
