"""How does a model become smaller?"""
