"""TensorRT: graphs in the spelling that it parses, and engines built of them."""
