"""Pipeline files that lie elsewhere: implementations of ports.files.FarFiles, and what they share."""
