"""Types of options that commands share: a flag without a --no- form, and how much is said on stderr."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

Flag = Annotated[bool, Parameter(negative="")]
Verbose = Annotated[bool, Parameter(name=("--verbose", "-v"), negative="")]
Quiet = Annotated[bool, Parameter(name=("--quiet", "-q"), negative="")]
