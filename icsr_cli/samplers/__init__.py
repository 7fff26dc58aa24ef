"""An epoch's labels -> which images go into which batch. One file per sampler, found by its name."""
