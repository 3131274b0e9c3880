"""The nouns of Trunkline as frozen values, and pure functions over them. Standard library only; nothing here waits, reads or prints."""
