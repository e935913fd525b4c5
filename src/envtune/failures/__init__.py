"""Ways for a child to fail, told by what it says last: one table by topic, and who reads it."""
