"""What a job takes before it starts: memory, time and price, and the settings that are fastest."""
