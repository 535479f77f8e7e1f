"""What runs have in common that are made to be used: a few steps, on bytes, with nothing measured beside them."""

SMALL = """
experiment.tokenizer = @bytes
experiment.optimizer = @adamw
experiment.steps = 2
experiment.global_batch_size = 4
experiment.seq_len = 16
experiment.writers = []
experiment.evaluators = []
experiment.hooks = []
adamw.learning_rate = 0.01
mesh.data = 1
"""
