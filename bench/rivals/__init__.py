"""farwrite and other replicating systems in one lab, measured alike: what `make rivals` runs. A tool beside the package:
it imports farwrite, which knows nothing of it and is installed without it.

`experiment` is the loop that measures any of them; `engine`, `qemu`, `drbd` and `iperf` are contenders, a file each; `recovery`
times a replay; `goals` judges what was measured and `page` tells it.
"""
