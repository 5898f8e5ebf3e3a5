"""What this machine can run, and trials of a model on it.

Facts are looked up, never guessed; a verdict says what was run and what was not.
"""
