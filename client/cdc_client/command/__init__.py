"""The command `cdc`: `cdc encode`, `cdc decode` and `cdc inspect`, here or on a service; other packages add theirs."""
