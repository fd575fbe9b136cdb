"""The API as its OpenAPI document describes it, seen from outside."""
