"""Objects on any filesystem."""
