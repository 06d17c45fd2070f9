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
# # Session 1: exercises
#
# Eight exercises on what Session 1 taught, from a sum on paper to a network of your own.
#
# Below each task is a cell for your answer, and below that a cell that checks it. A right answer prints a line that
# begins with *correct*. A wrong one stops with a line that says what is wrong and where to look. Try again as often as
# you like.
#
# **Time**: an hour or two; all cells together run in about half a minute. They always use the shapes that the course draws,
# whatever the profile.

# %% [markdown] tags=["solution"]
# The solutions are folded away under each task, with the reasoning behind them. To solve the exercises yourself, open
# `01_smallnet_exercises.ipynb` in the course's folder, or take
# <a href="../_sources/notebooks/01_smallnet_exercises.ipynb" download>the copy that runs anywhere</a>. It is this notebook
# without the solutions.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from course_utils import data, plots, schedules, training
from course_utils.data import BatchLoader
from course_utils.exercises import session1 as checks
from course_utils.models import SmallNet, count_parameters

device = training.pick_device()

# %% [markdown]
# ## 1. Count the weights
#
# On paper: how many weights does a SmallNet have with **two** stages of 16 and 48 channels, 60 neurons in its first dense
# layer, and **ten** classes? The pictures are 3×32×32, and each stage ends in a pooling that halves them.

# %% tags=["hide-cell", "solution"]
# <solution>
# stub: by_hand = ...
stage_1 = 9 * 3 * 16 + 16 + 2 * 16
stage_2 = 9 * 16 * 48 + 48 + 2 * 48
dense_1 = (48 * 8 * 8) * 60 + 60
dense_2 = 60 * 10 + 10
by_hand = stage_1 + stage_2 + dense_1 + dense_2
# </solution>

# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# A stage has the convolution's $9cd$ weights, its $d$ biases, and two numbers per channel for batch normalisation. Its
# running mean and variance are stored as well, but they are measured and not learned, so they do not count.
#
# Two poolings leave 8×8 positions with 48 channels each: 3,072 values come into the first dense layer, which has 60 ×
# 3,072 weights and 60 biases. That is 96 % of this small network, a larger share than in the lesson's.
#
# </details>

# %% tags=["hide-output"]
network = SmallNet(n_classes=10, widths=(16, 48), hidden=60)
checks.weights(by_hand, network)

# %% [markdown]
# ## 2. How much does one value see?
#
# After a first 3×3 convolution, one value is computed from 3×3 pixels; after the 2×2 pooling that comes next, from 4×4.
# Another network has *two* such convolutions in each stage, and then a pooling. How many pixels wide is the square that
# one value after **two** of these stages is computed from? (After a pooling, neighbours are twice as far apart. The
# book's page *Convolutions* has the whole sum for SmallNet; try it on paper first.)

# %% tags=["hide-cell", "solution"]
# <solution>
# stub: side = ...
side, distance = 1, 1
for _stage in range(2):
    side += 2 * distance  # a 3×3 convolution: one neighbour on each side
    side += 2 * distance  # and one more
    side += distance  # a 2×2 pooling: one neighbour
    distance *= 2  # and from now on neighbours are twice as far apart
# </solution>

# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# Keep two numbers: the side of the square, and the distance in pixels between neighbouring values. A convolution adds a
# neighbour to the left and one to the right, a pooling adds one; each neighbour widens the square by the *present* distance.
# Pooling then doubles the distance.
#
# | after | side | distance |
# |---|--:|--:|
# | stage 1 | 1 + 2 + 2 + 1 = 6 | 2 |
# | stage 2 | 6 + 4 + 4 + 2 = 16 | 4 |
#
# Two 3×3 convolutions on top of each other see as far as one of 5×5, with 18 weights for each pair of channels in place
# of 25. SmallNet's three stages see 22 pixels of 32, so no value after its convolutions sees the whole picture. Only
# the dense layer puts the sixteen views together, and that is one thing its many weights are for.
#
# </details>


# %% tags=["hide-output"]
def stage(c, d):
    first, second = nn.Conv2d(c, d, 3, padding=1), nn.Conv2d(d, d, 3, padding=1)
    return first, nn.ReLU(), second, nn.ReLU(), nn.MaxPool2d(2)


checks.receptive_field(side, nn.Sequential(*stage(3, 16), *stage(16, 32)))

# %% [markdown]
# ## 3. The dead epochs
#
# Somebody plans 120 epochs with a rate of 0.04 that is multiplied by 0.2 after every 8 epochs. Call an epoch **dead**,
# as in the lesson, when its rate is so low that a gradient of 1 cannot change a weight of 0.01 in float32. How many of
# the 120 epochs are dead?


# %% tags=["hide-cell", "solution"]
# <solution>
# stub: dead = ...
def drops(optimizer):
    return StepLR(optimizer, step_size=8, gamma=0.2)


rates = schedules.rates_of(drops, steps=120, lr=0.04)
smallest_change = np.spacing(np.float32(0.01)) / 2
dead = int((rates < smallest_change).sum())
# </solution>

# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# float32 keeps about seven digits: the next number after 0.01 is $9.3 \cdot 10^{-10}$ away, and less than half of that
# is rounded away. The rate starts at 0.04 and is divided by five at each drop: it needs
# $\ln(0.04 / (4.66 \cdot 10^{-10})) / \ln 5 \approx 11.35$ drops to fall that low, so after the twelfth drop the epochs
# are dead. That drop comes after 96 epochs; in the other 24 hardly a weight moves.
#
# Long before they are dead, epochs are useless: compare how far the rates of the second half could carry a weight with
# those of the first.
#
# </details>

# %% tags=["hide-output"]
checks.dead_epochs(dead, epochs=120, lr=0.04, step_epochs=8, gamma=0.2)

# %% [markdown]
# ## 4. Write the training loop
#
# Write `train(network, loader, loss_fn, optimizer, scheduler, epochs)`, without looking at the lesson's if you can. It goes over the
# loader `epochs` times. After every **batch** the optimizer takes a step, and then the scheduler, which here changes the rate with
# each batch and not with each epoch. It returns a
# list: for each epoch the mean loss over all **pictures**, as a plain number. The last batch may be smaller than the others.


# %% tags=["hide-cell", "solution"]
def train(network, loader, loss_fn, optimizer, scheduler, epochs):
    # <solution>
    # stub: ...
    losses = []
    for _epoch in range(epochs):
        network.train()
        total, seen = 0.0, 0
        for images, labels in loader:
            loss = loss_fn(network(images), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            total += loss.item() * len(labels)
            seen += len(labels)
        losses.append(total / seen)
    return losses
    # </solution>


# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# `backward` *adds* to the gradients that are there, so they have to be cleared: before the next `backward`, but not
# between `backward` and `step`. `train()` stands inside the loop over epochs because a validation between two epochs
# switches to eval mode; here, where nothing is validated, once would do.
#
# A loss is the mean over its batch. A mean of those means gives the pictures of a small last batch too much weight, so
# each loss is first multiplied by the number of pictures in its batch. `item()` turns the loss into a number. Without
# it, `total` would be a tensor that stays tied to the graph of every batch.
#
# </details>

# %% tags=["hide-output"]
checks.trains(train)

# %% [markdown]
# ## 5. The forgotten `eval()`
#
# Train a small network with your loop, for two epochs, to name the ten shapes, whatever their texture.

# %% tags=["nbval-ignore-output"]
shapes_train, shapes_test = data.load("shapes10")
training.seed_everything(0)
tiny = {"widths": (16, 32, 64), "hidden": 64, "dense_dropout": 0.5}
network = SmallNet(10, **tiny)
mean, std = data.channel_stats(shapes_train)
normalised = {"mean": mean, "std": std}
loader = BatchLoader(shapes_train, 64, **normalised, shuffle=True, seed=0)
optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
falling = StepLR(optimizer, step_size=len(loader), gamma=0.2)
loss_fn = nn.CrossEntropyLoss()
losses = train(network, loader, loss_fn, optimizer, falling, epochs=2)
print("mean loss in each epoch:", [round(loss, 2) for loss in losses])
test_loader = BatchLoader(shapes_test, 1000, **normalised)
test_images, test_labels = next(iter(test_loader))

# %% [markdown]
# Somebody wrote this function to measure the network's accuracy, and gets puzzling answers. Ask twice, and you get two
# different answers. Ask about one class at a time, and on average the network seems to be worse.


# %%
def broken_accuracy(network, images, labels):
    logits = network(images)
    return float((logits.argmax(1) == labels).float().mean())


def a_class_at_a_time(measure, network):
    chosen = [test_labels == label for label in range(10)]
    shares = [measure(network, test_images[c], test_labels[c]) for c in chosen]
    return np.mean(shares)


# %% tags=["nbval-ignore-output"]
play = SmallNet(10, **tiny)  # a copy, in train mode as every new network
play.load_state_dict(network.state_dict())
for _ in range(2):
    share = broken_accuracy(play, test_images, test_labels)
    print(f"all at once:         {share:.1%}")
print(f"one class at a time: {a_class_at_a_time(broken_accuracy, play):.1%}")

# %% [markdown]
# Repair it. `accuracy` measures in eval mode, records nothing for a backward pass (`torch.inference_mode()`), and
# leaves the network in whichever mode it was in before.


# %% tags=["hide-cell", "solution"]
def accuracy(network, images, labels):
    # <solution>
    # stub: ...
    mode = network.training
    network.eval()
    with torch.inference_mode():
        logits = network(images)
    network.train(mode)
    return float((logits.argmax(1) == labels).float().mean())
    # </solution>


# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# In train mode, dropout sets half of the dense layer and a tenth of the feature maps' values to zero at random: hence
# two answers. Batch normalisation compares each picture with the others of its batch: among pictures of one class it
# subtracts what they have in common, which is what gives the class away. And each forward pass moves its running
# statistics, so that measuring changes the network.
#
# `eval()` ends all three. `inference_mode()` is another matter: it saves the memory and the time of recording what a
# backward pass would need. And a function that measures should leave no trace: `fit` calls one like it between two epochs.
#
# </details>

# %% tags=["hide-output"]
checks.measures(accuracy)

# %% [markdown]
# With yours, both ways of asking give the same number.

# %% tags=["nbval-ignore-output"]
print(f"all at once:         {accuracy(network, test_images, test_labels):.1%}")
print(f"one class at a time: {a_class_at_a_time(accuracy, network):.1%}")

# %% [markdown]
# ## 6. A bias that does nothing
#
# SmallNet's convolutions have biases, and batch normalisation follows. Change such a bias and see what comes out in train
# mode.

# %%
torch.manual_seed(0)
conv, norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
x = torch.rand(64, 3, 32, 32)
with torch.no_grad():
    before = norm(conv(x))
    conv.bias += torch.linspace(-5, 5, 8)
    after = norm(conv(x))
print("the same output:", torch.allclose(before, after, atol=1e-3))

# %% [markdown]
# So the bias can go. Build a convolution `bare` without a bias and its batch normalisation `bare_norm` so that in
# **eval** mode, too, they do what `conv` and `norm` do. Nothing may be trained or measured again. Copy the weights and
# the statistics, `running_mean` and `running_var` (`a.copy_(b)`, under `torch.no_grad()`, writes the values of `b` into
# `a`). In eval mode the stored mean is subtracted from what the convolution gives: without the bias, which of the two
# statistics has to change, and by how much?

# %% tags=["hide-cell", "solution"]
# <solution>
# stub: bare, bare_norm = ..., ...
bare = nn.Conv2d(3, 8, 3, padding=1, bias=False)
bare_norm = nn.BatchNorm2d(8)
bare_norm.load_state_dict(norm.state_dict())
with torch.no_grad():
    bare.weight.copy_(conv.weight)
    bare_norm.running_mean -= conv.bias
# </solution>

# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# Batch normalisation subtracts each channel's mean. A bias adds the same number to every value of a channel, so it is
# in the mean as well, and the subtraction takes it out again. In eval mode the stored mean $m$ is subtracted, whatever
# it was measured on: $(w * x + b) - m = w * x - (m - b)$, so $b$ is subtracted from the stored mean. A constant does
# not change a variance, which stays as it is.
#
# The shift that the network needs is learned by batch normalisation itself. Without these biases SmallNet would have 224
# weights fewer. That is little; the reason to leave them out is that they are confusing.
#
# </details>

# %% tags=["hide-output"]
checks.needs_no_bias(bare, bare_norm, conv, norm)

# %% [markdown]
# ## 7. The best network under 300,000 weights
#
# You have less than a third of the lesson's budget, and all hundred classes of shapes in textures. This network spends
# it as the lesson's does, and is trained for three epochs. Two things would blur the comparison, and are the same for
# every network here: dropout is off, because so short a training run does not overfit, and the activation is GELU, a
# ReLU with a smooth bend. With ReLU, most of this dense layer dies in the first steps (exhibit 9 of the gallery, later
# in the book), and you would compare dead units instead of budgets.


# %% tags=["nbval-ignore-output"]
train_and_validation, _ = data.load("shapes100")
train_set, validation_set = data.split(train_and_validation, 0.1, seed=0)
mean, std = data.channel_stats(train_set)
normalised = {"mean": mean, "std": std}
fixed = {"conv_dropout": 0, "dense_dropout": 0, "activation": "GELU"}
validation_loader = BatchLoader(validation_set, 500, **normalised)


def train_and_validate(network, epochs=3):
    """Accuracy on the validation set after a short training, whose rate rises and then falls to zero."""
    training.seed_everything(0)
    network = network.to(device)
    loader = BatchLoader(train_set, 64, **normalised, shuffle=True, seed=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9)
    scheduler = schedules.one_cycle(
        optimizer,
        epochs,
        len(loader),
        lr_min=0.003,
        lr_max=0.03,
        peak_epoch=1,
        lr_end=0,
    )
    training.fit(
        network,
        loader,
        None,
        loss_fn,
        optimizer,
        scheduler,
        epochs=epochs,
        verbose=False,
    )
    return training.evaluate(network, validation_loader)


training.seed_everything(0)
starting_network = SmallNet(100, widths=(32, 64, 128), hidden=90, **fixed)
to_beat = train_and_validate(starting_network)
print(f"{count_parameters(starting_network):,} weights: {to_beat:.1%}")

# %% [markdown]
# Spend the 300,000 better, and gain at least ten points of accuracy. That is a hurdle for one seed, not a proof: the
# accuracy of the starting network alone varies by up to twenty points from seed to seed. `widths` may have up to five
# stages, and `hidden` any number of neurons. Where was the budget spent, and where is the seeing done?

# %% tags=["hide-cell", "nbval-ignore-output", "solution"]
training.seed_everything(0)
# <solution>
# stub: mine = SmallNet(100, widths=(32, 64, 128), hidden=90, **fixed)
mine = SmallNet(100, widths=(48, 64, 96, 128), hidden=100, **fixed)
# </solution>
my_accuracy = train_and_validate(mine)
print(f"{count_parameters(mine):,} weights: {my_accuracy:.1%}")

# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# In the starting network 2,048 values come into the first dense layer, which takes two thirds of all weights. A further
# stage divides the positions by four: with 2×2 of them, 128 channels are only 512 values. What that saves pays for one
# more convolution and for more filters in the first, and each value after the last stage now sees nearly the whole
# picture.
#
# This is one answer among many. Three epochs are a rough test: change the seed in `train_and_validate` and in front of
# each network, and both accuracies change, that of the starting network by up to twenty points. So ask for a large
# difference, or for several seeds.
#
# And compare like with like. Give the starting network ReLU back, and it falls far behind. Compare that with your
# network with GELU, and most of the difference no longer comes from how the budget was spent.
#
# </details>

# %% tags=["hide-output"]
checks.within_budget(mine, starting_network, 300_000, my_accuracy, to_beat)

# %% [markdown]
# ## 8. Explain two confusions
#
# A hundred classes make 9,900 possible confusions. Write a function that finds the two commonest in a square matrix of
# counts, for any number of classes, whose rows are the true classes: a list of two pairs `(true, predicted)`, the
# commonest first. The matrix must not change.


# %% tags=["hide-cell", "solution"]
def two_worst(confusion):
    # <solution>
    # stub: ...
    mistakes = confusion.copy()
    np.fill_diagonal(mistakes, 0)
    places = np.argsort(-mistakes, axis=None, kind="stable")[:2]
    rows, columns = np.unravel_index(places, mistakes.shape)
    return list(zip(rows, columns, strict=True))
    # </solution>


# %% tags=["hide-output"]
checks.finds_confusions(two_worst)

# %% [markdown]
# Now use it on your network. First come up to four pictures that it got wrong, then four of the class that it took them
# for.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Validation pictures of one common confusion: first those that the network got wrong, then right ones of the class that it took them for."}}
probabilities, truth = training.predict(mine, validation_loader)
guesses = probabilities.argmax(1)
confusion = plots.confusion_matrix(truth, guesses, 100)
for true, predicted in two_worst(confusion):
    wrong = np.flatnonzero((truth == true) & (guesses == predicted))[:4]
    examples = np.flatnonzero(truth == predicted)[:4]
    shown = np.concatenate([wrong, examples])
    title = f"{confusion[true, predicted]} of {confusion[true].sum()} confused"
    plots.show_images(
        validation_set.images[shown],
        truth[shown],
        validation_set.classes,
        title=title,
    )
    plt.show()

# %% [markdown]
# Explain both in a sentence each: what do the two classes have in common, which detail tells them apart, and what may
# happen to that detail on its way through the network? Then say how you would find out whether you are right.

# %% [markdown] tags=["solution"]
# <details><summary><b>The reasoning</b></summary>
#
# Which pairs come out on top may differ on your computer, because five pictures per class are very few. Look at the
# names first: do the two share their shape, or their texture? Textures are told apart by fine detail: how close the
# lines are, whether they bend or cross, how quickly light changes into dark. Noise hides just that, and the poolings
# blur it.
#
# An explanation is a prediction, so test it. If you say "it is the noise", add more of it to the validation pictures:
# this confusion should then grow faster than the others. If you say "the detail is lost in the poolings", train a
# network with one pooling fewer. And look at the matrix the other way round: a confusion that always goes one way is
# not explained by "they look alike".
#
# </details>

# %% [markdown]
# ## Before you go on
#
# Three questions. Choose before you unfold.
#
# **1.** A convolution from 64 to 128 channels is given 5×5 filters in place of 3×3. Its weights, without biases, become
#
# - **a)** 1.7 times as many
# - **b)** 2.8 times as many
# - **c)** 4 times as many
#
# <details><summary>Answer</summary>
#
# **b.** 25 weights in place of 9 for each pair of channels, and 25/9 is about 2.8. The number of channels does not matter for
# the ratio.
#
# </details>
#
# **2.** The training loss still falls, the validation loss has begun to rise. What is least likely to bring it down
# again?
#
# - **a)** more dropout
# - **b)** more epochs at the same learning rate
# - **c)** augmentation
#
# <details><summary>Answer</summary>
#
# **b.** The network is learning the training images by heart, and more of the same mostly adds to that. Dropout and
# augmentation both make memorising harder. (A lower rate may help, too.)
#
# </details>
#
# **3.** You try ten learning rates and keep the one with the best *test* accuracy. As a forecast for new pictures, that
# accuracy is
#
# - **a)** most likely too high, because it was used to choose
# - **b)** most likely too low, because nine other rates were tried
# - **c)** as good as any, because no weight was trained on the test set
#
# <details><summary>Answer</summary>
#
# **a.** Among ten numbers with noise in them the highest is high partly by luck, and the luck does not come again on new
# pictures. Choose on validation data, then test once.
#
# </details>
