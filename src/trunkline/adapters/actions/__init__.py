"""Actions that Trunkline does itself: each a function of a Desk (ports.actions). Inputs and outputs are those of the originals, as their documentation says."""
