"""The command line: the only room that talks to a person, one file per command."""
