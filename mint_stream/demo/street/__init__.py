"""A street camera's pictures, rendered."""
