from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.errors import InputError, TrainingError
from icsr_cli.samplers.identity import Options, batches, identity_batches
from icsr_cli.types import Epoch, Labels


def slow_pass(
    labels: np.ndarray, cameras: np.ndarray, num_instances: int, generator: np.random.Generator
) -> list[int]:
    """One pass, one image after the other."""
    rows = []
    for identity in generator.permutation(np.unique(labels[labels >= 0])):
        own = np.flatnonzero(labels == identity)
        anchor = generator.choice(own)
        others = [row for row in own if cameras[row] != cameras[anchor]]
        others = others or [row for row in own if row != anchor]
        rows.append(anchor)
        if others and num_instances > 1:
            few = len(others) < num_instances - 1
            rows.extend(generator.choice(others, size=num_instances - 1, replace=few))
    return [int(row) for row in rows]


def length_of_a_pass(labels: np.ndarray, num_instances: int) -> int:
    counts = Counter(labels[labels >= 0].tolist())
    return sum(num_instances if count > 1 else 1 for count in counts.values())


images = st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 3)), min_size=1, max_size=40).filter(
    lambda rows: any(label >= 0 for label, _ in rows)
)


@settings(max_examples=100, deadline=None)
@given(rows=images, num_instances=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_rules_of_every_pass(rows: list[tuple[int, int]], num_instances: int, seed: int) -> None:
    labels, cameras = np.array(rows).T
    length = length_of_a_pass(labels, num_instances)
    batches = identity_batches(
        labels * 5,  # numbers need not be dense
        cameras,
        batch_size=length,
        num_instances=num_instances,
        iters=3,
        generator=np.random.default_rng(seed),
    )
    assert batches.shape == (3, length)
    assert batches.dtype == np.int64
    for batch in batches.tolist():
        seen = []
        while batch:
            anchor, identity = batch[0], labels[batch[0]]
            own = np.flatnonzero(labels == identity)
            size = num_instances if len(own) > 1 else 1
            chosen, batch = batch[1:size], batch[size:]
            others = {int(row) for row in own if cameras[row] != cameras[anchor]}
            others = others or {int(row) for row in own if row != anchor}
            assert set(chosen) <= others
            if len(others) >= size - 1:
                assert len(set(chosen)) == size - 1
            seen.append(identity)
        assert sorted(seen) == sorted(set(labels[labels >= 0]))


def test_same_distribution_as_the_slow_version() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, -1])
    cameras = np.array([0, 0, 1, 2, 2, 4, 4, 4, 0, 1, 0, 1])
    passes, instances = 6000, 4
    length = length_of_a_pass(labels, instances)
    fast = identity_batches(
        labels,
        cameras,
        batch_size=length,
        num_instances=instances,
        iters=passes,
        generator=np.random.default_rng(1),
    )
    generator = np.random.default_rng(2)
    slow = [slow_pass(labels, cameras, instances, generator) for _ in range(passes)]

    def frequencies(drawn: list[list[int]]) -> dict[tuple, float]:
        """How often each image stands at each place after each anchor, and each identity comes first."""
        counts: dict[tuple, int] = defaultdict(int)
        for row in drawn:
            assert len(row) == length
            counts["first", labels[row[0]]] += 1
            place = 0
            while place < length:
                anchor = row[place]
                size = 1 if labels[anchor] == 3 else instances
                counts["anchor", anchor] += 1
                for j in range(1, size):
                    counts[anchor, j, row[place + j]] += 1
                place += size
        return {key: count / passes for key, count in counts.items()}

    one, other = frequencies(fast.tolist()), frequencies(slow)
    assert one.keys() == other.keys()
    assert len(one) > 50
    for key, share in one.items():
        assert share == pytest.approx(other[key], abs=0.035), key  # more than 3.8 standard errors


def test_passes_are_cut_into_batches_and_the_rest_is_dropped() -> None:
    labels, cameras = np.repeat(np.arange(5), 4), np.tile(np.arange(4), 5)
    draws = {
        size: identity_batches(
            labels, cameras, batch_size=size, num_instances=4, iters=iters, generator=np.random.default_rng(0)
        )
        for size, iters in ((20, 3), (8, 5), (6, 7))
    }
    passes = draws[20]
    assert len({tuple(row) for row in passes.tolist()}) == 3
    np.testing.assert_array_equal(draws[8].ravel(), np.r_[passes[0, :16], passes[1, :16], passes[2, :8]])
    np.testing.assert_array_equal(draws[6].ravel(), np.r_[passes[0, :18], passes[1, :18], passes[2, :6]])


def test_clusters_smaller_than_wanted_count_as_they_are_in_a_pass() -> None:
    labels, cameras = np.repeat(np.arange(4), 2), np.tile(np.arange(2), 4)
    how = {"batch_size": 8, "num_instances": 4, "iters": 2}
    drawn = identity_batches(labels, cameras, **how, generator=np.random.default_rng(0))
    assert set(labels[drawn].ravel().tolist()) == {0, 1, 2, 3}


def test_pass_shorter_than_a_batch_is_joined_with_the_next() -> None:
    labels, cameras = np.array([0, 0, 0, 1, -1]), np.array([0, 1, 2, 0, 0])
    batches = identity_batches(
        labels, cameras, batch_size=16, num_instances=4, iters=40, generator=np.random.default_rng(0)
    )
    assert batches.shape == (40, 16)
    for batch in batches:  # 4 + 1 images a pass: three whole passes and one image
        assert sorted(labels[batch[:15]]) == [0] * 12 + [1] * 3
    single = identity_batches(
        [7], [0], batch_size=64, num_instances=4, iters=2, generator=np.random.default_rng(0)
    )
    assert (single == 0).all()


def test_seed_decides() -> None:
    labels, cameras = np.repeat(np.arange(9), 3), np.tile(np.arange(3), 9)

    def draw(seed: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        return identity_batches(labels, cameras, batch_size=9, num_instances=3, iters=4, generator=generator)

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


def test_nothing_to_train_on() -> None:
    settings_ = {"batch_size": 4, "num_instances": 2, "iters": 1, "generator": np.random.default_rng(0)}
    for labels in (np.array([-1, -1]), np.array([], dtype=int)):
        with pytest.raises(TrainingError, match=f"none of the {len(labels)} images is in a cluster"):
            identity_batches(labels, labels, **settings_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"num_instances": 0}, "num_instances"),
        ({"iters": -1}, "iters"),
        ({"cameras": [0]}, "cameras must have shape"),
        ({"labels": [0.5, 1.0]}, "labels must be whole numbers"),
        ({"labels": [[0, 1]]}, r"labels must have shape \(n,\)"),
    ],
)
def test_wrong_arguments(change: dict, message: str) -> None:
    arguments = {"labels": [0, 1], "cameras": [0, 0], "batch_size": 2, "num_instances": 2, "iters": 1}
    arguments |= change
    with pytest.raises(InputError, match=message):
        identity_batches(
            arguments.pop("labels"),
            arguments.pop("cameras"),
            generator=np.random.default_rng(0),
            **arguments,
        )


def test_no_batches_asked_for() -> None:
    generator = np.random.default_rng(0)
    assert identity_batches(
        [0, 0], [0, 1], batch_size=2, num_instances=2, iters=0, generator=generator
    ).shape == (0, 2)


def test_the_published_rule_repeats_where_there_are_exactly_enough() -> None:
    labels, cameras = np.zeros(4, dtype=np.int64), np.array([0, 1, 1, 1])  # three others for the first
    drawn = {
        published: identity_batches(
            labels,
            cameras,
            batch_size=4,
            num_instances=4,
            iters=200,
            generator=np.random.default_rng(0),
            published=published,
        )
        for published in (False, True)
    }
    repeated = {
        published: [len(set(row[1:])) < 3 for row in rows.tolist() if row[0] == 0]
        for published, rows in drawn.items()
    }
    assert not any(repeated[False])
    assert 0.5 < np.mean(repeated[True]) < 1  # 7 of 9 draws of three among three repeat one


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0.01, 1), people=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_some_clusters_rest(share: float, people: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, cameras = rng.integers(-1, people, 80), rng.integers(0, 3, 80)
    labels[:2] = 0, -1
    epoch = Epoch(number=1, features=None, labels=Labels.of(labels), cameras=cameras)

    sizes = {"batch_size": 8, "num_instances": 4, "iters": 30}

    def draw(generator: np.random.Generator, iters: int = 30, **options: float) -> np.ndarray:
        how = sizes | {"iters": iters}
        return batches(epoch, Options.model_validate(options), **how, generator=generator)

    there = np.unique(labels[labels >= 0])
    drawn = labels[draw(rng_of(seed), share=share)]
    assert len(np.unique(drawn)) == np.ceil(round(share * len(there), 6))
    assert (drawn >= 0).all()
    other = rng_of(seed + 1)
    turns = {tuple(np.unique(labels[draw(other, 6, share=share)])) for _ in range(60)}
    assert set().union(*turns) == set(there) or share * len(there) <= 2
    whole = identity_batches(labels, cameras, generator=rng_of(seed), **sizes)
    np.testing.assert_array_equal(draw(rng_of(seed), share=1), whole)
    # 60 turns in all: one too few for none to rest, and as many as are asked for.
    clusters = epoch.labels.n_clusters
    np.testing.assert_array_equal(draw(rng_of(seed), share=share, passes=61 / clusters), whole)
    enough = draw(rng_of(seed), share=share, passes=60 / clusters / 1.0001)
    np.testing.assert_array_equal(labels[enough], drawn)


@pytest.mark.parametrize(("name", "wrong"), [("share", 0), ("share", 1.1), ("passes", -0.1)])
def test_options_that_mean_nothing(name: str, wrong: float) -> None:
    with pytest.raises(ValueError, match=name):
        Options.model_validate({name: wrong})
    assert Options(share=0.1, passes=0.1).passes == 0.1


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
