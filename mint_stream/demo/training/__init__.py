"""What trained the bundled CLIP."""
