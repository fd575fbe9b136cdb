"""Tests of the service, around a fake engine."""
