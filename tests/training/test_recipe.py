from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatedeploy.errors import InputError
from gatedeploy.specs import Task
from gatedeploy.training.recipe import Constant, Polynomial, Recipe, Step, Train
from gatedeploy.training.sections import Component

MINIMAL: dict[str, Any] = {
    "data": {"name": "scenes"},
    "model": {"backbone": {"name": "resnet20"}},
    "train": {"epochs": 2},
}
OFFERED = (Task("depth", "depth"), Task("normals", "normals"))


def changed(key: str, value: object) -> dict[str, Any]:
    """The minimal recipe with one dotted key set."""
    plain: dict[str, Any] = json.loads(json.dumps(MINIMAL))
    *homes, last = key.split(".")
    level = plain
    for home in homes:
        level = level.setdefault(home, {})
    level[last] = value
    return plain


names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
options = st.dictionaries(names.filter(lambda name: name != "name"), json_values, max_size=2)
components = st.builds(lambda name, options: {"name": name, **options}, names, options)
fractions = st.floats(0, 1) | st.sampled_from([0, 1])
positive = st.floats(1e-9, 1e9) | st.integers(1, 5)
not_negative = positive | st.just(0)


def sections(required: dict[str, Any], optional: dict[str, Any]) -> Any:
    return st.fixed_dictionaries(required, optional=optional)


heads = st.none() | components
schedules = (
    sections({"name": st.just("constant")}, {})
    | sections({"name": st.just("step")}, {"every": st.integers(1, 99), "factor": st.floats(1e-3, 1)})
    | sections({"name": st.just("polynomial")}, {"power": positive})
)
balances = (
    sections({"name": st.sampled_from(["sum", "random", "uncertainty", "pcgrad"])}, {})
    | sections({"name": st.just("dwa")}, {"temperature": positive})
    | sections({"name": st.just("cagrad")}, {"c": not_negative})
    | sections({"name": st.just("mgda")}, {"upper_bound": st.booleans()})
    | sections({"name": st.just("gradnorm")}, {"alpha": not_negative, "learning_rate": positive})
    | sections({"name": st.just("auto_lambda")}, {"start": positive, "learning_rate": positive})
)
recipes = sections(
    {
        "data": components,
        "model": sections({"backbone": components}, {"head": heads, "weights": st.none() | st.text(max_size=5)}),
        "train": sections(
            {"epochs": st.integers(1, 99)},
            {
                "single_epochs": st.integers(0, 99),
                "rivals": st.booleans(),
                "batch_size": st.integers(1, 99),
                "learning_rate": positive,
                "weight_decay": not_negative,
                "schedule": schedules,
                "balance": balances,
                "precision": st.sampled_from(["32-true", "bf16-mixed"]),
                "seed": st.integers(0, 2**40),
                "accelerator": st.sampled_from(["auto", "cpu", "gpu"]),
            },
        ),
    },
    {
        "tasks": st.dictionaries(
            names,
            st.none() | sections({}, {"weight": positive, "sparsity_target": fractions, "head": heads}),
            max_size=3,
        ),
        "gates": sections(
            {},
            {
                "group": st.integers(1, 99),
                "tie": st.sampled_from([None, "residual"]),
                "sites": st.just("auto") | st.lists(names, max_size=3),
                "learning_rate": positive,
                "freeze_at": fractions,
            },
        ),
        "sparsity": sections(
            {},
            {
                "weight": not_negative,
                "form": st.sampled_from(["hinge", "l1"]),
                "scale": st.none() | positive,
                "ramp": fractions,
            },
        ),
    },
)


@given(plain=recipes)
def test_a_recipe_survives_its_plain_form_and_json(plain: dict[str, Any]) -> None:
    recipe = Recipe.from_plain(plain)
    assert Recipe.from_plain(recipe.plain()) == recipe
    assert Recipe.from_plain(json.loads(json.dumps(recipe.plain()))) == recipe


def test_a_section_left_empty_has_its_defaults() -> None:
    assert Recipe.from_plain({**MINIMAL, "gates": None}) == Recipe.from_plain(MINIMAL)
    assert Recipe.from_plain({**MINIMAL, "tasks": {"depth": None}}).tasks["depth"].weight == 1


def test_schedules_are_told_apart_by_name() -> None:
    made = [Recipe.from_plain(changed("train.schedule", {"name": name})).train.schedule for name in SCHEDULES]
    assert made == [Constant(), Step(), Polynomial()]


SCHEDULES = ("constant", "step", "polynomial")

IMPOSSIBLE: list[tuple[str, object, str]] = [
    ("train.epochs", -3, "must be a whole number of at least 1, got -3"),
    ("train.epochs", 2.5, "must be a whole number of at least 1, got 2.5"),
    ("train.epochs", True, "must be a whole number of at least 1, got True"),
    ("train.single_epochs", -1, "must be a whole number of at least 0, got -1"),
    ("train.batch_size", 0, "must be a whole number of at least 1, got 0"),
    ("train.learning_rate", 0, "must be a number above 0, got 0"),
    ("train.learning_rate", "fast", "must be a number above 0, got 'fast'"),
    ("train.learning_rate", math.nan, "must be a number above 0, got nan"),
    ("train.learning_rate", 10**400, "must be a number above 0, got 1000"),
    ("train.learning_rate", 10**9999, "must be a number above 0, got a number too large to show"),
    ("train.weight_decay", -1e-4, "must be a number of at least 0, got -0.0001"),
    ("train.precision", "fp16", "must be 32-true or bf16-mixed or 16-mixed, got 'fp16'"),
    ("train.accelerator", "tpu", "must be auto or cpu or gpu, got 'tpu'"),
    ("train.seed", -1, "must be a whole number of at least 0, got -1"),
    ("train.schedule.name", "polynomail", "got 'polynomail'; did you mean 'polynomial'?"),
    ("train.schedule", {}, "is missing; expected constant or step or polynomial"),
    ("train.schedule", "constant", "must be a mapping of keys to values, got 'constant'"),
    ("train.schedule", {"name": "step", "factor": 1.5}, "must be a number above 0 and at most 1, got 1.5"),
    ("train.schedule", {"name": "constant", "power": 1}, "no such key; there are name"),
    ("train.balance.name", "pcgrads", "got 'pcgrads'; did you mean 'pcgrad'?"),
    (
        "train.balance",
        {"c": 0.4},
        "is missing; expected sum or random or dwa or uncertainty or pcgrad or cagrad or mgda",
    ),
    ("train.balance", "mgda", "must be a mapping of keys to values, got 'mgda'"),
    ("train.balance", {"name": "sum", "c": 0.4}, "no such key; there are name"),
    ("train.balance", {"name": "cagrad", "c": -0.1}, "must be a number of at least 0, got -0.1"),
    ("train.balance", {"name": "dwa", "temperature": 0}, "must be a number above 0, got 0"),
    ("train.balance", {"name": "mgda", "upper_bound": 1}, "must be true or false, got 1"),
    ("train.balance", {"name": "gradnorm", "alpha": -1}, "must be a number of at least 0, got -1"),
    ("train.balance", {"name": "gradnorm", "learning_rate": 0}, "must be a number above 0, got 0"),
    ("train.balance", {"name": "auto_lambda", "start": 0}, "must be a number above 0, got 0"),
    ("train.balance", {"name": "auto_lambda", "learning_rate": -1}, "must be a number above 0, got -1"),
    ("sparsity.weight", -0.1, "must be a number of at least 0, got -0.1"),
    ("sparsity.weight", math.inf, "must be a number of at least 0, got inf"),
    ("sparsity.form", "l2", "must be hinge or l1, got 'l2'"),
    ("sparsity.scale", 0, "must be a number above 0, got 0"),
    ("sparsity.ramp", 1.5, "must be a number from 0 to 1, got 1.5"),
    ("gates.group", 0, "must be a whole number of at least 1, got 0"),
    ("gates.tie", "all", "must be residual, got 'all'"),
    ("gates.sites", "some", "must be auto or encoder or decoder, got 'some'"),
    ("gates.sites", 3, "must be auto or encoder or decoder or a list, got 3"),
    ("gates.sites", [3], "must be text, got 3"),
    ("gates.freeze_at", -0.5, "must be a number from 0 to 1, got -0.5"),
    ("tasks.depth.weight", 0, "must be a number above 0, got 0"),
    ("tasks.depth.sparsity_target", 2, "must be a number from 0 to 1, got 2"),
    ("tasks", ["depth"], "must be a mapping of keys to values, got ['depth']"),
    ("data", {"root": "/x"}, "is missing; expected text"),
    ("data.name", 3, "must be text, got 3"),
    ("model.backbone", {"name": "resnet20", "width": math.nan}, "must be a finite number, got nan"),
    ("model.backbone", {"name": "resnet20", "when": {1, 2}}, "must be text, a number, true, false, null, a list"),
    ("train.epoch", 3, "no such key; there are epochs, single_epochs,"),
    ("train.epoch", 3, "; did you mean 'epochs'?"),
    ("trian", {}, "; did you mean 'train'?"),
]


@pytest.mark.parametrize(("key", "value", "sentence"), IMPOSSIBLE, ids=[key for key, *_ in IMPOSSIBLE])
def test_a_value_that_cannot_be_is_named_with_its_dotted_key(key: str, value: object, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Recipe.from_plain(changed(key, value))
    assert str(caught.value).startswith(key)
    assert sentence in str(caught.value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InputError, match=r"^train: is missing; expected a mapping$"):
        Recipe.from_plain({key: value for key, value in MINIMAL.items() if key != "train"})
    with pytest.raises(InputError, match=r"^train\.epochs: is missing; expected a whole number of at least 1$"):
        Recipe.from_plain({**MINIMAL, "train": {}})
    with pytest.raises(InputError, match=r"^keys must be text, got 1$"):
        Recipe.from_plain({**MINIMAL, 1: {}})


def test_sections_made_in_python_are_checked_too() -> None:
    with pytest.raises(InputError, match=r"^epochs: must be a whole number of at least 1, got 0$"):
        Train(0)
    with pytest.raises(InputError, match=r"^name: is the component's own name, not an option$"):
        Component("a", {"name": "b"})
    assert Train(1, learning_rate=1).learning_rate == 1.0


def test_the_recipe_chooses_among_the_tasks_of_the_data() -> None:
    recipe = Recipe.from_plain({**MINIMAL, "tasks": {"normals": {"weight": 2, "sparsity_target": 0.25}}})
    assert recipe.chosen_tasks(OFFERED) == (Task("normals", "normals", weight=2.0, sparsity_target=0.25),)
    assert Recipe.from_plain(MINIMAL).chosen_tasks(OFFERED) == OFFERED


def test_a_task_that_the_data_lacks_is_named() -> None:
    with pytest.raises(
        InputError,
        match=r"^tasks\.depht: no such task\. The data set `scenes` offers: depth, normals; did you mean 'depth'\?$",
    ):
        Recipe.from_plain({**MINIMAL, "tasks": {"depht": {}}}).chosen_tasks(OFFERED)


def test_heads() -> None:
    own = {"name": "aspp", "width": 64}
    plain = {**changed("model.head", {"name": "dense"}), "tasks": {"depth": {"head": own}, "normals": {}}}
    recipe = Recipe.from_plain(plain)
    assert recipe.head("depth") == Component("aspp", {"width": 64})
    assert recipe.head("normals") == Component("dense")
    with pytest.raises(InputError, match=r"tasks\.depth\.head: is missing, and there is no model\.head"):
        Recipe.from_plain(MINIMAL).head("depth")
