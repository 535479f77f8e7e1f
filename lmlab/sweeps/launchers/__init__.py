"""Where the workers of a sweep are started: one file for each launcher."""
