"""Where the clips of a batch are made: processes of this machine, or actors of a Ray cluster"""
