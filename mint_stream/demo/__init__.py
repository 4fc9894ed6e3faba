"""The demonstration: rendered street cameras, the drifts they go through, and a small CLIP."""
