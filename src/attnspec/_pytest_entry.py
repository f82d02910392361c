"""What pytest loads at start: options and a marker. It imports neither torch nor hypothesis, nor the rest of attnspec."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("attnspec", "attention conformance")
    group.addoption(
        "--attnspec-profile", choices=("quick", "ci", "deep"), help="How long attnspec suites look (default: quick)."
    )
    group.addoption("--attnspec-seed", type=int, help="Seed of attnspec suites (default: 2718).")
    group.addoption(
        "--attnspec-select", action="append", metavar="CLAIM", help="Only these claims or families of attnspec suites."
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "attnspec: an item of an attnspec suite")


def pytest_report_header(config: pytest.Config) -> str | None:
    profile, seed = config.getoption("--attnspec-profile"), config.getoption("--attnspec-seed")
    return (
        f"attnspec: profile {profile or 'quick'}, seed {2718 if seed is None else seed}"
        if profile or seed is not None
        else None
    )
