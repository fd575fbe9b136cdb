"""The CDC codec as a service. Importing this package imports nothing: take what you need from its modules."""
