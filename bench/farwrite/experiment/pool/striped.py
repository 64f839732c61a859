"""Striped volumes of a pool: one name over several member volumes, which are volumes as any other and are placed by the pool.

What is done to a striped volume is done to each member, one after the other. As for every change of a pool the document says
beforehand what is to be, and an opening (`Pool.recover_stripes`) finishes or undoes it: a volume that was being made is gone, one
that was being deleted too, and members have the level that their volume says. `Routers` serve it: routers.py.
"""

from __future__ import annotations

from typing import Protocol

from ...base.errors import UsageError
from ...base.units import format_size
from ...engine.frontend.router_map import CHUNKS_MAX, GROUPS_MAX, member_bytes
from ..serve.volume_files import new_number
from .document import VOLUMES_MAX, Stripe, checked_level, checked_name, checked_size
from .moves import GroupMoves
from .steps import AtRest, Group, Pool


class Routers(Protocol):
    """Who serves striped volumes."""

    moves: GroupMoves

    def begin_router(self, stripe: Stripe) -> None:
        """Its members are served: serve it."""

    def end_router(self, stripe: Stripe) -> None:
        """Serve it no more."""

    def resize_router(self, stripe: Stripe) -> None:
        """Its members are as large as it is to be: clients that come from now on see its new size."""

    def end_all(self) -> None:
        """Serve none any more."""

    def live(self) -> dict[str, dict[str, str]]:
        """By volume what who serves it knows: leader, sockets, uri, status."""


def refuse_member(name: str, what: str) -> None:
    """UsageError for a member of a striped volume: what is asked is asked of all of them."""
    whole, _, number = name.partition(".")
    if number:
        raise UsageError(f"{name[:80]} is a part of the striped volume {whole[:80]}: {what} that one.")


def create_striped(
    pool: Pool, name: str, size_bytes: int, level: str, is_reserved: bool, room_bytes: int, groups: int, chunk_bytes: int,
    group: Group | AtRest, routers: Routers | None,
) -> Stripe:  # fmt: skip
    """A new striped volume, which is there once this returns."""
    document = pool.document
    checked_name(name, "volume")
    checked_level(level)
    checked_size(size_bytes)
    room_bytes = max(room_bytes, size_bytes)
    if not 1 <= groups <= GROUPS_MAX:
        raise UsageError(f"--groups {groups}: a volume is striped over 1 to {GROUPS_MAX} groups.")
    if -(-room_bytes // chunk_bytes) > CHUNKS_MAX:
        raise UsageError(f"--grows-to: a striped volume has at most {format_size(CHUNKS_MAX * chunk_bytes)}.")
    if document.stripe(name) is not None or any(one.name == name for one in document.volumes):
        raise UsageError(f"The pool {document.name} has a volume {name} already: choose another name.")
    if len(document.volumes) + groups > VOLUMES_MAX:
        raise UsageError(f"A pool has at most {VOLUMES_MAX} volumes, and each of the {groups} groups is one.")
    made = Stripe(name, new_number(), size_bytes, level, groups, chunk_bytes)
    document.stripes.append(made)
    try:
        pool.save()
        for member in made.members():
            sizes = member_bytes(size_bytes, chunk_bytes, groups), member_bytes(room_bytes, chunk_bytes, groups)
            pool.create_volume(member, sizes[0], level, is_reserved, sizes[1], group, is_member=True)
        made.state = "ready"
        pool.save()
        if routers is not None:
            routers.begin_router(made)
    except Exception:
        if routers is not None:
            routers.end_router(made)
        pool.finish_deleting_stripe(made, group)
        raise
    return made


def delete_striped(pool: Pool, stripe: Stripe, group: Group | AtRest, routers: Routers | None) -> None:
    """Its clients are hung up on; it and its members are gone once this returns."""
    stripe.state = "deleting"
    pool.save()
    if routers is not None:
        routers.end_router(stripe)
    pool.finish_deleting_stripe(stripe, group)


def resize_striped(pool: Pool, stripe: Stripe, size_bytes: int, group: Group | AtRest, routers: Routers | None) -> None:
    """Another size: the members grow first, and larger ones than needed do no harm."""
    checked_size(size_bytes)
    if size_bytes < stripe.size_bytes:
        raise UsageError(
            f"Volume {stripe.name} is striped over {stripe.groups} groups, and these do not shrink: copy it to a smaller one "
            "(farwrite copy)."
        )
    members = pool.members_of(stripe)
    wanted = member_bytes(size_bytes, stripe.chunk_bytes, stripe.groups)
    if wanted > members[0].room_bytes:
        most = members[0].room_bytes * stripe.groups
        raise UsageError(f"Volume {stripe.name} can grow up to {format_size(most)}, as it was made (--grows-to).")
    for volume in members:
        if volume.size_bytes != wanted:
            pool.resize_volume(volume.name, wanted, group)
    stripe.size_bytes, stripe.map_version = size_bytes, stripe.map_version + 1
    pool.save()
    if routers is not None:
        routers.resize_router(stripe)


def set_level_striped(pool: Pool, stripe: Stripe, level: str) -> None:
    """Another number of copies of each member. What cannot be for one is done for none."""
    checked_level(level)
    for name in stripe.members():
        pool.idle_volume(name)
    before, stripe.level = stripe.level, level
    done: list[str] = []
    try:
        pool.save()
        for name in stripe.members():
            pool.set_level(name, level)
            done.append(name)
    except Exception:
        stripe.level = before
        for name in done:
            pool.document.volume(name).level = before
        pool.save()
        raise
