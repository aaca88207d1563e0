"""Floor 3: use cases and business decisions; the only floor that decides."""
