"""Where numbers come from, other than the router: implementations of ports.delivery.MetricSource, one file each."""
