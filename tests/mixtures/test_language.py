"""The mixture language: groups, temperature, schedules, inheritance, families, the catalog."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from fractions import Fraction
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture, in_examples
from omnimill.mixtures.diff import diff
from omnimill.mixtures.language import MixtureSpec, RateChange, Rated
from omnimill.mixtures.loading import load_mixture
from omnimill.mixtures.resolve import resolve
from omnimill.mixtures.sampler import Sampler
from omnimill.mixtures.schedules import at, levels

Write = Callable[..., Path]

BASE = """\
datasets: [web-tokens]
groups:
  - name: text
    rate: 60
    tasks:
      - {name: books, rate: 2, sources: [books], objective: text_denoising, target: "text:body"}
      - {name: pages, rate: 1, sources: [pages], objective: text_denoising, target: "text:body"}
  - name: pictures
    kind: pretraining
    tasks:
      - {name: draw, rate: 30, sources: [photos], target: image, prompts: ["Draw this: {caption}"]}
      - {name: tell, rate: 10, sources: [photos], family: image-captioning}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(text: str, name: str = "mixture.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return file


def shares(mixture: Mixture) -> dict[str, float]:
    return {task.name: round(rate, 9) for task, rate in zip(mixture.tasks, mixture.rates, strict=True)}


def fault(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_mixture(path)
    return str(caught.value)


def task(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "sources": ["s"], "target": "text:body", "objective": "text_denoising", **settings}


def test_a_group_s_rate_is_shared_by_what_is_in_it(write: Write) -> None:
    mixture = load_mixture(write(BASE))
    # The group of pictures has no rate: it has what its tasks have.
    assert shares(mixture) == {"books": 0.4, "pages": 0.2, "draw": 0.3, "tell": 0.1}
    assert [task.group for task in mixture.tasks] == ["text", "text", "pictures", "pictures"]
    assert [task.kind for task in mixture.tasks] == ["prompted", "prompted", "pretraining", "pretraining"]


def test_groups_nest(write: Write) -> None:
    spec = {
        "datasets": ["d"],
        "groups": [
            {"name": "a", "rate": 1, "groups": [{"name": "b", "rate": 3, "tasks": [task("x", rate=1)]}]},
            {"name": "c", "rate": 1, "groups": [{"name": "e", "rate": 9, "tasks": [task("y", rate=5)]}]},
        ],
        "tasks": [task("z", rate=2)],
    }
    mixture = load_mixture(write(yaml.safe_dump(spec)))
    assert shares(mixture) == {"z": 0.5, "x": 0.25, "y": 0.25}
    assert [task.group for task in mixture.tasks] == ["default", "a/b", "c/e"]


def test_tasks_take_over_how_often_optional_streams_are_read(write: Write) -> None:
    tasks = [task("x", rate=1), task("y", rate=1, keep_optional=0)]
    groups = [{"name": "a", "keep_optional": 0.5, "tasks": tasks}, {"name": "b", "tasks": [task("z", rate=1)]}]
    mixture = load_mixture(write(yaml.safe_dump({"datasets": ["d"], "groups": groups})))
    assert [one.keep_optional for one in mixture.tasks] == [0.5, 0, 1]


@pytest.mark.parametrize(
    ("alpha", "factor", "expected"),
    [(1, 1, [0.2, 0.8]), (0.5, 1, [1 / 3, 2 / 3]), (0, 1, [0.5, 0.5]), (0, 3, [0.75, 0.25])],
)
def test_alpha_weighs_by_size(write: Write, alpha: float, factor: float, expected: list[float]) -> None:
    small = task("small", size="1.5m", rate=factor)
    spec = {"datasets": ["d"], "alpha": alpha, "tasks": [small, task("large", size=6_000_000)]}
    assert load_mixture(write(yaml.safe_dump(spec))).rates == pytest.approx(expected)


def test_alpha_over_groups_takes_their_sizes(write: Write) -> None:
    groups = [
        {"name": "one", "tasks": [task("x", size=100, rate=1)]},
        {"name": "two", "alpha": 0, "tasks": [task("y", size=150), task("z", size=150)]},
    ]
    spec = {"datasets": ["d"], "alpha": 1, "groups": groups}
    assert shares(load_mixture(write(yaml.safe_dump(spec)))) == {"x": 0.25, "y": 0.375, "z": 0.375}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "datasets: [web-tokens]",
            "datasets: [web-tokens]\ntotal: 99",
            ":2: total: the mixture: rates add up to 100, allowed: 99; text 60,",
        ),
        ("    rate: 60\n", "    rate: 60\n    total: 4\n", ":5: groups.0.total: text: rates add up to 3, allowed: 4"),
        ("datasets: [web-tokens]", "total: 9\nalpha: 0\ndatasets: [web-tokens]", "leave one of them out"),
        ("datasets: [web-tokens]", "gap: 1\ndatasets: [web-tokens]", "gap is what rates are off a total"),
        ("rate: 2, ", "", ":6: groups.0.tasks.0: task 'books': give it a rate, or its group an alpha"),
        ("    rate: 60\n", "    alpha: 0\n", ":3: groups.0: group 'text': a group with an alpha needs a rate"),
        (
            "    rate: 60\n",
            "    rate: 60\n    alpha: 0.5\n",
            ":8: groups.0.tasks.1: pages: its size is not known",
        ),
        (
            "image-captioning",
            "image-captoining",
            ":12: groups.1.tasks.1: task 'tell': unknown family",
        ),
        ("rate: 30", "rat: 30", ":11: groups.1.tasks.0.rat: unknown key; allowed: "),
        ("target: image", "target: picture", ":11: groups.1.tasks.0.target: task 'draw': target: String should match"),
        ("sources: [books], ", "", ":6: groups.0.tasks.0: task 'books': required key is missing: sources"),
        ("name: tell", "name: draw", ":12: group and task names must be unique; doubled: draw, first at"),
        (
            "rate: 10,",
            "rate: 10, schedule: [{step: 9, rate: 1}, {step: 3, rate: 1}],",
            "changes of a rate follow",
        ),
        ("rate: 10,", "rate: 10, schedule: [{step: 9, until: 9, rate: 1}],", "a ramp ends after it begins"),
        ("rate: 10,", "rate: 0,", "task 'tell' is never drawn"),
        ("rate: 60", "rate: 60\n    schedule: [{step: 5, rate: 0}]\n    held_out: true", None),
        ("datasets: [web-tokens]\n", "", "datasets: name the token datasets"),
        ("kind: pretraining", "kind: pretrained", ":9: groups.1.kind: Input should be"),
    ],
)
def test_faults_say_where_and_what(write: Write, old: str, new: str, says: str | None) -> None:
    path = write(BASE.replace(old, new))
    if says is None:
        assert [task.name for task in load_mixture(path).held_out] == ["books", "pages"]
    else:
        assert says in fault(path)


def test_a_published_gap_is_stated_not_hidden(write: Write) -> None:
    assert "add up to 100, allowed: 100.06" in fault(write("total: 100.06\n" + BASE))
    assert sum(load_mixture(write("total: 100.06\ngap: 0.06\n" + BASE)).rates) == pytest.approx(1)


def test_a_total_is_of_the_rates_before_their_schedules(write: Write) -> None:
    text = BASE.replace("rate: 60", "rate: 60\n    schedule: [{step: 9, rate: 90}]").replace(
        "rate: 30,", "rate: 30, warm_in: 9,"
    )
    assert sum(load_mixture(write("total: 100\n" + text)).rates) == pytest.approx(1)
    assert "rates add up to 100, allowed: 130" in fault(write("total: 130\n" + text))


def test_rates_change_over_steps(write: Write) -> None:
    text = BASE.replace("rate: 60", "rate: 60\n    schedule: [{step: 100, rate: 40}, {step: 200, rate: 0}]")
    mixture = load_mixture(write(text))
    assert [phase.first_step for phase in mixture.phases] == [0, 100, 200]
    assert mixture.phases[1].rates == pytest.approx([1 / 3, 1 / 6, 0.375, 0.125])
    assert mixture.phases[2].rates == pytest.approx([0, 0, 0.75, 0.25])
    assert mixture.rates == pytest.approx([0.4, 0.2, 0.3, 0.1])


def test_a_task_warms_in_by_a_staircase(write: Write) -> None:
    text = "ramp_levels: 4\n" + BASE.replace("rate: 30", "rate: 30, warm_in: 40")
    phases = load_mixture(write(text)).phases
    assert [phase.first_step for phase in phases] == [0, 10, 20, 30, 40]
    # Of 70 others: 30 x 1/8, 3/8, 5/8, 7/8, 1.
    assert [phase.rates[2] for phase in phases] == pytest.approx(
        [r / (70 + r) for r in (3.75, 11.25, 18.75, 26.25, 30)]
    )


@given(
    rate=st.floats(0, 1000),
    warm_in=st.none() | st.integers(1, 500),
    change=st.tuples(st.integers(500, 1000), st.none() | st.integers(1, 700), st.floats(0, 1000)),
    most=st.integers(1, 100),
)
def test_staircases_stay_within_half_a_level_of_the_line(
    rate: float, warm_in: int | None, change: tuple[int, int | None, float], most: int
) -> None:
    step, length, after = change
    until = None if length is None else step + length
    rated = Rated(rate=rate, warm_in=warm_in, schedule=(RateChange(step=step, until=until, rate=after),))
    found = levels(rated, most)
    assert found is not None
    steps = [first for first, _ in found]
    assert steps[0] == 0
    assert steps == sorted(set(steps))
    for here in {0, step - 1, step, step + 1, (until or step) - 1, until or step, 5000, *steps}:
        line = rate if warm_in is None else min(1, here / warm_in) * rate
        if here >= step:
            line = after if until is None or here >= until else rate + (after - rate) * (here - step) / (until - step)
        # A level is as long as the ramp over their number, give or take a step.
        slopes = [abs(after - rate) / length if length else 0, rate / warm_in if warm_in else 0]
        height = max(abs(after - rate), rate) / most / 2 + 1.5 * max(slopes)
        assert float(at(found, here)) == pytest.approx(line, abs=height + 1e-6)


def test_extending_changes_removes_and_adds(write: Write) -> None:
    write(BASE, "base.yaml")
    mixture = load_mixture(
        write(
            """\
extends: base.yaml
seed: 5
change:
  text: {rate: 30, tasks: [{name: news, rate: 3, sources: [news], objective: text_denoising, target: "text:body"}]}
  draw: {more_prompts: ["Paint {caption}"], warm_in: null}
remove: [books]
tasks:
  - {name: mend, rate: 30, sources: [photos], objective: image_denoising, target: image}
"""
        )
    )
    assert (mixture.seed, mixture.datasets) == (5, ("web-tokens",))
    assert shares(mixture) == {"mend": 0.3, "pages": 0.075, "news": 0.225, "draw": 0.3, "tell": 0.1}
    draw = next(task for task in mixture.tasks if task.name == "draw")
    assert draw.prompts == ("Draw this: {caption}", "Paint {caption}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "change: {drow: {rate: 1}}",
            "top.yaml:2: change: unknown task or group; found 'drow'; allowed: books, draw, ",
        ),
        ("change: {drow: {rate: 1}}", "did you mean 'draw'?"),
        ("remove: [texts]", "top.yaml:2: remove: unknown task or group; found 'texts'"),
        ("change:\n  draw:\n    rat: 1", "top.yaml:4: groups.1.tasks.0.rat: unknown key"),
        ("change:\n  draw:\n    name: x", "top.yaml:4: change.draw.name: a name stays"),
        ("change:\n  draw:\n    rate: -1", "top.yaml:4: groups.1.tasks.0.rate: Input should be greater than or equal"),
        ("change:\n  text:\n    tasks: 3", "top.yaml:4: change.text.tasks: Input should be a valid tuple"),
        ("change:\n  text:\n    tasks:\n      - {rate: 1}", "top.yaml:5: change.text.tasks.0.name: required key"),
        ("change:\n  text:\n    tasks: null\n    groups: null", "group 'text' has nothing in it"),
        ("change:\n  draw: 3", "top.yaml:3: change.draw: "),
        ("change:\n  draw:\n    tasks: [{name: x}]", "top.yaml:4: groups.1.tasks.0.tasks: unknown key"),
        ("total: 5", "top.yaml:2: total: the mixture: rates add up to 100"),
        ("tasks: [{name: books, rate: 1}]", "group and task names must be unique; doubled: books"),
    ],
)
def test_faults_of_a_variant_name_its_own_lines(write: Write, text: str, says: str) -> None:
    write(BASE, "base.yaml")
    assert says in fault(write(f"extends: base.yaml\n{text}\n", "top.yaml"))


def test_faults_of_what_is_extended_name_its_lines(write: Write) -> None:
    base = write(BASE.replace("rate: 30", "rat: 30"), "base.yaml")
    assert f"{base}:11: groups.1.tasks.0.rat: unknown key" in fault(write("extends: base.yaml", "top.yaml"))
    assert "cannot extend itself" in fault(write("extends: own.yaml", "own.yaml"))
    assert "no such configuration file" in fault(write("extends: nothing.yaml", "top.yaml"))


def test_a_variant_that_changes_nothing_is_the_same(write: Write) -> None:
    base = load_mixture(write(BASE, "base.yaml"))
    once = load_mixture(write("extends: base.yaml", "one.yaml"))
    twice = load_mixture(write("extends: one.yaml\nchange: {text: {rate: 60}}", "two.yaml"))
    assert base.content_digest() == once.content_digest() == twice.content_digest()
    assert diff(base, twice).same


def test_diff_says_what_changed(write: Write) -> None:
    base = load_mixture(write(BASE, "base.yaml"))
    variant = (
        "extends: base.yaml\nwindow: 8\nchange: {draw: {rate: 40, more_prompts: [Draw.], size: 5}}\nremove: [tell]"
    )
    found = diff(base, load_mixture(write(variant)))
    assert (found.added, found.removed) == ([], ["tell"])
    assert {name: (change.was, change.now) for name, change in found.settings.items()} == {"window": (256, 8)}
    assert [(one.name, list(one.fields), one.prompts_added) for one in found.changed] == [("draw", ["size"], ["Draw."])]
    assert {name: (change.was, change.now) for name, change in found.rates.items()} == {
        "draw": (0.3, 0.4),
        "tell": (0.1, None),
    }
    assert found.inputs["image"].now is None
    assert found.targets["image"].now == pytest.approx(0.4)


def test_a_family_gives_what_a_task_does_not_say(write: Write) -> None:
    settings = {"name": "q", "rate": 1, "sources": ["s"], "family": "vqa"}
    spec = {
        "datasets": ["d"],
        "tasks": [settings, {**settings, "name": "r", "prompts": ["{question}"], "kind": "free_form"}],
    }
    own, replaced = load_mixture(write(yaml.safe_dump(spec))).tasks
    assert (own.inputs, own.target, own.kind) == (("image",), "text:answer", "prompted")
    assert len(own.prompts) > 1
    assert (replaced.prompts, replaced.kind, replaced.inputs) == (("{question}",), "free_form", ("image",))


def test_the_catalog_gives_a_task_for_each_dataset(write: Write) -> None:
    group = {"name": "g", "rate": 1, "alpha": 0.5, "catalog": {"family": "depth-estimation"}}
    mixture = load_mixture(write(yaml.safe_dump({"groups": [group]})))
    assert [(task.name, task.sources) for task in mixture.tasks] == [
        ("depth-estimation-nyu-depth-v2", ("nyu_depth_v2",))
    ]
    assert mixture.tasks[0].size == 47_584
    assert mixture.datasets == ("nyu_depth_v2-tokens",)


@pytest.mark.parametrize(
    ("catalog", "says"),
    [
        ("{family: depth}", ":4: catalog: unknown family: found 'depth'"),
        ("{family: scene-tagging}", "'scene-tagging' is a form of 'image-tagging'; ask for that"),
        ("{family: depth-estimation, only: [coco]}", "only: dataset 'coco' serves "),
        ("{family: depth-estimation, without: [nyu_depth]}", "did you mean 'nyu_depth_v2'?"),
        (
            "{family: depth-estimation, kind: free_form}",
            "no dataset of the catalog gives family",
        ),
        ("{famly: depth-estimation}", ":4: groups.0.catalog.famly: unknown key"),
    ],
)
def test_faults_of_what_is_asked_of_the_catalog(write: Write, catalog: str, says: str) -> None:
    assert says in fault(write(f"groups:\n  - name: g\n    rate: 1\n    catalog: {catalog}\n"))


def test_generated_tasks_can_be_changed(write: Write) -> None:
    text = """\
groups:
  - {name: g, rate: 1, alpha: 0.5, catalog: {family: optical-flow}}
change:
  optical-flow-mpi-sintel: {rate: 3, max_epochs: 2}
"""
    mixture = load_mixture(write(text))
    sizes = {task.name: task.size or 0 for task in mixture.tasks}
    chairs, sintel = sizes["optical-flow-flying-chairs"], sizes["optical-flow-mpi-sintel"]
    assert shares(mixture)["optical-flow-mpi-sintel"] == pytest.approx(
        3 * sintel**0.5 / (3 * sintel**0.5 + chairs**0.5)
    )
    assert next(task.max_epochs for task in mixture.tasks if "sintel" in task.name) == 2


def test_shares_of_tokens_become_shares_of_draws(write: Write) -> None:
    mixture = load_mixture(write("rate_unit: tokens\n" + BASE.replace("rate: 60", "rate: 60\n    warm_in: 2")))
    tokens = [100.0, 400.0, 50.0, 200.0]
    with pytest.raises(ConfigError, match="rates of tokens cannot be drawn"):
        Sampler.of(mixture, [9] * len(tokens), 4)
    drawn = in_examples(mixture, tokens)
    for phase, asked in zip(drawn.phases, mixture.phases, strict=True):
        spent = [rate * each for rate, each in zip(phase.rates, tokens, strict=True)]
        assert [one / sum(spent) for one in spent] == pytest.approx(asked.rates)
    assert in_examples(drawn, []) is drawn


rates = st.decimals(min_value="0.01", max_value=1000, places=2).map(float)


@st.composite
def trees(draw: st.DrawFn, depth: int = 2) -> tuple[dict[str, Any], list[float]]:
    """Tasks and groups, and the share of each task among them, told from their rates alone."""
    counter = draw(st.shared(st.builds(lambda: iter(range(10**6))), key="names"))
    own = [draw(rates) for _ in range(draw(st.integers(1, 3)))]
    members: dict[str, Any] = {"tasks": [task(f"t{next(counter)}", rate=rate) for rate in own], "groups": []}
    weights = [[Fraction(rate)] for rate in own]
    for _ in range(draw(st.integers(0, 2)) if depth else 0):
        inner, shares_in = draw(trees(depth=depth - 1))
        rate = draw(rates)
        members["groups"].append({"name": f"g{next(counter)}", "rate": rate, **inner})
        weights.append([Fraction(rate) * Fraction(share) for share in shares_in])
    whole = sum(sum(one) for one in weights)
    return members, [float(weight / whole) for one in weights for weight in one]


@settings(max_examples=60)
@given(tree=trees(), factor=st.sampled_from([0.5, 2.0, 1024.0]))
def test_shares_are_those_of_the_rates_whatever_their_unit(
    tree: tuple[dict[str, Any], list[float]], factor: float
) -> None:
    members, expected = tree
    mixture = resolve(MixtureSpec.model_validate({"datasets": ["d"], **members})).mixture
    assert mixture.rates == pytest.approx(expected, abs=1e-12)
    assert sum(map(Fraction, mixture.rates)) == pytest.approx(1, abs=1e-12)

    def scaled(group: dict[str, Any]) -> dict[str, Any]:
        return {
            **group,
            "tasks": [{**one, "rate": one["rate"] * factor} for one in group["tasks"]],
            "groups": [{**scaled(one), "rate": one["rate"] * factor} for one in group["groups"]],
        }

    again = resolve(MixtureSpec.model_validate({"datasets": ["d"], **scaled(members)})).mixture
    assert again.content_digest() == mixture.content_digest()


@settings(max_examples=30)
@given(tree=trees(), data=st.data())
def test_removing_a_task_leaves_the_others_in_their_proportions(
    tmp_path_factory: pytest.TempPathFactory, tree: tuple[dict[str, Any], list[float]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("mixtures")
    (folder / "base.yaml").write_text(
        yaml.safe_dump({"datasets": ["d"], **tree[0], "tasks": [*tree[0]["tasks"], task("extra", rate=1)]})
    )
    base = load_mixture(folder / "base.yaml")
    gone = data.draw(st.sampled_from([one.name for one in base.tasks if one.group == "default"]))
    (folder / "top.yaml").write_text(f"extends: base.yaml\nremove: [{gone}]\n")
    left = load_mixture(folder / "top.yaml")
    before = {name: share for name, share in zip((t.name for t in base.tasks), base.rates, strict=True) if name != gone}
    assert [one.name for one in left.tasks] == list(before)
    assert left.rates == pytest.approx([share / sum(before.values()) for share in before.values()])


VARIANT: dict[str, Any] = {
    "extends": "base.yaml",
    "change": {
        "text": {"rate": 3, "tasks": [{"name": "news", "rate": 1, "sources": ["news"], "family": "language-modeling"}]},
        "draw": {"schedule": [{"step": 4, "until": 9, "rate": 2}], "warm_in": 3},
    },
    "remove": ["tell"],
    "groups": [{"name": "flow", "rate": 2, "alpha": 0.5, "catalog": {"family": "optical-flow", "unknown_size": "10k"}}],
    "tasks": [{"name": "held", "rate": 1, "dataset": "coco", "family": "image-captioning", "held_out": True}],
}
JUNK: list[Any] = [None, 3, -1, "x", "text", [], {}, [1], [None], {"name": None}, 1.5, True, 10**30, float("nan"), ""]


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places_in(inner, (*path, key)))]


@settings(max_examples=60)
@given(data=st.data())
def test_whatever_is_written_is_a_mixture_or_a_fault(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("mixtures")
    (folder / "base.yaml").write_text(BASE)
    written = deepcopy(VARIANT)
    *above, last = data.draw(st.sampled_from(places_in(VARIANT)[1:]))
    around = reduce(getitem, above, written)
    around[last] = data.draw(st.sampled_from(JUNK))
    (folder / "top.yaml").write_text(yaml.safe_dump(written))
    with suppress(ConfigError):
        assert sum(load_mixture(folder / "top.yaml").rates) == pytest.approx(1)
