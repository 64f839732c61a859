"""Stories from seeds: the engine's own compiled loops, in a world where clock, disks and network are pretended."""

import pytest

from farwrite.simulate.story import tell


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_no_promise_is_broken_in_any_story(first):
    for seed in range(first, first + 20):
        told = tell(seed)
        assert told.broken is None, f"farwrite simulate --seed {seed} --verbose\n" + "\n".join(told.lines[-30:])


def test_a_seed_tells_the_same_story_twice():
    for seed in range(5):
        assert tell(seed) == tell(seed)


def test_stories_differ_and_something_happens_in_them():
    stories = [tell(seed) for seed in range(30)]
    assert len({told.digest for told in stories}) == len(stories)
    assert sum(told.completed for told in stories) > 1000
    assert sum(told.epochs for told in stories) > len(stories)
    lines = "\n".join(line for told in stories for line in told.lines)
    for event in ("by log", "by digests", "loses power", "is killed", "leads epoch 2", "cut:", "replayed", "jumps by"):
        assert event in lines
