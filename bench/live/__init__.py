"""The live channel beside its peers: the same load, by the same program, on the same machine, in one run."""
