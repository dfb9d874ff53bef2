"""The deployable folder: its manifest, its files on disk, and a session that runs it."""
