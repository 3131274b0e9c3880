"""The only floor that knows adapters by name: settings, the lists of what is built in, and who reacts to which fact."""
