"""The paper's figures, curves and tables, and published points beside them."""
