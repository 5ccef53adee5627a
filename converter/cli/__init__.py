"""The commands, a module for each group: they parse, call, print. `paddle2torch.cli` puts them together."""
