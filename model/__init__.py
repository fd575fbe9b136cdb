"""The CDC image codec as a library. Importing this package imports nothing: take what you need from its modules."""
