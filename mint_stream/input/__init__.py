"""From an address to shards, frames and units."""
