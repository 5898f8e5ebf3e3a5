"""The device side: bundles, pictures, text, engines, decoding and streams. Never imports torch."""
