"""Market-1501: six cameras in front of a supermarket."""

from icsr_cli.datasets.layout import PUBLISHED, Benchmark, Count, FolderLayout

#: Also the layout and the names in which the synthetic data is written, with any number of cameras.
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
PATTERN = r"(?P<identity>-1|\d+)_c(?P<camera>\d+)s\d+_.*"
#: The published names hold the recording and the frame too: 0002_c1s1_000451_03.
_TIMED = r"(?P<identity>-1|\d+)_c(?P<camera>\d+)s(?P<sequence>\d+)_(?:(?P<frame>\d{6})_\d+$)?.*"
EXAMPLES = ("0002_c1s1_000451_03.jpg", "-1_c3s2_000011_01.jpg (junk)", "0000_c5s1_000401_02.jpg (distractor)")

BENCHMARK = Benchmark(
    name="market1501",
    title="Market-1501",
    licence="Academic use only; no redistribution.",
    citation=(
        "L. Zheng, L. Shen, L. Tian, S. Wang, J. Wang, Q. Tian: "
        "Scalable Person Re-identification: A Benchmark. ICCV 2015."
    ),
    ask="The authors' page: https://zheng-lab-anu.github.io/Project/project_reid.html",
    place="Market-1501-v15.09.15",
    # 19,732 files in bounding_box_test, of which 3,819 are junk; 2,798 of the rest are distractors.
    counts={"train": Count(12_936, 751), "query": Count(3_368, 750), "gallery": Count(15_913, 750)},
    cameras=6,
    layouts=(
        FolderLayout(FOLDERS, _TIMED, EXAMPLES, cameras={number: number - 1 for number in range(1, 7)}),
    ),
    distractor=0,
    settings=PUBLISHED,
)
