"""One unit in, one labelled unit out."""
