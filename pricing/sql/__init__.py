"""SQL as a product, without any I/O: what may run, what it will cost, and what was delivered."""
