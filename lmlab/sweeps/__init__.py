"""Many trials of one experiment: a space of settings, the trials in it, how they are run, and what came of them."""
