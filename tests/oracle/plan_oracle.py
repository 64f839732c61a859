"""A plan as a list of writes, each (intended_ns, address, size), for loads whose every column has a plain oracle."""

from fractions import Fraction
from itertools import islice

from oracle import address_oracle, arrival_oracle, prng_oracle

SIZE, OPERATION = 3, 6


def draw_sizes(sizes, seed, count):
    """`sizes` is pairs of size and whole weight."""
    total = sum(weight for _, weight in sizes)
    drawn = []
    for value in islice(prng_oracle.sequence(prng_oracle.key_of(seed, SIZE)), count):
        left = Fraction(prng_oracle.unit(value)) * total
        for size, weight in sizes:
            if left < weight:
                drawn.append(size)
                break
            left -= weight
    return drawn


def draw(load, seed, count):
    sizes = draw_sizes(load.sizes, seed, count)
    instants = [0] * count if load.arrival == "closed" else arrival_oracle.fixed(Fraction(load.rate_per_s), count)
    if load.address == "sequential":
        addresses = address_oracle.sequential(sizes, load.volume_bytes, load.alignment_bytes)
    else:
        largest = max(size for size, _ in load.sizes)
        places = (load.volume_bytes - largest) // load.alignment_bytes + 1
        addresses = address_oracle.uniform(seed, places, load.alignment_bytes, count)
    return list(zip(instants, addresses, sizes, strict=True))


def replay(records, volume_bytes, time_scale):
    """`records` is tuples (time_ns, operation, address, size) with sectors already whole; writes are operation 1."""
    plan = []
    first_ns = next(time_ns for time_ns, operation, *_ in records if operation == 1)
    for time_ns, operation, address, size in records:
        if operation == 1:
            while address >= volume_bytes:
                address -= volume_bytes
            while address + size > volume_bytes:
                address -= 512
            plan.append((int((time_ns - first_ns) * time_scale), address, size))
    return plan


def operations(seed, count, flush, read, trim, flush_every):
    """Words, from shares: the flushes' of everything, the others' of what is no flush."""
    written, drawn = 0, []
    for value in islice(prng_oracle.sequence(prng_oracle.key_of(seed, OPERATION)), count):
        if flush_every and written == flush_every:
            written = 0
            drawn.append("flush")
            continue
        unit = prng_oracle.unit(value)
        rest = 1 - flush
        bounds = [
            ("flush", flush),
            ("read", flush + rest * read),
            ("trim", flush + rest * read + rest * trim),
            ("write", 1),
        ]
        word = next(word for word, bound in bounds if unit < bound)
        written += word == "write"
        drawn.append(word)
    return drawn
