#!/usr/bin/env bash
# Ten trainings, five seeds at two budgets; a finished one is read back, so an interrupted sitting goes on where it was.
# Then collect.py writes records.jsonl and prints the table of README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
for seed in 0 1 2 3 4; do
    for budget in 1M 3M; do
        .venv/bin/trifold fit digits --budget "multiply-adds=$budget" --seed "$seed" --split-seed "$seed" \
            --out "runs/results-digits/$budget-$seed"
    done
done
.venv/bin/python results/digits/collect.py
