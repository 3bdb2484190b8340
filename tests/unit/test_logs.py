"""Logs: on stderr alone, and silent where nobody asked."""

from __future__ import annotations

import subprocess
import sys

import pytest

LINES = """
from migrator.logs import logger
logger().info("told when asked")
logger(place="here").warning("always told")
"""


def run(before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + LINES], capture_output=True, text=True, check=True
    )


def test_a_library_that_nobody_configured_tells_warnings_on_stderr_alone():
    done = run("")
    assert done.stdout == ""
    assert "told when asked" not in done.stderr
    assert "always told" in done.stderr


@pytest.mark.parametrize(("verbosity", "told"), [(0, False), (1, True), (2, True)])
def test_verbosity_says_how_much_is_told(verbosity, told):
    before = f"from migrator import logs; logs.configure(verbosity={verbosity})\n"
    assert ("told when asked" in run(before).stderr) is told


def test_a_line_that_nobody_asked_for_loads_no_structlog():
    code = (
        "import sys; from migrator import logs; logs.configure(); logs.logger().info('x'); "
        "sys.exit('structlog' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
