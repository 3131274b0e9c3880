"""Who splits traffic: implementations of ports.delivery.TrafficRouter, one file each; what both routers need stands in keeping.py."""
