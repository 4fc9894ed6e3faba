"""One bank, many replicas: the ledger, its server and clients, its log and checkpoints."""
