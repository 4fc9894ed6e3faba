"""What people do with an output: look into it, verify, compare, review and compact it."""
