"""From a picture to a network's input, and from its output to a result: NumPy and Pillow, no framework."""
