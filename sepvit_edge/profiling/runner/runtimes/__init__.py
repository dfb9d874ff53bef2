"""One file per runtime: how the device loads a package's program and times its operations."""
