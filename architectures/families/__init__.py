"""One file a family: a backbone, what only it needs, and the architectures that are built on it."""
