"""Options and exit codes of each command."""
