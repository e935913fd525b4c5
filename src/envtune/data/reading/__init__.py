"""Which rows are in a file, however they are written?"""
