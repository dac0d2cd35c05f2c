"""Shot files, checkpoints and resume, the queue of a batch, and the engines that work it off"""
