"""Provisioning against real subprocesses and a real PostgreSQL; only `bench` is stood in for."""
