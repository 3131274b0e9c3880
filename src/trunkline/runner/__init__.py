"""DOOR leases jobs and works them: `local` for `trunkline run`, `pool` inside the server."""
