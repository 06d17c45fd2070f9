# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["slide"]
# # Session 1: a small network on a budget
#
# One hundred classes, at most **1,000,000 weights**, about an hour of training. You write the network and its training
# loop, count the weights by hand, train, and find out where the accuracy goes. The session repeats a student project,
# *the project* from here on, and asks what it could have done better.
#
# After this session you can
#
# * write a convolutional network and a training loop in plain PyTorch;
# * work out how many weights a network has before you build it, and where they are;
# * follow the shape of the data through every layer;
# * draw a learning-rate schedule before you pay for it, and see when the rate has shrunk to nothing;
# * recognise overfitting in the curves, and say what dropout and augmentation do about it;
# * save weights, load them safely, and measure a test accuracy once;
# * reuse a trained network on a new task, and check that it really was trained.
#
# **Time**: 45 minutes to read and try; the computer needs about a minute in the quick profile.

# %% tags=["nbval-ignore-output"]
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from course_utils import data, lessons, plots, schedules, training
from course_utils.data import BatchLoader
from course_utils.datasets.pictures import drawn, read_picture
from course_utils.lab import files, pictures, records
from course_utils.models import (
    SmallNet,
    TransferNet,
    count_parameters,
    headless,
    layer_table,
)
from course_utils.transforms import Augment

recipe = lessons.for_lesson("smallnet")

# %% [markdown]
# The *quick* profile trains on drawings of shapes, so that the notebook runs anywhere in about a minute. The *full*
# profile trains on CIFAR-100: the same cells, real pictures, more patience. For it, run `%env COURSE_PROFILE=full` in a
# cell of its own before all others. (The copy for Colab has a menu.) **Only reading?** The book also has *The lesson,
# as it ran on CIFAR*: the same text, with real pictures and real results.
#
# Run the cells in order. A `NameError` means that an earlier cell has not run yet; *Run All Above Selected Cell* in the
# *Run* menu sees to that. Running a cell again does no harm: each cell that trains starts from new weights. The last
# section tells how to try other settings, or pictures of your own.
#
# ## The data
#
# The drawn set and CIFAR-100 both hold 32×32 colour pictures in 100 classes. The test set is put aside until the end.
# Every choice on the way is made on a **validation** set: a tenth of the training images, the same share of each class,
# drawn with a fixed seed.

# %%
train_and_validation, test_set = data.load(recipe.data)
train_set, validation_set = data.split(
    train_and_validation, validation=recipe.validation, seed=0
)

n_classes = train_set.n_classes
for part in (train_set, validation_set, test_set):
    print(f"{part.name:28s} {part.images.shape} {part.images.dtype}")

# %% [markdown]
# Look at the pictures before you train on them. Would you know them without the names?

# %% tags=["slide-output"] mystnb={"image": {"alt": "Twenty-four training pictures of 32 by 32 pixels, each under the name of its class."}}
picks = np.random.default_rng(0).choice(len(train_set), 24, replace=False)
plots.show_images(
    train_set.images[picks], train_set.labels[picks], train_set.classes
)
plt.show()

# %% [markdown]
# A few are hard even for you. A random guess is right once in a hundred times; keep that **1 %** in mind as the floor
# for everything below.
#
# ## The network
#
# The network sees by *convolution*: lay a *filter* of 3×3 numbers over the picture, multiply each number by the pixel
# under it, and add up the nine products. The sum is large where the picture changes as the filter does. This one looks
# for edges, dark on the left and bright on the right.

# %%
edge_filter = torch.tensor([[-1.0, 0.0, 1.0]] * 3)
an_edge = torch.tensor([[0.1, 0.1, 0.9]] * 3)
no_edge = torch.tensor([[0.5, 0.5, 0.5]] * 3)

print(edge_filter)
print(f"on an edge:       {(edge_filter * an_edge).sum():.1f}")
print(f"on a plain spot:  {(edge_filter * no_edge).sum():.1f}")

# %% [markdown]
# Move the filter over the whole picture, pixel by pixel, and the sums form another picture, a *feature map*.

# %% mystnb={"image": {"alt": "Six pictures in grey, and below each its feature map: bright along edges that go from dark to bright, black elsewhere."}}
grey = torch.from_numpy(train_set.images[picks[:6]]).float().mean(3) / 255
maps = nn.functional.conv2d(grey[:, None], edge_filter[None, None], padding=1)
maps = maps[:, 0].clamp(0, 1)  # black below zero, white above one
both = (255 * torch.cat([grey, maps])).byte()
plots.show_images(both[..., None].expand(12, 32, 32, 3).numpy(), columns=6)
plt.show()

# %% [markdown]
# Below each picture, its map is bright where the filter found its edge. (The bright left border is an edge, too:
# `padding=1` surrounds the picture with zeros, which are black.) Nobody writes filters by hand any more: `nn.Conv2d`
# starts with many filters of random numbers, and these numbers are what training changes. The filters of the next layer
# look for patterns in the maps of this one. A filter covers all maps that come in, with nine numbers for each, and adds
# everything up into *one* new map: with $c$ maps, or the three colours of a picture, it has $9c$ numbers.
#
# The network has two kinds of parts. The first is the *stage*: a convolution, then *pooling*, which keeps the largest
# value of each 2×2 block and so halves both sides of the picture. A stage takes `c` maps (*channels*) in and gives `d`
# out.


# %% tags=["slide"]
def stage(c, d):
    return [
        nn.Conv2d(c, d, 3, padding=1),
        nn.BatchNorm2d(d),
        nn.Dropout(0.1),
        nn.MaxPool2d(2),
        nn.ReLU(),
    ]


# %% [markdown]
# Layer by layer:
#
# * The *convolution* finds patterns, as above.
# * *Batch normalisation* keeps the values of each channel on one scale, which makes training faster. Training shows the
#   network a *batch* of pictures at a time; from each channel this layer subtracts the mean over the batch and over all
#   places, and divides by the standard deviation. In *eval mode*, when the network only answers, it uses running
#   averages of these two instead.
# * *Dropout* sets some values to zero at random and scales up the others, so that the mean stays the same; in eval mode
#   it does nothing. You will see what for.
# * *Pooling* halves the sides.
# * *ReLU* sets negative values to zero. Without something of this kind between them, two layers could do no more than
#   one. (After pooling it gives the same result as before it, with a quarter of the work.)
#
# Three stages turn a picture of 3×32×32 into 128×4×4 = 2,048 values. The second kind is the *dense* layer, in which
# every input value contributes to every output value. Two of them turn the 2,048 into one number for each class.


# %% tags=["slide-more"]
class Network(nn.Module):
    def __init__(self, n_classes=100):
        super().__init__()
        self.features = nn.Sequential(
            *stage(3, 32), *stage(32, 64), *stage(64, 128)
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(128 * 4 * 4, 420),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(420, n_classes),
        )

    def forward(self, images):
        return self.head(self.features(images))


network = Network()

# %% [markdown]
# `forward` says how pictures become answers. That is all you have to write.
#
# ## The budget, by hand
#
# How many weights a layer has follows from its shape alone. (A *bias* is a number added to all values of a channel, or
# to one of a dense layer's outputs, its *neurons*.)
#
# * a 3×3 convolution from $c$ to $d$ channels has $9cd$ weights and $d$ biases;
# * batch normalisation, once it has normalised a channel, multiplies it by a learned *scale* and adds a learned *shift*:
#   two numbers per channel;
# * a dense layer from $n$ to $m$ values has $nm$ weights and $m$ biases.


# %% tags=["slide-output"]
def convolution(c, d):
    return 9 * c * d + d


def batch_norm(d):
    return 2 * d


def dense(n, m):
    return n * m + m


by_hand = [
    ("stage 1", convolution(3, 32) + batch_norm(32)),
    ("stage 2", convolution(32, 64) + batch_norm(64)),
    ("stage 3", convolution(64, 128) + batch_norm(128)),
    ("dense 1", dense(128 * 4 * 4, 420)),
    ("dense 2", dense(420, 100)),
]
for name, weights in by_hand:
    print(f"{name}  {weights:9,}  {weights / 1_000_000:5.1%} of the budget")
print(f"total    {sum(weights for _, weights in by_hand):9,}")

# %% [markdown]
# **The first dense layer takes 86 % of the budget.** The convolutions take less than a tenth, but they use each weight
# at every place: 10.3 of the 11.2 million multiplications for a picture are theirs. The dense layer's size is *linear*
# in the 2,048 values that come in and in the 420 that go out: halving either one halves it.
#
# Does PyTorch count the same?

# %%
total = sum(weights for _, weights in by_hand)
assert count_parameters(network) == total == 996_376

for kind, weights in layer_table(network):
    print(f"{kind:12s} {weights:9,}")

# %% [markdown]
# 3,624 weights to spare.
#
# The course's package has the same network under the name `SmallNet`, with arguments for all that the book varies. Give
# it your network's weights, and it gives your network's answers. (`state_dict()` lists a network's tensors by name. The
# two networks use other names, but the same order. Under `torch.no_grad()` PyTorch records nothing: that is needed only
# in training.)

# %%
packaged = SmallNet(n_classes=100)
assert count_parameters(packaged) == count_parameters(network)

copied = zip(packaged.state_dict(), network.state_dict().values(), strict=True)
packaged.load_state_dict(dict(copied))
noise = torch.rand(8, 3, 32, 32)
with torch.no_grad():
    yours, theirs = network.eval()(noise), packaged.eval()(noise)
assert yours.shape == theirs.shape == (8, 100)
assert torch.allclose(yours, theirs, atol=1e-5)
print("the same weights, the same answers")

# %% [markdown]
# From here on we use the package's. It has the same layers, with a faster dropout that draws different random numbers.
# (So `Network` is not trained below. To train a network of your own, write a class of another name, as the checks above
# are about this one. Build it in each place below that builds `SmallNet(n_classes, **recipe.network_args)`, and let it
# end in a `head` like the one above: a later cell takes off that sequence's last, linear layer.)
#
# The project started from a smaller network: two stages, and 200 neurons in the first dense layer. Would you expect it
# to have fewer weights than the same network with a third stage?

# %%
starting_network = SmallNet(widths=(32, 64), hidden=200)
three_stages = SmallNet(widths=(32, 64, 128), hidden=200)
print(f"two stages, 200 neurons:   {count_parameters(starting_network):9,}")
print(f"three stages, 200 neurons: {count_parameters(three_stages):9,}")

# %% [markdown]
# A third convolution *removes* weights: its pooling leaves a quarter of the positions with twice the channels,
# so the dense layer after it gets half as many inputs.
#
# ## The shape of the data, layer by layer
#
# Push two random pictures through and write the shape down after each layer.

# %%
values = torch.rand(2, 3, 32, 32)
print(f"{'input':12s} {tuple(values.shape)}")
with torch.no_grad():
    for layer in [*network.features, *network.head]:
        values = layer(values)
        print(f"{type(layer).__name__:12s} {tuple(values.shape)}")

assert values.shape == (2, 100)

# %% [markdown]
# With padding, convolutions do not shrink the picture; only pooling does. The last line gives the shape of the
# **logits**, one for each class. They may be any real numbers; the larger a logit, the likelier its class. The
# *softmax* turns them into probabilities: raise $e$ to each, and divide by the sum. Three logits of 2, 1 and 0 give
# 0.67, 0.24 and 0.09.
#
# The *loss* says how wrong an answer is: the **cross entropy**, minus the logarithm of the probability of the right
# class. It is 0.41 if the first of the three is right, and 2.41 if the last is. PyTorch's `nn.CrossEntropyLoss` does
# the softmax itself: give it the logits. So the network does not end in one.
#
# ## Batches
#
# The loader shuffles, gathers a batch of pictures at a time, and scales pixels from 0–255 to [0, 1].

# %%
train_loader = BatchLoader(train_set, recipe.batch_size, shuffle=True, seed=0)
validation_loader = BatchLoader(validation_set, 250)

images, labels = next(iter(train_loader))
lowest, highest = float(images.min()), float(images.max())
print("images", tuple(images.shape), images.dtype)
print(f"from {lowest:.0f} to {highest:.0f}")
print("labels", tuple(labels.shape), labels.dtype)

# %% [markdown]
# One check costs nothing and catches many mistakes. Before training, a network should have no favourite: with the same
# probability for each of 100 classes, its loss is $\ln 100 \approx 4.61$. A loss far above that means that it starts
# out sure of something.

# %%
training.seed_everything(0)
untrained = SmallNet(n_classes, **recipe.network_args)
loss_fn = nn.CrossEntropyLoss()
loss_before, accuracy_before = training.validate_epoch(
    untrained, validation_loader, loss_fn
)

loss_of_a_guess = math.log(n_classes)
print(f"a guess: {loss_of_a_guess:.2f}    this network: {loss_before:.1f}")
assert abs(loss_before - loss_of_a_guess) < 0.1

# %% [markdown]
# ## The schedule, before you pay for it
#
# Training changes every weight a little after each batch: one *step*. The *gradient* says, for each weight, how the
# loss would change if the weight grew a little; the step goes the other way, by the gradient times the *learning rate*:
#
# $$\text{weight} \leftarrow \text{weight} - \text{rate} \times \text{gradient}.$$
#
# Try three rates on a single weight whose loss is its square. The gradient is then twice the weight.

# %%
for rate in (0.1, 0.9, 1.1):
    weight, path = 1.0, []
    for _ in range(6):
        weight -= rate * 2 * weight
        path.append(f"{weight:6.2f}")
    print(f"rate {rate}:", *path)

# %% [markdown]
# At 0.1 the weight creeps towards zero, where the loss is lowest. At 0.9 it jumps over zero each time and still comes
# closer. At 1.1 each step takes it further away.
#
# A *schedule* changes the rate during training. Here it starts at 0.1 and is multiplied by a factor, *gamma*, of 0.2
# every few *epochs*; an epoch is one pass over all training images. The project planned 330 epochs, with a drop every
# five: an hour at ten seconds an epoch. Draw it first: `rates_of` steps a schedule without training anything and
# returns its rates.

# %% tags=["slide-output"] mystnb={"image": {"alt": "Learning rate on a logarithmic scale over 330 epochs: a staircase that loses a factor of five every five epochs, from 0.1 to far below any number that matters."}}
planned = schedules.rates_of(
    lambda optimizer: StepLR(optimizer, step_size=5, gamma=0.2),
    steps=330,
    lr=0.1,
)
plots.schedule(
    planned,
    steps_per_epoch=1,
    log=True,
    title="330 epochs as planned: step 5, gamma 0.2",
)
plt.show()

# %% [markdown]
# The scale is logarithmic: every drop is a factor of five, and there are sixty-five of them. Add the rates up. How much
# of their sum is used up after the first 25 epochs?

# %%
share = planned[:25].sum() / planned.sum()
print(f"share of the sum by epoch 25:  {share:.2%}")
print(f"rate in the last epoch:        {planned[-1]:.1e}")

# %% [markdown]
# 99.97 % of the sum lies in the first 25 epochs: after them the weights hardly move. Later most cannot move at all.
# Weights are stored as float32, which keeps about seven digits, and a step that is too small is rounded away. When does
# a gradient of 1, a large one, leave a weight of 0.01 where it is?

# %%
weight = np.float32(0.01)
stuck = [weight - np.float32(rate) == weight for rate in planned]
print(f"first epoch without any change: {stuck.index(True) + 1}")
assert all(stuck[60:])

# %% [markdown]
# The last 270 epochs, 45 minutes of the hour, compute gradients and throw them away: these epochs are *dead*.
# (Momentum, explained below, puts that off by ten epochs.) **A schedule belongs to a number of epochs: change one, and
# you must change the other.**
#
# So the full run of this lesson stops where the schedule does, after 25 epochs; the quick one is a short stand-in, with
# its own numbers. The schedule itself is PyTorch's `StepLR`.


# %%
def step_decay(optimizer):
    return StepLR(
        optimizer,
        step_size=recipe.schedule_args["step_epochs"],
        gamma=recipe.schedule_args["gamma"],
    )


print("SGD with", recipe.optimizer_args)
print("steps with", recipe.schedule_args, f"for {recipe.epochs} epochs")

# %% [markdown]
# ## The training loop
#
# `forward` says only how pictures become answers. PyTorch finds the gradients: it records every operation on the way
# forward, and `loss.backward()` goes through them in reverse. By the *chain rule*, each layer multiplies the gradient
# that arrives by its own derivative and hands it on. This is *backpropagation*; it takes about twice as long as the way
# forward. Check it where you can work it out by hand: the derivative of $(2w - 1)^2$ is $4(2w - 1)$.

# %%
weight = torch.tensor(3.0, requires_grad=True)
error = (2 * weight - 1) ** 2
error.backward()
print(f"the gradient at 3: {weight.grad:.0f}    by hand: {4 * (2 * 3 - 1)}")

# %% [markdown]
# Training repeats five lines: guess, compare, work out the gradients, take a step, forget the gradients. The step is
# the one above, for all weights at once: `SGD`. Two options printed above refine it. *Momentum* adds nine tenths of the
# previous step, so steps that agree add up, to as much as ten times their length, and steps that disagree cancel.
# *Weight decay* also pulls each weight a little towards zero. Here is one epoch in full.


# %% tags=["slide"]
def train_one_epoch(network, loader, loss_fn, optimizer):
    network.train()  # dropout on; batch normalisation measures each batch
    total_loss, hits, seen = 0.0, 0, 0
    for images, labels in loader:
        logits = network(images)
        loss = loss_fn(logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total_loss += loss.item() * len(labels)
        hits += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    return total_loss / seen, hits / seen


# %% [markdown]
# Without `zero_grad`, each step would add its gradients to those of all steps before. The three totals are there only
# to report the loss and the accuracy.
#
# Try it on the simplest network of all: one dense layer from the pixels to the classes, a *linear* model. It is the
# *baseline*. SmallNet ends in such a layer, too; what it gains comes mostly from the layers before it. (Five epochs at
# one rate, which nobody tuned.)

# %% tags=["nbval-ignore-output"]
training.seed_everything(0)
linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, n_classes))
optimizer = torch.optim.SGD(linear.parameters(), lr=0.01, momentum=0.9)
train_loader.epoch = 0  # the same order of pictures every time
for _ in range(5):
    train_one_epoch(linear, train_loader, loss_fn, optimizer)

_, accuracy = training.validate_epoch(linear, validation_loader, loss_fn)
print(f"a linear model: {count_parameters(linear):,} weights, {accuracy:.1%}")
print(f"a guess: {1 / n_classes:.1%}")

# %% [markdown]
# `train_epoch` in the package is this loop, made ready for graphics cards and for 16-bit numbers. On the same batches,
# from the same weights, it has the same loss.

# %%
few_pictures = data.take(train_set, 500, seed=0)


def first_epoch(train, **options):
    training.seed_everything(0)
    network = SmallNet(n_classes)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    loader = BatchLoader(few_pictures, 50, shuffle=True, seed=0)
    return train(network, loader, loss_fn, optimizer, **options)


yours = first_epoch(train_one_epoch)
theirs = first_epoch(training.train_epoch, precision="float32")
assert abs(yours[0] - theirs[0]) < 1e-3
print("the same loss after the same ten batches")

# %% [markdown]
# `fit` calls `train_epoch` once per epoch; after each epoch it measures the network on the validation set, steps the
# schedule and prints a line. It also refuses a network over the budget. Open `course_utils/training.py` and read it.
#
# All that training changes (the weights, the optimizer, the schedule) is created afresh in the training cell, so that
# you get the same run every time. (Another processor rounds differently, and a graphics card may do so from run to run;
# then the runs drift apart.)

# %% tags=["nbval-ignore-output"]
device = training.pick_device()
training.seed_everything(0)
model = SmallNet(n_classes, **recipe.network_args).to(device)
optimizer = torch.optim.SGD(model.parameters(), **recipe.optimizer_args)
scheduler = step_decay(optimizer)
train_loader.epoch = 0  # the same order of pictures every time

history = training.fit(
    model,
    train_loader,
    validation_loader,
    loss_fn,
    optimizer,
    scheduler,
    epochs=recipe.epochs,
    max_parameters=1_000_000,
)

# %% [markdown]
# Compare the last of these accuracies with the linear model's. Numbers in a column hide their shape. Draw them.
# (*Top-1* accuracy, here as everywhere in the course, counts an answer as right if the likeliest class is the true
# one.)

# %% tags=["nbval-ignore-output", "slide-output"] mystnb={"image": {"alt": "Three panels over the epochs of the run above: training and validation loss fall, validation accuracy rises, and the learning rate drops in steps."}}
plots.learning_curves(history, title=f"SmallNet on {recipe.data}")
plt.show()

# %% [markdown]
# A drop of the rate shows as a step in the losses: smaller steps let the weights settle where larger ones jumped about.
# Before the drop the validation loss may leap up while the training loss falls. Most likely the weights then move so
# fast that the running averages of batch normalisation, which only eval mode uses, are out of date; after the drop they
# catch up.
#
# ## The full run, as recorded
#
# Whatever you have just trained on, here is this recipe on CIFAR-100. It was run before and recorded. (To run it again,
# type `python -m course_utils run smallnet-source` in a terminal in the course's folder.)

# %% tags=["remove-input"] mystnb={"image": {"alt": "Recorded on CIFAR-100 over 25 epochs: the losses fall in steps when the rate drops after epochs 5 and 10, then are nearly flat, and the training loss ends far below the validation loss."}}
recorded = records.of_recipe("smallnet-source")
plots.recorded_runs(recorded)
plt.show()

# %% [markdown]
# The two drops of the rate that matter are those after epochs 5 and 10. After the third, at epoch 15, the curves are
# nearly flat, and the training loss lies far below the validation loss. Such a **gap** (the *generalisation gap*) shows
# how much better the network knows the pictures that it was trained on. (Many books already call a large gap
# overfitting.) This course speaks of **overfitting** when the validation loss *rises*, not for an epoch or two but
# steadily, while the training loss goes on falling: most of what the network then learns is true of the training images
# only.
#
# The figure shows the mean over several runs that differ in their seed. Each seed gives entirely different weights and
# a slightly different accuracy. So one run is a sample, and a result is a mean over several, here 50.66 % on the test
# images. Always report how far apart the runs lie:

# %% tags=["remove-input"]
print("test accuracy on CIFAR-100")
for run in recorded:
    print(f"seed {run['seed']}: {run['test_accuracy']:.2%}")

# %% [markdown]
# ## Memorising, and two remedies
#
# A network memorises fastest when it has few pictures. Take 500, of ten classes, and train a network on them until it
# knows them all; a network with half the channels is enough. The accuracy on these 500 is measured at the end, without
# dropout and on the plain pictures, so that it can be compared with the validation accuracy. Their difference is the
# gap again, this time in accuracy.

# %%
ten_name = "cifar10" if recipe.data.startswith("cifar") else "shapes10"
ten_train, ten_test = data.load(ten_name)
ten_train, ten_validation = data.split(ten_train, validation=0.1, seed=0)
few_train = data.take(ten_train, 500, seed=0)


def train_on_few(augment=None, **dropout):
    """Train on the 500 pictures; returns the curves, and the gap in points."""
    training.seed_everything(0)
    network = SmallNet(10, widths=(16, 32, 64), **dropout).to(device)
    mean, _ = data.channel_stats(few_train)
    loader = BatchLoader(
        few_train, 50, augment=augment, fill=mean, shuffle=True
    )
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4
    )
    scheduler = StepLR(optimizer, step_size=10, gamma=0.2)
    curves = training.fit(
        network,
        loader,
        BatchLoader(ten_validation, 500),
        loss_fn,
        optimizer,
        scheduler,
        epochs=15,
        verbose=False,
    )
    on_train = training.evaluate(network, BatchLoader(few_train, 500))
    on_validation = curves.validation_accuracy[-1]
    gap = 100 * (on_train - on_validation)
    print(f"training     {on_train:6.1%}")
    print(f"validation   {on_validation:6.1%}")
    print(f"gap          {gap:4.1f} points")
    return curves, gap


# %% tags=["nbval-ignore-output"]
no_dropout = {"conv_dropout": 0, "dense_dropout": 0}
no_remedy, gap_without = train_on_few(**no_dropout)
assert gap_without > 12, "it has not learned the 500 by heart"

# %% [markdown]
# The network is right about nearly all of the pictures that it was trained on, and about far fewer of the others.
#
# **Dropout** sets a random tenth of the feature maps' values (and a fifth of the dense layer's) to zero at every step,
# so that the network cannot rely on any of them. Same pictures, same order, one change:

# %% tags=["nbval-ignore-output"]
with_dropout, gap_dropout = train_on_few()

# %% [markdown]
# **Augmentation** shifts each picture by up to four pixels (the mean colour, `fill`, fills the gap) and mirrors it at
# random, so that the network seldom sees the same version twice. Again one change, this time without dropout (`hole` is
# Session 2's cutout, and off here):

# %% tags=["nbval-ignore-output"]
with_augmentation, gap_augmented = train_on_few(
    Augment(hole=0, hole_chance=0), **no_dropout
)
narrower = min(gap_without, gap_dropout) - gap_augmented
assert narrower > 4, f"augmentation narrows the gap by {narrower:.1f} points"
if recipe.data == "shapes100":
    ends = (no_remedy, with_augmentation)
    before, after = (curves.validation_accuracy[-1] for curves in ends)
    assert after > before, "augmentation does not help here"

# %% [markdown]
# Only augmentation narrows the gap noticeably. But a narrow gap is not the goal: a network that learns nothing has
# none. Judge a remedy by the accuracy on validation pictures, which augmentation raises on the drawn shapes. Here are
# the curves.

# %% tags=["nbval-ignore-output", "slide-output"] mystnb={"image": {"alt": "Validation accuracy over the epochs on 500 pictures: a curve without a remedy, one with dropout and one with augmentation."}}
variants = {
    "no remedy": no_remedy,
    "dropout": with_dropout,
    "augmentation": with_augmentation,
}
plots.compare_histories(variants, title="Validation accuracy, 500 pictures")
plt.show()

# %% [markdown]
# With augmentation hardly any version is seen twice, so the network learns more slowly at first, but it is still
# learning when the network without augmentation has nothing left to learn from its 500. Dropout, mild here, changes
# much less. (That is how the drawn shapes come out. On CIFAR, 15 epochs are too few for the difference to show: the
# three curves end within two points.)
#
# **On all of CIFAR-100**, augmentation takes longer to pay off. Here are recorded runs of this session's recipe, on
# average over their seeds: accuracy in the last epoch, and the validation loss at its lowest and at the end. Training
# accuracy is measured during training, with dropout on.

# %% tags=["remove-input"]
names = {
    "smallnet-no-dropout": "no dropout",
    "smallnet-source": "dropout",
    "smallnet-augmented": "dropout and augmentation",
}
print("CIFAR-100, 25 epochs       training   validation   loss: lowest   last")
for name, about in names.items():
    curves = [run["history"] for run in records.of_recipe(name)]
    on_train = np.mean([curve["train_accuracy"][-1] for curve in curves])
    on_validation = np.mean([c["validation_accuracy"][-1] for c in curves])
    loss = np.mean([curve["validation_loss"] for curve in curves], axis=0)
    print(
        f"{about:24s} {on_train:10.1%} {on_validation:12.1%}"
        f" {loss.min():14.2f} {loss[-1]:6.2f}"
    )

# %% [markdown]
# Without dropout the validation loss ends well above its lowest value: that is overfitting. With dropout, alone or with
# augmentation, it is gone. From the first line to the last, training accuracy falls by more than forty points, in part
# because it is measured on harder pictures and with dropout on. Validation accuracy hardly changes: augmentation makes
# the task harder, and on this schedule the rate is used up before it is learned. In 120 epochs with a rate that lasts,
# augmentation gains most of all, as the book's page *Spending the budget better* shows. **A remedy and its number of
# epochs are chosen together.**
#
# ## Save, load, and test once
#
# What is worth saving is the *state dict*: tensors by name, no code. `weights_only=True`, which `load_weights`
# uses, refuses anything else, so that a file from a stranger cannot run a program on your machine.

# %%
files.save_weights(model, "../weights/smallnet.pt")

restored = SmallNet(n_classes, **recipe.network_args)
files.load_weights(restored, "../weights/smallnet.pt")
for name, tensor in model.state_dict().items():
    assert torch.equal(tensor.cpu(), restored.state_dict()[name]), name
print("every tensor came back as it was")

# %% [markdown]
# All choices are made, so now the test set may be opened. The sections below look at the same answers more closely, but
# no choice is based on them.

# %% tags=["nbval-ignore-output"]
test_loader = BatchLoader(test_set, 250)
test_accuracy = training.evaluate(restored.to(device), test_loader)
print(f"test accuracy on {recipe.data}: {test_accuracy:.2%}")
print(f"a guess: {1 / n_classes:.0%}")

# %% [markdown]
# The project reports 50.48 % on CIFAR-100 for this network and schedule. If your run is in the quick profile, its
# accuracy is for drawn shapes and cannot be compared with that.
#
# ## Which mistakes?
#
# One number hides a hundred classes. A confusion matrix shows, for each true class (row), where its pictures end up.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Confusion matrix of the hundred classes on the test set: a strong diagonal of right answers, with mistakes scattered around it."}}
probabilities, truth = training.predict(restored, test_loader)
confusion = plots.confusion_matrix(truth, probabilities.argmax(1), n_classes)
plots.confusion(confusion, test_set.classes, title="Confusion on the test set")
plt.show()

# %% [markdown]
# The diagonal is what went right. With a hundred classes the rest is easier to read as a list.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Bars of the ten commonest confusions on the test set, each named by its true and its predicted class."}}
plots.most_confused(confusion, test_set.classes)
plt.show()

# %% [markdown]
# Would you confuse these, too? (A class of the drawn shapes has ten test pictures, so a single pair may be due to
# chance.) The network's most confident mistakes are worth a look of their own. On real pictures the label is sometimes
# at fault.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Eight test pictures that the network got wrong with the highest confidence, each with its true class and the predicted one."}}
plots.worst_mistakes(test_set.images, truth, probabilities, test_set.classes)
plt.show()

# %% [markdown]
# ## Transfer: start from a network that has learned something
#
# Back to ten classes with fifty pictures each. Take the network that you trained above on all hundred classes, but
# without its last layer (the *backbone*). **Freeze** its weights, so that training leaves them as they are, and train a
# new last layer, the *head*. (What `Network` calls its `head` has two dense layers; the first of them stays with the
# backbone.) The backbone's features were learned for other classes; are they of use?
#
# (In the quick profile this is transfer at its easiest: `shapes10` has the pictures of `shapes100`, named by their shape
# alone. In the full profile, CIFAR-10 has other pictures and other classes.)
#
# A frozen network must also stay in eval mode, or its batch normalisation would go on adapting. `TransferNet` sees to
# both.

# %%
few_loader = BatchLoader(few_train, 50, shuffle=True, seed=0)
few_test_loader = BatchLoader(ten_test, 250)

n_features = restored.head[-1].in_features
transfer = TransferNet(10, headless(restored), n_features)
trainable = count_parameters(transfer, trainable=True)
print(f"{len(few_train)} pictures, {trainable:,} trainable weights")

# %% [markdown]
# As a control, do exactly the same with a backbone of **random** weights. The project had none: it froze a ResNet-18, a
# well-known network of 18 layers, got 25 % on CIFAR-100, where a random guess gets 1 %, and took that for what transfer
# learning is worth. (Those are different classes from the ten below, and a different network. It most likely had
# ImageNet's weights, as random ones do even worse there: the book's page on transfer has the runs.) The new head is
# trained with Adam, an optimizer that Session 2 explains.


# %%
def train_head(network, loader=few_loader, test_loader=few_test_loader):
    training.seed_everything(0)
    network = network.to(device)
    network.head.reset_parameters()
    loader.epoch = 0
    optimizer = torch.optim.Adam(network.head.parameters(), lr=0.01)
    training.fit(
        network,
        loader,
        None,
        loss_fn,
        optimizer,
        epochs=20,
        verbose=False,
    )
    return training.evaluate(network, test_loader)


# %% [markdown]
# Both get the same head, the same pictures in the same order, and twenty epochs. (They are measured on test pictures,
# because in the quick profile the backbone has been trained on most of the validation pictures of these ten classes.
# Nothing is chosen by the result.)

# %% tags=["nbval-ignore-output", "slide-output"]
training.seed_everything(0)
untrained = SmallNet(n_classes, **recipe.network_args)
random_backbone = TransferNet(10, headless(untrained), n_features)
print(f"new head on the trained backbone: {train_head(transfer):.1%}")
print(f"new head on a random backbone:    {train_head(random_backbone):.1%}")
print("a guess:                          10 %")

# %% [markdown]
# The difference between the two lines is what the backbone *knows*. When a transfer result looks poor, check that the
# weights arrived, and that your pictures have the size and the scale of those that the backbone was trained on.
#
# The full profile tries the same with the best-known backbone of all, torchvision's ResNet-18 with weights from
# ImageNet. It expects pictures of 224×224 pixels, normalised in the same way as its training pictures. Ours shrink to a
# single place before its last layer, so the result shows less than the backbone is worth. The weights have to be
# fetched; without an internet connection you get a message that says what to do.

# %% tags=["nbval-ignore-output"]
if lessons.profile() == "full":
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    try:
        found = train_head(
            TransferNet(10),
            BatchLoader(few_train, 50, **imagenet, shuffle=True, seed=0),
            BatchLoader(ten_test, 250, **imagenet),
        )
        print(f"new head on ImageNet's ResNet-18: {found:.1%}")
    except RuntimeError as message:
        print(message)
else:
    print("quick profile: no pretrained weights are fetched")

# %% [markdown]
# ## Your own picture
#
# Set `my_picture` to the path of a picture, with forward slashes on Windows, too: `"C:/Users/me/cat.jpg"`. It may be a
# photograph, a drawing or a screenshot, as PNG, JPEG or WebP (save a phone's HEIC as JPEG first). It is cut to a square
# and shrunk to 32×32 pixels, like those that the network was trained on. Without a path you get a picture that is drawn
# by code.
#
# In the quick profile, your network knows nothing but shapes. So if the weights of a recorded CIFAR run came with the
# course, that network looks at the picture instead; the line above the figure says which network it was. (If you
# trained on pictures of your own, which the next section describes, leave out the two lines from `if lessons.profile()`
# on, and your own network looks at it.)

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "The picture shown to the network, beside bars for its five most probable classes."}}
my_picture = None  # or "path/to/picture.jpg"

viewer = pictures.Viewer(
    "the network trained above",
    restored,
    recipe.data,
    train_set.classes,
)
if lessons.profile() == "quick":
    viewer = pictures.kept_viewer("smallnet-best", "smallnet-source") or viewer
picture = read_picture(my_picture) if my_picture else drawn(viewer.data)

best, probability = viewer.top_classes(picture)[0]
print(f"{viewer.name} ({viewer.data}): {best}, {probability:.0%}")
plots.prediction_bars(picture, viewer.probabilities(picture), viewer.classes)
plt.show()

# %% [markdown]
# The probabilities add up to 100 % whatever you show it: the network cannot say "none of these". Try a picture
# of something that is not among its classes, and see how sure it is.
#
# ## Change something
#
# To try another setting, add a cell below the one that makes `recipe`:
# `from dataclasses import replace; recipe = replace(recipe, batch_size=32)`, or `recipe.optimizer_args["lr"] = 0.05`
# for one in a dictionary. This notebook reads `data`, `validation`, `network_args`, `batch_size`, `epochs`,
# `optimizer_args` and `schedule_args`; the recipe's other settings have no effect here. For another optimizer or loss,
# change the cell that makes it.
#
# To train on pictures of your own, put them into `path/CLASS/`, a folder for each class, at least 700 in all, and write
# `data.from_folder("path")` in place of `data.load(recipe.data)`. They are shrunk to 32×32. Later cells still print the
# name of the original data set, and the parts on ten classes keep their own data.

# %% [markdown] tags=["slide"]
# ## What to take away
#
# * **Count before you build.** Dense layers after a large feature map eat the budget; one more pooling gives it back.
# * **Draw the schedule before you pay for it.** Steps of five with gamma 0.2 are over after 25 epochs, whatever you plan.
# * **A gap between the losses is not overfitting yet; a validation loss that rises is.** Dropout and augmentation work
#   against it; augmentation needs more epochs.
# * **Test once.** Choices are made on validation data, or the test accuracy stops meaning anything.
# * **A frozen backbone is only as good as its weights.** Run the random control.
#
# **Next**: the exercises, `01_smallnet_exercises.ipynb`. Then Session 2 or, in the book, *Spending the budget better*.
