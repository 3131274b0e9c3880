"""The sockets: one Protocol a file. Their docstrings are the contract; `testing/contracts` checks it for every adapter."""
