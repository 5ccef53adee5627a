"""`python -m paddle2torch`: the command line."""

import sys

# `python -m` puts the working folder first; nothing that lies there is to be imported in place of a package.
if not sys.flags.safe_path:
    del sys.path[0]

from paddle2torch.cli import main

if __name__ == "__main__":
    main()
