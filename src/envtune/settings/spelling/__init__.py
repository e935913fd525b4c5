"""What was meant by what was typed: a slip, another tool's word, a line of an env file."""
