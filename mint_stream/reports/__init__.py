"""Pages and words about what was labelled."""
