"""The run on Ray: what is left, the dataset, its stages and actors, what is told of it."""
