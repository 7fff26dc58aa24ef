"""VeRi-776: vehicles under twenty cameras."""

from icsr_cli.datasets.layout import PUBLISHED, Benchmark, Count, FolderLayout

BENCHMARK = Benchmark(
    name="veri",
    title="VeRi-776",
    licence="Non-commercial research; given on request.",
    citation=(
        "X. Liu, W. Liu, T. Mei, H. Ma: A Deep Learning-Based Approach to Progressive Vehicle "
        "Re-identification for Urban Surveillance. ECCV 2016."
    ),
    ask="The authors, by mail: https://github.com/JDAI-CV/VeRidataset",
    place="VeRi",
    counts={"train": Count(37_778, 576), "query": Count(1_678, 200), "gallery": Count(11_579, 200)},
    cameras=20,
    layouts=(
        FolderLayout(
            {"train": "image_train", "query": "image_query", "gallery": "image_test"},
            r"(?P<identity>-1|\d+)_c(?P<camera>\d+)_.*",
            ("0001_c001_00016450_0.jpg",),
            cameras={number: number - 1 for number in range(1, 21)},
        ),
    ),
    height=224,
    width=224,
    settings=PUBLISHED,
)
