"""GitHub workflows. So far they are read and checked (`trunkline lint`); they do not run yet."""
