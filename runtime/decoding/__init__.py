"""Beam search: options, a numpy specification, a C++ implementation and the decoding loop."""
