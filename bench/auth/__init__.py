"""Signing in and refreshing as they ship, beside Node with express, and what a storm and the clock give away."""
