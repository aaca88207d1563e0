"""Floor 4: the REST door. A handler parses, opens a unit of work, calls one service and answers."""
