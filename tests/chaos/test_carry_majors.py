"""The torture table on the other major versions of PostgreSQL."""

from __future__ import annotations

import pytest

from migrator.sandbox import start_sandbox
from tests import torture
from tests.torture import differences

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("major", ["15", "16", "17"])
def test_everything_attached_goes_through_seven_swaps_on_every_major_version(major):
    with start_sandbox(postgres=major, kafka=False, kind="embedded") as sandbox:
        for name in ("orders", 'Or"d er$1'):
            with torture.tortured(sandbox.database_url, name) as found:
                before, dumped = found.proof(), found.dump()
                found.cut_over(found.build())
                assert differences(before, found.proof()) == []
                for _ in range(6):
                    found.swap_back()
                    assert differences(before, found.proof()) == []
                    assert found.dump() == dumped
