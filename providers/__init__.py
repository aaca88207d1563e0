"""Floor 2: the outside world behind Protocols; adapters are named only in `server`."""
