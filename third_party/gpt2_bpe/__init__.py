"""GPT-2's vocabulary; see README.md in this folder."""
