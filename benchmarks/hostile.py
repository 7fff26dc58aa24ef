"""Damage every kind of file that icsr reads in many ways, and count what came of it.

    python benchmarks/hostile.py --cases 10000

The same cases as tests/hostile, many more of them. It fails where a reader gives other content than what was
written (archives with a checksum), or raises anything but an error with a message.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "hostile"))


def main() -> None:
    from test_damaged_files import CASES, attempt

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000, help="in all")
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the first damage of each kind")
    options = parser.parse_args()
    each = options.cases // len(CASES)
    print("| file | damaged | refused | read |\n| --- | ---: | ---: | ---: |")
    for kind in CASES:
        with tempfile.TemporaryDirectory() as folder:
            counts = attempt(kind, Path(folder), range(options.seed, options.seed + each))
        print(f"| {kind} | {each} | {counts['refused']} | {counts['read']} |", flush=True)


if __name__ == "__main__":
    main()
