"""The banks that a service answers by: committed, followed, live."""
