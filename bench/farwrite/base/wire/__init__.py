"""What lies between two replicas on a network that is not ours: encryption, mutual authentication, compression."""
