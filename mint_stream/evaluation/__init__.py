"""What methods do on a stream whose truth is known, and streams to find it out on."""
