"""A far site on another machine, over the user's own ssh: the link between the two is measured, not emulated."""
