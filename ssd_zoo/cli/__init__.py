"""Implement the command `ssd-zoo`, one file per subcommand."""
