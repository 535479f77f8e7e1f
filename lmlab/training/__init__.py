"""Training: the program made from a Spec, its state and step, the loop, checkpoints and the run folder."""
