"""Tests of `providers/payments/`."""
