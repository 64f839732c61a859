"""Arms: versions, profiles or settings measured side by side in one lab.

`word` knows what an arm's word means, `worktree` puts a revision where it can run, `worker` holds the process that measures
an arm, `serve` is what that process does, and `message` what the two say to each other. `experiment` decides who is measured
when.
"""
