"""A user's own crops: patterns, CSV files, and the splits that are made of them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.datasets.folder import Row, assemble, compile_pattern, read_csv, read_pattern
from icsr_cli.errors import DatasetError, UsageError


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{camera}/{name}.jpg", "door/1.jpg", {"camera": "door", "name": "1"}),
        ("{camera}/{name}.jpg", "door/1.JPG", {"camera": "door", "name": "1"}),
        ("{camera}/{name}.jpg", "door/1.png", None),
        ("{camera}/{name}.jpg", "x/door/1.jpg", None),
        ("{camera}/{name}.jpg", "Tür 1/a b.c.jpg", {"camera": "Tür 1", "name": "a b.c"}),
        ("{camera}/*", "door/1.webp", {"camera": "door"}),
        ("{id}_c{camera}_*.jpg", "0002_c1_0005.jpg", {"id": "0002", "camera": "1"}),
        ("{id}_c{camera}_*.jpg", "anna_c12_.jpg", {"id": "anna", "camera": "12"}),
        ("{id}_c{camera}_*.jpg", "d/0002_c1_0005.jpg", None),
        ("**/{id}_c{camera}_*.jpg", "d/e/0002_c1_0005.jpg", {"id": "0002", "camera": "1"}),
        ("**/{id}_c{camera}_*.jpg", "0002_c1_0005.jpg", {"id": "0002", "camera": "1"}),
        ("{split}/{camera}/{name}.jpg", "query/3/a.jpg", {"split": "query", "camera": "3", "name": "a"}),
        ("{camera}/{id}_{camera}_*.jpg", "c1/7_c1_x.jpg", {"camera": "c1", "id": "7"}),
        ("{camera}/{id}_{camera}_*.jpg", "c1/7_c2_x.jpg", None),
        ("cam?_{camera}.jpg", "camX_1.jpg", {"camera": "1"}),
        ("(a+b)_{camera}.jpg", "(a+b)_1.jpg", {"camera": "1"}),
        ("(a+b)_{camera}.jpg", "aab_1.jpg", None),
        ("*_{camera}.jpg", "front_door_7.jpg", {"camera": "7"}),
        ("{camera}/{track}/{name}.jpg", "door/t-7/1.jpg", {"camera": "door", "track": "t-7", "name": "1"}),
        (
            "{camera}_{track}_{frame}*.jpg",
            "c1_9_00451_2.jpg",
            {"camera": "c1", "track": "9", "frame": "00451"},
        ),
        ("{camera}/{track}/{frame}.jpg", "door/7/last.jpg", None),
        ("{camera}/{track}/{frame}.jpg", f"door/7/{'9' * 19}.jpg", None),
        ("{camera}/{name}.jpg", "caf\udce9/\n.jpg", {"camera": "caf\udce9", "name": "\n"}),
        ("{camera}/{name}.jpg", "\udc80\udcff/1.jpg", {"camera": "\udc80\udcff", "name": "1"}),
    ],
)
def test_patterns(pattern, path, found):
    assert compile_pattern(pattern).read(path) == found


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{name}.jpg", r"has no \{camera\}.*Examples"),
        ("{cam}/{name}.jpg", r"has the field \{cam\}; there are \{camera\}, \{id\}"),
        ("{camera}/{}.jpg", r"has the field \{\}"),
    ],
)
def test_bad_patterns(pattern, message):
    with pytest.raises(UsageError, match=message):
        compile_pattern(pattern)


@settings(max_examples=50, deadline=None)
@given(st.text("ab_c{.*+[(\\", max_size=12))
def test_no_pattern_crashes(text):
    names = compile_pattern("{camera}/" + text.replace("{", ""))
    assert names.read("only a camera") is None


def test_many_stars_are_read_at_once():
    names = compile_pattern("{camera}" + "*a" * 60 + "**/" * 20 + "*b.jpg")
    assert names.read("a" * 250 + ".jpg") is None
    assert names.read("a" * 250 + "b.jpg") is not None
    with pytest.raises(UsageError, match="too long"):
        compile_pattern("{camera}" + "*a" * 1_000_000)


def test_a_folder_is_read_with_what_does_not_fit(tmp_path, image_bytes):
    for name in ("door/1.jpg", "door/2.JPG", "till/x.jpg", "loose.jpg", "till/deep/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image_bytes())
    (tmp_path / "door" / "notes.txt").write_text("x")
    rows, unread = read_pattern(tmp_path, "{camera}/{name}.jpg")
    assert rows == [Row("door/1.jpg", "door"), Row("door/2.JPG", "door"), Row("till/x.jpg", "till")]
    assert [item.path for item in unread] == ["loose.jpg", "till/deep/3.jpg"]
    reading = assemble(tmp_path, rows, unread)
    assert list(reading.splits) == ["train"]
    assert reading.camera_names == ("door", "till")
    assert [(r.path, r.camera, r.identity) for r in reading.splits["train"]] == [
        ("door/1.jpg", 0, -1),
        ("door/2.JPG", 0, -1),
        ("till/x.jpg", 1, -1),
    ]
    assert reading.notes == ("no identities: it can be trained on, not evaluated",)


def test_links_are_followed_but_not_in_rings(tmp_path, image_bytes):
    (tmp_path / "disk" / "door").mkdir(parents=True)
    (tmp_path / "disk" / "door" / "1.jpg").write_bytes(image_bytes())
    source = tmp_path / "crops"
    source.mkdir()
    (source / "door").symlink_to(tmp_path / "disk" / "door")
    (source / "ring").symlink_to(source)
    (source / "broken").symlink_to(tmp_path / "nowhere")
    assert read_pattern(source, "{camera}/*") == ([Row("door/1.jpg", "door")], [])


def test_tracks_and_frames_of_a_folder(tmp_path, image_bytes):
    for name in ("door/10/0100.jpg", "door/2/7.jpg", "door/2/8.jpg", "till/2/0.jpg", "till/none/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image_bytes())
    reading = assemble(tmp_path, *read_pattern(tmp_path, "{camera}/{track}/{frame}.jpg"))
    found = {record.path: (record.track, record.frame) for record in reading.splits["train"]}
    assert found == {
        "door/2/7.jpg": (0, 7),
        "door/2/8.jpg": (0, 8),
        "door/10/0100.jpg": (1, 100),
        "till/2/0.jpg": (2, 0),  # another camera: another track
        "till/none/1.jpg": (-1, 1),
    }


def test_tracks_and_times_of_a_csv(tmp_path):
    path = table(
        tmp_path,
        "path,camera,track,frame,time\n"
        "a,1,x,12,99\nb,1,x,,1.5\nc,1,,,1970-01-01T00:00:02.250\nd,2,x,,1970-01-01T02:00:00+02:00\n"
        "e,1,y,,1970-01-01T00:00:03Z\nf,1,y,,\ng,1,y,1.5,\nh,1,y,,noon\ni,1,y,-4,\nj,1,y,,1969-01-01\nk,1,y,,inf\n"
        "l,1,,,20260501\n",
    )
    root, rows, unread = read_csv(path, None)
    records = assemble(root, rows, unread).splits["train"]
    assert {record.path: (record.track, record.frame) for record in records} == {
        "a": (0, 12),
        "b": (0, 1500),
        "c": (-1, 2250),
        "d": (2, 0),
        "e": (1, 3000),
        "f": (1, -1),
        "l": (-1, 20_260_501_000),  # a number, so seconds: a date has its hyphens
    }
    assert [item.path[-1] for item in unread] == list("ghijk")
    assert "the frame is no whole number" in unread[0].reason


def test_numbers_of_any_length_are_names(tmp_path):
    """Times of day as identities; a camera of more digits than Python turns into a number."""
    times = ["20261126103045000001", "20261126103045000000", "7"]
    rows = [Row(f"{time}.jpg", "9" * 5000, time) for time in times] + [Row("x.jpg", "10", None)]
    reading = assemble(tmp_path, rows, [])
    assert reading.camera_names == ("10", "9" * 5000)
    assert reading.identities == ("7", times[1], times[0])


def test_cameras_are_in_natural_order(tmp_path):
    rows = [Row(f"{number}.jpg", camera) for number, camera in enumerate(["c10", "c2", "b", "7", "10"])]
    assert assemble(tmp_path, rows, []).camera_names == ("7", "10", "b", "c2", "c10")
    alike = [f"{'0' * zeros}7" for zeros in range(12)]  # one number: a set gives them in any order
    rows = [Row(f"{number}.jpg", camera, camera) for number, camera in enumerate(alike)]
    reading = assemble(tmp_path, rows, [])
    assert reading.camera_names == reading.identities == tuple(sorted(alike))


def test_identities_keep_their_numbers_where_they_can(tmp_path):
    def identities(*names):
        rows = [Row(f"{number}.jpg", str(number), name) for number, name in enumerate(names)]
        reading = assemble(tmp_path, [*rows, Row("x.jpg", "0")], [])
        return {
            r.path: r.identity for records in reading.splits.values() for r in records if r.path != "x.jpg"
        }

    assert identities("0007", "12") == {"0.jpg": 7, "1.jpg": 12}
    assert identities("2", "02") == {"0.jpg": 1, "1.jpg": 0}
    assert identities("bob", "anna", "bob") == {"0.jpg": 1, "1.jpg": 0, "2.jpg": 1}


def crops(people, cameras, images, offset=0):
    return [
        Row(f"{person}/{camera}/{image}.jpg", str(camera), str(person + offset))
        for person in range(people)
        for camera in range(cameras)
        for image in range(images)
    ]


@pytest.mark.parametrize("images", [1, 3])
def test_identities_in_a_part_make_query_and_gallery(images, tmp_path):
    loose = [Row(f"loose/{number}.jpg", "0") for number in range(5)]
    lonely = [Row("lonely.jpg", "1", "99")]
    rows = [*loose, *crops(4, 3, images), *lonely]
    splits = assemble(tmp_path, rows, []).splits
    assert {record.path for record in splits["train"]} == {row.path for row in loose}
    query = Counter((record.identity, record.camera) for record in splits["query"])
    assert query == Counter({(person, camera): 1 for person in range(4) for camera in range(3)})
    gallery = Counter((record.identity, record.camera) for record in splits["gallery"])
    assert gallery == Counter(
        {(person, camera): max(images - 1, 1) for person in range(4) for camera in range(3)} | {(99, 1): 1}
    )
    for record in splits["query"]:  # every query has something to find
        assert any(g.identity == record.identity and g.camera != record.camera for g in splits["gallery"])


def test_every_image_named_keeps_people_apart(tmp_path):
    rows = crops(10, 2, 2)
    reading = assemble(tmp_path, rows, [], test_share=0.3)
    people = {name: {record.identity for record in found} for name, found in reading.splits.items()}
    assert len(people["train"]) == 7
    assert people["query"] == people["gallery"]
    assert not people["train"] & people["query"]
    assert "3 of 10 identities are kept for evaluation" in reading.notes[0]


def test_the_seed_decides(tmp_path):
    rows = crops(10, 2, 4)
    assert assemble(tmp_path, rows, [], seed=1).splits == assemble(tmp_path, rows, [], seed=1).splits
    assert assemble(tmp_path, rows, [], seed=1).splits != assemble(tmp_path, rows, [], seed=2).splits
    assert len({assemble(tmp_path, rows, [], seed=seed).splits["train"] for seed in range(4)}) > 1  # people
    assert "1 of 2 identities are kept for evaluation" in assemble(tmp_path, crops(2, 2, 2), []).notes[0]
    for share in (0.0, 1.0):
        with pytest.raises(UsageError, match=rf"--test-share is {share}"):
            assemble(tmp_path, rows, [], test_share=share)


def test_nobody_seen_twice_is_said(tmp_path):
    reading = assemble(tmp_path, [*crops(3, 1, 4), Row("x.jpg", "0")], [])
    assert list(reading.splits) == ["train"]
    assert len(reading.splits["train"]) == 13
    assert "no identity for evaluation was seen by two cameras" in reading.notes[-1]


def table(folder, text, name="images.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_csv_with_everything(tmp_path):
    path = table(
        tmp_path,
        "\ufeffPath, Camera,id,split,remark\n"
        'a.jpg,door,1,train,x\n"b,ü.jpg",till,2,query,\nc.jpg,door,2,gallery,\nd.jpg,door,,gallery,\n',
    )
    root, rows, unread = read_csv(path, None)
    assert (root, unread) == (tmp_path.resolve(), [])
    reading = assemble(root, rows, unread)
    assert {name: [record.path for record in found] for name, found in reading.splits.items()} == {
        "train": ["a.jpg"],
        "query": ["b,ü.jpg"],
        "gallery": ["c.jpg", "d.jpg"],
    }
    assert reading.notes == ("gallery: 1 images without id are distractors",)


def test_csv_paths(tmp_path):
    inside = tmp_path / "crops"
    inside.mkdir()
    path = table(
        tmp_path,
        f"path,camera\n{inside.resolve()}/a.jpg,1\n../b.jpg,1\n/etc/c.jpg,1\nd.jpg,\n,1\n\0e.jpg,1\n"
        '"f\ng.jpg",1\n\nh.jpg,\n',
    )
    _, rows, unread = read_csv(path, inside)
    assert rows == [Row("a.jpg", "1"), Row("f\ng.jpg", "1")]
    assert [item.path for item in unread] == [
        "images.csv:3: ../b.jpg",
        "images.csv:4: /etc/c.jpg",
        "images.csv:5: d.jpg",
        "images.csv:6: ",
        "images.csv:7: \0e.jpg",
        "images.csv:11: h.jpg",
    ]
    # Through a link to the folder; through a link in it, which leads elsewhere; through none of its links.
    (tmp_path / "link").symlink_to(inside)
    (inside / "door").symlink_to("/etc")
    path = table(
        tmp_path, f"path,camera\n{tmp_path}/link/a.jpg,1\n{tmp_path}/link/door/b.jpg,1\n/etc/c.jpg,1\n"
    )
    for source in (inside, tmp_path / "link"):
        _, rows, unread = read_csv(path, source)
        assert rows == [Row("a.jpg", "1"), Row("door/b.jpg", "1")]
        assert [item.path for item in unread] == ["images.csv:4: /etc/c.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has the columns \(none\)"),
        ("file,cam\na.jpg,1\n", "has the columns file, cam. Its first line must be"),
        ("path;camera;id\na.jpg;1;2\n", "with commas; track and frame, or time, may"),
        ("path,camera\na.jpg,1\nb.jpg,1\na.jpg,2\n", "1 path named twice in .*images.csv, such as a.jpg"),
        ("path,camera,Camera\na.jpg,1,2\n", "2 columns 'camera'. Leave one of them"),
    ],
)
def test_bad_csv(text, message, tmp_path):
    with pytest.raises(DatasetError, match=message):
        read_csv(table(tmp_path, text), None)


def test_csv_that_cannot_be_read(tmp_path):
    with pytest.raises(DatasetError, match=r"Cannot read [^[]*no.csv: No such file or directory\. Exp"):
        read_csv(tmp_path / "no.csv", None)
    (tmp_path / "latin.csv").write_bytes(b"path,camera\ncaf\xe9.jpg,1\n")
    with pytest.raises(DatasetError, match="Expected a CSV file in UTF-8"):
        read_csv(tmp_path / "latin.csv", None)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train", "test"], "Unknown splits test. Each image is of one of train, query, gallery"),
        (["train", None], r"Unknown splits \(empty\)"),
        (["query", "gallery"], "No image is left to train on"),
        (["train", "query"], "both a query and a gallery"),
    ],
)
def test_bad_splits(splits, message, tmp_path):
    rows = [Row(f"{number}.jpg", "1", "5", split) for number, split in enumerate(splits)]
    with pytest.raises(DatasetError, match=message):
        assemble(tmp_path, rows, [])


def test_a_query_needs_an_identity(tmp_path):
    rows = [Row("a", "1", None, "train"), Row("b", "1", None, "query"), Row("c", "1", "1", "gallery")]
    with pytest.raises(DatasetError, match="1 images of the query split have no id"):
        assemble(tmp_path, rows, [])


def test_nothing_fits(tmp_path, image_bytes):
    (tmp_path / "a.jpg").write_bytes(image_bytes())
    with pytest.raises(DatasetError, match=r"No image under .* fits: 1 do not, such as a.jpg"):
        assemble(tmp_path, *read_pattern(tmp_path, "{camera}/*"))
    with pytest.raises(UsageError, match=r"--test-share is 1.0"):
        assemble(tmp_path, [Row("a", "1")], [], test_share=1.0)
