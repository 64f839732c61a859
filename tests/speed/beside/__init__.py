"""farwrite and other replicating systems in one lab, measured alike: what `tests/speed/rivals.py` runs.

`experiment` is the loop that measures any of them; `engine`, `qemu`, `drbd` and `iperf` are contenders, a file each; `recovery`
times a replay; `goals` judges what was measured and `page` tells it.
"""
