"""fio job files as profiles: what of them is honoured, what is approximated and how, and what is refused.

`translate` is the door. The file format is `parse.py`'s, the words of fio are `words.py`'s, and what they mean here is
`meaning.py`'s. An option that would change what is measured is never passed over in silence.
"""

from __future__ import annotations

from .translate import Translation, translate

__all__ = ["Translation", "translate"]
