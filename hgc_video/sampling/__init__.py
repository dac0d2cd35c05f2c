"""Our own denoising loop: what it is conditioned on, how it fits the memory, and one run of it."""
