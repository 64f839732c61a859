"""Parts of a volume: lists of (begin, end) in bytes, sorted, none empty, no two that touch. What a copy moves is one of these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Ranges = list[tuple[int, int]]


def ranges_of(parts: Iterable[tuple[int, int]]) -> Ranges:
    """These parts, whatever their order and however they overlap."""
    found: Ranges = []
    for begin, end in sorted(parts):
        if begin >= end:
            continue
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def union(first: Ranges, second: Ranges) -> Ranges:
    """What is in either."""
    return ranges_of([*first, *second])


def intersection(first: Ranges, second: Ranges) -> Ranges:
    """What is in both."""
    found: Ranges = []
    left, right = 0, 0
    while left < len(first) and right < len(second):
        begin, end = max(first[left][0], second[right][0]), min(first[left][1], second[right][1])
        if begin < end:
            found.append((begin, end))
        if first[left][1] < second[right][1]:
            left += 1
        else:
            right += 1
    return found


def difference(first: Ranges, second: Ranges) -> Ranges:
    """What is in the first and not in the second."""
    if not first:
        return []
    begin, end = first[0][0], first[-1][1]
    return intersection(first, gaps(second, begin, end))


def gaps(ranges: Ranges, begin: int, end: int) -> Ranges:
    """What lies between begin and end and in none of these."""
    edges = [begin, *(edge for one in ranges for edge in one), end]
    return [(left, right) for left, right in zip(edges[::2], edges[1::2], strict=True) if left < right]


def clipped(ranges: Ranges, begin: int, end: int) -> Ranges:
    """What of it lies between begin and end."""
    return intersection(ranges, [(begin, end)]) if begin < end else []


def size_of(ranges: Ranges) -> int:
    """Bytes in all."""
    return sum(end - begin for begin, end in ranges)


def pieces(ranges: Ranges, most: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of pieces that are no longer than this and begin and end at its multiples, but for the ends of a range."""
    for begin, end in ranges:
        while begin < end:
            stop = min((begin // most + 1) * most, end)
            yield begin, stop - begin
            begin = stop
