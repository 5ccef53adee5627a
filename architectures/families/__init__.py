"""The families of networks, one module each."""
