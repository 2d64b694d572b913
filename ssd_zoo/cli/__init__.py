"""The command `ssd-zoo`; one file a subcommand."""
