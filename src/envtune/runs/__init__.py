"""Which run is this, and what has it left?"""
