"""PersonX: rendered people, six cameras."""

from icsr_cli.datasets.layout import PUBLISHED, Benchmark, Count, FolderLayout

BENCHMARK = Benchmark(
    name="personx",
    title="PersonX",
    licence="MIT licence of the engine's repository; ask the authors about the images.",
    citation=(
        "X. Sun, L. Zheng: Dissecting Person Re-identification from the Viewpoint of Viewpoint. CVPR 2019."
    ),
    ask="https://github.com/sxzrt/Instructions-of-the-PersonX-dataset",
    place="PersonX",
    counts={"train": Count(9_840, 410), "query": Count(5_136, 856), "gallery": Count(30_816, 856)},
    cameras=6,
    layouts=(
        FolderLayout(
            {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"},
            r"(?P<identity>-1|\d+)_c(?P<camera>\d+)(_?s\d+)?_.*",
            ("0001_c3s1_1.jpg", "0001_c12s1_35.jpg"),
            cameras={3: 0, 4: 1, 8: 2, 10: 3, 11: 4, 12: 5},
        ),
    ),
    settings=PUBLISHED,
)
