"""Measurements of this project beside others: `python -m benchmarks.<name>` from the repository's root."""

import os

# Torch reads it when it loads; a waiting thread that spins costs 2-8 times where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
