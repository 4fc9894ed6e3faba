"""A frozen CLIP: its files, its towers, its views and its class list."""
