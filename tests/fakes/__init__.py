"""Fakes of services that a test run cannot reach; true to the wire, without the product's code."""
