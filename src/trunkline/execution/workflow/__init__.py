"""What steps of a GitHub workflow say to their runner: commands in the log, environment files, problem matchers; and hashFiles."""
