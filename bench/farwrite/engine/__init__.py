"""The replication engine: journal first, one log, positions in it. It knows no lab; it is given descriptors and sockets."""
