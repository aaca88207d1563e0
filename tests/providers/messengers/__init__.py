"""Tests of `providers/messengers/`."""
