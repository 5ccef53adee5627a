"""A network as data: operators, their attributes and tensors, and the table that makes PyTorch of them."""
