"""What of a run is served, and does it answer?"""
