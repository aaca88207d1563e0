"""Floor 4: the Socket.IO door, with the same identity as the REST door."""
