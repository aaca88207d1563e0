"""Taking payment webhooks while what they lead to is slow, beside Node with express and node-postgres."""
