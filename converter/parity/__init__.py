"""Proof that a PyTorch module computes what the Paddle program computes: layer by layer, against Paddle itself.

Paddle runs in a process of its own (`paddle_worker`), which never imports torch; everything else here never imports
paddle.
"""
