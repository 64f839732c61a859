"""A pool of storage nodes and the volumes that lie on it: each volume a replica group, each copy on a node of its own."""
