"""One file per published data set; a new file here is a new data set, found by its name."""
