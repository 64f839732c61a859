"""What tests of labs ask for by name."""

import os
import shutil
import uuid
from pathlib import Path

import pytest


@pytest.fixture
def open_tmp():
    """A directory that everybody may reach; pytest's own are for the user alone."""
    made = Path(os.environ.get("TMPDIR", "/tmp")) / f"farwrite-test-{uuid.uuid4().hex}"
    made.mkdir(mode=0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)
