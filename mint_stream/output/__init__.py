"""What one output is: names, schema, commit, what is done, settings, reading."""
