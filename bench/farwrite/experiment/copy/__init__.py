"""Remote copy: snapshots of one served volume shipped to another, at any distance and rate."""
