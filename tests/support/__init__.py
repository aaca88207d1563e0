"""What the tests run on: real stores, a running server, and people who use it."""
