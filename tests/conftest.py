"""Puts this folder on the path, so that a test may `import oracle.…` and share helpers from any of its subfolders.

And says which tests one process runs one after the other, where there are several (`make test`): whoever opens a lab has all
processors but one to himself.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

LABS = ("tests/lab/", "tests/command/")  # The command opens them, too.

for told in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
    del os.environ[told]  # A pytest that a test starts is nobody's worker.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Everything that opens labs is one piece of work; of the rest, every file is."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "labs" if nodeid.startswith(LABS) else nodeid.partition("::")[0]

    return ByFile(config, log)
