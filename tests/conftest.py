"""Puts this folder on the path, so that a test may `import oracle.…` and share helpers from any of its subfolders."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
