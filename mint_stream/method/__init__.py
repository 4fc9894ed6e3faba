"""The science: how frozen CLIP's answer is adapted, and when the adapted one stands."""
