"""Recipes: each can be built, networks keep their budgets, and settings reach loader, optimizer and schedule."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CyclicLR, StepLR

from course_utils import data, schedules, training
from course_utils.data import N_CLASSES, ImageSet
from course_utils.lab import recipes, records, runs
from course_utils.lab.recipes import RECIPES
from course_utils.models import SmallNet, count_parameters
from course_utils.transforms import Augment


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_can_be_built(recipe):
    """Network, optimizer and schedule take the arguments that the table gives them, and JSON takes all of it."""
    recipe.plain()  # a TypeError for what JSON does not take
    if recipe.name == "transfer-imagenet":
        pytest.skip("needs a download")
    model = runs.build_network(recipe, N_CLASSES[recipe.data])
    optimizer = runs.build_optimizer(recipe, model)
    if recipe.schedule != "range_test":
        runs.build_schedule(recipe, optimizer, steps_per_epoch=2)
    weights = count_parameters(model)
    if recipe.data == "cifar100" and recipe.network != "TransferNet":
        assert weights < 1_000_000
        same_size = {"conv_dropout", "dense_dropout", "activation"}
        assert weights == 996_376 or recipe.network_args.keys() - same_size
    if recipe.data == "cifar10" and "widths" not in recipe.network_args:
        assert weights == {"CustomResNet": 6_575_370, "Sprint": 1_972_792}.get(recipe.network, weights)


def test_the_ablation_that_was_never_run_changes_what_it_says():
    """Every other one is held to its record, see test_records.py."""
    expected = replace(RECIPES["transfer-random"], network_args={})
    assert replace(RECIPES["transfer-imagenet"], name=expected.name, about=expected.about) == expected


def test_the_assignments_cycle_is_torchs_triangle():
    """As the code behind its log has it: 5 epochs up and 19 down, a step a batch of 98, to the last digit but two."""

    def ours(optimizer):
        return runs.build_schedule(RECIPES["resnet-source"], optimizer, steps_per_epoch=98)

    def torchs(optimizer):
        sizes = {"step_size_up": 5 * 98, "step_size_down": 19 * 98}
        return CyclicLR(optimizer, 3.2e-6, 3.2e-4, **sizes, cycle_momentum=False)

    steps = 24 * 98
    np.testing.assert_allclose(schedules.rates_of(ours, steps), schedules.rates_of(torchs, steps), rtol=1e-12)


def test_step_decay_is_torchs_and_a_constant_rate_no_schedule():
    optimizer = SGD([torch.zeros(1)], lr=0.1)
    stepped = runs.build_schedule(RECIPES["smallnet-gamma-0.3"], optimizer, steps_per_epoch=351)
    assert (type(stepped), stepped.step_size, stepped.gamma) == (StepLR, 5, 0.3)
    for constant in (RECIPES["smallnet-wide"], replace(RECIPES["resnet-assignment"], schedule="constant")):
        assert runs.build_schedule(constant, optimizer, steps_per_epoch=351) is None
    known = "constant, step_decay, one_cycle or falling"
    with pytest.raises(ValueError, match=f"-wide: expected {known}, found 'cosine'"):
        runs.build_schedule(replace(RECIPES["smallnet-wide"], schedule="cosine"), optimizer, 351)


def test_a_setting_without_effect_is_refused():
    faster = recipes.vary(RECIPES["smallnet-best"], "mine", "twice the rate", **recipes.sgd(0.2))
    with pytest.raises(
        ValueError, match=r"mine: the cycle goes up to 0\.1, so lr=0\.2 changes nothing: set lr_max"
    ):
        runs.build_schedule(faster, SGD([torch.zeros(1)], lr=0.2), 351)
    for setting, other in runs.NEEDS.items():
        with pytest.raises(ValueError, match=f"mine: `{setting}` does nothing without `{other}`"):
            grey(replace(RECIPES["smallnet-source"], name="mine", **{setting: (1, 1, 1)}))
    held = replace(RECIPES["smallnet-wide"], name="mine", schedule_args={"lr": 0.01})
    with pytest.raises(
        ValueError, match="mine: the schedule is constant, so its rate belongs in optimizer_args"
    ):
        runs.build_schedule(held, SGD([torch.zeros(1)], lr=0.1), 351)
    with pytest.raises(ValueError, match="mine: `models` has no network 'Smallnet'"):
        runs.build_network(replace(held, network="Smallnet"), 10)


def test_arguments_that_do_not_fit_name_their_recipe():
    mine = replace(RECIPES["smallnet-source"], name="mine")
    optimizer = SGD([torch.zeros(1)], lr=0.1)
    for schedule, args in {
        "step_decay": {"step_epochs": 5, "warmup": 3},
        "one_cycle": {"lr_max": 0.1},
    }.items():
        with pytest.raises(ValueError, match="mine: its schedule_args do not fit: .*argument"):
            runs.build_schedule(replace(mine, schedule=schedule, schedule_args=args), optimizer, 351)
    with pytest.raises(ValueError, match="mine: its optimizer_args do not fit: .*'momentum'"):
        runs.build_optimizer(replace(mine, optimizer="Adam"), SmallNet())
    with pytest.raises(ValueError, match="mine: its network_args do not fit: .*'width'"):
        runs.build_network(replace(mine, network_args={"width": 3}), 10)


def test_any_of_torchs_optimizers_will_do_and_others_are_refused():
    network = SmallNet()
    for name, fused in (("SGD", True), ("RMSprop", None)):
        recipe = replace(RECIPES["smallnet-source"], optimizer=name, optimizer_args={"lr": 0.1})
        assert runs.build_optimizer(recipe, network).defaults.get("fused") is fused
    with pytest.raises(ValueError, match="smallnet-source: torch.optim has no 'adam'"):
        runs.build_optimizer(replace(RECIPES["smallnet-source"], optimizer="adam"), network)


def test_two_recipes_of_one_name_are_refused():
    source = Path(recipes.__file__).read_text(encoding="utf-8")
    copied = source.replace("ALL = [", "ALL = [\n    replace(SMALLNET, epochs=9),\n", 1)
    with pytest.raises(ValueError, match="two recipes are called 'smallnet-source'"):
        exec(compile(copied, "recipes", "exec"), {"__name__": "copied"})


def grey(recipe):
    """The values in the first batch of 64 images of one grey, for a recipe on data of this mean and deviation."""
    images = ImageSet(np.full((64, 32, 32, 3), 128, np.uint8), np.zeros(64, np.int64), ("one",), "grey")
    stats = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.25])
    loader = runs.build_loader(recipe, images, stats, True, seed=0)
    return next(iter(loader))[0]


def test_the_jitter_of_a_recipe_reaches_its_loader():
    for name, alike in (("smallnet-source", True), ("smallnet-jitter", False)):
        assert (len({round(float(image.mean()), 3) for image in grey(RECIPES[name])}) == 1) == alike


def test_the_settings_of_a_recipe_reach_its_run(few, monkeypatch):
    """Those that the accuracy of a short run would not show."""

    class Enough(Exception):
        pass

    def fit(model, train, validation, loss_fn, optimizer, scheduler, **options):
        found.update(options, train=train, validation=validation, loss_fn=loss_fn)
        raise Enough

    found, chances = {}, {"crop": 3, "flip": 0.4, "hole": 5, "hole_chance": 0.6, "jitter": 0.1}
    others = {"label_smoothing": 0.3, "precision": "float16", "alternate": True, "curve_on_test": True}
    recipe = replace(RECIPES["smallnet-source"], name="mine", data="shapes10", **chances, **others)
    monkeypatch.setattr(data, "load", lambda name, root=None: few)
    monkeypatch.setattr(training, "fit", fit)
    with pytest.raises(Enough):
        runs.train(recipe, 0)
    assert found["train"].augment == Augment(*chances.values(), alternate=True, reflect=False)
    assert found["validation"].image_set is few[1], "the curve is drawn on the test images"
    assert (found["loss_fn"].label_smoothing, found["precision"]) == (0.3, "float16")


def test_the_sources_slips_reach_the_loader():
    """Its "mean" is the deviation twice, the crop's border has its colour, the hole a number written afterwards."""
    plain = replace(RECIPES["resnet-8"], crop=0, hole=0, hole_chance=0.0)
    middle = grey(replace(plain, wrong_mean=True))[0, :, 16, 16]
    torch.testing.assert_close(middle, torch.tensor([(128 / 255 - s) / s for s in (0.2, 0.25, 0.25)]))
    border = grey(replace(plain, wrong_mean=True, crop=4)).amin((0, 2, 3))
    assert border.abs().max() < 1 / 255 / 0.2, "the border is what normalises to zero"
    cut = replace(plain, hole=8, hole_chance=1.0, hole_fill=(0.247, 0.2435, 0.2616))
    values = grey(cut).flip(1)[:, 0].flatten(1)  # of blue, whose grey is far from the hole's number
    counts = (values - 0.2616).abs().lt(0.5 / 255 / 0.25 + 1e-6).sum(1)
    assert counts.tolist() == [64] * 64, "8 × 8 pixels of each image, as near as whole numbers come"


def test_operations_are_counted_from_the_recipe():
    """By hand for SmallNet: two for each multiplication, thrice a pass, once less for the images' own gradient."""
    stages = [(3, 32, 1024), (32, 64, 256), (64, 128, 64)]
    forward = [2 * 9 * c_in * c_out * places for c_in, c_out, places in stages]
    forward += [2 * 2048 * 420, 2 * 420 * 100]
    assert runs.training_flops(RECIPES["smallnet-source"]) == (3 * sum(forward) - forward[0]) * 45_000 * 25
    recorded = json.loads((records.RECORDED / "flops.json").read_text())
    for name in ("smallnet-source", "transfer-resnet", "resnet-lr-range"):
        assert recorded[name] == runs.training_flops(RECIPES[name])
    old = {
        path.parent.name
        for path in records.RECORDED.glob("*/seed*.json")
        if "flops" not in records.read(path)
    }
    assert recorded.keys() >= old


def test_unknown_names_list_the_valid_ones():  # of one name, test_command_line.py asks
    assert [recipe.name for recipe in recipes.matching("resnet-f*")] == ["resnet-fast"]
    with pytest.raises(ValueError, match="no recipe matches 'vgg\\*'.*smallnet-source"):
        recipes.matching("vgg*")
