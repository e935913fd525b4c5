"""What a user looks up, written from the tables that the program itself reads.

`python -m envtune.reference FOLDER` writes the page of settings, the example of an
environment and the JSON Schema of a document. Nothing in them depends on the machine, and
no setting is listed by hand: a new one appears by itself.
"""
