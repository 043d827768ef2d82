"""One module per check; each declares its ``CHECK``."""
