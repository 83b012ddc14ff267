"""100,000 candidates of MnasNet's space sampled, checked against a limit and costed, without torch; bar 25 s.

    .venv/bin/python benchmarks/candidates.py

One thread; seconds are CPU time of the process.
"""

from __future__ import annotations

import sys
import time

from trifold.baselines import MOBILENET_V2
from trifold.search.reward import Limit, Target
from trifold.search.space import around, size
from trifold.search.survey import measures_of, survey

CANDIDATES = 100_000


def main() -> None:
    """Prints what was looked at, and how long it took."""
    space = around(MOBILENET_V2)
    targets, limits = [Target(measure="parameters", value=5e6)], [Limit(measure="multiply_adds", most=400e6)]
    began = time.process_time()
    seen = survey(space, targets, limits, measures_of(1000, 3), looked_at=CANDIDATES)
    spent = time.process_time() - began
    assert "torch" not in sys.modules
    print(
        f"{size(space).networks:,} networks; {seen.share:.1%} of {CANDIDATES:,} choices within the limit; {spent:.1f} s"
    )


if __name__ == "__main__":
    main()
