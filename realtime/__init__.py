"""Floor 2: the event log, the bell that says it has grown, and the followers that deliver it."""
