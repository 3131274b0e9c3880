"""Where releases run: implementations of ports.delivery.DeployTarget, one file each."""
