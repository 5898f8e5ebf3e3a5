"""Latency of a model from camera to caption, records of it, and their comparison."""
