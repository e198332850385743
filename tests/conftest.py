"""What all tests share: a skip must name what was probed, and on CI nothing may be skipped that such a machine can do."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.support.probes import MISSING_HERE

# How fast a busy machine draws examples says nothing about Silo.
settings.register_profile("silo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("silo")

ON_CI = os.environ.get("CI") == "true"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Turn a skip on CI into a failure unless it names something that this kind of machine really lacks."""
    outcome = yield
    report = outcome.get_result()
    if not (ON_CI and report.skipped and call.excinfo is not None):
        return
    reason = str(call.excinfo.value)
    if not any(reason.startswith(f"needs {name}:") for name in MISSING_HERE):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped on CI: {reason}"
