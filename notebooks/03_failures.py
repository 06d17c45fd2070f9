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

# %% [markdown]
# # A gallery of failures
#
# Most failures in training raise no error. The loop runs, a number comes out, and it is worse than it should be. What you
# have then is a curve, and this gallery is for learning to read it.
#
# There are ten exhibits, each with **one mistake**, trained here beside a healthy run. For each you see its curve, how
# to recognise it, and the line that fixes it. A section near the end turns this around: what you see, and where to look
# first.
#
# After this page you can
#
# * tell a network that learns nothing from one that learns the wrong thing, and from one that is only measured wrongly;
# * say which quantity to look at next, before you change anything;
# * name the mistakes that no curve shows.
#
# **Time**: 30 minutes to read and try; the computer needs less than a minute.
#
# Run the cells in order. A `NameError` means that an earlier cell has not run yet; *Run All Above Selected Cell* in the
# *Run* menu sees to that. Running an exhibit again does no harm: each builds a new network. The lines under *How to fix
# it* are meant for code of your own: replace their names by yours.

# %% tags=["nbval-ignore-output"]
import math
import textwrap
import warnings
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from course_utils import data, lessons, plots, schedules, training
from course_utils.data import BatchLoader
from course_utils.models import SmallNet

print(f"profile  {lessons.profile()}  (this notebook is the same in both)")
print("data     shapes10 and shapes100  (drawn by code: not CIFAR)")
print("trains   each network for 4 epochs; less than a minute on two CPU cores")
print("expect   about 90 % on validation images where all is well")

# %% [markdown]
# ## The healthy run
#
# The data are 3,000 drawings of ten shapes, with 500 more to validate on. A network that gives all ten classes the same
# probability is right in **10 %** of the cases, and its loss is $\ln 10 \approx 2.30$. We call that a *random guess*.
# Keep these two numbers in mind: they are what "has learned nothing" looks like.

# %%
train_set, validation_set = data.split(data.load("shapes10")[0])
train_set = data.take(train_set, 3000)
mean, std = data.channel_stats(train_set)
scaling = {"mean": mean, "std": std}

validation_loader = BatchLoader(validation_set, 500, **scaling)
device = training.pick_device()


def train_loader(image_set=train_set, kind=BatchLoader, **changes):
    options = {"shuffle": True, "seed": 0} | scaling | changes
    return kind(image_set, 32, **options)


def new_model(network=SmallNet, n_classes=10):
    training.seed_everything(0)
    model = network(n_classes, widths=(8, 16, 32), hidden=64, conv_dropout=0)
    return model.to(device)


def sgd(parameters, rate=0.03, decay=5e-4):
    return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay)


# %% [markdown]
# Everything that the exhibits have in common is in one function: four epochs of one cycle (starting at a fifth of its
# highest rate), the same seed, and the same order of the pictures. `fit` compares the two loaders, looks at the first
# batch, and warns of any mistakes that it can see. The function below prints these warnings, so that you see which
# failures announce themselves and which do not.


# %%
def train(
    model, loader, validation=validation_loader, optimizer=None, start=0.2
):
    optimizer = optimizer or sgd(model.parameters())
    top = optimizer.param_groups[0]["lr"]
    cycle = {"lr_min": start * top, "lr_max": top, "peak_epoch": 1, "lr_end": 0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # each message once
        history = training.fit(
            model,
            loader,
            validation,
            nn.CrossEntropyLoss(),
            optimizer,
            schedules.one_cycle(optimizer, 4, len(loader), **cycle),
            epochs=4,
            precision="float32",
            verbose=False,
        )
    for warning in caught:
        print(textwrap.fill(f"fit warns: {warning.message}", 80))
    return history


def beside_healthy(quantity, runs):
    figure = plots.compare_histories({"healthy": healthy, **runs}, quantity)
    guess = 10 if "accuracy" in quantity else math.log(10)
    figure.axes[0].axhline(guess, linestyle="--", color="0.5")
    plt.show()


# %% mystnb={"image": {"alt": "The healthy run: both losses fall together over four epochs from below that of a guess, and validation accuracy climbs."}}
healthy_model = new_model()
healthy = train(healthy_model, train_loader())
plots.learning_curves(healthy, title="The healthy run")
plt.show()

# %% [markdown]
# After one epoch both losses are below that of a guess, 2.30, and they fall together. The accuracy climbs, and `fit`
# has nothing to say. Every exhibit is compared with this run, in figures whose dashed line marks a random guess.
#
# ## 1. The rate is too high
#
# The same run at a hundred times the rate.

# %% mystnb={"image": {"alt": "Training loss of exhibit 1 beside the healthy run: it starts above that of a guess and falls back to it, no further."}}
ruined_model = new_model()
rate_too_high = train(
    ruined_model,
    train_loader(),
    optimizer=sgd(ruined_model.parameters(), rate=3.0),
)
beside_healthy("train_loss", {"rate too high": rate_too_high})

# %% [markdown]
# **How to recognise it.** After the first epoch the loss is *above* that of a random guess, which is where this network
# started: its own steps have driven the loss up. As the cycle lowers the rate again, the loss creeps back towards 2.3
# and no further. The first large steps have ruined the weights, and the smaller ones do not bring them back; exhibit 9
# shows in what way. If the rate is higher still, the loss stops being a number, and `fit` stops with `Diverged`.
#
# **How to fix it.** Do not guess: measure. A range test costs a hundred steps and puts the network back as it was.
#
# ```python
# schedules.lr_range_test(model, loader, loss_fn, optimizer, lr_max=10).suggestion
# ```
#
# ## 2. Nobody called `eval()`
#
# Dropout and batch normalisation work differently in training and in evaluation, and `model.eval()` is the switch. This
# network's switch is stuck, which has the same effect as a validation loop in which the call was forgotten.


# %% mystnb={"image": {"alt": "Validation accuracy of exhibit 2 beside the healthy run: both curves rise in the same way."}}
class StuckInTraining(SmallNet):
    def train(self, mode=True):
        return super().train(True)  # whatever was asked for


stuck_model = new_model(StuckInTraining)
without_eval = train(stuck_model, train_loader())
beside_healthy("validation_accuracy", {"eval() forgotten": without_eval})

# %% [markdown]
# **How to recognise it.** Not by the curve: it has the right shape and ends only a few points too low, as it would with
# a dozen other mistakes. Ask the same network the same question twice, and in batches of different sizes. A trained
# network has *one* answer.

# %% tags=["nbval-ignore-output"]
mended = new_model()
mended.load_state_dict(stuck_model.state_dict())


def accuracy_of(model, loader):
    return training.evaluate(model, loader, precision="float32")


print("pictures at a time     stuck in training     in eval mode")
for size in (1, 8, 64, 500):
    loader = BatchLoader(validation_set, size, **scaling)
    twice = [accuracy_of(stuck_model, loader) for _ in range(2)]
    once = accuracy_of(mended, loader)
    print(f"{size:18d} {twice[0]:11.1%}, {twice[1]:5.1%} {once:16.1%}")

# %% [markdown]
# In training mode the answer to one picture depends on chance (dropout) and on the pictures that happen to be in the
# same batch (batch normalisation). It is worst for a single picture, which is what an app would send. Worse still, each
# evaluation moves the running averages: measuring changes the network. Run the cell again, and the last column, which
# starts from those averages, is not what it was.
#
# **How to fix it.** The course's `validate_epoch` and `evaluate` flip the switch themselves and put it back. In a loop
# of your own:
#
# ```python
# model.eval()    # before the first batch, and model.train() before you go on training
# ```
#
# ## 3. Normalisation forgotten at test time
#
# Training pictures are normalised. The validation loader, written on another day, only scales to [0, 1].

# %% mystnb={"image": {"alt": "Validation accuracy of exhibit 3 beside the healthy run: far below it from the first epoch on."}}
plain_validation_loader = BatchLoader(validation_set, 500)
not_normalised = train(new_model(), train_loader(), plain_validation_loader)
beside_healthy("validation_accuracy", {"not normalised": not_normalised})

# %% [markdown]
# **How to recognise it.** Training is not touched at all; only the measurement is wrong. That looks like overfitting,
# but overfitting comes late, when the training loss is low. Here the validation accuracy is far too low from the first
# epoch on, while the training loss falls as it should.

# %% tags=["nbval-ignore-output"]
print(f"training loss, healthy:        {healthy.train_loss[-1]:.4f}")
print(f"training loss, not normalised: {not_normalised.train_loss[-1]:.4f}")
for name, loader in [
    ("training", train_loader()),
    ("validation", plain_validation_loader),
]:
    batch, _ = next(iter(loader))
    print(f"{name:10s} mean {batch.mean():5.2f}   std {batch.std():.2f}")

# %% [markdown]
# **How to fix it.** Look at one batch of each loader, as above: both should have a mean near 0 and a standard deviation
# near 1. Then define the numbers in one place, and give them to both loaders.
#
# ```python
# scaling = {"mean": mean, "std": std}    # measured on the training images alone
# ```
#
# ## 4. No shuffling, and the classes are sorted
#
# Pictures that were read folder by folder come sorted: first all circles, then all rings.

# %% mystnb={"image": {"alt": "Training accuracy of exhibit 4 beside the healthy run: it falls below that of a guess while the healthy one climbs."}}
in_order = np.argsort(train_set.labels, kind="stable")
sorted_set = train_set.subset(in_order)
sorted_model = new_model()
not_shuffled = train(sorted_model, train_loader(sorted_set, shuffle=False))
beside_healthy("train_accuracy", {"sorted, not shuffled": not_shuffled})

# %% [markdown]
# **How to recognise it.** The training accuracy falls *below* the 10 % of a guess. Chance alone does not do that. In
# the first epoch the first few classes are learned while they last, and the accuracy looks promising. But while the
# squares last, "everything is a square" is always right, and can be said without looking. Soon the network gives nearly
# the same answer to every picture. Its logits are then little more than the last layer's biases, and these follow each
# new class too late.

# %% tags=["nbval-ignore-output"]
print("training accuracy:  ", [f"{a:.1%}" for a in not_shuffled.train_accuracy])
print(
    "validation accuracy:",
    [f"{a:.1%}" for a in not_shuffled.validation_accuracy],
)
images, _ = next(iter(validation_loader))
for name, model in {"healthy": healthy_model, "sorted": sorted_model}.items():
    with torch.no_grad():
        spread = float(model.eval()(images.to(device)).std(0).mean())
    print(f"spread of a logit over the 500 pictures, {name}: {spread:.4f}")

# %% [markdown]
# **How to fix it.** Shuffle while training; for evaluation the order makes no difference.
#
# ```python
# BatchLoader(train_set, 32, shuffle=True, seed=0)
# ```
#
# ## 5. The labels do not belong to the pictures
#
# Somewhere the images were reordered and the labels were not. All the right labels are there, on the wrong pictures.

# %% mystnb={"image": {"alt": "Training loss of exhibit 5 beside the healthy run: flat at the loss of a guess."}}
permuted_labels = np.random.default_rng(0).permutation(train_set.labels)
permuted_set = replace(train_set, labels=permuted_labels)
permuted = train(new_model(), train_loader(permuted_set))
beside_healthy("train_loss", {"labels permuted": permuted})

# %% [markdown]
# **How to recognise it.** The loss goes to that of a random guess and stays there, smoothly: there is nothing to learn,
# and the network finds out quickly. Do not rely on this sign, though. This network is small and the run is short. A
# large network, given enough epochs, can learn every wrong label by heart (Zhang and others, 2017); then the training
# loss falls, the validation accuracy stays at that of a guess, and it looks like overfitting at its worst.
#
# **How to fix it.** Look at the pictures *with* their labels. It takes ten seconds, and no curve replaces it.

# %% mystnb={"image": {"alt": "Eight drawings under labels that do not belong to them."}}
first = permuted_set.subset(np.arange(8))
plots.show_images(first.images, first.labels, first.classes)
plt.show()

# %% [markdown]
# Then change images and labels only together, as `ImageSet.subset` does:
#
# ```python
# image_set = image_set.subset(order)    # never image_set.images[order] alone
# ```
#
# ## 6. A softmax before cross entropy
#
# The network ends in a softmax, because probabilities were wanted. But cross entropy does a softmax itself, so now there
# are two.

# %% mystnb={"image": {"alt": "Training loss of exhibit 6 beside the healthy run: it falls slowly and stays above its floor of 1.46."}}
two_softmaxes = train(
    nn.Sequential(new_model(), nn.Softmax(dim=1)),
    train_loader(),
)
floor = -math.log(math.e / (math.e + 9))
print(f"the lowest loss that is left to reach: {floor:.2f}")
beside_healthy("train_loss", {"softmax twice": two_softmaxes})

# %% [markdown]
# **How to recognise it.** The network learns, but slowly. The loss creeps down towards a floor. At best the first
# softmax gives 1 to the right class and 0 to the other nine; from these ten numbers the second one makes a probability
# of $\frac{e}{e+9}$ for the right class, a loss of $-\ln\frac{e}{e+9} \approx 1.46$, and no training can go lower. The
# accuracy is lower than it should be too, but far from a guess, so this mistake can live on unnoticed. `fit` sees it:
# true logits are not all positive, nor is their sum 1.
#
# **How to fix it.** Train on logits. Where you want probabilities, take the softmax afterwards.
#
# ```python
# probabilities = model(images).softmax(1)  # for people; the loss gets the logits
# ```
#
# ## 7. Weight decay far too strong, and on everything
#
# Weight decay pulls every weight towards zero. The healthy run uses 0.0005. Here it is 0.3, six hundred times as much:
# once on everything, which is what `model.parameters()` gives you, and once on the weights of the layers only, without
# the biases and without the scales and shifts of batch normalisation.


# %% mystnb={"image": {"alt": "Training loss of exhibit 7 beside the healthy run: with the decay on everything it stays at the loss of a guess, with the decay on the layers only it falls, far more slowly than the healthy one."}}
def layers_only(model):
    weights = [p for p in model.parameters() if p.ndim > 1]
    the_rest = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": weights}, {"params": the_rest, "weight_decay": 0}]


decayed_model = new_model()
decay_on_all = train(
    decayed_model,
    train_loader(),
    optimizer=sgd(decayed_model.parameters(), decay=0.3),
)
layers_model = new_model()
decay_on_layers = train(
    layers_model,
    train_loader(),
    optimizer=sgd(layers_only(layers_model), decay=0.3),
)
beside_healthy(
    "train_loss",
    {
        "decay 0.3 on everything": decay_on_all,
        "decay 0.3 on layers only": decay_on_layers,
    },
)

# %% [markdown]
# **How to recognise it.** With the decay on everything, the loss is that of a guess from start to end. The curve alone
# cannot tell this from exhibit 5. The weights can: look at the scales of batch normalisation, which start at 1.


# %% tags=["nbval-ignore-output"]
def largest_scale(model):
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    return max(float(norm.weight.detach().abs().max()) for norm in norms)


print("the largest scale of batch normalisation")
print(f"healthy:                 {largest_scale(healthy_model):.1g}")
print(f"decay 0.3 on everything: {largest_scale(decayed_model):.1g}")

# %% [markdown]
# With scales of zero nothing passes through a layer, and then no gradient does either. With the decay on the layers only,
# the network is hampered but alive: batch normalisation divides by the size of what comes in, so it makes up for small
# weights before it.
#
# That was six hundred times too much. At the usual 0.0005, is it a mistake to have the decay on everything?

# %% mystnb={"image": {"alt": "Validation accuracy with the usual decay on everything and on the layers only: two curves that differ on the way and end close together."}}
usual_model = new_model()
usual_on_layers = train(
    usual_model,
    train_loader(),
    optimizer=sgd(layers_only(usual_model)),
)
beside_healthy("validation_accuracy", {"on layers only": usual_on_layers})

# %% [markdown]
# The curves differ on the way, while the rate is high and any change sends a run down a different path, but they meet
# at the end. One accuracy near 90 %, measured on 500 pictures, has a standard deviation of 1.3 points, so a gap of two
# or three may well be chance. Leaving the scales and biases out is a safeguard for the day on which you try a stronger
# decay; so small a run cannot say whether it also helps accuracy.
#
# **How to fix it.** Start at 0.0005 with SGD, change it by factors of three, and leave the scales and biases out:
#
# ```python
# groups = layers_only(model)
# optimizer = torch.optim.SGD(groups, lr=0.03, momentum=0.9, weight_decay=5e-4)
# ```
#
# ## 8. An augmentation that changes the label
#
# An augmentation must leave the class as it is. Whether it does depends on the classes. A quarter turn does no harm to
# circles or rings, but here the task is to tell four *textures* from each other, whatever the shape. This exhibit gets
# a healthy run of its own.

# %% mystnb={"image": {"alt": "Four striped drawings, and below them the same after a quarter turn: horizontal stripes have become vertical ones, and the label has stayed."}}
names = ("plain", "h-striped", "v-striped", "dotted")
drawings = data.load("shapes100")[0]
texture_of = np.array([name.split()[0] for name in drawings.classes])
drawings = drawings.subset(np.isin(texture_of[drawings.labels], names))
labels = [names.index(texture) for texture in texture_of[drawings.labels]]
texture_set = replace(drawings, labels=np.array(labels), classes=names)

train_textures, validation_textures = data.split(texture_set)
texture_validation_loader = BatchLoader(validation_textures, 500, **scaling)

originals = train_textures.subset(train_textures.labels == 1).images[:4]
turned = np.rot90(originals, axes=(1, 2))
both = np.concatenate([originals, turned])
plots.show_images(both, np.ones(8, dtype=int), names, columns=4)
plt.show()


# %% [markdown]
# Above are four pictures with horizontal stripes, below the same four after a quarter turn, still labelled "h-striped".
# The loader in the next cell turns every picture with a chance of one half.


# %% mystnb={"image": {"alt": "Validation accuracy of exhibit 8: trained on turned pictures it stays well below the healthy run."}}
class TurningLoader(BatchLoader):
    def pixels(self, batch, rng):
        images = super().pixels(batch, rng)
        turn = torch.from_numpy(rng.random(len(images)) < 0.5)
        images[turn] = images[turn].rot90(dims=(1, 2))
        return images


texture_runs, texture_models = {}, {}
for name, kind in [("healthy", BatchLoader), ("turned", TurningLoader)]:
    texture_models[name] = new_model(n_classes=4)
    texture_runs[name] = train(
        texture_models[name],
        train_loader(train_textures, kind),
        texture_validation_loader,
    )
plots.compare_histories(texture_runs)
plt.show()

# %% [markdown]
# **How to recognise it.** The accuracy stays too low, in training as well, as if the network were too small. The
# confusion matrix says more: look at the rows of the two striped classes.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Confusion matrix of four textures after training on turned pictures: in the rows of both striped classes the same answers come up in the same order, one of the two stripes far more often than the other."}}
turned_model = texture_models["turned"]
probabilities, truth = training.predict(turned_model, texture_validation_loader)
confusion = plots.confusion_matrix(truth, probabilities.argmax(1), 4)
plots.confusion(confusion, names, title="Trained on turned pictures")
plt.show()

# %% [markdown]
# In both rows the same answers come up, and in the same order, whichever way the stripes run: the network has stopped
# telling them apart. (Which of the two it prefers is chance.) These are the classes that the augmentation turns into
# each other. (It mixes up stripes and dots as well, which no turn explains: after four epochs it is also simply
# behind.)
#
# **How to fix it.** Before you train, look at augmented pictures and name their classes. If you cannot, neither can the
# network.
#
# ```python
# plots.show_augmented(originals, augmented)  # (n, H, W, 3), (n, versions, H, W, 3)
# ```
#
# ## 9. Dead units
#
# This run has the healthy run's rate of 0.03 from the very first step: the cycle starts at its peak, without the climb.

# %% mystnb={"image": {"alt": "Training loss of exhibit 9 beside the healthy run: it starts a little lower, and ends level."}}
dead_model = new_model()
no_warm_up = train(dead_model, train_loader(), start=1)
beside_healthy("train_loss", {"no warm-up": no_warm_up})

# %% [markdown]
# **How to recognise it.** Hardly by the curve: it starts a little lower, and ends beside the healthy one. Yet this
# network is smaller than it looks on paper. Count the units of its dense layer that *no* validation picture brings
# above zero: they are **dead**.


# %% tags=["nbval-ignore-output"]
@torch.no_grad()
def dead_units(model):
    images, _ = next(iter(validation_loader))  # all 500
    values = model.eval().features(images.to(device))
    for layer in model.head[:3]:  # flatten, dense layer, activation
        values = layer(values)
    return int((values.amax(0) <= 0).sum())


healthy_dead, dead = dead_units(healthy_model), dead_units(dead_model)
print("dead units, of 64 in the dense layer")
print(f"healthy:                    {healthy_dead:2d}")
print(f"no warm-up:                 {dead:2d}")
print(f"exhibit 1, a rate of 3:     {dead_units(ruined_model):2d}")
assert healthy_dead < dead < 60  # a small network, but not an empty one

# %% [markdown]
# Nothing normalises this layer. One step that is too long can push a unit below zero for every picture. There ReLU is
# flat: it passes nothing on and no gradient back, so that only a change in the layers before it could wake it. What is
# left is indeed a small network, and in exhibit 1 none at all. Even the healthy run has lost about half of its units,
# and does well with the rest.
#
# Does it cost accuracy? Try an activation that is not flat, at the very same rate. GELU lets a little gradient through
# just below zero, so that a unit can come back.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Validation accuracy with ReLU and with GELU, each with and without a warm-up: the run with ReLU and without one ends lowest, by a little."}}
gelu = partial(SmallNet, activation="GELU")
healthy_gelu = train(new_model(gelu), train_loader())
with_gelu = train(new_model(gelu), train_loader(), start=1)
beside_healthy(
    "validation_accuracy",
    {
        "healthy, GELU": healthy_gelu,
        "no warm-up, ReLU": no_warm_up,
        "no warm-up, GELU": with_gelu,
    },
)

# %% [markdown]
# Without the warm-up the network with ReLU ends a little lower, the one with GELU hardly any lower. That would fit dead
# units as a cause; but with one seed and 500 pictures, such a gap may be chance. Session 1's network, trained with the
# project's recipe, has this failure: the book's page *Inside the network* counts its dead units.
#
# **How to fix it.** Start low and climb, as the healthy run does, or lower the rate. Then count again.
#
# ```python
# schedules.one_cycle(
#     optimizer, epochs, steps_per_epoch,
#     lr_min=0.006, lr_max=0.03, peak_epoch=1, lr_end=0,
# )
# ```
#
# ## 10. Copies on both sides of the split
#
# Only 300 drawings this time, but ten copies of each, shifted by up to two pixels, as in a series of photographs. A
# tenth of the 3,000 is held out at random.

# %% mystnb={"image": {"alt": "Validation accuracy of exhibit 10 beside the healthy run: it ends higher, close to 100 %."}}
originals = data.take(train_set, 300)
drawing = np.repeat(np.arange(300), 10)
rng = np.random.default_rng(0)
shifted = [
    np.roll(originals.images[i], rng.integers(-2, 3, 2), (0, 1))
    for i in drawing
]
copies = replace(
    originals, images=np.stack(shifted), labels=originals.labels[drawing]
)
copies_train, copies_held_out = data.split(copies)
leaking_model = new_model()
leaking = train(
    leaking_model,
    train_loader(copies_train),
    BatchLoader(copies_held_out, 500, **scaling),
)
beside_healthy("validation_accuracy", {"copies on both sides": leaking})

# %% [markdown]
# A better curve than the healthy one, from a tenth of the drawings. Now ask the same network about drawings that it has
# never seen in any copy, the 500 of the healthy run:

# %% tags=["nbval-ignore-output"]
held_out = leaking.validation_accuracy[-1]
unseen = training.evaluate(leaking_model, validation_loader)
print(f"pictures held out at random:   {held_out:.0%}")
print(f"drawings that it never saw:    {unseen:.0%}")
assert held_out - unseen > 0.1

# %% [markdown]
# **How to recognise it.** Nothing in the curves gives it away: they look better than they should. Nearly every held-out
# picture has copies among the training pictures, so the network need only remember. Ask where your pictures come from:
# pictures of the same animal, person or plant, or from the same minute, belong together.
#
# **How to fix it.** Split the originals, then copy:
#
# ```python
# train_drawings, held_out_drawings = data.split(originals)
# ```
#
# With photographs, put all of the same thing either into `train/CLASS/` or into `test/CLASS/`; `data.from_folder` keeps
# that split.
# (Validation pictures are then drawn from `train` at random, so only the test accuracy is free of copies.)
#
# ## All of them, side by side

# %% tags=["nbval-ignore-output"]
gallery = {
    "healthy": healthy,
    "1 rate too high": rate_too_high,
    "2 eval() forgotten": without_eval,
    "3 not normalised": not_normalised,
    "4 sorted, not shuffled": not_shuffled,
    "5 labels permuted": permuted,
    "6 softmax twice": two_softmaxes,
    "7 decay on everything": decay_on_all,
    "8 textures, healthy": texture_runs["healthy"],
    "8 textures, turned": texture_runs["turned"],
    "9 dead units": no_warm_up,
    "10 copies on both sides": leaking,
}
print("after 4 epochs           training loss   validation accuracy")
for name, run in gallery.items():
    loss, accuracy = run.train_loss[-1], run.validation_accuracy[-1]
    print(f"{name:24s} {loss:13.2f} {accuracy:21.1%}")

at_a_guess = [
    name for name, run in gallery.items() if run.validation_accuracy[-1] < 0.15
]
assert len(at_a_guess) == 4, at_a_guess

# %% [markdown]
# Four of the ten end at a guess, and exhibit 10 has one of the highest accuracies: the last number tells you least.
# What tells them apart is where the training loss started, which of training and validation is off, and what the data
# look like. `fit` announced three of them: normalisation (it compares the two loaders), sorting and the softmax. It
# cannot know about the others; for those, you have to look.
#
# ## One batch by heart
#
# When you cannot tell what is wrong, make the task easy. Train on a single batch, over and over, without dropout,
# weight decay or augmentation: a network that can learn at all knows it by heart within a hundred steps.

# %% tags=["nbval-ignore-output"]
images, labels = next(iter(train_loader()))
images, labels = images.to(device), labels.to(device)
training.seed_everything(0)
model = SmallNet(10, widths=(8, 16, 32), conv_dropout=0, dense_dropout=0)
model.to(device)
optimizer = sgd(model.parameters(), decay=0)

for step in range(101):
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 25 == 0:
        print(f"step {step:3d}: loss {loss.item():.4f}")

# %% [markdown]
# If that loss stays high, the fault lies in the network, the loss, the step or its rate, or in pictures that arrive
# broken (print their mean and standard deviation), not in how much data you have. If it falls to nothing, as here, look
# at the labels, the validation, and the number of epochs.
#
# ## What you see, and where to look first
#
# | what you see | look here first |
# |---|---|
# | the loss becomes nan, or rises above that of a guess | the learning rate: run a range test (1) |
# | the very first loss is above that of a guess | the scale of the pictures; then the last layer: see *Getting to 94 %* in the book |
# | the loss stays at that of a guess, ln(number of classes) | the pictures with their labels (5); then the size of the weights (7); then the rate (1) |
# | the training accuracy falls below a guess | the order of the batches: is it shuffled? (4) |
# | training is fine, validation is bad from the first epoch on | one batch of each loader: mean, standard deviation, labels (3) |
# | training is fine, validation turns bad late | overfitting: no mistake, see Session 1 |
# | the same network gives two answers to one picture | `eval()` (2) |
# | the accuracy depends on the batch size of the evaluation | `eval()` (2) |
# | learning is slow, and the loss has a floor well above 0 | the network's last layer: is there a softmax? (6) Is label smoothing on? It has a floor too. |
# | training and validation accuracy both stay too low | augmented pictures (8); then the size of the network, on paper and alive (9) |
# | two classes get the same answers | the augmentation (8); then their labels (5) |
# | nothing, except a final accuracy that is a little too low | `eval()` (2), dead units (9) |
# | validation is fine, new pictures are not | copies on both sides of the split (10) |
#
# ## What to take away
#
# * **Know the loss of a guess** before you train. It separates "learned nothing" from "made it worse" and from "slow".
# * **Look at the batch, not at the code.** A mean, a standard deviation, eight pictures with their labels: most of this gallery is
#   found there.
# * **Count what is alive.** A network can be smaller than its table of layers says.
# * **Change one thing.** Nearly every exhibit differs from a healthy run in one thing; a repair should, too.
# * **A curve that looks right proves little.** A forgotten `eval()` leaves it looking right, a second softmax only
#   makes learning look slow, and copies on both sides of the split make it look better.
#
# **Next**: *A recipe to start from*, in the book, for pictures of your own.
