"""Work that outlives its request: the job port, its implementations, and where the bytes lie."""
