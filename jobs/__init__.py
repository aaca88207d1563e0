"""Floor 4: the queue's door. A task opens units of work and calls services."""
