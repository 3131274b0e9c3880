"""Where numbers come from, other than the router: implementations of ports.delivery.MetricProvider, one file each."""
