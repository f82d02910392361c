"""Shared by all tests: pytest's own test bench, and one torch thread, so that parallel workers do not fight for cores."""

import os

pytest_plugins = ["pytester"]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when something imports it; torch is not imported here
