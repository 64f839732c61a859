"""Two sites at a distance: namespaces, processes, the link between them, and the proof of what the link delivered."""
