# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     notebook_metadata_filter: kernelspec,mystnb,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   mystnb:
#     code_prompt_hide: Hide the solution's {type}
#     code_prompt_show: Show the solution's {type}
# ---

# %% [markdown]
# # Session 2: exercises
#
# Eight exercises on what Session 2 taught: the schedule, the pictures on their way in, the residual block, the loss,
# and how far to trust a result.
#
# Below each task is a cell for your answer, and below that a cell that checks it. A right answer prints a line that
# begins with *correct*. A wrong one stops with a line that says what is wrong and where to look. Try again as often as
# you like.
#
# **Time**: an hour or two; all cells together run in less than half a minute. They always use the shapes that the course
# draws, whatever the profile.

# %% [markdown] tags=["solution"]
# The solutions are folded away under each task, with the reasoning behind them. To solve the exercises yourself, open
# `02_resnet_exercises.ipynb` in the course's folder, or take
# <a href="../_sources/notebooks/02_resnet_exercises.ipynb" download>the copy that runs anywhere</a>. It is this notebook
# without the solutions.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import stats
from torch import nn

from course_utils import data, plots, schedules, training
from course_utils.data import BatchLoader
from course_utils.exercises import session2 as checks
from course_utils.models import CustomResNet
from course_utils.transforms import pad

device = training.pick_device()

# %% [markdown]
# ## 1. Two cycles
#
# **By hand.** A cycle of 30 epochs rises in a straight line from 0.0001 to 0.01, which it reaches when 6 epochs are
# over, and falls in a straight line back to 0.0001 at the very end. At which rate does **epoch 11** begin? (The first
# epoch is epoch 1.)

# %% tags=["hide-cell", "solution"]
# <solution>
# stub: rate = ...
lowest, highest = 0.0001, 0.01
over = 11 - 1  # epochs that are over when epoch 11 begins
share_of_the_way_down = (over - 6) / (30 - 6)
rate = highest - share_of_the_way_down * (highest - lowest)
# </solution>

# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# When epoch 11 begins, ten epochs are over. The way down takes 24 epochs and four of them are gone: a sixth. A sixth of the
# difference of 0.0099 is 0.00165, which leaves 0.00835.
#
# The usual slip is to count the eleventh epoch as over. A log that prints the rate at the *end* of an epoch looks like
# this slip; when two logs differ by one epoch, ask at which point of the epoch each prints the rate.
#
# </details>

# %% tags=["hide-output"]
checks.cycle_rate(
    rate,
    epoch=11,
    epochs=30,
    lr_min=0.0001,
    lr_max=0.01,
    peak_epoch=6,
)

# %% [markdown]
# **In code.** The assignment's cycle peaks at epoch 5 of 24 and ends where it began. Make another one: the peak at
# epoch **12**, and down to **zero** at the end. `rates` holds one rate per step, 98 steps per epoch. The start and the
# peak stay at $3.2 \cdot 10^{-6}$ and $3.2 \cdot 10^{-4}$. (`help(schedules.one_cycle)` says how to set the end;
# `np.interp` does it, too.)

# %%
length = {"epochs": 24, "steps_per_epoch": 98}
lowest_and_highest = {"lr_min": 3.2e-6, "lr_max": 3.2e-4}


def assigned(optimizer):
    return schedules.one_cycle(
        optimizer,
        **length,
        **lowest_and_highest,
        peak_epoch=5,
    )


assigned_rates = schedules.rates_of(assigned, steps=24 * 98)


# %% tags=["hide-cell", "solution"]
# <solution>
# stub: rates = ...
def moved(optimizer):
    return schedules.one_cycle(
        optimizer,
        **length,
        **lowest_and_highest,
        peak_epoch=12,
        lr_end=0,
    )


rates = schedules.rates_of(moved, steps=24 * 98)
# </solution>

# %% tags=["hide-output"]
checks.cycle(rates, **length, **lowest_and_highest, peak_epoch=12)

# %% [markdown]
# Before you run the next cell, guess: by how much do the later peak and the end at zero change the sum of all rates,
# which limits how far the weights can travel?

# %% mystnb={"image": {"alt": "The learning rate over 24 epochs, a triangle: either the assignment's, with its peak after epoch 5, or the moved one, with its peak after epoch 12 and its end at zero."}}
plots.schedule(assigned_rates, 98, title="The assignment")
plots.schedule(rates, 98, title="A later peak, and down to zero")
plt.show()
ratio = np.sum(rates) / np.sum(assigned_rates)
print(f"sum of the rates, new to old: {ratio:.3f}")

# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# Hardly at all. The area of a triangle is half its base times its height, wherever its tip is: moving the peak changes
# nothing about the sum. The missing half per cent comes from ending at zero.
#
# What the peak decides is *when* the weights travel. An early one leaves a long way down, on which they can settle. A
# late one gives the network longer to warm up, and leaves fewer epochs to settle in.
#
# </details>

# %% [markdown]
# ## 2. Pick a rate
#
# Suppose that a range test gave this curve. (It is made up: flat, then falling, then exploding, with some noise.)

# %% mystnb={"image": {"alt": "A made-up range test: the loss is flat at low rates, falls between a thousandth and a hundredth, is lowest near 0.05 and then explodes."}}
test_rates = np.geomspace(1e-6, 1, 120)
noise = 0.02 * np.random.default_rng(0).standard_normal(120)
falling = 1.4 / (1 + (3e-3 / test_rates) ** 1.2)
test_losses = 2.3 - falling + (test_rates / 0.3) ** 2 + noise
plots.range_test(test_rates, test_losses)
plt.show()

# %% [markdown]
# What peak rate would you train with?

# %% tags=["hide-cell", "solution"]
# <solution>
# stub: lr_max = ...
lr_max = test_rates[np.argmin(test_losses)] / 10
# </solution>

# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# The loss is lowest at about 0.05, and there it is about to rise: the next unlucky batch may throw the weights off. A
# tenth of that, 0.005, lies where the curve falls steeply. So do its neighbours, and the check takes whatever is within
# a factor of four: a range test is *one* pass over rising rates, and its noise alone can move the lowest point that
# far.
#
# </details>

# %% tags=["hide-output"]
checks.picked_rate(lr_max, test_rates, test_losses)

# %% [markdown]
# ## 3. Put the colours back
#
# The loader turns `uint8` pixels (N, 32, 32, 3) into normalised floats (N, 3, 32, 32). To look at what the network sees, you
# have to go back: `unnormalise(batch, mean, std)` returns the pixels, every one exactly as it was. `mean` and `std` are
# tensors of three numbers, on the scale of [0, 1].


# %% tags=["hide-cell", "solution"]
def unnormalise(batch, mean, std):
    # <solution>
    # stub: ...
    channels_last = batch.permute(0, 2, 3, 1)
    pixels = 255 * (channels_last * std + mean)
    return pixels.round().to(torch.uint8)
    # </solution>


# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# Normalising means dividing by 255, subtracting the mean and dividing by the standard deviation. Going back undoes the
# last step first. With the channels last, three numbers broadcast over the last axis by themselves; with the channels
# first they would need the shape (3, 1, 1).
#
# `round` matters: arithmetic in float32 turns 87 into 86.99999, and converting to `uint8` cuts off what comes after the point.
#
# </details>

# %% tags=["hide-output"]
checks.unnormalises(unnormalise)

# %% [markdown]
# Try it on a batch: the pictures in the first row have been normalised and turned back.

# %% mystnb={"image": {"alt": "Two rows of the same eight drawings of shapes: above after normalising and back, below as they were."}}
train_set, test_set = data.load("shapes10")
mean, std = data.channel_stats(train_set)
mean_std = torch.tensor(mean).float(), torch.tensor(std).float()
batch, _ = next(iter(BatchLoader(train_set, 8, mean=mean, std=std)))
and_back = unnormalise(batch, *mean_std)
plots.show_images(np.concatenate([and_back.numpy(), train_set.images[:8]]))
plt.show()

# %% [markdown]
# ## 4. Crop with one index
#
# Each image of a batch is to be cropped at its own place. With a loop:


# %%
def crop_one_by_one(padded, top, left, size):
    windows = []
    for image, y, x in zip(padded, top, left, strict=True):
        windows.append(image[y : y + size, x : x + size])
    return torch.stack(windows)


# %% [markdown]
# Write it without a loop: indexing with three tensors of integers, one for the image, one for the row and one for the column
# of each pixel, gathers them all at once. The three broadcast against each other to (N, size, size).


# %% tags=["hide-cell", "solution"]
def crop_batch(padded, top, left, size):
    # <solution>
    # stub: ...
    image = torch.arange(len(padded))[:, None, None]
    row = top[:, None, None] + torch.arange(size)[None, :, None]
    column = left[:, None, None] + torch.arange(size)[None, None, :]
    return padded[image, row, column]
    # </solution>


# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# The pixel (i, j) of window n comes from row `top[n] + i` and column `left[n] + j` of image n. Write each of the three as a
# tensor with a length of one along every axis on which it does not depend: `image` is (N, 1, 1), `row` (N, size, 1),
# `column` (N, 1, size). Broadcasting does the rest, and the channels, which are not indexed, come along.
#
# The course's own `transforms.crop` does without `row` and `column`: a *view* with an entry for every possible window
# leaves only the window to be chosen. Read it; it is six lines.
#
# </details>

# %% tags=["hide-output"]
checks.crops(crop_batch)

# %%
black = torch.zeros(3, dtype=torch.uint8)
padded = pad(torch.from_numpy(train_set.images[:500]), 4, black)
generator = torch.Generator().manual_seed(0)
top, left = torch.randint(0, 9, (2, 500), generator=generator)
looped = crop_one_by_one(padded, top, left, 32)
gathered = crop_batch(padded, top, left, 32)
print("the loop and the gather agree:", torch.equal(looped, gathered))

# %% [markdown]
# ## 5. A residual block that changes the shape
#
# The lesson's residual branches keep the shape, so that $X + R(X)$ is a plain sum. The networks of He et al. also have
# blocks that halve the picture and double the channels. Then $X$ no longer fits, and a 1×1 convolution with the same
# stride takes its place. (The *stride* is how far the filter moves from one place to the next: at a stride of 2 a
# convolution computes every second place, and so halves the picture.)
#
# Write `Block(c_in, c_out, stride)` with two parts; none of the convolutions has a bias. `self.branch`: a 3×3
# convolution with the stride, batch normalisation, ReLU, and a second 3×3 convolution with batch normalisation.
# `self.shortcut`: a 1×1 convolution with the stride, if the shape changes, and `nn.Identity()` if it does not. The
# block returns their sum.


# %% tags=["hide-cell", "solution"]
class Block(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        # <solution>
        # stub: self.branch = ...
        # stub: self.shortcut = ...
        self.branch = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        if c_in == c_out and stride == 1:
            self.shortcut = nn.Identity()
        else:
            self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        # </solution>

    def forward(self, x):
        # <solution>
        # stub: ...
        return self.shortcut(x) + self.branch(x)
        # </solution>


# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# A sum needs equal shapes, so whatever the branch does to the picture's side and to the channels, the shortcut has to do as
# well, and as cheaply as possible. A 1×1 convolution mixes channels and looks at no neighbours; with a stride of 2 it
# takes every second pixel of every second row. For 64 → 128 channels that is 8,192 weights beside the branch's 221,696.
#
# No ReLU comes after the sum here. A ReLU there would block the shortcut for negative values. (He et al. put one there
# in their first paper on residual networks and moved it away in the second. torchvision's ResNets also have a batch
# normalisation after the 1×1 convolution, which this exercise leaves out.)
#
# The assignment avoids the question: its convolution and pooling change the shape *before* the residual block.
#
# </details>

# %% tags=["hide-output"]
checks.residual_block(Block)

# %% [markdown]
# ## 6. Smooth the labels
#
# With label smoothing, the target is no longer 1 for the true class and 0 elsewhere: a share `smoothing` is taken from
# the true class and spread evenly over **all** classes, the true one included. Write this loss, for logits (N, K) and
# labels (N,), averaged over the batch, without `CrossEntropyLoss` or `cross_entropy`; `log_softmax` is allowed.


# %% tags=["hide-cell", "solution"]
def smoothed_cross_entropy(logits, labels, smoothing):
    # <solution>
    # stub: ...
    n, n_classes = logits.shape
    target = torch.full_like(logits, smoothing / n_classes)
    target[torch.arange(n), labels] += 1 - smoothing
    log_probabilities = logits.log_softmax(1)
    return -(target * log_probabilities).sum(1).mean()
    # </solution>


# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# Cross entropy is $-\sum_k t_k \ln p_k$. With a plain label only one term is left. With smoothing 0.1 and ten classes
# the target is 0.91 for the true class and 0.01 for every other; it still sums to 1.
#
# The smallest possible loss is no longer zero. It is reached when the probabilities *are* the target, and is then the
# target's own entropy, about 0.50 here. So losses with and without smoothing cannot be compared, and a network is
# no longer rewarded for pushing its logits apart without end.
#
# </details>

# %% tags=["hide-output"]
checks.smooths_labels(smoothed_cross_entropy)

# %% [markdown]
# ## 7. Ask twice, mirrored
#
# A mirrored shape is the same shape. So show the network each picture and its mirror image, and average its **logits**.
# `flip_averaged(network, images)` does this in eval mode and without recording anything for a backward pass, for images
# (N, 3, H, W).


# %% tags=["hide-cell", "solution"]
def flip_averaged(network, images):
    # <solution>
    # stub: ...
    network.eval()
    with torch.inference_mode():
        return (network(images) + network(images.flip(3))) / 2
    # </solution>


# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# The batch is in the network's order now: image, channel, row, column. The columns are the last axis. (The network is left
# in eval mode, which is all that was asked; to leave no trace, put its mode back as in Session 1's exercise 5.)
#
# Where the two answers err for different reasons, their errors partly cancel in the mean; what both agree on stays. It
# costs a second forward pass for every picture and no training. It is fair only if you say so: compare an accuracy with
# test-time flips only with others that used them.
#
# </details>

# %% tags=["hide-output"]
checks.averages_flips(flip_averaged)

# %% [markdown]
# Is it worth it? Train a narrow network for two epochs, without any mirroring, and ask it both ways.

# %% tags=["nbval-ignore-output"]
training.seed_everything(0)
network = CustomResNet(10, widths=(8, 16, 32, 64)).to(device)
loader = BatchLoader(train_set, 128, mean=mean, std=std, shuffle=True, seed=0)
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
loss_fn = nn.CrossEntropyLoss()
training.fit(network, loader, None, loss_fn, optimizer, epochs=2, verbose=False)

images, labels = next(iter(BatchLoader(test_set, 1000, mean=mean, std=std)))
images, labels = images.to(device), labels.to(device)
network.eval()
with torch.inference_mode():
    once = network(images)
twice = flip_averaged(network, images)
for name, logits in (("once", once), ("mirrored, too", twice)):
    print(f"{name:14s} {(logits.argmax(1) == labels).float().mean():.1%}")
once_right, twice_right = (x.argmax(1) == labels for x in (once, twice))
print("right only when asked once:", int((once_right & ~twice_right).sum()))
print("right only with the mirror:", int((twice_right & ~once_right).sum()))

# %% [markdown]
# On a thousand pictures one point is ten pictures. Most pictures get the same answer both times; the last two lines
# count the others. Would you trust the difference? What would you do to be sure?
#
# <details><summary><b>An answer</b></summary>
#
# Compare the last two numbers. Twelve against two (a difference of one point) would be very unlikely if mirroring did
# nothing; sixty against fifty (one point as well) may be chance. Then repeat it with another seed: that was one
# network.
#
# </details>
#
# ## 8. Is it better?
#
# Here are recorded accuracies on CIFAR-100's test images, in per cent: the project's recipe of Session 1 with the seeds
# 0, 1 and 2, and the same seeds with one thing changed.

# %%
project = np.array([51.07, 51.08, 49.87])
with_gelu = np.array([53.37, 53.42, 53.13])  # GELU in place of ReLU
twice_the_epochs = np.array([51.29, 51.61, 50.72])  # 50 in place of 25

# %% [markdown]
# With every seed, both changes look better than the baseline. How sure can you be? Write `interval(changed, baseline)`,
# which returns the two ends of the 95 % interval of the mean difference, for $n$ pairs of runs:
#
# $$\bar d \pm t_n \, \frac{s}{\sqrt n}$$
#
# $d$ are the differences seed by seed, $\bar d$ is their mean, and $s$ their standard deviation, computed with $n - 1$
# in the denominator. $t_n$ is 1.96 for very many runs and larger for few, because a few runs give only a rough $s$:
# `stats.t.ppf(0.975, n - 1)`.


# %% tags=["hide-cell", "solution"]
def interval(changed, baseline):
    # <solution>
    # stub: ...
    differences = changed - baseline
    n = len(differences)
    t = stats.t.ppf(0.975, n - 1)
    half = t * differences.std(ddof=1) / n**0.5
    return differences.mean() - half, differences.mean() + half
    # </solution>


# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# Runs with the same seed share their split, their first weights and the order of the pictures, and so part of their
# luck: seed 2 is the worst of the three in every row. The difference within a seed is free of that part. If you take
# the two means first, and then each row's own spread (Welch's test), the interval for the 50 epochs is 1.8 times as
# wide.
#
# </details>

# %% tags=["hide-output"]
checks.seed_by_seed(interval)

# %% [markdown]
# Suppose that "better" means one point or more, as in the book. Guess before you run the next cell: which of the two
# changes is better than the baseline, and what would you have said after two seeds?

# %%
changes = {"GELU": with_gelu, "50 epochs": twice_the_epochs}
for name, changed in changes.items():
    for n in (3, 2):
        low, high = interval(changed[:n], project[:n])
        print(f"{name:9s}  {n} seeds: from {low:5.2f} to {high:5.2f} points")

# %% [markdown]
# <details><summary><b>An answer</b></summary>
#
# With three seeds, GELU's interval lies above one point: *better* holds. The interval of the 50 epochs contains one
# point, and zero as well. They may help, or do nothing: *undecided*, which is not the same as "no difference". (Two
# more seeds, of the project's recipe and of the 50 epochs, were run later and decided it: the interval of five ends
# below one point. They were added after these three had been seen, which makes that verdict a little less sure.)
#
# With two seeds $t_n$ is 12.7, not 4.3, and the interval of the 50 epochs is two and a half times as wide. GELU's is
# *narrower*, but only because two of its differences happen to agree: an interval from few runs is subject to chance
# itself. That is why you decide how many seeds to run before looking at any.
#
# </details>
#
# ## Before you go on
#
# Three questions. Choose before you unfold.
#
# **1.** Every other training picture gets one cutout of 8×8 pixels, wherever it fits into 32×32. What share of all
# training pixels is hidden?
#
# - **a)** 3 %
# - **b)** 6 %
# - **c)** 13 %
#
# <details><summary>Answer</summary>
#
# **a.** A cutout covers 64 of 1,024 pixels, 6 %, and half of the pictures have one. It does not cover all places
# equally often: because it has to fit, a pixel in the middle is hidden far more often than one in a corner.
#
# </details>
#
# **2.** Before you normalise, you fill the border and the cutout with black instead of the mean colour. The network
# then sees
#
# - **a)** zeros there, as before
# - **b)** the same strongly negative values in every cutout
# - **c)** random values there
#
# <details><summary>Answer</summary>
#
# **b.** Normalising turns the mean into zero and black into minus mean over standard deviation: a dark square with a
# sharp edge, which says nothing about the class.
#
# </details>
#
# **3.** A residual branch ends in a convolution without a bias, whose weights are all zero. The block $X + R(X)$ then
#
# - **a)** returns zero
# - **b)** returns $X$
# - **c)** cannot be trained
#
# <details><summary>Answer</summary>
#
# **b.** The branch adds nothing and the picture goes straight through, and so do the gradients. (Not c: what comes
# *into* the convolution is not zero, so its weights get a gradient and move at the first step, and the layers before it
# follow from the second.) Doing nothing is easy to learn for a residual block, which is why many of them can be
# stacked.
#
# </details>
