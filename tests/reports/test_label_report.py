from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.errors import RunError
from icsr_cli.reports.galleries import look
from icsr_cli.reports.label_changes import compare_labels, most_changed, state_changes
from icsr_cli.reports.label_report import (
    camera_images,
    camera_rows,
    cluster_images,
    cluster_lists,
    cluster_row,
    discarded_images,
    label_report,
    moved_said,
    overview,
    select,
)
from icsr_cli.runs import LabelTable
from icsr_cli.runs.quality import quality


def table_of(rows):
    """Rows of (camera, cluster, local cluster, state, identity); paths are a, b, c, ..."""
    cameras, clusters, local_clusters, states, identities = zip(*rows, strict=True)
    trained = [
        cluster if state in ("kept", "node") else -1 for cluster, state in zip(clusters, states, strict=True)
    ]
    return LabelTable(
        paths=tuple(chr(ord("a") + row) for row in range(len(rows))),
        cameras=np.array(cameras),
        identities=np.array(identities),
        clusters=np.array(clusters),
        local_clusters=np.array(local_clusters),
        labels=np.array(trained),
        states=np.array(states),
    )


TABLE = table_of(
    [
        (0, 0, 0, "node", 7),
        (0, 0, 0, "kept", 7),
        (0, 0, 1, "discarded", 8),
        (1, 0, 5, "kept", 7),
        (1, 1, 6, "kept", 8),
        (0, 1, 1, "node", 8),
        (2, -1, -1, "noise", 9),
    ]
)


@st.composite
def tables(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for _ in range(draw(st.integers(1, 25))):
        camera, cluster = int(rng.integers(0, 3)), int(rng.integers(-1, 4))
        local = int(rng.integers(-1, 3))
        state = "noise" if cluster == -1 else str(rng.choice(["kept", "discarded"]))
        rows.append(
            (camera, cluster, -1 if local == -1 else 10 * camera + local, state, int(rng.integers(-1, 4)))
        )
    return table_of(rows)


def test_overview():
    found = overview(TABLE)
    assert (found["images"], found["clusters"], found["clusters_after_refinement"]) == (7, 2, 2)
    assert [found[name] for name in ("kept", "thrown_out", "noise", "nodes")] == [5, 1, 1, 2]
    assert list(found["sizes"].values()) == [2, 2.5, 3, 3.5, 4, 3]
    assert list(found["sizes_after_refinement"].values()) == [2, 2.25, 2.5, 2.75, 3, 2.5]


def test_what_a_refiner_took_out_of_the_noise_is_kept():
    table = replace(
        TABLE, labels=np.array([0, 0, -1, 0, 1, 1, 1]), states=np.array([*TABLE.states[:6], "kept"])
    )
    found = overview(table)
    assert (found["kept"], found["thrown_out"], found["noise"], found["moved"]) == (6, 1, 0, 1)
    assert moved_said(found)[0].startswith("1 image is trained on in another cluster than shown")
    assert moved_said(overview(TABLE)) == ()
    assert [(row["kept"], row["noise"]) for row in camera_rows(table)] == [(3, 0), (2, 0), (1, 0)]


@pytest.mark.parametrize(
    ("state", "cluster", "label", "fate", "mark"),
    [
        ("kept", 0, 0, "kept", ""),
        ("node", 0, 0, "kept", "★"),
        ("kept", -1, 0, "kept", ""),  # put into a cluster, by majority
        ("split", 0, 1, "kept", "★"),  # of cannot-link: its cluster fell into parts
        ("left-out", 0, -1, "thrown_out", "✕"),
        ("discarded", 0, -1, "thrown_out", "✕"),
        ("discarded", 0, 1, "thrown_out", "✕"),  # of split: a cluster of its own
        ("single-camera", 0, -1, "thrown_out", "✕"),
        ("single-camera", -1, -1, "noise", "○"),
        ("noise", -1, -1, "noise", "○"),
    ],
)
def test_tables_and_pictures_tell_one_fate(state, cluster, label, fate, mark):
    table = replace(
        table_of([(0, cluster, -1, state, -1)]), clusters=np.array([cluster]), labels=np.array([label])
    )
    assert {name: overview(table)[name] for name in ("kept", "thrown_out", "noise")}[fate] == 1
    [row] = camera_images(table, 0)
    found = look(row.state, row.fate)
    assert (row.fate, found.mark) == (fate, mark)


def test_an_epoch_of_noise_alone():
    table = table_of([(0, -1, -1, "noise", -1)] * 3)
    report = label_report(table)
    assert report["overview"]["noise"] == 3
    assert report["overview"]["sizes"]["largest"] == 0
    assert report["quality"] == {"global": None, "local": None, "refined": None}
    assert report["largest_clusters"] == []


def test_cameras():
    first, second, third = camera_rows(TABLE)
    assert first == {
        "camera": "0",
        "images": 4,
        "kept": 3,
        "thrown_out": 1,
        "noise": 0,
        "nodes": 2,
        "clusters": 2,
        "local_clusters": 2,
        "identities": 2,
    }
    assert (second["images"], second["kept"], second["nodes"]) == (2, 2, 0)
    assert [third[name] for name in ("camera", "noise", "clusters", "local_clusters")] == ["2", 1, 0, 0]


def test_quality_of_each_kind_of_label():
    judged = quality(TABLE)
    # Local clusters are right within their cameras, though persons 7 and 8 were seen by two of them.
    assert (judged["local"].pairwise_f, judged["local"].expansion) == (1, 1)
    # Six pairs in cluster 0, three of them of one person; one in cluster 1. Person 8 has three images.
    assert judged["global"].pairwise_precision == pytest.approx(4 / 7)
    assert judged["global"].pairwise_recall == pytest.approx(4 / 6)
    assert judged["refined"].pairwise_precision == 1
    assert (judged["global"].n_images, judged["refined"].n_images) == (6, 5)


def test_quality_without_truth():
    unnamed = replace(TABLE, identities=np.full(7, -1))
    assert quality(unnamed) == {"global": None, "local": None, "refined": None}
    assert camera_rows(unnamed)[0]["identities"] is None
    assert cluster_row(unnamed, 0).purity is None
    assert cluster_images(unnamed, 0)[0].identity is None


def test_labels_without_local_ones_tell_nothing_of_them():
    plain = replace(TABLE, local_clusters=np.full(7, -1))
    assert {row["local_clusters"] for row in camera_rows(plain)} == {None}
    row = cluster_row(plain, 0)
    assert (row.local_clusters, row.local_clusters_per_camera) == (None, None)
    assert {image.local_cluster for image in cluster_images(plain, 0)} == {None}


def test_one_cluster():
    row = cluster_row(TABLE, 0)
    assert (row.images, row.kept, row.thrown_out, row.cameras, row.local_clusters) == (4, 3, 1, 2, 3)
    assert row.local_clusters_per_camera == 1.5
    assert row.nodes == ("a",)
    assert (row.identities, row.purity) == (2, 0.75)
    images = cluster_images(TABLE, 0)
    assert [(image.path, image.camera, image.local_cluster, image.state) for image in images] == [
        ("a", "0", 0, "node"),
        ("b", "0", 0, "kept"),
        ("c", "0", 1, "discarded"),
        ("d", "1", 5, "kept"),
    ]


def test_images_by_camera_and_discarded():
    assert [image.path for image in camera_images(TABLE, 0)] == ["a", "b", "c", "f"]
    assert [image.path for image in discarded_images(TABLE)] == ["c"]
    assert discarded_images(TABLE)[0].identity == 8


def test_clusters_worth_a_look():
    assert [row.cluster for row in cluster_lists(TABLE)["largest_clusters"]] == [0, 1]
    assert [row.cluster for row in cluster_lists(TABLE, 1)["largest_clusters"]] == [0]
    assert [row.cluster for row in cluster_lists(TABLE)["most_mixed_clusters"]] == [0, 1]
    assert [row.cluster for row in cluster_lists(TABLE)["most_discarded_clusters"]] == [0]


def with_cohesion(values):
    return replace(TABLE, columns={"cohesion": np.array(values, dtype=np.float32)})


def test_most_mixed_by_cameras_and_cohesion():
    # Cluster 0: 2 cameras, cohesion 0.5; cluster 1: 2 cameras, cohesion 0.2, which is lower.
    table = with_cohesion([0.4, 0.6, 0.4, 0.6, 0.2, 0.2, np.nan])
    rows = cluster_lists(table)["most_mixed_clusters"]
    assert [(row.cluster, row.cohesion) for row in rows] == [(1, 0.2), (0, 0.5)]
    assert [row.cohesion for row in cluster_lists(table)["largest_clusters"]] == [0.5, 0.2]
    assert [image.cohesion for image in cluster_images(table, 0)] == [0.4, 0.6, 0.4, 0.6]
    second = select(table, np.flatnonzero(table.clusters == 1))
    assert [row.cohesion for row in cluster_lists(second)["largest_clusters"]] == [0.2]
    # Under a single camera the looser cluster comes second.
    one = replace(table, cameras=np.array([0, 0, 0, 1, 0, 0, 2]))
    assert [row.cluster for row in cluster_lists(one)["most_mixed_clusters"]] == [0, 1]
    json.dumps(label_report(table), allow_nan=False)


def test_clusters_without_cohesion_mix_least_where_others_have_it():
    table = with_cohesion([np.nan] * 4 + [0.9, 0.9, np.nan])
    assert [(row.cluster, row.cohesion) for row in cluster_lists(table)["most_mixed_clusters"]] == [
        (1, 0.9),
        (0, None),
    ]
    # Where none is known at all, local clusters decide.
    nothing = with_cohesion([np.nan] * 7)
    assert cluster_lists(nothing)["most_mixed_clusters"] == cluster_lists(TABLE)["most_mixed_clusters"]
    assert [row.cluster for row in cluster_lists(TABLE)["most_mixed_clusters"]] == [0, 1]


@settings(max_examples=50, deadline=None)
@given(tables())
def test_figures_equal_counting_by_hand(table):
    rows = {row.cluster: row for row in cluster_lists(table, 100)["largest_clusters"]}
    assert set(rows) == set(table.clusters.tolist()) - {-1}
    for cluster, row in rows.items():
        inside = [i for i in range(len(table)) if table.clusters[i] == cluster]
        local = {(table.cameras[i], table.local_clusters[i]) for i in inside if table.local_clusters[i] >= 0}
        people = Counter(int(table.identities[i]) for i in inside if table.identities[i] >= 0)
        assert row.images == len(inside)
        assert row.thrown_out == sum(table.states[i] == "discarded" for i in inside)
        assert row.cameras == len({int(table.cameras[i]) for i in inside})
        divided = len(local) / max(1, len({camera for camera, _ in local}))
        told = (len(local), divided) if table.has_local else (None, None)
        assert (row.local_clusters, row.local_clusters_per_camera) == told
        assert row.identities == (len(people) or None)
        assert row.purity == (pytest.approx(max(people.values()) / people.total()) if people else None)
        assert row == cluster_row(table, cluster)
    sizes = [row.images for row in rows.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(row["images"] for row in camera_rows(table)) == len(table)


def test_report_goes_into_json():
    again = json.loads(json.dumps(label_report(TABLE)))
    assert again["overview"]["sizes"]["median"] == 3
    assert again["quality"]["refined"]["pairwise_precision"] == 1
    assert again["largest_clusters"][0]["nodes"] == ["a"]
    assert again["states"] == {"discarded": 1, "kept": 3, "node": 2, "noise": 1}


def test_the_order_of_lists():
    lost = table_of([(0, cluster, -1, "discarded", -1) for cluster in (0, 1, 1)])
    assert [row.cluster for row in cluster_lists(lost)["most_discarded_clusters"]] == [1, 0]
    cameras, local = np.array([0, 0, 0, 1, 0, 0, 2]), np.array([0, 0, 0, 5, 6, 1, -1])
    divided = replace(TABLE, cameras=cameras, local_clusters=local)
    assert [row.cluster for row in cluster_lists(divided)["most_mixed_clusters"]] == [1, 0]
    wide = with_cohesion([np.nan] * 4 + [0.9, 0.9, np.nan])
    wide = replace(wide, cameras=np.array([0, 1, 2, 1, 1, 0, 2]))
    assert [row.cluster for row in cluster_lists(wide)["most_mixed_clusters"]] == [1, 0]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: cluster_images(TABLE, 12), "no cluster 12 in these labels: numbers run from 0 to 1"),
        (lambda: cluster_row(TABLE, -1), "no cluster -1"),
        (lambda: camera_images(TABLE, 3), "no camera 3 in these labels: numbers run from 0 to 2"),
        (lambda: cluster_row(table_of([(0, -1, -1, "noise", -1)]), 0), "there is none"),
    ],
)
def test_bad_input(ask, message):
    with pytest.raises(RunError, match=message):
        ask()


def clustered(clusters, paths=None):
    rows = [(0, cluster, -1, "noise" if cluster == -1 else "kept", -1) for cluster in clusters]
    table = table_of(rows)
    return table if paths is None else replace(table, paths=tuple(paths))


def test_renumbering_moves_nothing():
    changes = compare_labels(clustered([0, 0, 1, 1, -1]), clustered([5, 5, 2, 2, -1]))
    assert (changes.images, changes.compared, changes.agreement) == (5, 4, pytest.approx(1))
    assert changes.moved == changes.split == changes.merged == ()


def test_moves_splits_and_merges():
    before = clustered([0, 0, 0, 0, 1, 1, 2, 2, 2, -1, 3])
    after = clustered([4, 4, 4, 5, 6, 6, 6, 6, 6, 7, -1])
    changes = compare_labels(before, after)
    assert [image.path for image in changes.moved] == ["d"]
    assert (changes.moved[0].cluster_before, changes.moved[0].cluster_after) == (0, 5)
    assert [asdict(change) for change in changes.split] == [
        {"cluster": 0, "images": 4, "parts": ((4, 3), (5, 1))}
    ]
    assert [asdict(change) for change in changes.merged] == [
        {"cluster": 6, "images": 5, "parts": ((2, 3), (1, 2))}
    ]
    assert (changes.into_cluster, changes.into_noise) == (1, 1)
    assert 0 < changes.agreement < 1
    stray = compare_labels(clustered([0] * 6), clustered([0] * 5 + [1]))
    assert (len(stray.moved), stray.split) == (1, ())
    assert json.loads(json.dumps(asdict(changes)))["merged"][0]["parts"] == [[2, 3], [1, 2]]


def test_discarded_before_and_after():
    stays = [(0, 0, 1, "discarded", -1)] * 3
    before = table_of([(0, 0, 0, "discarded", -1), (0, 0, 1, "kept", -1), *stays])
    after = table_of([(0, 0, 0, "kept", -1), (0, 0, 1, "discarded", -1), *stays[1:], (0, -1, 1, "noise", -1)])
    changes = compare_labels(before, after)
    assert (changes.now_discarded, changes.no_longer_discarded, changes.moved) == (1, 1, ())
    assert changes.into_noise == 1


def test_who_moved_and_what_is_no_split():
    [moved] = compare_labels(TABLE, replace(TABLE, clusters=np.array([0, 0, 0, 1, 1, 1, -1]))).moved
    assert (moved.path, moved.identity) == ("d", 7)
    assert len(compare_labels(clustered([0] * 5), clustered([0] * 4 + [1])).split) == 1  # a fifth is no stray


def test_images_meet_by_path():
    changes = compare_labels(clustered([0, 0, 1], "xyz"), clustered([9, 3, 3, 8], "zxyw"))
    assert (changes.images, changes.compared, changes.moved) == (3, 3, ())
    assert changes.agreement == pytest.approx(1)


def test_all_noise_has_no_agreement():
    changes = compare_labels(clustered([-1, -1]), clustered([0, 0]))
    assert (changes.compared, changes.agreement, changes.moved, changes.into_cluster) == (0, None, (), 2)


@settings(max_examples=50, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_moves_equal_counting_by_hand(table, random):
    clusters = [random.randint(-1, 3) for _ in range(len(table))]
    after = clustered(clusters, table.paths)
    expected = []
    for row, old in enumerate(table.clusters.tolist()):
        mates = Counter(
            clusters[i] for i in range(len(table)) if table.clusters[i] == old and clusters[i] != -1
        )
        if old != -1 and clusters[row] != -1:
            successor = min(mates, key=lambda cluster: (-mates[cluster], cluster))
            if clusters[row] != successor:
                expected.append(table.paths[row])
    assert [image.path for image in compare_labels(table, after).moved] == expected


def test_clusters_that_changed_most():
    before = clustered([0, 0, 0, 0, 0, 1, 1, 2, 2, 2, -1, 3])
    after = clustered([4, 4, 4, 5, -1, 6, 6, 6, 6, 5, 6, 7])
    first, second = most_changed(before, after)
    assert (first.cluster, first.images, first.main) == (0, 5, 4)
    assert (first.stayed, first.elsewhere, first.unclustered) == (3, 1, 1)
    assert [(image.path, image.cluster_after) for image in first.changes] == [
        ("a", 4), ("b", 4), ("c", 4), ("d", 5), ("e", -1)
    ]  # fmt: skip
    assert (first.changes[4].state_before, first.changes[4].state_after) == ("kept", "noise")
    assert (second.cluster, second.main, second.stayed, second.elsewhere) == (2, 6, 2, 1)
    joined, mixed = most_changed(before, after, of_later=True)
    # Clusters 1 and 2 gave two images each: the lower number comes first.
    assert (joined.cluster, joined.main, joined.stayed) == (6, 1, 2)
    assert (joined.elsewhere, joined.unclustered) == (2, 1)
    assert [image.path for image in joined.changes] == ["f", "g", "h", "i", "k"]
    assert (mixed.cluster, mixed.images, mixed.main, mixed.stayed) == (5, 2, 0, 1)
    assert most_changed(before, after, 1) == (first,)


def test_a_cluster_that_became_noise_has_no_successor():
    (gone,) = most_changed(clustered([0, 0, 1]), clustered([-1, -1, 3]))
    assert (gone.main, gone.stayed, gone.unclustered) == (None, 0, 2)
    assert most_changed(clustered([0, 0, 1]), clustered([-1, -1, 3]), of_later=True) == ()
    assert most_changed(clustered([-1, -1]), clustered([-1, -1])) == ()
    assert most_changed(clustered([0, 0, 1]), clustered([5, 5, 2])) == ()


@settings(max_examples=50, deadline=None)
@given(tables(), st.randoms(use_true_random=False), st.integers(1, 6))
def test_changed_clusters_equal_counting_by_hand(table, random, count):
    after = clustered([random.randint(-1, 3) for _ in range(len(table))], table.paths)
    for found, owners, others in (
        (most_changed(table, after, count), table.clusters, after.clusters),
        (most_changed(table, after, count, of_later=True), after.clusters, table.clusters),
    ):
        expected = []
        for cluster in set(owners.tolist()) - {-1}:
            parts = [int(other) for owner, other in zip(owners, others, strict=True) if owner == cluster]
            sizes = Counter(part for part in parts if part != -1)
            main = min(sizes, key=lambda part: (-sizes[part], part), default=None)
            stayed = sizes[main] if sizes else 0
            if len(parts) > stayed:
                expected.append((stayed - len(parts), -len(parts), cluster, main, parts.count(-1)))
        assert [
            (row.stayed - row.images, -row.images, row.cluster, row.main, row.unclustered) for row in found
        ] == sorted(expected, key=lambda row: row[:3])[:count]
        for row in found:
            assert row.stayed + row.elsewhere + row.unclustered == row.images == len(row.changes)
            rows = [table.paths.index(image.path) for image in row.changes]
            assert sorted(rows) == np.flatnonzero(owners == row.cluster).tolist()
            order = [int(others[at]) for at in rows]
            assert order[: row.stayed] == [row.main] * row.stayed
            assert -1 not in order[: row.images - row.unclustered]


def test_states_before_and_after():
    before = table_of([(0, 0, 0, "discarded", -1), (0, 0, 1, "kept", -1), (0, 0, 1, "kept", -1)])
    after = table_of([(0, 0, 0, "kept", -1), (0, -1, 1, "noise", -1), (0, -1, 1, "noise", -1)])
    assert state_changes(before, after) == {("discarded", "kept"): 1, ("kept", "noise"): 2}


def test_labels_that_cannot_be_compared():
    with pytest.raises(RunError, match="no image in common: one begins with 'x'"):
        compare_labels(clustered([0], "x"), clustered([0], "y"))


def test_cameras_have_their_names_where_they_are_known() -> None:
    named = replace(TABLE, camera_names=("door", "hall", "exit"))
    assert [row["camera"] for row in camera_rows(named)] == ["door", "hall", "exit"]
    assert [image.camera for image in cluster_images(named, 0)] == ["door", "door", "door", "hall"]
