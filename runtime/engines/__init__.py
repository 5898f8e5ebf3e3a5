"""Engines: one file for each way to run a model's encoder and decoder graphs."""
