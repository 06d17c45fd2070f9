"""What the two source projects say, as data: each claim with its parts, and the page that discusses it.

The statements are ours, the figures are the source's. Ranges were drawn from the sources' words, before the recorded
runs: a figure that was measured once is given two points either side on CIFAR-100, one on CIFAR-10, a tenth or two if
it is a ratio, an epoch if it is one, and about a factor of three if it is a learning rate; a range is given half a
point more at both ends; "better" and "helps" mean at least one point, "makes no difference" less than one, "slightly
better" up to three. Parts that were added after the first runs have the ranges of the parts that they stand beside.
S17 and R3 are questions of the book's own. The rule that turns ranges and records into verdicts is in `verdicts`.
"""

from math import inf

from course_utils.lab import verdicts
from course_utils.lab.verdicts import Accuracy, Bench, Difference, Part, SecondsRatio, WeightsRatio


class Claim:
    """A statement of a source project, on `page` below book/; `untested` says what of it is not tested."""

    def __init__(self, id: str, page: str, says: str, *parts: Part, untested: str = ""):
        self.id, self.page, self.says, self.parts, self.untested = id, page, says, parts, untested
        for part in parts:
            if not part.low <= part.high:
                raise ValueError(f"{id}: expected a range from low to high, found {part.low} to {part.high}")
        if not parts:
            raise ValueError(f"{id}: a claim has at least one part to judge")

    def verdict(self) -> str:
        return verdicts.tally([part.word for part in self.parts])


def gains(says: str, recipe: str, baseline: str, low: float, high: float, figure: str) -> Part:
    """The part that says by how many points `recipe` does better than `baseline`."""
    return Part(says, Difference(recipe, baseline), low, high, figure)


def better(says: str, recipe: str, baseline: str, figure: str = "no figure") -> Part:
    """The part that says `recipe` does better than `baseline`: by a point or more."""
    return gains(says, recipe, baseline, 1, inf, figure)


def as_published(how: str, recipe: str) -> list[Part]:
    """The two parts of R1, for one reading of the published log."""
    return [
        Part(f"test accuracy after 24 epochs, {how}", Accuracy(recipe), 90.7, 92.7, "91.70 %"),
        Part(f"first epoch at 90 %, {how}", verdicts.FirstEpoch(recipe), 1, 22, "21"),
    ]


# A table, with a part on a line.
# fmt: off
SESSION_1 = [
    Claim("S1", "session1/batch_size",
        "The starting network, two convolutions trained with batches of 32, reaches 4 %.",
        Part("its test accuracy", Accuracy("smallnet-start"), 2, 6, "4 %"),
        untested="the project's own rate for S1 to S4, which is not known. Here it is the 0.1 of its later runs.",
    ),
    Claim("S2", "session1/batch_size",
        "Batches of 128 instead of 32 lift the starting network to 35 %, and an epoch takes less time.",
        gains("128 against 32, at a rate of 0.1", "smallnet-batch128", "smallnet-start", 29, 33, "+31 points"),
        gains("128 against 32, at a rate of 0.01", "smallnet-batch128-0.01", "smallnet-start-0.01", 29, 33,
              "+31 points"),
        Part("time an epoch, 128 against 32", SecondsRatio("smallnet-batch128", "smallnet-start"), 0, 0.9, "less"),
    ),
    Claim("S3", "session1/convolutions",
        "A third convolution adds about 7 points and lowers the number of weights.",
        gains("three convolutions against two, at a rate of 0.1", "smallnet-deep", "smallnet-batch128", 5, 9,
              "about +7 points"),
        gains("three convolutions against two, at a rate of 0.01", "smallnet-deep-0.01", "smallnet-batch128-0.01",
              5, 9, "about +7 points"),
        Part("weights, three against two", WeightsRatio("smallnet-deep", "smallnet-batch128"), 0, 0.99, "fewer"),
    ),
    Claim("S4", "session1/dense_layers",
        "Twice as many neurons in the dense layer add 6 points in 10 epochs, for a fifth more time.",
        gains("420 neurons against 200, at a rate of 0.1", "smallnet-wide", "smallnet-deep", 4, 8, "42 % to 48 %"),
        gains("420 neurons against 200, at a rate of 0.01", "smallnet-sgd-0.01", "smallnet-deep-0.01", 4, 8,
              "42 % to 48 %"),
        Part("weights", WeightsRatio("smallnet-wide", "smallnet-deep"), 1.8, 2.2, "about twice"),
        Part("time an epoch", SecondsRatio("smallnet-wide", "smallnet-deep"), 1.1, 1.3, "20 % more"),
    ),
    Claim("S5", "session1/rate_and_schedule",
        "A step schedule with three times the epochs lifts the wider network from 48 % to 52 %.",
        gains("stepped against a constant rate of 0.1", "smallnet-source", "smallnet-wide", 2, 6, "+4 points"),
        gains("stepped against a constant rate of 0.01", "smallnet-source", "smallnet-sgd-0.01", 2, 6, "+4 points"),
        Part("accuracy with the schedule", Accuracy("smallnet-source"), 50, 54, "52 %"),
        untested="the steps alone: steps and epochs change at once, as they did there.",
    ),
    Claim("S6", "session1/training_time",
        "330 epochs of the step schedule, the whole hour, would do better still. (Expected there, and not run.)",
        better("twice the epochs against 25", "smallnet-long", "smallnet-source", "better, not measured"),
        untested="the 330 epochs themselves. The page says what they could still add.",
    ),
    Claim("S7", "session1/rate_and_schedule",
        "SGD does slightly better than Adam and AdamW.",
        gains("SGD against Adam", "smallnet-source", "smallnet-adam", 0, 3, "slightly better"),
        gains("SGD against AdamW", "smallnet-source", "smallnet-adamw", 0, 3, "slightly better"),
        untested="AdamW with a weight decay that counts: 10⁻⁴ times the rate hardly moves a weight.",
    ),
    Claim("S8", "session1/rate_and_schedule",
        "In 10 epochs, any initial rate above 0.001 costs accuracy. (It does not say for which optimizer.)",
        better("SGD: 0.001 against 0.01", "smallnet-sgd-0.001", "smallnet-sgd-0.01", "better"),
        better("SGD: 0.001 against 0.1", "smallnet-sgd-0.001", "smallnet-wide", "better"),
        better("Adam: 0.001 against 0.003", "smallnet-adam-0.001", "smallnet-adam-0.003", "better"),
        better("Adam: 0.001 against 0.01", "smallnet-adam-0.001", "smallnet-adam-0.01", "better"),
    ),
    Claim("S9", "session1/rate_and_schedule",
        "10 epochs at 0.001 and 10 at 0.0002 beat 20 at 0.001 by 3 to 5 points; 10 more add about 2.",
        gains("10 + 10 against 20", "smallnet-10-10", "smallnet-20-flat", 2.5, 5.5, "3 to 5 points"),
        gains("10 + 10 + 10 against 10 + 10", "smallnet-10-10-10", "smallnet-10-10", 0, 4, "about 2 points"),
        untested="SGD. The project names no optimizer, and these are rates for Adam.",
    ),
    Claim("S10", "session1/rate_and_schedule",
        "Any gamma from 0.1 to 0.3 gives the same result.",
        gains("0.1 against 0.2", "smallnet-gamma-0.1", "smallnet-source", -1, 1, "no difference"),
        gains("0.3 against 0.2", "smallnet-gamma-0.3", "smallnet-source", -1, 1, "no difference"),
        gains("0.3 against 0.1", "smallnet-gamma-0.3", "smallnet-gamma-0.1", -1, 1, "no difference"),
    ),
    Claim("S11", "session1/dropout",
        "Dropout between the convolutions lowers test accuracy; 20 % in the dense layer adds 2 to 3 points.",
        better("without against with, convolutions", "smallnet-no-conv-dropout", "smallnet-source", "better"),
        gains("with against without, dense layer", "smallnet-no-conv-dropout", "smallnet-no-dropout", 1.5, 3.5,
              "2 to 3 points"),
    ),
    Claim("S12", "session1/batch_norm",
        "Batch normalisation between convolution and ReLU speeds up convergence.",
        better("with against without, after 10 epochs", "smallnet-sgd-0.01", "smallnet-no-batch-norm", "faster"),
    ),
    Claim("S13", "session1/validation_and_overfitting",
        "Holding out a tenth of the training images for validation costs 1 to 2 points.",
        gains("all images against nine tenths", "smallnet-all-images", "smallnet-source", 0.5, 2.5, "1 to 2 points"),
    ),
    Claim("S14", "session1/validation_and_overfitting",
        "At any constant rate the network overfits from about the fifth epoch, so steps of 5 beat steps of 10.",
        better("steps of 5 against steps of 10", "smallnet-source", "smallnet-step-10", "better"),
        untested="from which epoch it overfits. The page reads it off the curves; no rule does.",
    ),
    Claim("S15", "session1/augmentation",
        "Augmentation makes an epoch more than 5 times slower, and does not help within 30 epochs.",
        Part("time an epoch, image by image", Bench("augmented over plain epoch, image by image"), 5, inf,
             "more than 5 times"),
        gains("crop and flip against none", "smallnet-augmented", "smallnet-source", -inf, 1, "no gain"),
        gains("crop, flip and colour jitter against none", "smallnet-jitter", "smallnet-source", -inf, 1, "no gain"),
        untested="the time on a graphics card, where the network takes less of an epoch and augmentation more; "
        "and the time of colour jitter.",
    ),
    Claim("S16", "speed",
        "Cross entropy written into the loop, instead of passed to it, makes training about 1.5 times as fast.",
        Part("time an epoch, passed against written in", Bench("loss passed in over hard-coded"), 1.3, 1.7, "1.5"),
    ),
    Claim("S17", "session1/normalisation_and_activations",
        "Our own question, left open there: do normalised input, other activations or other kinds of convolution help?",
        better("normalised against [0, 1]", "smallnet-normalised", "smallnet-source"),
        better("GELU against ReLU", "smallnet-gelu", "smallnet-source"),
        better("separable convolutions against whole ones", "smallnet-separable", "smallnet-source"),
        untested="still other kinds of convolution, such as dilated or larger ones.",
    ),
    Claim("S18", "session1/transfer",
        "A frozen ResNet-18 (11,227,812 weights) under a new last layer reaches 25.34 % on CIFAR-100. "
        "(We first read the project's code as leaving the backbone random; most likely it has ImageNet's weights.)",
        *(
            Part(f"if the backbone {how}", Accuracy(recipe), 23.34, 27.34, "25.34 %")
            for how, recipe in [
                ("is random, trained as the project's own network", "transfer-random-source"),
                ("is random, with Adam in 10 epochs", "transfer-random"),
                ("is random, with Adam and a normalisation that moves", "transfer-random-norm"),
                ("has ImageNet's weights, which have to be downloaded", "transfer-imagenet"),
            ]
        ),
    ),
]

SESSION_2 = [
    Claim("R1", "session2/assignment",
        "The network, data and schedule as given pass 90 % at epoch 21 and end at 91.70 %.",
        *as_published("as logged", "resnet-assignment"),
        *as_published("with a weight decay of 0.01", "resnet-assignment-decay-0.01"),
        *as_published("with all settings of the code behind the log", "resnet-source"),
    ),
    Claim("R2", "session2/finding_a_rate",
        "The best maximum rate for Adam, by a range test, is 0.00032.",
        Part("a tenth of the rate of the lowest loss",
             verdicts.SuggestedRate("resnet-lr-range"), 1e-4, 1e-3, "0.00032"),
        Part("the steepest fall of the loss, in the project's own range test",
             verdicts.SuggestedRate("resnet-lr-range-source", rule="steepest"), 1e-4, 1e-3, "0.00032"),
    ),
    Claim("R3", "session2/reading_the_results",
        "Our own question: is each ingredient worth a point in 8 epochs?",
        *(
            better(f"with against without {what}", "resnet-8", f"resnet-8-{without}")
            for what, without in [
                ("crop", "no-crop"),
                ("flip", "no-flip"),
                ("cutout", "no-hole"),
                ("cycle (constant rate)", "constant"),
                ("residual sum", "no-skip"),
            ]
        ),
    ),
]
# fmt: on

CLAIMS = {claim.id: claim for claim in SESSION_1 + SESSION_2}
if len(CLAIMS) < len(SESSION_1 + SESSION_2):
    raise ValueError("two claims have the same id")  # a copied one, not yet renamed
