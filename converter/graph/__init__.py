"""A Paddle program as PyTorch by itself: one small graph form, one table of operators, and checks built on them.

`form` holds the data, `dialects` and `simplify` make it from what Paddle writes, `operators` and `module` make a
`torch.fx.GraphModule` of it. `trace` sees through any PyTorch module; on it rest `conformity` (does a hand-written
network compute what the graph says?) and `pairing` (which of its tensors is which of the graph's?).
"""
