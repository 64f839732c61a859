"""Change points in the plainest Python: every sum written out, every t-test made anew, scipy for the tail."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import fmean

from scipy.stats import t as student


def change_points(values, window=40, least=4, p_weak=0.01, p_max=0.001, magnitude_min=0.02):
    """(index, final) of every change."""
    relative = len(values) > 0 and all(value > 0 for value in values)
    series = [math.log(value) for value in values] if relative else list(values)
    half = window // 2
    found = []
    for start in range(0, len(series), half):
        whole = start + window <= len(series)
        begin = max([start - half, 0] + [index for index, _ in found])
        end = start + window if whole else len(series)
        cuts = merge(series[begin:end], split(series[begin:end], least, p_weak), p_max, magnitude_min, relative)
        if not whole:
            return found + [(begin + cut, False) for cut in cuts]
        found += [(begin + cut, True) for cut in cuts if begin + cut < start + half]
    return found


def split(part, least, p_weak):
    if len(part) < 2 * least:
        return []
    energies = {cut: energy(part[:cut], part[cut:]) for cut in range(least, len(part) - least + 1)}
    greatest = max(energies.values())
    cut = next(cut for cut, value in energies.items() if value >= greatest - 1e-9 * abs(greatest))
    if p_value(part[:cut], part[cut:]) >= p_weak:
        return []
    return split(part[:cut], least, p_weak) + [cut] + [cut + later for later in split(part[cut:], least, p_weak)]


def merge(part, cuts, p_max, magnitude_min, relative):
    while cuts:
        edges = [0] + cuts + [len(part)]
        sides = {cut: (part[edges[i] : cut], part[cut : edges[i + 2]]) for i, cut in enumerate(cuts)}
        weakest = max(cuts, key=lambda cut: p_value(*sides[cut]))
        if p_value(*sides[weakest]) < p_max:
            weakest = min(cuts, key=lambda cut: magnitude(*sides[cut], relative))
            if magnitude(*sides[weakest], relative) > magnitude_min:
                return cuts
        cuts = [cut for cut in cuts if cut != weakest]
    return []


def energy(left, right):
    """Matteson and James (2014), equations 5 and 6, alpha = 1."""
    m, n = len(left), len(right)
    between = sum(abs(x - y) for x in left for y in right)
    within_left = sum(abs(x - y) for x, y in combinations(left, 2))
    within_right = sum(abs(x - y) for x, y in combinations(right, 2))
    apart = 2 / (m * n) * between - within_left / math.comb(m, 2) - within_right / math.comb(n, 2)
    return m * n / (m + n) * apart


def p_value(left, right):
    """The greatest p of all t-tests with one value missing; 1 when one of them points the other way."""
    upwards = fmean(right) > fmean(left)
    without_one = [(left[:i] + left[i + 1 :], right) for i in range(len(left))]
    without_one += [(left, right[:i] + right[i + 1 :]) for i in range(len(right))]
    return max(t_test(x, y) if (fmean(y) > fmean(x)) == upwards else 1.0 for x, y in without_one)


def t_test(left, right):
    """Student's, two-sided, pooled variance."""
    m, n = len(left), len(right)
    squares = sum((x - fmean(left)) ** 2 for x in left) + sum((y - fmean(right)) ** 2 for y in right)
    apart = abs(fmean(right) - fmean(left))
    if squares == 0:
        return 0.0 if apart else 1.0
    return 2 * student.sf(apart / math.sqrt(squares / (m + n - 2) * (1 / m + 1 / n)), m + n - 2)


def magnitude(left, right, relative):
    before, after = fmean(left), fmean(right)
    if relative:
        return math.exp(abs(after - before)) - 1
    larger = max(abs(before), abs(after))
    return abs(after - before) / larger if larger else 0.0
