"""The way to a Dask cluster that somebody else runs: connected, or refused with what to do about it.

Dask is an optional extra; nothing is imported from it until an address is given.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .errors import UnfitError, UsageError

CONNECT_S = 5
LOOK_S = 0.1
GONE_LOOKS = 50  # Every so many looks without a result it is seen whether the workers are still there.
EXTRA = 'pip install "farwrite[dask]"'


def check_address(address: str) -> None:
    """UsageError for what is no address of a scheduler."""
    if "://" not in address:
        raise UsageError(f"--dask {address}: write the scheduler's address with its protocol, such as tcp://127.0.0.1:8786.")


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of the scheduler at this address, which has at least one worker; the cluster goes on after us."""
    check_address(address)
    try:
        from distributed import Client
    except ImportError as missing:
        raise UsageError(f"--dask needs the package distributed ({missing}): {EXTRA}.") from missing
    logging.getLogger("distributed").setLevel(logging.ERROR)  # What goes wrong is said by us, once.
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as refusal:
        raise UnfitError(
            f'connect to the Dask scheduler at {address}: {refusal}. Start one with "dask scheduler", and workers with '
            f'"dask worker {address} --nthreads 1 --nworkers 1" on each machine.'
        ) from refusal
    try:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise UnfitError(
                f'The Dask scheduler at {address} has no worker. Start one on each machine: "dask worker {address} --nthreads 1".'
            )
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=CONNECT_S)


def as_they_come(client: Any, asked: Mapping[Any, str]) -> Iterator[Any]:
    """Futures as they are done. UnfitError when the worker that one is pinned to is gone: Dask would wait for it for ever."""
    pending, looks = dict(asked), 0
    while pending:
        done = [future for future in pending if future.done()]
        for future in done:
            del pending[future]
            yield future
        looks = 0 if done else looks + 1
        if looks == GONE_LOOKS:
            looks = 0
            alive = client.scheduler_info(n_workers=-1)["workers"]
            gone = sorted(set(pending.values()) - set(alive))
            if gone:
                raise UnfitError(f"The Dask worker {gone[0]} is gone. What was measured is kept; go on with --resume and --dask.")
        if not done:
            time.sleep(LOOK_S)


def version() -> str:
    """The farwrite of whoever is asked."""
    from .. import __version__

    return __version__


def require_version(client: Any) -> None:
    """UnfitError unless every worker has our farwrite; results of different ones must not be put together."""
    try:
        found = client.run(version)
    except Exception as failure:
        raise UnfitError(
            f"ask the Dask workers for their farwrite: {failure!r}. Install farwrite {version()} on each."
        ) from failure
    for address, theirs in sorted(found.items()):
        if theirs != version():
            raise UnfitError(f"The Dask worker {address} has farwrite {theirs}, and this is {version()}: install one version.")
