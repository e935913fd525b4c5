"""How do people and programs look on? Pages, figures and lines, all from the stream of events."""
