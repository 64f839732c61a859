"""The operating system as farwrite sees it: system calls, clocks, rings, TUN devices, facts about the machine."""
